"""HTTP requests to services of the types `asgi` and `functions`, part by part both ways."""

import asyncio
from collections.abc import Mapping
from urllib.parse import unquote

from dockscale.hub.local import Context, LocalPeer, RemoteError
from dockscale.hub.tokens import User
from dockscale.hub.web import Headers, Request, status_for
from dockscale.hub.wire import PART_BYTES, Value, vouch

TYPES = frozenset({"asgi", "functions"})
MOST_BODY_BYTES = 2**26
"""Bytes of a request's body that a function gets in one piece."""
ANSWER_S = 30.0
"""Seconds without an answer, a heartbeat or a part of it until a service has failed."""


class Target:
    """The service that a request goes to, and where its functions are called."""

    __slots__ = ("address", "info", "name", "workspace")

    def __init__(self, address: str, name: str, workspace: str, info: Mapping[str, Value]) -> None:
        self.address = address
        """Full id of the client, or the virtual client, that is called."""
        self.name = name
        self.workspace = workspace
        self.info = info

    @property
    def kind(self) -> str:
        return str(self.info.get("type") or "").lower()


async def answer(peer: LocalPeer, request: Request, target: Target, path: str, user: User) -> None:
    """Have a request answered by a service. `path` has its query."""
    if target.kind == "asgi":
        await _Asgi(peer, request, target, path, user).run()
    else:
        await _by_function(peer, request, target, path, user)


class _Asgi:
    """One request as an ASGI application sees it: it asks for the body, and sends its answer, by calling back."""

    def __init__(self, peer: LocalPeer, request: Request, target: Target, path: str, user: User) -> None:
        self._peer = peer
        self._request = request
        self._target = target
        self._path = path
        self._user = user
        self._rest = b""
        self._body_read = False
        self._over = asyncio.Event()
        self._started = False
        self._ended = False

    async def run(self) -> None:
        request = self._request
        with self._peer.session(self._target.address, ANSWER_S) as session:
            asks = {
                "scope": _scope(request, self._target, self._path),
                "receive": session.offer("receive", self._receive),
                "send": session.offer("send", self._send),
            }
            vouched = vouch(self._target.workspace, self._user.shown())
            self._peer.ask(session, f"services.{self._target.name}.serve", [asks], vouched=vouched)
            try:
                await session.answer
            except RemoteError as error:
                if not self._ended:
                    status, word = status_for(error)
                    request.fail(status, word, str(error))
                return
            finally:
                self._over.set()
        if not self._ended and self._started:
            request.end()

    async def _receive(self, _: Context) -> Value:
        """The next part of the body. After its end, the application is told when nobody waits any more."""
        if self._body_read:
            await self._over.wait()
            return {"type": "http.disconnect"}
        part = self._rest or await self._request.read()
        part, self._rest = part[:PART_BYTES], part[PART_BYTES:]
        self._body_read = not part
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    async def _send(self, _: Context, event: Mapping[str, Value]) -> None:
        match event.get("type"):
            case "http.response.start":
                self._started = True
                self._request.start(int(event["status"]), _pairs(event.get("headers") or ()))
            case "http.response.body":
                data = event.get("body") or b""
                await self._request.write(data.encode() if isinstance(data, str) else bytes(data))
                if not event.get("more_body"):
                    self._ended = True
                    self._request.end()
                    self._over.set()
            case kind:
                raise ValueError(f"{kind!r} is no event of an HTTP answer")


async def _by_function(peer: LocalPeer, request: Request, target: Target, path: str, user: User) -> None:
    """Call the function that the path names: `a/b` is `a.b`, `a.b.index` or, for all that is no function, `default`."""
    found = _function(target.info.get("service_schema") or {}, path.partition("?")[0])
    if found is None:
        request.fail(404, "no_such_function", f"the service {target.name} has no function for {path}")
        return
    body = await request.read_all(MOST_BODY_BYTES)
    scope = _scope(request, target, path)
    event = scope | {
        "headers": {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        "query_string": scope["query_string"].decode("latin-1"),
        "raw_path": scope["raw_path"].decode("latin-1"),
        "body": body or None,
        "user": user.shown(),
    }
    if found == "default":
        event["function_path"] = path.partition("?")[0]
    with peer.session(target.address, ANSWER_S) as session:
        vouched = vouch(target.workspace, user.shown())
        peer.ask(session, f"services.{target.name}.{found}", [event], vouched=vouched)
        told = await session.answer
    if not isinstance(told, dict):
        told = {"body": told}
    data = told.get("body")
    data = data.encode() if isinstance(data, str) else data or b""
    headers = _pairs((told.get("headers") or {}).items())
    request.start(int(told.get("status") or 200), [*_without_length(headers), (b"content-length", b"%d" % len(data))])
    await request.write(data)
    request.end()


def _function(schema: Mapping[str, Value], path: str) -> str | None:
    """The function for a path, as its dotted name."""
    names = [unquote(name) for name in path.strip("/").split("/") if name] or ["index"]
    for tried in (names, [*names, "index"]):
        found: Value = schema
        for name in tried:
            found = found.get(name) if isinstance(found, dict) and "function" not in found else None
        if isinstance(found, dict) and found.get("type") == "function":
            return ".".join(tried)
    return "default" if "default" in schema else None


def _scope(request: Request, target: Target, path: str) -> dict[str, Value]:
    plain, _, query = path.partition("?")
    host, _, port = request.host.rpartition(":")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version,
        "server": [host or request.host, int(port) if host and port.isdecimal() else 80],
        "client": [request.client, 0],
        "scheme": request.scheme,
        "method": request.method,
        "root_path": "",
        "path": unquote(plain),
        "raw_path": plain.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": [[name, value] for name, value in request.headers],
        "state": {},
        "workspace": target.workspace,
        "service_id": target.info.get("id"),
    }


def _pairs(headers: Value) -> Headers:
    return [(_bytes(name), _bytes(value)) for name, value in headers]


def _bytes(value: Value) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("latin-1")


def _without_length(headers: Headers) -> Headers:
    return [(name, value) for name, value in headers if name.lower() != b"content-length"]
