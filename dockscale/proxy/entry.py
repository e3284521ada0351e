"""The main port: a request in, its app, a lease, the instance's answer out. Errors become statuses in one table."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network, ip_address
from math import ceil
from types import MappingProxyType
from typing import NoReturn

import aiohttp
import structlog
from aiohttp import web
from multidict import CIMultiDict, MultiMapping

from dockscale.claim import TooLate, Wake, claim
from dockscale.core.app import App, AppGone, Failing, StartFailed
from dockscale.core.pool import Clock, Instance, Lease, LineFull, SeveralInstances
from dockscale.core.routes import Climbs, Here, ToApp, ToList, ToSlash
from dockscale.proxy.tunnel import tunnel
from dockscale.proxy.upstream import (
    IDEMPOTENT,
    BadAnswer,
    NoAnswer,
    NotSent,
    TooSlow,
    Upstream,
)
from dockscale.registry import Registry

log = structlog.get_logger()

RETRIES = 2
# Fields that concern one connection only (RFC 9110 section 7.6.1), besides those that Connection names.
HOP_BY_HOP = frozenset({
    "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
    "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
FORWARDING = frozenset({
    "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-prefix",
    "x-forwarded-port", "x-real-ip",
})  # fmt: skip
_REQUEST_ID = re.compile(r"[\w.:+/=-]{1,128}", re.ASCII)
_HOST = re.compile(r"[\w.:\[\]%-]*", re.ASCII)

STATUS: dict[type[Exception], tuple[HTTPStatus, str]] = {
    AppGone: (HTTPStatus.NOT_FOUND, "app_removed"),
    SeveralInstances: (HTTPStatus.CONFLICT, "several_instances"),
    NotSent: (HTTPStatus.BAD_GATEWAY, "instance_died"),
    NoAnswer: (HTTPStatus.BAD_GATEWAY, "instance_died"),
    BadAnswer: (HTTPStatus.BAD_GATEWAY, "bad_answer"),
    StartFailed: (HTTPStatus.BAD_GATEWAY, "start_failed"),
    LineFull: (HTTPStatus.SERVICE_UNAVAILABLE, "line_full"),
    Failing: (HTTPStatus.SERVICE_UNAVAILABLE, "app_failing"),
    TooLate: (HTTPStatus.GATEWAY_TIMEOUT, "no_instance_ready"),
    TooSlow: (HTTPStatus.GATEWAY_TIMEOUT, "no_answer"),
}
"""What happened → status and the word for it in the body (behaviour.md, the table of errors)."""


class _Cut(Exception):
    """The answer broke off after its head was sent: the client must see a cut connection, never a clean end."""


@dataclass(slots=True)
class _Exchange:
    """One request on its way."""

    request: web.BaseRequest
    app: App
    route: ToApp
    request_id: str
    arrived: float
    body_begun: bool = False


class _Answer(web.StreamResponse):
    """An answer with the instance's own fields, and no others that aiohttp would add."""

    async def _prepare_headers(self) -> None:
        own = [name for name in ("Content-Type", "Server", "Date") if name not in self.headers]
        await super()._prepare_headers()
        for name in own:
            self.headers.pop(name, None)


class Entry:
    """Handles every request on the main port. `wake` asks for a decision about an app at once."""

    def __init__(
        self,
        registry: Registry,
        wake: Wake,
        upstream: Upstream,
        clock: Clock,
        *,
        trusted: list[IPv4Network | IPv6Network],
        response_headers: bool = True,
    ) -> None:
        self._registry = registry
        self._wake = wake
        self._upstream = upstream
        self._clock = clock
        self._trusted = trusted
        self._response_headers = response_headers
        self._goodbyes: set[asyncio.Event] = set()
        self.closing = False

    def close_tunnels(self) -> None:
        """Tell every open WebSocket to reconnect elsewhere."""
        for goodbye in self._goodbyes:
            goodbye.set()

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = _request_id(request)
        try:
            return await self._route(request, request_id)
        except Climbs as error:
            return _failure(request, HTTPStatus.BAD_REQUEST, "bad_path", str(error), request_id)
        except _Cut:
            _cut(request)
        except ConnectionError:
            raise
        except Exception:
            log.exception("request_failed", request_id=request_id)
            if request.writer.output_size:  # the head is on its way: nothing can be said any more
                _cut(request)
            return _failure(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "a bug in dockscale", request_id)

    async def _route(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        target = request.raw_path
        if not target.startswith("/") or "#" in target or not _HOST.fullmatch(host):
            message = "the request target must be a path, and Host a host name"
            return _failure(request, HTTPStatus.BAD_REQUEST, "bad_request", message, request_id)
        match self._registry.routes.match(host, target):
            case ToApp() as route:
                return await self._serve(request, route, request_id)
            case ToSlash(location):
                return web.Response(status=307, headers={"Location": location})
            case ToList(workspace):
                return web.json_response(self._listed(workspace))
            case Here() as here:
                return self._health(here)
            case None:
                message = "no app has this address"
                urls = [each["url"] for each in self._listed(None)]
                return _failure(request, HTTPStatus.NOT_FOUND, "no_such_app", message, request_id, more={"apps": urls})

    def _listed(self, workspace: str | None) -> list[dict[str, str]]:
        specs = [app.spec for app in self._registry.apps.values() if workspace in (None, app.spec.workspace)]
        return [
            {
                "app_id": spec.app_id,
                "name": spec.name or spec.app_id,
                "description": spec.description,
                "url": f"/{spec.workspace}/apps/{spec.app_id}/",
            }
            for spec in sorted(specs, key=lambda spec: spec.app_id)
        ]

    def _health(self, here: Here) -> web.Response:
        if here is Here.READINESS:
            if self.closing:
                return web.json_response({"status": "shutting down"}, status=503)
            if not self._registry.synced.is_set():
                return web.json_response({"status": "the container engine has not answered yet"}, status=503)
        return web.json_response({"status": "ok"})

    async def _serve(self, request: web.BaseRequest, route: ToApp, request_id: str) -> web.StreamResponse:
        """Take a request to its app, count it, and note how it ended."""
        app = self._registry.apps[route.app_id]
        exchange = _Exchange(request, app, route, request_id, self._clock())
        status = 499  # the client went away
        try:
            if app.arrive():
                self._wake(app)
            answer = await self._try(exchange)
            status = answer.status
            return answer
        except tuple(STATUS) as error:
            status, word = STATUS[type(error)]
            wait, about = _retry_after(error), {"app_id": app.app_id}
            return _failure(request, status, word, str(error), request_id, retry_after=wait, more=about)
        except _Cut:
            status = 502
            raise
        except ConnectionError:
            raise
        except Exception:
            status = 500
            raise
        finally:
            app.leave()
            app.stats.requests[int(status)] += 1
            app.stats.duration.add(self._clock() - exchange.arrived)

    async def _try(self, exchange: _Exchange) -> web.StreamResponse:
        """Send the request; once more, elsewhere, where that can do no harm (RFC 9110 section 9.2.2)."""
        avoid: Instance | None = None
        for attempt in range(RETRIES + 1):
            with await claim(exchange.app, self._wake, avoid) as lease:
                try:
                    return await self._exchange(exchange, lease)
                except (NotSent, NoAnswer) as error:
                    again = isinstance(error, NotSent) or exchange.request.method in IDEMPOTENT
                    if attempt == RETRIES or not again or exchange.body_begun:
                        raise
                    avoid = lease.instance
        raise AssertionError("the last attempt returns or raises")

    async def _exchange(self, exchange: _Exchange, lease: Lease) -> web.StreamResponse:
        placed = self._clock()
        exchange.app.stats.queue_wait.add(placed - exchange.arrived)
        request = exchange.request
        upstream = await self._upstream.send(
            lease.instance,
            request.method,
            exchange.route.path,
            self._forwarded(exchange),
            _body(exchange) if request.body_exists else None,
        )
        try:
            answer = _Answer(status=upstream.status, reason=upstream.reason)
            _copy(upstream.headers, answer.headers)
            if self._response_headers:
                answer.headers["X-Dockscale-Instance"] = lease.instance.name
                answer.headers.add("Server-Timing", self._timing(exchange, lease.instance, placed))
            if upstream.status == HTTPStatus.SWITCHING_PROTOCOLS:
                await self._upgrade(exchange, lease, answer, upstream)
            else:
                await _relay(request, answer, upstream)
            return answer
        finally:
            upstream.release()

    async def _upgrade(
        self, exchange: _Exchange, lease: Lease, answer: web.StreamResponse, upstream: aiohttp.ClientResponse
    ) -> None:
        goodbye = asyncio.Event()
        answer.headers["Connection"] = "Upgrade"
        answer.headers["Upgrade"] = upstream.headers.get("Upgrade", "")
        answer.force_close()
        self._goodbyes.add(goodbye)
        lease.instance.goodbyes.add(goodbye.set)
        lease.instance.on_loss.add(goodbye.set)
        try:
            await answer.prepare(exchange.request)
            await tunnel(exchange.request, answer, upstream, goodbye)
        finally:
            lease.instance.goodbyes.discard(goodbye.set)
            lease.instance.on_loss.discard(goodbye.set)
            self._goodbyes.discard(goodbye)

    def _timing(self, exchange: _Exchange, instance: Instance, placed: float) -> str:
        """Split the time until now into waiting in the line, waiting for a start, and the instance's own (ms)."""
        waited = placed - exchange.arrived
        start = min(waited, max(0.0, (instance.ready_at or 0.0) - exchange.arrived))
        upstream = self._clock() - placed
        parts = (("queue", waited - start), ("start", start), ("upstream", upstream))
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in parts)

    def _forwarded(self, exchange: _Exchange) -> CIMultiDict[str]:
        """The fields that the instance gets: the client's, less those of the connection, plus where it came from."""
        request = exchange.request
        peer = request.remote or ""
        trusted = bool(self._trusted) and _is_in(peer, self._trusted)
        headers: CIMultiDict[str] = CIMultiDict()
        _copy(request.headers, headers, without=frozenset() if trusted else FORWARDING)
        if "Upgrade" in request.headers and "upgrade" in _named_by_connection(request.headers):
            headers["Connection"] = "Upgrade"
            headers["Upgrade"] = request.headers["Upgrade"]
        headers.pop("Expect", None)
        earlier = ", ".join(headers.popall("X-Forwarded-For", []))
        headers["X-Forwarded-For"] = f"{earlier}, {peer}" if earlier else peer
        headers.setdefault("X-Forwarded-Proto", request.scheme)
        headers.setdefault("X-Forwarded-Host", request.headers.get("Host", ""))
        if exchange.route.prefix:
            headers["X-Forwarded-Prefix"] = headers.get("X-Forwarded-Prefix", "") + exchange.route.prefix
        headers["X-Request-Id"] = exchange.request_id
        return headers


async def _relay(request: web.BaseRequest, answer: web.StreamResponse, upstream: aiohttp.ClientResponse) -> None:
    """Pass an answer on part by part, as it comes; the client's pace holds the instance back."""
    await answer.prepare(request)
    while True:
        try:
            part = await upstream.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _Cut from error
        if not part:
            break
        await answer.write(part)
    await answer.write_eof()


async def _body(exchange: _Exchange) -> AsyncIterator[bytes]:
    """The body as it comes, asked for (100) only once an instance is there to take it (RFC 9110 section 10.1.1)."""
    exchange.body_begun = True
    request = exchange.request
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    async for part in request.content.iter_any():
        yield part


def _cut(request: web.BaseRequest) -> NoReturn:
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionResetError


def _copy(source: MultiMapping[str], to: CIMultiDict[str], without: frozenset[str] = frozenset()) -> None:
    left_out = HOP_BY_HOP | without | _named_by_connection(source)
    for name, value in source.items():
        if name.lower() not in left_out:
            to.add(name, value)


def _named_by_connection(headers: MultiMapping[str]) -> frozenset[str]:
    values = headers.getall("Connection", ())
    return frozenset(name.strip().lower() for value in values for name in value.split(","))


def _is_in(peer: str, networks: list[IPv4Network | IPv6Network]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _request_id(request: web.BaseRequest) -> str:
    sent = request.headers.get("X-Request-Id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)


def _retry_after(error: Exception) -> int | None:
    """Seconds after which another try may fare better."""
    if isinstance(error, Failing):
        return ceil(error.retry_after)
    return 1 if isinstance(error, LineFull | TooLate) else None


def _failure(
    request: web.BaseRequest,
    status: HTTPStatus,
    word: str,
    message: str,
    request_id: str,
    *,
    retry_after: int | None = None,
    more: Mapping[str, object] = MappingProxyType({}),
) -> web.Response:
    """An error: JSON for programs, a plain page for browsers."""
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    if "text/html" in request.headers.get("Accept", ""):
        page = (
            f"<!doctype html><meta charset=utf-8><title>{status.value} {status.phrase}</title>"
            f"<h1>{status.value} {status.phrase}</h1><p>{escape(message)}</p>"
            f"<p><small>request {escape(request_id)}</small></p>"
        )
        return web.Response(status=status, text=page, content_type="text/html", headers=headers)
    body = {"error": word, "message": message, **more, "request_id": request_id}
    return web.Response(status=status, text=json.dumps(body) + "\n", content_type="application/json", headers=headers)
