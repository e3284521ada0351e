#!/usr/bin/env bash
# Installs the npm client of RPC for the tests, and links the node that runs it. Where both are there, this does nothing.
# The node of this machine is taken if it is new enough; else one comes into .venv with the optional extra 'node'.
set -eu
cd "$(dirname "$0")/.."

folder=tests/hub/node
link=$folder/node_modules/.node # made last, so it says that all is there

fail() {
    echo "node: $*, see above." >&2
    exit 1
}
suits() { command -v npm && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)'; } >/dev/null 2>&1

if [ -x $link ] && [ $folder/node_modules/.package-lock.json -nt $folder/package-lock.json ]; then exit 0; fi
if ! suits; then
    .venv/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[node]' ||
        fail "this machine has no node 20 or newer with npm, and pip could not get one"
    PATH=$PWD/.venv/bin:$PATH
fi
log=$(cd $folder && npm ci --ignore-scripts 2>&1 </dev/null) || {
    echo "$log" >&2
    fail "the npm client could not be installed"
}
ln -s "$(node -p process.execPath)" $link # not what 'node' names, which may be a script that starts it
echo "node: $(node -v) and the npm client are there (${SECONDS} s)"
