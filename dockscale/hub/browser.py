"""The JavaScript client for pages and workers, as its makers build it; `assets/LICENSE.md` says whose it is."""

from functools import cache
from importlib.resources import files

from dockscale.hub.web import Request


def serve(request: Request) -> None:
    """Answer with the module that `import(…)` takes."""
    if request.method in ("GET", "HEAD"):
        request.reply(200, _module(), "text/javascript; charset=utf-8", (b"Cache-Control", b"public, max-age=3600"))
    else:
        request.fail(405, "method_not_allowed", f"{request.method} is neither GET nor HEAD")


@cache
def _module() -> bytes:
    return (files("dockscale.hub") / "assets" / "hypha-rpc-websocket.mjs").read_bytes()
