"""The admin port: the dashboard, the JSON API, its streams, and /metrics. What is done is done by `Control`."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Self

from aiohttp import web
from aiohttp.typedefs import Handler

from dockscale.admin.guards import guards
from dockscale.admin.openapi import INSTANCE, INSTANCES, KIND, LEAVER, LIMIT, OFFSET, OVERWRITE, TAIL, TIMEOUT, document
from dockscale.admin.page import BELOW, Page, is_asked_for
from dockscale.admin.problems import STATUS, details, in_words
from dockscale.control import Control, UnknownApp
from dockscale.follow import MOST_LINES, Follow
from dockscale.watch import LOOK_S, News, Watch

KEEP_ALIVE_S = 15.0
"""After so many seconds without news a stream says that it is still there."""
MOST_MANIFEST_BYTES = 2**25
"""Bytes of a manifest with a program's source and files in it."""
_SEE = ("/api/openapi.json", "/api/apps", "/api/events", "/api/report", "/metrics")


def build(
    control: Control, metrics: Callable[[], AsyncIterator[bytes]], metrics_type: str, host: str, token: str | None
) -> web.Application:
    """Make the application of the admin port, which listens on `host`. With `token`, requests must bear it."""
    page = Page()

    async def index(request: web.Request) -> web.Response:
        if is_asked_for(request):
            answer = page.answer(request)
        else:
            answer = web.json_response({"dockscale": control.status(), "see": _SEE})
        answer.headers["Vary"] = "Accept"
        return answer

    async def apps(_: web.Request) -> web.Response:
        await control.caught_up()
        return web.json_response(control.list())

    async def app(request: web.Request) -> web.Response:
        return web.json_response(control.explain(request.match_info["app_id"]))

    async def history(request: web.Request) -> web.Response:
        return web.json_response(control.history(request.match_info["app_id"]))

    async def report(_: web.Request) -> web.Response:
        return web.json_response(control.report())

    async def openapi(_: web.Request) -> web.Response:
        return web.json_response(document(asks_for_token=token is not None))

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": metrics_type})

    @web.middleware
    async def caught_up(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Look once more for an app that somebody may have made a moment ago."""
        try:
            return await handler(request)
        except UnknownApp:
            await control.caught_up()
            return await handler(request)

    around = [*guards(host, token), in_words, caught_up]
    admin = web.Application(middlewares=around, client_max_size=MOST_MANIFEST_BYTES)
    admin.router.add_get("/", index)
    admin.router.add_get(BELOW + "{name}", page.file)
    admin.router.add_get("/api/apps", apps)
    admin.router.add_get("/api/apps/{app_id}", app)
    admin.router.add_get("/api/apps/{app_id}/history", history)
    admin.router.add_get("/api/report", report)
    admin.router.add_get("/api/openapi.json", openapi)
    admin.router.add_get("/metrics", scrape)
    streams = _Streams(control)
    verbs = _Verbs(control, streams)
    admin.router.add_post("/api/apps", verbs.install)
    admin.router.add_delete("/api/apps/{app_id}", verbs.uninstall)
    admin.router.add_post("/api/apps/{app_id}/start", verbs.start)
    admin.router.add_post("/api/apps/{app_id}/stop", verbs.stop)
    admin.router.add_post("/api/apps/{app_id}/wake", verbs.start)
    admin.router.add_post("/api/apps/{app_id}/sleep", verbs.sleep)
    admin.router.add_post("/api/apps/{app_id}/drain", verbs.drain)
    admin.router.add_post("/api/apps/{app_id}/scale", verbs.scale)
    admin.router.add_post("/api/apps/{app_id}/restart", verbs.restart)
    admin.router.add_get("/api/apps/{app_id}/logs", verbs.logs)
    for path in ("/api/events", "/api/apps/{app_id}/events"):
        admin.router.add_get(path, streams.serve, allow_head=False)
    admin.on_shutdown.append(streams.end)
    return admin


class _Verbs:
    """What changes apps, and their logs."""

    def __init__(self, control: Control, streams: "_Streams") -> None:
        self._control = control
        self._streams = streams

    async def install(self, request: web.Request) -> web.StreamResponse:
        """Install an app by the manifest that is the body; `?overwrite=true` replaces one.

        Who asks for a stream hears each step of it (`step`), and then `installed` with the manifest, or `failed`.
        """
        manifest, overwrite = _manifest(await request.read()), OVERWRITE.of(request)
        if not _wants_stream(request):
            return web.json_response(await self._control.install(manifest, overwrite=overwrite), status=201)
        installing = _Installing(partial(self._control.install, manifest, overwrite=overwrite))
        answer = await self._streams.tell(installing, request)
        await installing.done()
        return answer

    async def uninstall(self, request: web.Request) -> web.Response:
        """Answer when nothing is left of it."""
        await self._control.uninstall(request.match_info["app_id"])
        return web.Response(status=204)

    async def start(self, request: web.Request) -> web.Response:
        """Answer when an instance is ready, within `?timeout=` seconds."""
        return web.json_response(await self._control.start(request.match_info["app_id"], TIMEOUT.of(request)))

    async def stop(self, request: web.Request) -> web.Response:
        """Answer at once; `?instance=` names one, else it is all."""
        app_id = request.match_info["app_id"]
        self._control.stop(app_id, INSTANCE.of(request))
        return web.json_response(self._control.instances(app_id))

    async def sleep(self, request: web.Request) -> web.Response:
        """Answer at once, as `stop` of all does."""
        app_id = request.match_info["app_id"]
        self._control.stop(app_id)
        return web.json_response(self._control.instances(app_id))

    async def drain(self, request: web.Request) -> web.Response:
        """Answer at once; `?instance=` names it."""
        return web.json_response(self._control.drain(request.match_info["app_id"], LEAVER.of(request)))

    async def scale(self, request: web.Request) -> web.Response:
        """Answer at once; `?instances=` says how many."""
        return web.json_response(self._control.scale(request.match_info["app_id"], INSTANCES.of(request)))

    async def restart(self, request: web.Request) -> web.Response:
        """Answer at once; the events of the app tell how it goes."""
        return web.json_response(self._control.restart(request.match_info["app_id"]))

    async def logs(self, request: web.Request) -> web.StreamResponse:
        """Answer with those of `?instance=`, or all; `type`, `tail`, `offset` and `limit` choose among them.

        Who asks for a stream gets the last `tail` lines of each instance and goes on with what they write.
        """
        app_id, name, kind = request.match_info["app_id"], INSTANCE.of(request), KIND.of(request)
        if _wants_stream(request):
            lines = self._control.follow(app_id, name, kind=kind, tail=TAIL.of(request) or 0)
            return await self._streams.tell(lines, request)
        tail = TAIL.of(request)
        told = await self._control.logs(
            app_id,
            name,
            kind=kind,
            tail=MOST_LINES if tail is None else tail,
            offset=OFFSET.of(request),
            limit=LIMIT.of(request),
        )
        return web.json_response(told)


def _manifest(body: bytes) -> dict[str, Any]:
    try:
        manifest: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is no JSON: {error}") from None
    if not isinstance(manifest, dict):
        raise ValueError("the body must be a manifest: a JSON object with at least name and source or image")
    return manifest


class _Installing:
    """The steps of an install as one reader hears them. One that was begun goes on without a reader."""

    def __init__(self, install: Callable[..., Awaitable[dict[str, Any]]]) -> None:
        self.ended = False
        self._install = install
        self._steps: list[News] = []
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="install")
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def news(self) -> list[News]:
        """Wait for steps, `LOOK_S` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._stirred.wait()
        self._stirred.clear()
        told, self._steps = self._steps, []
        self.ended = self.ended or any(name != "step" for name, _ in told)
        return told

    def end(self) -> None:
        """Let the reader go."""
        self.ended = True
        self._stirred.set()

    async def done(self) -> None:
        """Wait until it is done, one way or the other."""
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            self._add("installed", await self._install(tell=self._tell))
        except tuple(STATUS) as error:
            self._add("failed", details(error))

    def _tell(self, kind: str, text: str) -> None:
        self._add("step", {"type": kind, "text": text})

    def _add(self, name: str, facts: dict[str, Any]) -> None:
        self._steps.append((name, facts))
        self._stirred.set()


_Source = Watch | Follow | _Installing
"""What a stream tells of."""


def _wants_stream(request: web.Request) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")


class _Streams:
    """News as server-sent events (the HTML standard, section 9.2), to any number of readers at their own pace."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._open: dict[_Source, web.Request] = {}

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Stream until the client goes, its app is removed, or dockscale ends."""
        return await self.tell(self._control.watch(request.match_info.get("app_id", "")), request)

    async def tell(self, watch: _Source, request: web.Request) -> web.StreamResponse:
        """Stream until the client goes, there is no more to tell, or dockscale ends."""
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


async def _stream(watch: _Source, request: web.Request, answer: web.StreamResponse) -> None:
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
