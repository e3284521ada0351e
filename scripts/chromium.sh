#!/usr/bin/env bash
# Makes sure that there is a Chromium to test the dashboard with. Where it is there, this does nothing.
# Otherwise, as root on Debian, it installs the distribution's.
set -eu

fail() {
    echo "chromium: $*" >&2
    exit 1
}

browser=/usr/bin/chromium
[ ! -x $browser ] || exit 0
[ "$(id -u)" = 0 ] || fail "there is no $browser, and only root can install it: sudo apt-get install chromium"
command -v apt-get >/dev/null || fail "there is no $browser, and no apt-get to get it: install it with this system's package manager"

# Only one of several runs at the same time installs; the others wait here.
exec 9>/run/dockscale-chromium.lock
flock 9
[ ! -x $browser ] || exit 0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium fonts-dejavu-core >"$log" 2>&1 </dev/null 9>&-; }
echo "chromium: installing it"
# Package lists may be missing or old: refresh them only when needed, it takes a while.
apt_install || { apt-get update >/dev/null 9>&- && apt_install; } || {
    tail -n 15 "$log" >&2
    fail "it could not be installed, see above"
}
[ -x $browser ] || fail "what apt-get installed is not $browser; on Ubuntu it is a snap, which needs a system that runs snaps"
echo "chromium: $($browser --version --no-sandbox 2>/dev/null) (${SECONDS} s)"
