"""HTTP requests to services of the types `asgi` and `functions`, part by part both ways."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from dockscale.hub.asks import Told
from dockscale.hub.calls import GONE
from dockscale.hub.collected import Collected
from dockscale.hub.local import Context, LocalPeer, RemoteError
from dockscale.hub.tokens import User
from dockscale.hub.web import CORS, BadAnswer, Exchange, Headers, Request, ServiceFailed, last_error, preflight
from dockscale.hub.wire import PART_BYTES, Value, vouch

TYPES = frozenset({"asgi", "functions"})
MOST_BODY_BYTES = 2**26
"""Bytes of a request's body that a function gets in one piece."""


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


class Carrier:
    """Carries requests to services, in one peer's name. `answers` is told of which call of it which status came."""

    def __init__(self, peer: LocalPeer, tasks: asyncio.TaskGroup, answers: Callable[[str, str, int], None]) -> None:
        self.peer = peer
        self._tasks = tasks
        self._answers = answers

    async def answer(self, request: Request, target: Target, path: str, user: User) -> None:
        """Have a request answered by a service. `path` has its query.

        Raises:
            ServiceFailed: its program failed.
            BadAnswer: what it answered is not valid.
            RemoteError: it could not be called.
            CallTimeout: it neither answered nor said that it works on it.
        """
        with _failures():
            if target.kind == "asgi":
                await self._asgi(request, target, path, user)
            else:
                await _by_function(self.peer, request, target, path, user)

    async def collect(self, request: Collected, target: Target, path: str, user: User) -> Told:
        """Have a request answered by an ASGI service, and return the answer once it is whole.

        What the application does after its answer goes on; before it, it is told when its caller goes.

        Raises: as `answer`; and HttpError: the answer is too large.
        """
        working = self._tasks.create_task(self._safely(request, target, path, user), name="asgi call")
        try:
            return await request.told
        except asyncio.CancelledError:
            working.cancel()
            raise

    async def _safely(self, request: Collected, target: Target, path: str, user: User) -> None:
        try:
            with _failures():
                await self._asgi(request, target, path, user)
        except Exception as error:
            request.failed(error)

    async def _asgi(self, request: Exchange, target: Target, path: str, user: User) -> None:
        await _Asgi(self.peer, request, target, path, user, self._answers).run()


@contextmanager
def _failures() -> Iterator[None]:
    """Tell the failure of a service's program from that of the call."""
    try:
        yield
    except RemoteError as error:
        if error.trace:
            raise ServiceFailed(last_error(error)[1]) from None
        raise


class _Asgi:
    """One request as an ASGI application sees it: it asks for the body, and sends its answer, by calling back."""

    def __init__(
        self, peer: LocalPeer, request: Exchange, target: Target, path: str, user: User,
        answers: Callable[[str, str, int], None],
    ) -> None:  # fmt: skip
        self._peer = peer
        self._answers = answers
        self._request = request
        self._target = target
        self._path = path
        self._user = user
        self._rest = b""
        self._body_read = False
        self._over = asyncio.Event()
        """Nobody waits for the answer any more."""
        self._started = False
        self._ended = False
        self._failed: Callable[[Exception], None]
        self._session: str

    async def run(self) -> None:
        with self._peer.session(self._target.address) as session:
            self._failed, self._session = session.fail, session.id
            asks = {
                "scope": _scope(self._request, self._target, self._path),
                "receive": session.offer("receive", self._receive),
                "send": session.offer("send", self._send),
            }
            vouched = vouch(self._target.workspace, self._user.shown())
            self._peer.ask(session, f"services.{self._target.name}.serve", [asks], vouched=vouched)
            try:
                await session.answer
            except asyncio.CancelledError:
                self._answers(self._peer.full_id, session.id, GONE)
                raise
            finally:
                self._over.set()
        if not self._started:
            raise BadAnswer(f"the service {self._target.name} ended without an answer")
        if not self._ended:
            self._request.end()

    async def _receive(self, _: Context) -> Value:
        """The next part of the body. After its end, the application is told when nobody waits any more."""
        if self._body_read:
            await self._over.wait()
        if self._over.is_set():
            return {"type": "http.disconnect"}
        try:
            part = self._rest or await self._request.read()
        except ConnectionResetError:
            return {"type": "http.disconnect"}
        except Exception as error:
            self._failed(error)  # the body is not valid: the client is told, and the application that it is gone
            return {"type": "http.disconnect"}
        part, self._rest = part[:PART_BYTES], part[PART_BYTES:]
        self._body_read = not part
        return {"type": "http.request", "body": part, "more_body": bool(part)}

    async def _send(self, _: Context, event: Value) -> None:
        try:
            await self._take(event)
        except ConnectionResetError:
            raise
        except Exception as error:
            self._failed(error)
            raise

    async def _take(self, event: Value) -> None:
        kind = event.get("type") if isinstance(event, dict) else None
        if kind == "http.response.start":
            status = _status(event.get("status"))
            self._request.start(status, _pairs(event.get("headers") or ()))
            self._answers(self._peer.full_id, self._session, status)
            self._started = True
        elif kind == "http.response.body":
            await self._request.write(_data(event.get("body")))
            if not event.get("more_body"):
                self._ended = True
                self._request.end()
                self._over.set()
        else:
            raise BadAnswer(f"{kind!r} is no event of an HTTP answer")


async def _by_function(peer: LocalPeer, request: Request, target: Target, path: str, user: User) -> None:
    """Call the function that the path names: `a/b` is `a.b`, `a.b.index` or, for all that is no function, `default`."""
    request.lines = CORS
    if preflight(request):
        return
    plain = path.partition("?")[0]
    name = _function(target.info.get("service_schema") or {}, plain)
    if name is None:
        request.fail(404, "no_such_function", f"the service {target.name} has no function for {plain}")
        return
    body = await request.read_all(MOST_BODY_BYTES)
    scope = _scope(request, target, path)
    event = scope | {
        "headers": _joined(request.headers),
        "query_string": scope["query_string"].decode("latin-1"),
        "raw_path": scope["raw_path"].decode("latin-1"),
        "body": body or None,
        "user": user.shown(),
    }
    if name == "default":
        event["function_path"] = plain
    with peer.session(target.address) as session:
        vouched = vouch(target.workspace, user.shown())
        peer.ask(session, f"services.{target.name}.{name}", [event], vouched=vouched)
        told = await session.answer
    if not isinstance(told, dict):
        raise BadAnswer(f"the function {name} gave no map of status, headers and body, but a {type(told).__name__}")
    await _reply(request, _status(told.get("status") or 200), _fields(told.get("headers") or {}), told.get("body"))


async def _reply(request: Request, status: int, headers: Headers, body: Value) -> None:
    data = _data(body)
    if any(name.lower() == b"access-control-allow-origin" for name, _ in headers):
        request.lines = ()  # the function decides itself
    kept = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    request.start(status, [*kept, (b"Content-Length", b"%d" % len(data))])
    await request.write(data)
    request.end()


def _joined(headers: Headers) -> dict[str, str]:
    """Fields as a map: those of the same name are one (RFC 9110 section 5.3, RFC 9113 section 8.2.3)."""
    joined: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        before = joined.get(key)
        joined[key] = text if before is None else f"{before}{'; ' if key == 'cookie' else ', '}{text}"
    return joined


def _function(schema: Mapping[str, Value], path: str) -> str | None:
    """The function for a path, as its dotted name."""
    names = [unquote(name) for name in path.strip("/").split("/") if name] or ["index"]
    for tried in (names, [*names, "index"]):
        found: Value = schema
        for name in tried:
            found = found.get(name) if isinstance(found, dict) and not _is_function(found) else None
        if _is_function(found):
            return ".".join(tried)
    return "default" if _is_function(schema.get("default")) else None


def _is_function(schema: Value) -> bool:
    return isinstance(schema, dict) and schema.get("type") == "function"


def _scope(request: Exchange, target: Target, path: str) -> dict[str, Value]:
    plain, _, query = path.partition("?")
    at = urlsplit(f"//{request.host}")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": request.http_version,
        "server": [at.hostname or "", at.port or (443 if request.scheme == "https" else 80)],
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


def _status(value: Value) -> int:
    if not isinstance(value, int | float) or int(value) != value:
        raise BadAnswer(f"the status {value!r} is no whole number")
    return int(value)


def _data(value: Value) -> bytes:
    match value:
        case None:
            return b""
        case str():
            return value.encode()
        case bytes():
            return value
    raise BadAnswer(f"the body is neither bytes nor text, but a {type(value).__name__}")


def _fields(headers: Value) -> Headers:
    """A map of fields; one that is there several times has a list of values."""
    if not isinstance(headers, dict):
        return _pairs(headers)
    values = ((name, value if isinstance(value, list) else [value]) for name, value in headers.items())
    return _pairs([(name, each) for name, several in values for each in several])


def _pairs(headers: Value) -> Headers:
    try:
        return [(_bytes(name), _bytes(value)) for name, value in headers]
    except (TypeError, ValueError) as error:
        raise BadAnswer(f"the headers are no pairs of names and values: {error}") from None


def _bytes(value: Value) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("latin-1")
