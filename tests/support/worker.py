"""An ordinary hypha_rpc program, as the instances of an rpc app run it, in this process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from hypha_rpc import connect_to_server

from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.world import ENABLED, World, prefixed, serving


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def inc(self) -> int:
        self.count += 1
        return self.count


Works = Callable[[Mapping[str, str]], Coroutine[Any, Any, None]]


async def connect(env: Mapping[str, str]) -> Any:
    """Connect by the environment that dockscale gives."""
    return await connect_to_server(
        {
            "server_url": env["HYPHA_SERVER_URL"],
            "workspace": env["HYPHA_WORKSPACE"],
            "client_id": env["HYPHA_CLIENT_ID"],
            "token": env["HYPHA_TOKEN"],
        }
    )


async def work(env: Mapping[str, str], more: Mapping[str, Any] | None = None) -> None:
    """Connect, register, and serve until cancelled; `more` is in the service besides."""
    api = await connect(env)
    try:
        await api.register_service(web(env["HYPHA_CLIENT_ID"]))
        await api.register_service({"id": "secret", "tell": lambda: "hush"})
        await api.register_service(default(env["HYPHA_CLIENT_ID"]) | dict(more or {}))
        await asyncio.Event().wait()
    finally:
        await api.disconnect()


class Crew:
    """Workers whose function `hold` answers when the test lets it, and that tell what they did, in order."""

    def __init__(self, boot_s: float = 0.0) -> None:
        self.boot_s = boot_s
        """Seconds until one connects."""
        self.gate = asyncio.Event()
        self.told: list[tuple[str, str]] = []
        """(`began` or `ended`: a call of `hold`; `stopped`: the program; the client's id)."""

    def count(self, what: str) -> int:
        return sum(told == what for told, _ in self.told)

    async def __call__(self, env: Mapping[str, str]) -> None:
        me = env["HYPHA_CLIENT_ID"]

        async def hold() -> str:
            self.told.append(("began", me))
            await self.gate.wait()
            self.told.append(("ended", me))
            return me

        async def held_items() -> AsyncIterator[int]:
            yield 1
            await self.gate.wait()
            yield 2

        await asyncio.sleep(self.boot_s)
        try:
            await work(env, {"hold": hold, "held_items": held_items})
        finally:
            self.told.append(("stopped", me))


def rank(me: str) -> int:
    """A number that differs between instances."""
    return int.from_bytes(me.encode()) % 2**53


def default(me: str) -> dict[str, Any]:
    async def slow(value: Any, seconds: float) -> Any:
        await asyncio.sleep(seconds)
        return value

    def count(n: int) -> Iterator[int]:
        yield from range(n)

    async def acount(n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    async def call(function: Callable[[int], Any], n: int) -> list[Any]:
        return [await function(number) for number in range(n)]

    async def call_deep(function: Callable[..., Any]) -> Any:
        """Call what the function returns, which is given one of ours to call."""
        inner = await function()
        return await inner(lambda text: f"{text} by {me}")

    def fail(text: str) -> None:
        raise ValueError(text)

    return {
        "id": "default",
        "config": {"visibility": "public"},
        "who": lambda: me,
        "echo": lambda value: value,
        "slow": slow,
        "count": count,
        "acount": acount,
        "call": call,
        "call_deep": call_deep,
        "rank": lambda: rank(me),
        "fail": fail,
        "size": len,
        "big": lambda n: b"x" * n,
        "counter": lambda: {"inc": Counter().inc},
    }


def web(me: str) -> dict[str, Any]:
    async def serve(args: Any) -> None:
        scope, receive, send = args["scope"], args["receive"], args["send"]
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": [[b"content-type", b"text/plain"]]})
        told = f"{me} {scope['method']} {scope['path']} {len(body)}"
        await send({"type": "http.response.body", "body": told.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"!", "more_body": False})

    return {"id": "web", "type": "asgi", "config": {"visibility": "public"}, "serve": serve}


@asynccontextmanager
async def rpc_world(
    labels: Mapping[str, str] | None = None, *, runs: Works = work, **settings: Any
) -> AsyncIterator[World]:
    """Run dockscale with one rpc app `bot`, whose instances are real clients in this process and do `runs`."""
    engine = MemoryEngine()
    own = {"type": "rpc", "app_id": "bot"}
    engine.add_image("bot", Program(backend, connects=runs), ENABLED | prefixed(own | dict(labels or {})), ports=())
    async with serving(engine, **settings) as it:
        yield it


@asynccontextmanager
async def client(it: World, **config: Any) -> AsyncIterator[Any]:
    """Connect the unmodified client, and disconnect it."""
    api = await connect_to_server({"server_url": it.base.replace("http", "ws", 1), **config})
    try:
        yield api
    finally:
        await api.disconnect()
