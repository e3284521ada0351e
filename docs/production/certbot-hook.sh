#!/bin/sh
# Gives dockscale a copy of what certbot has just got: certbot's own files are for root alone. Put it, executable, into
# /etc/letsencrypt/renewal-hooks/deploy/. dockscale sees the new files by itself.
set -eu
to=${DOCKSCALE_TLS:-/etc/dockscale/tls} group=${DOCKSCALE_GROUP:-docker}

install -d -m 750 -g "$group" "$to"
for file in privkey.pem fullchain.pem; do
    install -m 640 -g "$group" "$RENEWED_LINEAGE/$file" "$to/$file.new"
    mv "$to/$file.new" "$to/$file" # never half a file
done
