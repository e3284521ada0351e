#!/usr/bin/env bash
# Builds dockscale and its demo apps, starts dockscale, waits until it is ready, and says what to try.
# 'make run' comes here after it has made .venv.
set -eu
cd "$(dirname "$0")/.."

say() { echo "run: $* (${SECONDS} s)"; }
fail() {
    echo "run: $1" >&2
    shift
    for line in "$@"; do echo "  $line" >&2; done
    exit 1
}
logs() { docker logs --tail 20 "$(scripts/compose.sh ps -aq dockscale)" 2>&1 | sed 's/^/  | /' >&2 || true; }

python=.venv/bin/python
[ -x $python ] || fail "there is no .venv yet." "Use 'make run', it makes one first."
probe() { # $1: port, $2: path. Prints the HTTP status; 'none' where nothing listens, 'other' for no HTTP.
    $python -c '
import http.client, sys
try:
    c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=2)
    c.connect()
except OSError:
    sys.exit(print("none"))
try:
    c.request("GET", sys.argv[2])
    print(c.getresponse().status)
except (OSError, http.client.HTTPException):
    print("other")' "$1" "$2"
}

scripts/engine.sh
if [ -n "${DOCKER_HOST:-}" ] && [ "${DOCKER_HOST#unix://}" = "$DOCKER_HOST" ]; then
    fail "DOCKER_HOST is $DOCKER_HOST; this set-up needs the engine of this machine (a unix socket)." \
        "Unset it, or run dockscale itself: DOCKER_HOST=$DOCKER_HOST .venv/bin/dockscale serve"
fi
if [ -n "${DOCKER_HOST:-}" ]; then export DOCKER_SOCKET="${DOCKER_SOCKET:-${DOCKER_HOST#unix://}}"; fi

# Only a running dockscale of ours may hold the ports already.
if [ -z "$(scripts/compose.sh ps -q --status running dockscale 2>/dev/null)" ]; then
    for port in 9527 9528; do
        [ "$(probe $port /)" = none ] || fail "port $port is taken by another program." \
            "Find it:  ss -ltnp 'sport = :$port'   (a 'dockscale serve' in another terminal, perhaps)" \
            "End it, then run this again."
    done
fi

. scripts/build-env.sh
say "building the images on $BASE_IMAGE (the first time takes half a minute)"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
scripts/compose.sh build >"$log" 2>&1 || {
    tail -n 25 "$log" >&2
    fail "an image could not be built, see above." \
        "Often: pip cannot reach its index from a build, or the disk is full ('docker system df')."
}
say "making the images that installed programs run on (the first time takes half a minute)"
DOCKSCALE_BASE_IMAGE=$BASE_IMAGE DOCKSCALE_PIP_INDEX_URL=${PIP_INDEX_URL:-} .venv/bin/dockscale runtimes >"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    fail "a runtime could not be made, see above." "Often: pip cannot reach its index from a build."
}
say "starting dockscale"
scripts/compose.sh up -d >"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    fail "'docker compose up' failed, see above."
}
end=$((SECONDS + 60))
until [ "$(probe 9527 /health/readiness)" = 200 ]; do
    [ $SECONDS -lt $end ] || {
        logs
        fail "dockscale was not ready within 60 s; its last lines are above." \
            "All of them: make logs      Stop it: make stop"
    }
    sleep 0.1
done
.venv/bin/dockscale install images/greeter/greeter.js --type functions --overwrite >"$log" 2>&1 || {
    cat "$log" >&2
    logs
    fail "the demo program could not be installed, see above."
}
say "dockscale is ready"

cat <<'TEXT'

  The demo app     http://hello.localhost:9527/   or   http://localhost:9527/public/apps/hello/
  Only a source    http://greeter.localhost:9527/   (images/greeter/greeter.js, installed)
  Dashboard        http://localhost:9528/
  Metrics          http://localhost:9528/metrics

Try this (the first answer starts the app, the others find it awake):
  curl http://localhost:9527/public/apps/hello/api/status
  curl -H 'Content-Type: application/json' -d '{"iterations": 2000}' http://localhost:9527/public/apps/hello/api/heavy-task
  for i in $(seq 60); do curl -s http://localhost:9527/public/apps/hello/api/status; echo; done
  curl 'http://greeter.localhost:9527/hello?name=you'
Then ask why there are as many instances as there are:
  .venv/bin/dockscale explain hello

'make logs' follows what it does, 'make stop' ends it.
TEXT
