#!/usr/bin/env bash
# Stops dockscale, then all that it started. Images stay. Containers made by hand are stopped, never removed.
set -eu
cd "$(dirname "$0")/.."

say() { echo "stop: $* (${SECONDS} s)"; }
if ! command -v docker >/dev/null || ! docker version >/dev/null 2>&1; then
    echo "stop: no engine answers, so there is nothing to stop."
    exit 0
fi
ids() { docker ps -q --no-trunc "$@"; }
stop_all() { # each with its own time-out, all at the same time
    local id
    for id in "$@"; do
        # A paused container cannot take a signal in every engine.
        { docker unpause "$id" || true; docker stop "$id" || true; } >/dev/null 2>&1 &
    done
    wait
}

# dockscale first: it would start again what we stop.
mine=$(docker ps -aq --filter label=com.docker.compose.project=dockscale)
if [ -n "$mine" ]; then
    say "stopping dockscale; it lets requests in flight end"
    if docker compose version >/dev/null 2>&1; then
        scripts/compose.sh down >/dev/null 2>&1 || say "'docker compose down' failed; going on without it"
    fi
    mine=$(docker ps -aq --filter label=com.docker.compose.project=dockscale)
    # shellcheck disable=SC2086  # several words are meant, here and below
    [ -z "$mine" ] || { docker stop -t 40 $mine && docker rm -f $mine; } >/dev/null
fi

if (exec 3<>/dev/tcp/127.0.0.1/9527) 2>/dev/null; then
    say "note: something still listens on port 9527. If it is a 'dockscale serve' in a terminal, end it with Ctrl-C:"
    echo "  it may start again what is stopped here."
fi

managed=$(ids -a --filter label=dockscale.managed=true)
if [ -n "$managed" ]; then
    say "stopping and removing $(echo "$managed" | wc -l) instance(s)"
    # shellcheck disable=SC2086
    stop_all $managed
    # Those that were started with --rm have gone by themselves.
    # shellcheck disable=SC2086
    docker rm -f -v $managed >/dev/null 2>&1 || true
fi

made_by_hand=$(ids --filter label=dockscale.enable=true)
if [ -n "$made_by_hand" ]; then
    # shellcheck disable=SC2086
    names=$(docker inspect -f '{{if not .HostConfig.AutoRemove}}{{slice .Name 1}}{{end}}' $made_by_hand | xargs)
    say "stopping $(echo "$made_by_hand" | wc -l) labelled container(s) that you made"
    # shellcheck disable=SC2086
    stop_all $made_by_hand
    [ -z "$names" ] || printf '  They are still there, stopped. If you want them gone:\n    docker rm %s\n' "$names"
fi

networks=$(docker network ls -q --filter label=dockscale.managed)
# shellcheck disable=SC2086
[ -z "$networks" ] || docker network rm $networks >/dev/null || true

if [ -z "$mine$managed$made_by_hand" ]; then say "nothing of dockscale is left running"; else say "done"; fi
images=$(docker images --format '{{.Repository}}:{{.Tag}}' --filter 'reference=dockscale*' --filter 'reference=dockscale/*' | xargs)
[ -z "$images" ] || printf '  Images are kept, so that the next start is quick. To remove them:\n    docker rmi %s\n' "$images"
[ -z "$(docker volume ls -q --filter name=^dockscale_data$)" ] ||
    printf '  The secret that signs tokens is kept, so that they stay good. To end them all:\n    docker volume rm dockscale_data\n'
