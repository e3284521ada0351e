"""A load of all kinds at once, and a count of what became of it: small, slow, streamed, SSE, WebSocket, and POSTs.

Each kind has some clients, which ask again as soon as they were answered and have taken a breath. A request is lost
unless it is answered with 200 and its whole body, a WebSocket unless each message comes back and it closes as asked.
POSTs have ids that are never used again; instances count them, so that one which was handled twice is found. All goes
to loopback, and there are never more requests than clients.
"""

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from tests.support.world import World

KINDS = ("small", "slow", "streamed", "SSE", "WebSocket", "POST")
CLIENTS = 4
"""For each kind."""
BREATH_S = 0.005
PARTS, PART_MS = 6, 20
SLOW_MS = 120
MESSAGES = 5


class Mixed:
    """The clients. `done` and `lost` are counts by kind; `posted` are the ids of POSTs that were answered."""

    def __init__(self, it: World, app_id: str) -> None:
        self.done: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.posted: list[str] = []
        self._it = it
        self._headers = {"Host": f"{app_id}.localhost"}
        self._ids = (f"{uuid.uuid4().hex[:8]}-{number}" for number in itertools.count())
        self._stopping = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Mixed"]:
        """Ask all the time; on the way out, let what is on its way end."""
        asks = (self._small, self._slow, self._streamed, self._events, self._socket, self._post)
        async with asyncio.TaskGroup() as tasks:
            for kind, ask in zip(KINDS, asks, strict=True):
                for _ in range(CLIENTS):
                    tasks.create_task(self._repeat(kind, ask), name=f"client {kind}")
            try:
                yield self
            finally:
                self._stopping = True

    async def _repeat(self, kind: str, ask: Callable[[], Awaitable[object]]) -> None:
        while not self._stopping:
            try:
                await ask()
                self.done[kind] += 1
            except (aiohttp.ClientError, OSError, ValueError) as error:
                self.lost[f"{kind}: {error!r}"[:120]] += 1
            await asyncio.sleep(BREATH_S)

    async def _ask(self, path: str, method: str = "GET") -> bytes:
        async with self._it.session.request(method, self._it.base + path, headers=self._headers) as answer:
            body = await answer.read()
            if answer.status != 200:
                raise ValueError(f"{answer.status} {body[:80]!r}")
            return body

    async def _small(self) -> None:
        await self._ask("/")

    async def _slow(self) -> None:
        await self._ask(f"/slow?ms={SLOW_MS}")

    async def _streamed(self) -> None:
        body = await self._ask(f"/stream?n={PARTS}&ms={PART_MS}&size=1000")
        _check(len(body) == PARTS * 1000)

    async def _events(self) -> None:
        body = await self._ask(f"/sse?n={PARTS}&ms={PART_MS}")
        _check(body.count(b"data: ") == PARTS)

    async def _socket(self) -> None:
        async with self._it.session.ws_connect(self._it.base + "/ws", headers=self._headers) as socket:
            for number in range(MESSAGES):
                await socket.send_str(f"message {number}")
                _check((await socket.receive()).data == f"message {number}")
                await asyncio.sleep(PART_MS / 1000)

    async def _post(self) -> None:
        number = next(self._ids)
        await self._ask(f"/count?id={number}", "POST")
        self.posted.append(number)


def _check(holds: bool) -> None:
    if not holds:
        raise ValueError("not whole")


def program(counted: Counter[str]) -> Callable[[str], web.Application]:
    """Make what instances on the memory engine run: the routes of the tests' app that are asked for here."""

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        part = b"data: x\n\n" if request.path == "/sse" else b"x" * int(request.query["size"])
        for _ in range(int(request.query["n"])):
            await answer.write(part)
            await asyncio.sleep(int(request.query["ms"]) / 1000)
        return answer

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(int(request.query["ms"]) / 1000)
        return web.Response(text="slow")

    async def count(request: web.Request) -> web.Response:
        counted[request.query["id"]] += 1
        return web.Response(text="counted")

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def small(_: web.Request) -> web.Response:
        return web.Response(text="small")

    def serve(_: str) -> web.Application:
        app = web.Application()
        app.add_routes([web.get("/", small), web.get("/slow", slow), web.post("/count", count), web.get("/ws", echo)])
        app.add_routes([web.get("/stream", stream), web.get("/sse", stream)])
        return app

    return serve
