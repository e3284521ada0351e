"""Apps that speak HTTP, as services: `get`, `post`, `put`, `patch`, `delete` and `request` of a path.

Each call takes a lease like any request. An answer is what its media type says: JSON as values, text as text, anything
else as bytes.
"""

import json
from collections.abc import Mapping
from contextlib import suppress

import aiohttp

from dockscale.claim import Wake, claim
from dockscale.core.app import App
from dockscale.core.pool import Clock, Instance, NoPlace
from dockscale.hub.calls import status_of
from dockscale.hub.local import Context, Function, Functions, LocalPeer
from dockscale.hub.wire import Value

METHODS = ("get", "post", "put", "patch", "delete")
RETRIES = 2
MOST_ANSWER_BYTES = 2**26
"""Bytes of an answer that are given as a value."""
_ALL = frozenset({*(method.upper() for method in METHODS), "HEAD", "OPTIONS"})
_SAFE = _ALL - {"POST", "PATCH"}
"""Methods that may be sent twice (RFC 9110 section 9.2.2)."""
_OF_THE_CONNECTION = frozenset({
    "connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
"""Fields that frame or route: they are not the caller's to say, as others use the same connection."""


class HttpError(Exception):
    """The app answered with a status of 300 or more, or with what cannot be a value."""


class NoAnswer(HttpError):
    """The app did not answer. `status` is what that is counted as."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class HttpApps:
    """Offers every HTTP app as a service of one peer, and calls it."""

    def __init__(self, peer: LocalPeer, apps: Mapping[str, App], wake: Wake, clock: Clock, timeout: float) -> None:
        self._peer = peer
        self._apps = apps
        self._wake = wake
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # places are what bounds them
            cookie_jar=aiohttp.DummyCookieJar(),  # one caller's cookies are not the next one's
            timeout=aiohttp.ClientTimeout(total=None, sock_read=timeout or None),
        )

    async def close(self) -> None:
        await self._session.close()

    def describe(self, app: App) -> dict[str, Value]:
        """An app as a value, as `get_service` gives it."""
        if not self._peer.offers(app.app_id):
            self._peer.serve(app.app_id, self._functions(app.app_id), type="http")
        shown = {
            "id": f"{app.spec.workspace}/http@{app.app_id}", "name": app.spec.name or app.app_id,
            "description": app.spec.description,
        }  # fmt: skip
        return self._peer.describe(app.app_id) | shown

    def _functions(self, app_id: str) -> Functions:
        async def request(context: Context, method: str, path: str = "/", **options: Value) -> dict[str, Value]:
            """Make a request; return `status`, `headers` and `body`, whatever the status is."""
            status, headers, body = await self._ask(app_id, method, path, **options)
            return {"status": status, "headers": headers, "body": body}

        return {"request": request} | {method: self._named(app_id, method) for method in METHODS}

    def _named(self, app_id: str, method: str) -> Function:
        async def ask(context: Context, path: str = "/", data: Value = None, **options: Value) -> Value:
            """Make a request; return its answer. `data` is sent as JSON, or as it is if it is bytes or text."""
            status, headers, body = await self._ask(app_id, method, path, data=data, **options)
            if status >= 300:
                raise HttpError(f"{app_id} answered {method.upper()} {path} with {status}: {_told(headers, body)}")
            return body

        return ask

    async def _ask(
        self, app_id: str, method: str, path: str, data: Value = None, json: Value = None,
        params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], Value]:  # fmt: skip
        app, method = self._app(app_id), method.upper()
        if method not in _ALL:
            raise ValueError(f"{method!r} is none of {', '.join(sorted(_ALL))}")
        if not path.startswith("/"):
            raise ValueError(f"the path {path!r} must start with /")
        sent = _sent(json if data is None else data, dict(headers or {}))
        began, status = self._clock(), 499
        if app.arrive():
            self._wake(app)
        try:
            status, told, body = await self._try(app, method, path, params, sent)
        except NoPlace as error:
            status = status_of(error)
            raise
        except HttpError as error:
            status = error.status if isinstance(error, NoAnswer) else 502
            raise
        finally:
            app.leave()
            app.stats.requests[status] += 1
            app.stats.rpc_calls += 1
            app.stats.duration.add(self._clock() - began)
        return status, told, body

    async def _try(
        self, app: App, method: str, path: str, params: Mapping[str, str] | None, sent: "_Sent"
    ) -> tuple[int, dict[str, str], Value]:
        """Ask an instance; where that can do no harm, ask another one when the first is not there any more."""
        arrived, avoid, attempt = self._clock(), None, 0
        while True:
            with await claim(app, self._wake, avoid) as lease:
                if not attempt:
                    app.stats.queue_wait.add(self._clock() - arrived)
                avoid, attempt = lease.instance, attempt + 1
                try:
                    answer = await self._send(app, avoid, method, path, params, sent)
                except aiohttp.ClientConnectorError as error:
                    if not avoid.lost and app.pool.connect_failed(avoid):
                        self._wake(app)
                    if attempt > RETRIES:
                        raise NoAnswer(f"{app.app_id} takes no connections: {error}", 502) from None
                except aiohttp.ServerDisconnectedError:
                    if attempt > RETRIES or method not in _SAFE:
                        raise NoAnswer(f"{app.app_id} ended the connection before it answered", 502) from None
                else:
                    return answer

    async def _send(
        self, app: App, instance: Instance, method: str, path: str, params: Mapping[str, str] | None, sent: "_Sent"
    ) -> tuple[int, dict[str, str], Value]:
        host, port = instance.address
        name = f"[{host}]" if ":" in host else host
        try:
            async with self._session.request(
                method, f"http://{name}:{port}{path}", params=params, data=sent.body, headers=sent.headers,
                allow_redirects=False,  # where it leads is for the caller to judge
            ) as answer:  # fmt: skip
                app.pool.connected(instance)
                return answer.status, dict(answer.headers), await _value(answer)
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError):
            raise
        except TimeoutError:
            raise NoAnswer(f"{app.app_id} did not answer {method} {path} in time", 504) from None
        except aiohttp.ClientError as error:
            raise NoAnswer(f"{app.app_id} did not answer {method} {path}: {error}", 502) from None

    def _app(self, app_id: str) -> App:
        app = self._apps.get(app_id)
        if app is None:
            raise KeyError(f"Service not found: no app is called {app_id}")
        return app


async def _value(answer: aiohttp.ClientResponse) -> Value:
    """The body of an answer, as its media type says.

    Raises:
        HttpError: it is too large.
    """
    data = bytearray()
    async for part in answer.content.iter_any():
        data += part
        if len(data) > MOST_ANSWER_BYTES:
            answer.close()
            raise HttpError(f"the answer is larger than {MOST_ANSWER_BYTES} bytes; ask for it over HTTP")
    kind, charset = answer.content_type, answer.charset or "utf-8"
    if kind == "application/json" or kind.endswith("+json"):
        with suppress(ValueError, RecursionError):
            return json.loads(data)
    if kind.startswith("text/") or kind.endswith("json"):
        with suppress(LookupError):  # a charset that nobody knows
            return data.decode(charset, errors="replace")
    return bytes(data)


def _told(headers: Mapping[str, str], body: Value) -> str:
    """What an answer that is no success says of itself."""
    return headers.get("Location") or str(body)[:500]


class _Sent:
    __slots__ = ("body", "headers")

    def __init__(self, body: bytes | None, headers: dict[str, str]) -> None:
        self.body = body
        self.headers = headers


def _sent(data: Value, headers: dict[str, str]) -> _Sent:
    """A body, and the header that says what it is unless the caller did."""
    headers = {name: value for name, value in headers.items() if name.lower() not in _OF_THE_CONNECTION}
    if data is None:
        return _Sent(None, headers)
    kind, body = "application/json", b""
    if isinstance(data, bytes):
        kind, body = "application/octet-stream", data
    elif isinstance(data, str):
        kind, body = "text/plain; charset=utf-8", data.encode()
    else:
        body = json.dumps(data).encode()
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = kind
    return _Sent(body, headers)
