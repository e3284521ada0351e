#!/usr/bin/env bash
# Builds the images that the tests start: dockscale-probe:test, dockscale-rpc:test, dockscale-hello:local, the runtimes.
# Unchanged images come from the engine's cache, in less than a second.
set -eu
cd "$(dirname "$0")/.."

. scripts/build-env.sh

build() { # $1: name of the image, then what 'docker build' gets; quiet unless it fails
    local name=$1 log
    shift
    if ! log=$(docker build -q -t "$name" --build-arg BASE_IMAGE="$BASE_IMAGE" "$@" 2>&1); then
        echo "$log" >&2
        echo "test images: $name could not be built, see above. Is there room on the disk, can pip reach its index?" >&2
        exit 1
    fi
    echo "test images: $name (${SECONDS} s)"
}

build dockscale-probe:test --label org.dockscale.test=true images/probe
build dockscale-rpc:test --label org.dockscale.test=true --build-arg PIP_INDEX_URL -f images/rpc/Dockerfile .
# By compose, which knows its labels: a running dockscale must find the same image that it knows.
if ! log=$(scripts/compose.sh build hello 2>&1); then
    echo "$log" | tail -n 25 >&2
    echo "test images: dockscale-hello:local could not be built, see above. Can pip reach its index?" >&2
    exit 1
fi
echo "test images: dockscale-hello:local (${SECONDS} s)"
if ! log=$(DOCKSCALE_BASE_IMAGE=$BASE_IMAGE DOCKSCALE_PIP_INDEX_URL=${PIP_INDEX_URL:-} .venv/bin/dockscale runtimes 2>&1); then
    echo "$log" | tail -n 25 >&2
    echo "test images: a runtime could not be made, see above. Can pip reach its index?" >&2
    exit 1
fi
echo "test images: the runtimes of programs (${SECONDS} s)"
