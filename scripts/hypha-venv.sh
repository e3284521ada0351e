#!/usr/bin/env bash
# Makes build/hypha, a virtual environment with the Hypha server that dockscale's hub is measured next to.
# Its many packages, pinned in hypha-constraints.txt, stay out of .venv.
set -eu
cd "$(dirname "$0")/.."

into=build/hypha
pins=scripts/hypha-constraints.txt
if [ $into/ready -nt $pins ] && [ $into/ready -nt "scripts/hypha-venv.sh" ]; then
    exit 0
fi
echo "hypha: installing it into $into (about a minute)" >&2
[ -x $into/bin/python ] || .venv/bin/python -m venv $into
# Its HTTP server takes uvloop and httptools if they are there.
$into/bin/python -m pip install -q --disable-pip-version-check -c $pins 'hypha[s3,server-apps]' uvloop httptools || {
    echo "hypha: pip failed, see above. Can it reach its package index?" >&2
    exit 1
}
touch $into/ready
echo "hypha: done (${SECONDS} s)" >&2
