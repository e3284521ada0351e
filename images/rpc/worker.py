"""An RPC app for tests: an ordinary hypha_rpc program that shows what it was asked, and misbehaves on demand.

Services: default  who echo add size big fail slow call count acount make_counter die
          ctx      context_of
          web      an ASGI app: /  /echo  /stream?n=&ms=  /slow?ms=  /client-gone  /gone-count
          fns      functions: index hello fail nested.index nested.deep default
Environment: HYPHA_SERVER_URL  HYPHA_WORKSPACE  HYPHA_CLIENT_ID  HYPHA_TOKEN  HYPHA_APP_ID
             BOOT_DELAY=seconds  NEVER_REGISTER=1  SERVICE_NAME=another name than default  IGNORE_TERM=1
"""

# ruff: noqa: E402  # what happens before modules are loaded is what makes it boot fast
import gc
import os
import signal
import sys
import time
import types

STARTED = time.monotonic()

# First of all: a process with number 1 ignores SIGTERM unless it says otherwise.
if os.environ.get("IGNORE_TERM") == "1":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

# Boot time is what a caller of a sleeping app waits for. A third of it goes into garbage collection while modules are
# loaded, and into two modules that are loaded and not used: one for another transport, one for munch's own version.
gc.disable()
sys.modules["httpx"] = types.SimpleNamespace(AsyncClient=None)
sys.modules["importlib.metadata"] = types.SimpleNamespace(version=lambda name: "0.0.0")
import asyncio
import json
from urllib.parse import parse_qs

from hypha_rpc import connect_to_server

gc.freeze()  # what is loaded by now stays for good: no need to look at it again
gc.enable()

INSTANCE = os.uname().nodename

# --- the service 'default', for calls ------------------------------------------------------------


def who():
    return {"instance": INSTANCE, "client_id": os.environ.get("HYPHA_CLIENT_ID")}


def echo(x):
    return x


def add(a, b=1):
    return a + b


def size(data):
    return len(data)


def big(n):
    return b"x" * n


def fail(text):
    raise ValueError(text)


async def slow(x, seconds):
    await asyncio.sleep(seconds)
    return x


async def call(callback, n):
    return [await callback(number) for number in range(n)]


def count(n):
    yield from range(n)


async def acount(n, pause):
    for number in range(n):
        await asyncio.sleep(pause)
        yield number


def make_counter():
    """Return an object that stays here: `_rintf` lets its functions outlive the call that made them."""
    value = 0

    def inc(by=1):
        nonlocal value
        value += by
        return value

    return {"_rintf": True, "instance": INSTANCE, "inc": inc, "get": lambda: value}


def die():
    os._exit(1)


CALLS = [who, echo, add, size, big, fail, slow, call, count, acount, make_counter, die]


def context_of(x=None, context=None):
    return {"x": x, "instance": INSTANCE, "context": context}


# --- the service 'web', an ASGI app --------------------------------------------------------------

gone = 0


class Exchange:
    """One HTTP request, and ways to answer it."""

    def __init__(self, scope, receive, send):
        self.scope, self.receive, self.send = scope, receive, send
        self.query = parse_qs(bytes(scope["query_string"]).decode())

    def number(self, name, default):
        return int(self.query.get(name, [default])[0])

    async def body(self):
        """The pieces of the request's body, as they come in."""
        more = True
        while more and (event := await self.receive())["type"] == "http.request":
            more = event.get("more_body", False)
            yield event.get("body", b"")

    async def head(self, status=200, kind="text/plain", headers=()):
        all_headers = [(b"content-type", kind.encode()), (b"x-rpc-instance", INSTANCE.encode()), *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": all_headers})

    async def piece(self, data, more=True):
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, value, status=200, headers=()):
        await self.head(status, "application/json", headers)
        await self.piece(json.dumps(value).encode(), more=False)


async def show(it):
    headers = [[bytes(part).decode("latin-1") for part in header] for header in it.scope["headers"]]
    plain = {name: it.scope.get(name) for name in ("method", "path", "root_path", "scheme", "http_version")}
    plain |= {"instance": INSTANCE, "query": bytes(it.scope["query_string"]).decode(), "headers": headers}
    await it.answer(plain, headers=[(b"set-cookie", b"one=1; Path=/"), (b"set-cookie", b"two=2; Path=/")])


async def echo_body(it):
    await it.head(kind="application/octet-stream")
    async for data in it.body():
        await it.piece(data)
    await it.piece(b"", more=False)


async def stream(it):
    await it.head()
    for number in range(it.number("n", 10)):
        await it.piece(b"%d\n" % number)
        await asyncio.sleep(it.number("ms", 100) / 1000)
    await it.piece(b"", more=False)


async def slow_answer(it):
    await asyncio.sleep(it.number("ms", 1000) / 1000)
    await it.answer({"instance": INSTANCE})


async def client_gone(it):
    """Answer a first piece, so that the client knows that it is awaited, then wait until it is gone."""
    global gone  # noqa: PLW0603  # one counter is all the state there is
    await it.head()
    await it.piece(b"waiting\n")
    while (await it.receive())["type"] != "http.disconnect":
        pass
    gone += 1


async def gone_count(it):
    await it.answer({"instance": INSTANCE, "gone": gone})


ROUTES = {
    "/": show,
    "/echo": echo_body,
    "/stream": stream,
    "/slow": slow_answer,
    "/client-gone": client_gone,
    "/gone-count": gone_count,
}


async def web(scope, receive, send):
    it = Exchange(scope, receive, send)
    if route := ROUTES.get(scope["path"]):
        await route(it)
    else:
        await it.answer({"error": "no such path", "path": scope["path"]}, status=404)


async def serve(args):
    await web(args["scope"], args["receive"], args["send"])


# --- the service 'fns', functions of an HTTP request ---------------------------------------------


def function(name):
    """A function that shows its name and the request it was given."""

    async def answer(request):
        body = request.get("body") or b""
        shown = {key: request.get(key) for key in ("method", "path", "query_string", "function_path", "headers")}
        shown |= {"instance": INSTANCE, "function": name, "body": bytes(body).decode("latin-1")}
        return {"status": 200, "headers": {"content-type": "application/json"}, "body": json.dumps(shown)}

    return answer


def teapot(request):
    return {"status": 418, "headers": {"x-kind": "teapot"}, "body": b"\x00short and stout"}


def fail_function(request):
    raise ValueError("as asked")


FUNCTIONS = {
    "index": function("index"),
    "hello": function("hello"),
    "teapot": teapot,
    "fail": fail_function,
    "nested": {"index": function("nested.index"), "deep": function("nested.deep")},
    "default": function("default"),
}

# --- connecting ----------------------------------------------------------------------------------


def config_from_environment():
    names = ("server_url", "workspace", "client_id", "token", "app_id")
    return {name: value for name in names if (value := os.environ.get(f"HYPHA_{name.upper()}"))}


async def register(server):
    """Register all services; the one that is waited for comes last, when the others are there."""
    public = {"visibility": "public"}
    await asyncio.gather(
        server.register_service({"id": "ctx", "config": public | {"require_context": True}, "context_of": context_of}),
        server.register_service({"id": "web", "type": "asgi", "config": public, "serve": serve}),
        server.register_service({"id": "fns", "type": "functions", "config": public, **FUNCTIONS}),
    )
    name = os.environ.get("SERVICE_NAME", "default")
    await server.register_service({"id": name, "config": public, **{each.__name__: each for each in CALLS}})


async def main():
    await asyncio.sleep(float(os.environ.get("BOOT_DELAY", "0")))
    server = await connect_to_server(config_from_environment())
    if os.environ.get("NEVER_REGISTER") != "1":
        await register(server)
        print(f"rpc: {server.config.workspace}/{server.config.client_id} is registered", flush=True)
        print(f"rpc: after {time.monotonic() - STARTED:.3f} s, {time.process_time():.3f} s of CPU", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
