#!/usr/bin/env bash
# Prints the name of the base image to build on (and nothing else on standard output):
# python:3.12-slim if it is here or can be pulled, else one made from this machine's own Python.
# Yours instead: set BASE_IMAGE.
set -eu
cd "$(dirname "$0")/.."

OFFICIAL=python:3.12-slim
LOCAL=dockscale-base:local

say() { echo "base image: $* (${SECONDS} s)" >&2; }
present() { docker image inspect "$1" >/dev/null 2>&1; }
pull() { # bounded, since a network that swallows packets would keep us waiting for minutes
    if command -v timeout >/dev/null; then timeout 60 docker pull -q "$1"; else docker pull -q "$1"; fi >/dev/null 2>&1
}

if [ -n "${BASE_IMAGE:-}" ]; then
    echo "$BASE_IMAGE"
elif present $OFFICIAL; then
    echo $OFFICIAL
elif present $LOCAL; then
    echo $LOCAL
elif pull $OFFICIAL; then
    say "pulled $OFFICIAL"
    echo $OFFICIAL
else
    say "$OFFICIAL cannot be pulled, making $LOCAL from this machine's Python"
    python=${PYTHON:-python3}
    if ! "$python" -I -c 'import ensurepip' 2>/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing python3-venv for pip"
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv >/dev/null 2>&1 || true
    fi
    "$python" -Es images/base/make.py $LOCAL >&2
    say "made $LOCAL"
    echo $LOCAL
fi
