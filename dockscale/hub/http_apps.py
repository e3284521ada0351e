"""Apps that speak HTTP, as services: `get`, `post`, `put`, `patch`, `delete` and `request` of a path.

Each call takes a lease like any request. An answer is what its media type says: JSON as values, text as text, anything
else as bytes.
"""

import json
from collections.abc import Mapping
from functools import partial

import aiohttp

from dockscale.claim import Wake, claim
from dockscale.core.app import App
from dockscale.core.pool import Clock, Instance, NoPlace
from dockscale.hub.calls import status_of
from dockscale.hub.local import Context, Functions, LocalPeer
from dockscale.hub.wire import Value

METHODS = ("get", "post", "put", "patch", "delete")
RETRIES = 2
_SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
"""Methods that may be sent twice (RFC 9110 section 9.2.2)."""


class HttpError(Exception):
    """The app answered with a status of 400 or more, or did not answer."""


class HttpApps:
    """Offers every HTTP app as a service of one peer, and calls it."""

    def __init__(
        self, peer: LocalPeer, apps: Mapping[str, App], wake: Wake, clock: Clock, timeout: float, most_bytes: int
    ) -> None:
        self._peer = peer
        self._apps = apps
        self._wake = wake
        self._clock = clock
        self._most_bytes = most_bytes
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_read=timeout or None), auto_decompress=True
        )

    async def close(self) -> None:
        await self._session.close()

    def describe(self, app: App) -> dict[str, Value]:
        """An app as a value, as `get_service` gives it."""
        if not self._peer.offers(app.app_id):
            self._peer.serve(app.app_id, self._functions(app.app_id), type="http")
        shown = {"id": f"{app.app_id}", "name": app.spec.name or app.app_id, "description": app.spec.description}
        return self._peer.describe(app.app_id) | shown

    def _functions(self, app_id: str) -> Functions:
        async def request(context: Context, method: str, path: str = "/", **options: Value) -> dict[str, Value]:
            """Make a request; return `status`, `headers` and `body`, whatever the status is."""
            status, headers, body = await self._ask(app_id, context, method, path, **options)
            return {"status": status, "headers": headers, "body": body}

        async def named(method: str, context: Context, path: str = "/", data: Value = None, **options: Value) -> Value:
            """Make a request; return its answer. `data` is sent as JSON, or as it is if it is bytes or text."""
            status, _, body = await self._ask(app_id, context, method, path, data=data, **options)
            if status >= 400:
                raise HttpError(f"{app_id} answered {method.upper()} {path} with {status}: {str(body)[:500]}")
            return body

        return {"request": request} | {method: partial(named, method) for method in METHODS}

    async def _ask(
        self, app_id: str, context: Context, method: str, path: str, data: Value = None, json: Value = None,
        params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], Value]:  # fmt: skip
        app = self._app(app_id, context)
        if not path.startswith("/"):
            raise ValueError(f"the path {path!r} must start with /")
        sent = _sent(json if data is None else data, dict(headers or {}))
        began, status = self._clock(), 499
        if app.arrive():
            self._wake(app)
        try:
            status, told, body = await self._try(app, method.upper(), path, params, sent)
        except NoPlace as error:
            status = status_of(error)
            raise
        except HttpError:
            status = 502
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
        avoid: Instance | None = None
        for _ in range(RETRIES + 1):
            with await claim(app, self._wake, avoid) as lease:
                host, port = lease.instance.address
                name = f"[{host}]" if ":" in host else host
                try:
                    async with self._session.request(
                        method, f"http://{name}:{port}{path}", params=params, data=sent.body, headers=sent.headers
                    ) as answer:
                        return answer.status, dict(answer.headers), await self._read(answer)
                except aiohttp.ClientConnectorError as error:
                    failure: Exception = error
                except (aiohttp.ClientError, TimeoutError) as error:
                    failure = error
                    if method not in _SAFE:
                        break
                avoid = lease.instance
        raise HttpError(f"{app.app_id} did not answer {method} {path}: {failure or type(failure).__name__}")

    async def _read(self, answer: aiohttp.ClientResponse) -> Value:
        data = await answer.content.read(self._most_bytes + 1)
        while len(data) <= self._most_bytes and (more := await answer.content.read(self._most_bytes + 1 - len(data))):
            data += more
        if len(data) > self._most_bytes:
            raise HttpError(f"the answer is larger than {self._most_bytes} bytes; ask for it over HTTP")
        kind = answer.content_type
        if kind == "application/json" or kind.endswith("+json"):
            try:
                return json.loads(data)
            except ValueError:
                return data.decode(errors="replace")
        return data.decode(answer.charset or "utf-8", errors="replace") if kind.startswith("text/") else data

    def _app(self, app_id: str, context: Context) -> App:
        app = self._apps.get(app_id)
        if app is None:
            raise KeyError(f"Service not found: no app is called {app_id}")
        return app


class _Sent:
    __slots__ = ("body", "headers")

    def __init__(self, body: bytes | None, headers: dict[str, str]) -> None:
        self.body = body
        self.headers = headers


def _sent(data: Value, headers: dict[str, str]) -> _Sent:
    """A body, and the header that says what it is unless the caller did."""
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
