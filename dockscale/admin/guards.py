"""Who may ask the admin port, and from where."""

import hmac
import ipaddress
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from dockscale.admin import page
from dockscale.admin.problems import FORBIDDEN, MISDIRECTED, UNAUTHORIZED, refuse


def is_loopback(host: str) -> bool:
    """Tell whether an address or a name always means this machine (RFC 6761 section 6.3)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def guards(host: str, token: str | None) -> list[Middleware]:
    """Middlewares for a port that listens on `host`. With `token`, all requests for facts must bear it."""
    return [_asks_for(token) if token else _under_own_name(host), _from_here]


@web.middleware
async def _from_here(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let no other site's page change anything: a browser would send what it asks to loopback, too."""
    origin = request.headers.get("Origin")
    if request.method not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != request.host:
        return refuse(FORBIDDEN, f"{origin} may change nothing here")
    return await handler(request)


def _under_own_name(host: str) -> Middleware:
    """Answer only under names of this machine, since a site may let its own name mean loopback (DNS rebinding)."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("Host", host)  # browsers always send one
        try:
            name = urlsplit(f"//{sent}").hostname or ""
        except ValueError:
            name = ""
        if name != host and not is_loopback(name):
            return refuse(
                MISDIRECTED, f"{sent} is no name of this machine: ask for localhost, or set DOCKSCALE_ADMIN_TOKEN"
            )
        return await handler(request)

    return check


def _asks_for(token: str) -> Middleware:
    """Ask for the token (RFC 6750 section 2.1), but for the page: that is public, and asks people for it."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("Authorization", "").encode()
        if not page.is_asked_for(request) and not hmac.compare_digest(sent, f"Bearer {token}".encode()):
            told = "send Authorization: Bearer <DOCKSCALE_ADMIN_TOKEN>"
            return refuse(UNAUTHORIZED, told, {"WWW-Authenticate": "Bearer"})
        return await handler(request)

    return check
