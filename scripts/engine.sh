#!/usr/bin/env bash
# Makes sure that a Docker engine answers. Where one already does, this does nothing.
# Otherwise, as root on Debian or Ubuntu, it installs the distribution's engine and starts it.
set -eu

LOG=/var/log/dockscale-dockerd.log
WAIT=${ENGINE_WAIT:-60} # seconds an engine may take to answer

say() { echo "engine: $* (${SECONDS} s)"; }
fail() {
    echo "engine: $1" >&2
    shift
    for line in "$@"; do echo "  $line" >&2; done
    exit 1
}

answers() { command -v docker >/dev/null && timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
is_a() { # $1: process id, $2: its name. Dead ones that nobody has waited for (state Z) do not count.
    local name state
    { read -r _ name state _ <"/proc/$1/stat"; } 2>/dev/null || return 1
    [ "$name" = "($2)" ] && [ "$state" != Z ]
}
dockerd_runs() {
    local folder
    for folder in /proc/[0-9]*; do is_a "${folder#/proc/}" dockerd && return 0; done
    return 1
}

answers && exit 0

# --- Cases that a script should not repair by itself -------------------------------------------
case "${DOCKER_HOST:-}" in
"" | unix:///var/run/docker.sock | unix:///run/docker.sock) ;;
*) fail "DOCKER_HOST is $DOCKER_HOST, and no engine answers there." \
    "Start that engine, or 'unset DOCKER_HOST' to use this machine's own." \
    "(A unix socket's path may not be longer than 107 characters.)" ;;
esac
if command -v docker >/dev/null && docker version 2>&1 | grep -qi 'permission denied'; then
    fail "an engine seems to run, but $(id -un) may not use its socket." \
        "Join its group: sudo usermod -aG docker $(id -un)   (then log in again)"
fi
if [ "$(uname -s)" != Linux ]; then
    fail "no Docker engine answers." "Start Docker Desktop (or another engine), then run this again."
fi
if [ "$(id -u)" != 0 ]; then
    fail "no Docker engine answers, and only root can install or start one." \
        "Installed but stopped?  sudo systemctl start docker" \
        "Not installed?          sudo $0   (on Debian and Ubuntu it does the rest)" \
        "Then let yourself in:   sudo usermod -aG docker $(id -un)   (and log in again)"
fi

# Only one of several runs at the same time installs and starts; the others wait here.
# (9>&- below: what we start must not hold the lock for ever.)
exec 9>/run/dockscale-engine.lock
flock 9
answers && exit 0

# --- Install -----------------------------------------------------------------------------------
if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
    command -v apt-get >/dev/null || fail "no Docker engine is installed, and there is no apt-get to get one." \
        "Install Docker with this system's package manager and start it, then run this again."
    packages="docker.io iptables busybox-static"
    apt_install() { # quiet unless it fails
        # Newer releases keep the docker command in a package of its own.
        if ! command -v docker >/dev/null && apt-cache show docker-cli 2>/dev/null | grep -q '^Filename'; then
            packages="$packages docker-cli"
        fi
        # shellcheck disable=SC2086  # several words are meant
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages >"$LOG" 2>&1 </dev/null 9>&-
    }
    say "installing $packages"
    # Package lists may be missing or old: refresh them only when needed, it takes a while.
    apt_install || { say "refreshing the package lists" && apt-get update >/dev/null 9>&- && apt_install; } || {
        tail -n 15 "$LOG" >&2
        fail "the packages could not be installed, see above." "Repair that (apt-get install $packages), then run this again."
    }
fi

# --- Start -------------------------------------------------------------------------------------
start_dockerd() {
    # A killed dockerd leaves files with process ids. Where such a number now belongs to another process, or to
    # one that is dead, the next dockerd does not start, or waits in vain.
    sleep 0.2 # a killed dockerd's containerd ends a moment after it
    is_a "$(cat /run/docker.pid 2>/dev/null)" dockerd || rm -f /run/docker.pid
    is_a "$(cat /run/docker/containerd/containerd.pid 2>/dev/null)" containerd ||
        rm -f /run/docker/containerd/containerd.pid
    say "starting dockerd, its log is $LOG"
    setsid nohup dockerd >"$LOG" 2>&1 </dev/null 9>&- &
    started=$!
}

started=
DEADLINE=$((SECONDS + WAIT))
if [ -d /run/systemd/system ]; then
    say "starting docker through systemd"
    systemctl start docker 9>&- || fail "systemd could not start docker." "Look at: journalctl -u docker"
    started=systemd
elif dockerd_runs; then
    # It starts, or it is about to end. A second one on the same data would hang, so give it its time.
    say "a dockerd is running already, waiting for it"
fi
until answers; do
    case "$started" in
    systemd) ;;
    "") dockerd_runs || start_dockerd ;;
    *) kill -0 "$started" 2>/dev/null || {
        tail -n 15 "$LOG" >&2
        fail "dockerd ended while it was starting; the end of its log ($LOG) is above."
    } ;;
    esac
    [ "$SECONDS" -lt "$DEADLINE" ] || {
        [ ! -s "$LOG" ] || tail -n 15 "$LOG" >&2
        fail "no answer from the engine within $WAIT s." "Its log: $LOG (end of it above), or: journalctl -u docker" \
            "If a dockerd hangs, end it (its process id: pgrep -x dockerd), then run this again."
    }
    sleep 0.1
done
say "ready: Docker $(docker version --format '{{.Server.Version}}')"
