#!/usr/bin/env bash
# Prints the name of an nginx image (and nothing else on standard output): nginx:alpine if it is here or can be
# pulled, else one made of the nginx that this Debian or Ubuntu has. Both show a welcome page on port 80.
set -eu
cd "$(dirname "$0")/.."

OFFICIAL=nginx:alpine
LOCAL=dockscale-nginx:local

present() { docker image inspect "$1" >/dev/null 2>&1; }
if present $LOCAL; then
    echo $LOCAL
    exit
elif present $OFFICIAL || timeout 60 docker pull -q $OFFICIAL >/dev/null 2>&1; then
    echo $OFFICIAL
    exit
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
log=$folder/log root=$folder/root
download() { # nginx, and the libraries that it names
    cd "$folder"
    libraries=$(apt-cache depends nginx | sed -n 's/^ *Depends: \(lib.*\|zlib.*\)/\1/p')
    # shellcheck disable=SC2086  # several words are meant
    apt-get download -q -o APT::Sandbox::User=root nginx nginx-common $libraries >"$log" 2>&1
}
# Package lists may be missing or old: refresh them only when needed, it takes a while.
download || { apt-get update >/dev/null 2>&1 && download; } || {
    tail -n 5 "$log" >&2
    echo "nginx image: neither $OFFICIAL nor the packages of this system can be had, see above" >&2
    exit 1
}
mkdir -p "$root"/{run,var/lib/nginx,var/log/nginx,etc/nginx/sites-enabled}
for deb in "$folder"/*.deb; do
    dpkg-deb --extract "$deb" "$root"
done
echo 'www-data:x:33:33::/:/bin/false' >"$root/etc/passwd"
echo 'www-data:x:33:' >"$root/etc/group"
echo 'server { listen 80; root /usr/share/nginx/html; }' >"$root/etc/nginx/sites-enabled/default"
ln -s /dev/stdout "$root/var/log/nginx/access.log"
ln -s /dev/stderr "$root/var/log/nginx/error.log"
tar -C "$root" -c --owner=0 --group=0 . |
    docker import -c 'EXPOSE 80' -c 'CMD ["/usr/sbin/nginx", "-g", "daemon off;"]' - $LOCAL >/dev/null
echo "nginx image: made $LOCAL (${SECONDS} s)" >&2
echo $LOCAL
