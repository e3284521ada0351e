#!/usr/bin/env bash
# Gets prometheus and promtool for the tests into build/prometheus. Where both are there, this does nothing.
# Those of this machine are taken if it has them; else Debian's or Ubuntu's package is unpacked, not installed: no service,
# no user, no file outside of build/.
set -eu
cd "$(dirname "$0")/.."

folder=build/prometheus
new=$folder.$$

fail() {
    echo "prometheus: $1" >&2
    shift
    for line in "$@"; do echo "  $line" >&2; done
    exit 1
}

if [ -x $folder/usr/bin/prometheus ] && [ -x $folder/usr/bin/promtool ]; then exit 0; fi
mkdir -p "$new/usr/bin"
trap 'rm -rf "$new"' EXIT
if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
    ln -s "$(command -v prometheus)" "$(command -v promtool)" "$new/usr/bin/"
else
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || fail "it is not installed, and there is no apt-get to get it." \
        "Install prometheus and promtool with this system's package manager, then run this again."
    download() { (cd "$new" && apt-get download prometheus) 2>&1 </dev/null; }
    # Package lists may be missing or old: only root can refresh them, and it takes a while.
    log=$(download) || { apt-get update >/dev/null 2>&1 && log=$(download); } || {
        echo "$log" >&2
        fail "the package could not be downloaded, see above." "Repair that (apt-get download prometheus), then run this again."
    }
    dpkg -x "$new"/prometheus_*.deb "$new" && rm "$new"/prometheus_*.deb
fi
"$new/usr/bin/prometheus" --version >/dev/null && "$new/usr/bin/promtool" --version >/dev/null || fail "it does not run here."
# Another run may have been quicker; then its files are as good.
mv -T "$new" $folder 2>/dev/null || [ -x $folder/usr/bin/promtool ] || fail "$folder is in the way."
echo "prometheus: $($folder/usr/bin/promtool --version 2>&1 | sed -n '1s/ (.*//p') is there (${SECONDS} s)"
