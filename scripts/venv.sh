#!/usr/bin/env bash
# Makes .venv with what dockscale needs. With the argument 'dev': what its tests and checks need, too.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
what=.
[ "${1:-}" != dev ] || what='.[dev]'

fail() {
    echo "venv: $1" >&2
    exit 1
}

if ! [ -x .venv/bin/pip ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or newer is needed, and $python is not. Say where one is: PYTHON=/path/to/python3 make ..."
    echo "venv: making .venv with $("$python" -V)"
    rm -rf .venv
    if ! "$python" -m venv .venv >/dev/null 2>&1; then
        # Debian and Ubuntu keep this part of Python in a package of its own.
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            echo "venv: installing python3-venv (${SECONDS} s)"
            DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3-venv >/dev/null 2>&1 ||
                { apt-get update >/dev/null && apt-get install -y --no-install-recommends python3-venv >/dev/null; } || true
        fi
        rm -rf .venv
        "$python" -m venv .venv || fail "'$python -m venv' does not work. Debian, Ubuntu: sudo apt-get install python3-venv"
    fi
fi
echo "venv: installing $what (${SECONDS} s)"
.venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e "$what" ||
    fail "pip failed, see above. Can it reach its package index? ('make clean' starts over)"
echo "venv: ready (${SECONDS} s)"
