"""The whole of dockscale in this process, on real sockets, over the memory engine or a real one."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from dockscale.config import Settings
from dockscale.core.app import App
from dockscale.core.pool import EJECT_AFTER, Instance, State
from dockscale.engine import Engine
from dockscale.engine.memory import MemoryEngine, Program
from dockscale.server import Running, running
from tests.support.backend import backend

ENABLED = {"dockscale.enable": "true"}
BOUND_S = 20.0


class ShiftedClock:
    """The real clock, which can be set forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until `condition()` holds; fail after `BOUND_S`."""
    try:
        async with asyncio.timeout(BOUND_S):
            while not condition():
                await asyncio.sleep(0.003)
    except TimeoutError:
        raise AssertionError(f"still not so after {BOUND_S:g} s: {what or condition}") from None


@dataclass
class World:
    engine: Any
    dockscale: Running
    clock: ShiftedClock
    session: aiohttp.ClientSession
    trust: ssl.SSLContext | None = None
    """What a client of the main port needs, if that speaks TLS."""

    @property
    def base(self) -> str:
        return f"{'https' if self.trust else 'http'}://127.0.0.1:{self.dockscale.main_port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.dockscale.admin_port}"

    def app(self, app_id: str = "web") -> App:
        return self.dockscale.registry.apps[app_id]

    def states(self, app_id: str = "web") -> dict[str, int]:
        """Instances by state, those with none left out."""
        return {str(state): count for state, count in self.app(app_id).pool.counts().items() if count}

    def ready(self, app_id: str = "web") -> int:
        return self.app(app_id).pool.counts()[State.READY]

    def tick(self, app_id: str = "web") -> None:
        self.dockscale.scaler.tick(self.app(app_id))

    async def get(self, path: str = "/", app_id: str = "web", **more: Any) -> tuple[int, Any]:
        """GET from an app by its host; status and body (JSON decoded where it is JSON)."""
        headers = {"Host": f"{app_id}.localhost", **more.pop("headers", {})}
        more.setdefault("ssl", self.trust or True)
        async with self.session.get(self.base + path, headers=headers, **more) as answer:
            is_json = answer.content_type == "application/json"
            return answer.status, await (answer.json() if is_json else answer.text())

    async def settled(self) -> None:
        """Wait until dockscale has listed the engine after all that was done to it so far."""
        await self.dockscale.registry.refresh()

    async def quiet(self) -> None:
        """Wait until no listing is due any more, for who is about to do what a listing would set right."""
        registry, loop = self.dockscale.registry, asyncio.get_running_loop()
        await until(lambda: registry._soon is None or registry._soon.when() < loop.time(), "no listing is due")
        await until(lambda: not (registry._dirty.is_set() or registry._listing.locked()), "none is under way")


@asynccontextmanager
async def serving(engine: Engine, **settings: Any) -> AsyncIterator[World]:
    """Run dockscale over `engine` on free loopback ports. Ticks are left to events and to `World.tick`."""
    clock = ShiftedClock()
    chosen: dict[str, Any] = {
        "host": "127.0.0.1", "port": 0, "admin_port": 0, "interval": 3600.0, "shutdown_timeout": 5.0,
        "rpc_port": 0, "create_ahead": False, "token_secret": "of tests, and long enough to be one", "_env_file": None,
    } | settings  # fmt: skip
    connector = aiohttp.TCPConnector(limit=0)
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=BOUND_S)) as session,
        running(Settings(**chosen), engine, clock) as dockscale,
    ):
        await until(dockscale.registry.synced.is_set, "the engine was listed")
        certificate = chosen.get("tls_certificate")
        trust = ssl.create_default_context(cafile=certificate) if certificate else None
        yield World(engine, dockscale, clock, session, trust)
    assert unhandled == [], "nothing fails where nobody looks"


@asynccontextmanager
async def world(
    labels: dict[str, str] | None = None, *, program: Program | None = None, **settings: Any
) -> AsyncIterator[World]:
    """Run dockscale over a memory engine with one labelled image `web`. Labels are given without `dockscale.`."""
    engine = MemoryEngine()
    engine.add_image("web", program or Program(backend), ENABLED | prefixed(labels or {}))
    async with serving(engine, **settings) as it:
        yield it


def eject(it: World, name: str = "") -> Instance:
    """Let connections to a ready instance fail until it is ejected, as whoever makes them would."""
    app = it.app()
    instance = app.pool.instances[name] if name else app.pool.candidates()[0]
    while not app.pool.connect_failed(instance):
        assert instance.failed_connections < EJECT_AFTER, "it cannot be ejected"
    it.tick()
    return instance


def prefixed(labels: dict[str, str]) -> dict[str, str]:
    return {f"dockscale.{name}": value for name, value in labels.items()}


async def appears(it: World, app_id: str) -> None:
    await until(lambda: app_id in it.dockscale.registry.apps, f"{app_id} is found")


async def keep_asking(it: World, app_id: str, stop: asyncio.Event, path: str = "/") -> list[int]:
    """Ask one request after the other until `stop`; the statuses of all."""
    statuses = []
    while not stop.is_set():
        statuses.append((await it.get(path, app_id))[0])
        await asyncio.sleep(0.005)
    return statuses


@asynccontextmanager
async def asked_all_the_time(it: World, app_id: str, ready: int = 1) -> AsyncIterator[None]:
    """Have an app serve that must not notice what happens meanwhile: not one of its requests is lost."""
    await appears(it, app_id)
    await until(lambda: it.ready(app_id) == ready)
    stop = asyncio.Event()
    asking = asyncio.create_task(keep_asking(it, app_id, stop))
    try:
        yield
    finally:
        stop.set()
        statuses = await asking
    assert set(statuses) == {200}, f"{app_id} noticed"
