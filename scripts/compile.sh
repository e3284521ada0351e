#!/usr/bin/env bash
# Compiles dockscale into build/compiled, beside the source, which stays what is edited and tested first.
# Use it with PYTHONPATH=build/compiled. Needs a C compiler and Python's headers.
set -eu
cd "$(dirname "$0")/.."

into=build/compiled
if [ -e $into/dockscale ] && [ -z "$(find setup.py pyproject.toml dockscale -name '*.py' -newer $into -print -quit)" ]; then
    exit 0
fi
echo "compile: dockscale's hot path, with mypyc (about a minute)"
rm -rf $into build/lib* build/temp*
DOCKSCALE_COMPILE=1 .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
    --target $into . || { echo "compile: failed, see above; is a C compiler here?" >&2; exit 1; }
touch $into
echo "compile: done (${SECONDS} s)"
