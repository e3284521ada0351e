# Read by other scripts with '.': sets what builds of images need to know about this machine.
BASE_IMAGE=$(scripts/base-image.sh)
export BASE_IMAGE

# If pip here is told to use another index than its own, builds use that one as well.
# (Not if it is a folder of this machine: a build cannot see that.)
PIP_INDEX_URL=${PIP_INDEX_URL:-$("${PYTHON:-python3}" -m pip config get global.index-url 2>/dev/null || true)}
case "$PIP_INDEX_URL" in http*) export PIP_INDEX_URL ;; *) unset PIP_INDEX_URL ;; esac
