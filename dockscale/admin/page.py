"""The dashboard: files for browsers, and what these may do with them. Nothing about any app is in them."""

from hashlib import sha256
from importlib.resources import files

from aiohttp import web

BELOW = "/dashboard/"
RULES = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def is_asked_for(request: web.Request) -> bool:
    """Tell whether it is the page or a part of it that is wanted. Programs get JSON under the page's address."""
    wants_page = request.path == "/" and "text/html" in request.headers.get("Accept", "")
    return request.method in ("GET", "HEAD") and (wants_page or request.path.startswith(BELOW))


class Page:
    """The files, read once."""

    def __init__(self) -> None:
        folder = files("dockscale.admin") / "dashboard"
        self._files = {
            file.name: (file.read_bytes(), kind)
            for file in folder.iterdir()
            for ending, kind in _TYPES.items()
            if file.name.endswith(ending)
        }

    async def file(self, request: web.Request) -> web.Response:
        """Answer with the file that the path names."""
        name = request.match_info["name"]
        if name not in self._files:
            raise web.HTTPNotFound
        return self.answer(request, name)

    def answer(self, request: web.Request, name: str = "index.html") -> web.Response:
        """Answer with a file, unless the browser has it already (RFC 9110 section 13.1.2)."""
        body, kind = self._files[name]
        headers = RULES | {"ETag": f'"{sha256(body).hexdigest()[:16]}"'}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers=headers | {"Content-Type": kind})
