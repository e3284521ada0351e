"""The page for browsers whose app is not ready: it says how far the app is, and goes on to it by itself."""

import asyncio
from html import escape
from importlib.resources import files

from dockscale.claim import Wake, claim
from dockscale.core.app import App
from dockscale.core.pool import Instance, NoPlace, State
from dockscale.proxy.listener import Client
from dockscale.proxy.replies import reply, reply_json
from dockscale.proxy.wire import RequestHead

ASKS = b"x-dockscale-waiting"
"""The page sends this field. So nothing that it asks reaches the app."""
_RETRY_AFTER_S = 2
_NEVER_KEPT = (b"Cache-Control: no-store", b"X-Robots-Tag: noindex", b"Vary: Accept")


def plain_page() -> str:
    """The page that is shown where there is none of the operator's own."""
    return (files("dockscale.proxy") / "waiting.html").read_text(encoding="utf-8")


class WaitingRoom:
    """Serves the page. In `page`, `{{name}}` and `{{app_id}}` stand for the app's."""

    def __init__(self, page: str, wake: Wake) -> None:
        self._page = page
        self._wake = wake
        self._stand_ins: dict[str, asyncio.Task[None]] = {}

    def takes(self, client: Client, request: RequestHead, app: App) -> bool:
        """Answer a browser that would have to wait for its app, and tell whether that was done."""
        if request.first(ASKS):
            reply_json(client, request, 200, _progress(app), *_NEVER_KEPT)
        elif not _is_for_people(request) or app.pool.counts()[State.READY] or not self._is_coming(app):
            return False
        else:
            self._show(client, request, app)
        client.next()
        return True

    def _is_coming(self, app: App) -> bool:
        """Let somebody stand in line in the page's stead, unless that is known to be in vain."""
        try:
            app.check()
        except NoPlace:
            return False
        if app.app_id not in self._stand_ins:
            task = asyncio.get_running_loop().create_task(self._stand(app), name=f"waiting for {app.app_id}")
            self._stand_ins[app.app_id] = task
        return True

    async def _stand(self, app: App) -> None:
        try:
            (await claim(app, self._wake)).release()
        except NoPlace:
            pass  # the page asks what has become of it
        finally:
            del self._stand_ins[app.app_id]

    def _show(self, client: Client, request: RequestHead, app: App) -> None:
        shown = {"{{name}}": app.spec.name or app.app_id, "{{app_id}}": app.app_id}
        page = self._page
        for mark, value in shown.items():
            page = page.replace(mark, escape(value))
        lines = (b"Content-Type: text/html; charset=utf-8", b"Retry-After: %d" % _RETRY_AFTER_S, *_NEVER_KEPT)
        reply(client, request, 503, page.encode(), *lines)
        app.arrive()
        app.leave()
        app.stats.requests[503] += 1

    def close(self) -> None:
        """Let nobody stand in line any more."""
        for task in self._stand_ins.values():
            task.cancel()


def _is_for_people(request: RequestHead) -> bool:
    return request.method == b"GET" and not request.upgrade and b"text/html" in request.first(b"accept")


def _progress(app: App) -> dict[str, object]:
    """How far an app is: `step` is empty, `creating`, `starting`, `answering` or `ready`."""
    if app.pool.counts()[State.READY]:
        return {"step": "ready"}
    steps = [_step(instance) for instance in app.pool.candidates() if instance.state is State.STARTING]
    return {"step": max(steps)[1] if steps else "", "failure": app.failure}


def _step(instance: Instance) -> tuple[int, str]:
    if not instance.container_id:
        return 0, "creating"
    return (1, "starting") if instance.acknowledged_at is None else (2, "answering")
