"""The admin port: the JSON API and /metrics. Says what is; changes nothing by itself."""

import hmac
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from dockscale.control import Control, UnknownApp


def build(control: Control, metrics: Callable[[], bytes], metrics_type: str, token: str | None) -> web.Application:
    """Make the application of the admin port. With `token`, every request must bear it (RFC 6750 section 2.1)."""

    async def index(_: web.Request) -> web.Response:
        return web.json_response(
            {"dockscale": control.status(), "see": ["/api/apps", "/api/apps/{app_id}", "/metrics"]}
        )

    async def apps(_: web.Request) -> web.Response:
        return web.json_response(control.list())

    async def app(request: web.Request) -> web.Response:
        try:
            return web.json_response(control.explain(request.match_info["app_id"]))
        except UnknownApp as error:
            return web.json_response({"error": "no_such_app", "message": str(error)}, status=404)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": metrics_type})

    admin = web.Application(middlewares=[_asks_for(token)] if token else [])
    admin.router.add_get("/", index)
    admin.router.add_get("/api/apps", apps)
    admin.router.add_get("/api/apps/{app_id}", app)
    admin.router.add_get("/metrics", scrape)
    return admin


def _asks_for(token: str) -> Middleware:
    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(sent, f"Bearer {token}".encode()):
            body = {"error": "unauthorized", "message": "send Authorization: Bearer <DOCKSCALE_ADMIN_TOKEN>"}
            return web.json_response(body, status=401, headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    return check
