"""The admin port: the JSON API, its streams, and /metrics. Says what is; changes nothing by itself."""

import asyncio
import hmac
import json
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from dockscale.control import Control, News, UnknownApp, Watch

KEEP_ALIVE_S = 15.0
"""After so many seconds without news a stream says that it is still there."""
_SEE = ("/api/apps", "/api/apps/{app_id}", "/api/events", "/api/apps/{app_id}/events", "/metrics")


def build(control: Control, metrics: Callable[[], bytes], metrics_type: str, token: str | None) -> web.Application:
    """Make the application of the admin port. With `token`, every request must bear it (RFC 6750 section 2.1)."""

    async def index(_: web.Request) -> web.Response:
        return web.json_response({"dockscale": control.status(), "see": _SEE})

    async def apps(_: web.Request) -> web.Response:
        return web.json_response(control.list())

    async def app(request: web.Request) -> web.Response:
        try:
            return web.json_response(control.explain(request.match_info["app_id"]))
        except UnknownApp as error:
            return _not_found(error)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": metrics_type})

    admin = web.Application(middlewares=[_asks_for(token)] if token else [])
    admin.router.add_get("/", index)
    admin.router.add_get("/api/apps", apps)
    admin.router.add_get("/api/apps/{app_id}", app)
    admin.router.add_get("/metrics", scrape)
    streams = _Streams(control)
    for path in ("/api/events", "/api/apps/{app_id}/events"):
        admin.router.add_get(path, streams.serve, allow_head=False)
    admin.on_shutdown.append(streams.end)
    return admin


class _Streams:
    """News as server-sent events (the HTML standard, section 9.2), to any number of readers at their own pace."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._open: dict[Watch, web.Request] = {}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Stream until the client goes, its app is removed, or dockscale ends."""
        try:
            watch = self._control.watch(request.match_info.get("app_id", ""))
        except UnknownApp as error:
            return _not_found(error)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        self._open[watch] = request
        try:
            with watch, suppress(ConnectionError):
                await answer.prepare(request)
                await _stream(watch, request, answer)
        finally:
            del self._open[watch]
        return answer

    async def end(self, _: web.Application) -> None:
        """End all streams; those whose client does not take what was sent are cut."""
        for watch, request in self._open.items():
            watch.end()
            if request.transport is not None and request.transport.get_write_buffer_size():
                request.transport.abort()


async def _stream(watch: Watch, request: web.Request, answer: web.StreamResponse) -> None:
    loop = asyncio.get_running_loop()
    said_at = loop.time()
    while request.transport is not None and not watch.ended:
        text = "".join(map(_event, await watch.news()))
        if not text and loop.time() - said_at >= KEEP_ALIVE_S:
            text = ": keep-alive\n\n"
        if text:
            await answer.write(text.encode())
            said_at = loop.time()


def _event(news: News) -> str:
    name, facts = news
    return f"event: {name}\ndata: {json.dumps(facts)}\n\n"


def _not_found(error: UnknownApp) -> web.Response:
    return web.json_response({"error": "no_such_app", "message": str(error)}, status=404)


def _asks_for(token: str) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(sent, f"Bearer {token}".encode()):
            body = {"error": "unauthorized", "message": "send Authorization: Bearer <DOCKSCALE_ADMIN_TOKEN>"}
            return web.json_response(body, status=401, headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    return check
