#!/usr/bin/env bash
# Builds the image of the instance that all measured proxies stand in front of: dockscale-bench-origin:local.
# Unchanged, it comes from the engine's cache, in less than a second.
set -eu
cd "$(dirname "$0")/.."

. scripts/build-env.sh
name=dockscale-bench-origin:local
if ! log=$(docker build -q -t $name --label org.dockscale.test=true --build-arg BASE_IMAGE="$BASE_IMAGE" \
    --build-arg PIP_INDEX_URL --build-arg UVLOOP="$(grep '^uvloop==' constraints.txt)" bench/origin 2>&1); then
    echo "$log" >&2
    echo "bench origin: $name could not be built, see above. Can pip reach its index?" >&2
    exit 1
fi
