#!/usr/bin/env bash
# Installs HAProxy for the tests where it is missing: Debian's or Ubuntu's package, as root. No service is started or enabled.
set -eu

PATH=$PATH:/usr/sbin
policy=/usr/sbin/policy-rc.d

fail() {
    echo "haproxy: $*" >&2
    exit 1
}

command -v haproxy >/dev/null && exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
    fail "it is missing. Install it with this system's package manager, then run this again."
# Debian starts what it installs, unless this file says no.
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
fi
get() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends haproxy; }
log=$(get 2>&1 </dev/null) || { apt-get update >/dev/null 2>&1 && log=$(get 2>&1 </dev/null); } || {
    echo "$log" | tail -n 15 >&2
    fail "the package could not be installed, see above."
}
if [ -d /run/systemd/system ]; then systemctl disable -q haproxy || true; fi
