"""What the measurements of bench.scaling stand on: a real engine that is timed, dockscale over it, and bare clients.

Everything that is made carries a label of its own, is seen by no other dockscale, and is removed in the end.
"""

import asyncio
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import docker

from bench.report import Verdict
from dockscale.core.catalog import Container, Image, Template
from dockscale.engine.docker import DockerEngine
from tests.support.http1 import Broken, Message, read_answer
from tests.support.real import PROBE, Real
from tests.support.world import World, prefixed, serving, until

APP = "bench"
PORT = 8000
PLAIN = Image(PROBE, PROBE, {}, 0.0, (PORT,))
"""The instances' image, for the engine alone. By its name: one that has only an id looks like a step of a build."""
SLEEPS = {"app_id": APP, "startup_config.stop_after_inactive": "60"}
SLEEPS_AFTER_S = 61.0
PAUSE_S = 0.1
"""What lies between two measurements, so that the first has ended."""

LATE_S = 0.5
"""What the engine was asked to make when dockscale ended may come into being within this."""


@dataclass(frozen=True, slots=True)
class Part:
    """What came of one part."""

    tables: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


class Timed(DockerEngine):
    """The product's engine, which notes the latest verbs. Times are those of `time.monotonic`, one clock for all."""

    copies = 0
    starts = 0
    clone_s = 0.0
    start_s = 0.0
    started_at = 0.0
    unpause_s = 0.0
    witness: "Witness | None" = None
    """Who looks when the port of the next that is started accepts."""

    async def clone(self, template: Template, name: str, labels: Mapping[str, str], env: Mapping[str, str]) -> str:
        began = time.monotonic()
        copy = await super().clone(template, name, labels, env)
        self.clone_s = time.monotonic() - began
        self.copies += 1
        return copy

    async def start(self, container_id: str) -> None:
        began = time.monotonic()
        await super().start(container_id)
        self.started_at = time.monotonic()
        self.start_s = self.started_at - began
        self.starts += 1

    async def inspect(self, container_id: str) -> Container:
        container = await super().inspect(container_id)
        if self.witness is not None:
            self.witness.watch(host_of(container))
        return container

    async def unpause(self, container_id: str) -> None:
        began = time.monotonic()
        await super().unpause(container_id)
        self.unpause_s = time.monotonic() - began


def host_of(container: Container) -> str:
    [host] = container.addresses.values()
    return host


class Witness:
    """Another process that finds out when a port accepts: it waits neither for this event loop nor for its lock."""

    _PROGRAM = """
import socket, sys, time
for line in sys.stdin:
    while True:
        try:
            socket.create_connection((line.strip(), int(sys.argv[1])), timeout=0.05).close()
            break
        except OSError:
            time.sleep(0.0005)
    print(time.monotonic(), flush=True)
"""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin, process.stdout

    def watch(self, host: str) -> None:
        self._to.write(f"{host}\n".encode())

    async def accepted(self) -> float:
        """When the port of the host that was told accepted."""
        return float(await self._from.readline())


@asynccontextmanager
async def witness() -> AsyncIterator[Witness]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", Witness._PROGRAM, str(PORT), stdin=pipe, stdout=pipe
    )
    try:
        yield Witness(process)
    finally:
        process.terminate()
        await process.wait()


@dataclass(frozen=True, slots=True)
class Stage:
    it: World
    real: Real
    engine: Timed

    async def asleep(self) -> None:
        """Let the app sleep, and what it leaves behind end."""
        self.it.clock.advance(SLEEPS_AFTER_S)
        self.it.tick(APP)
        await until(lambda: not {"ready", "draining"} & self.it.states(APP).keys(), "the app sleeps")
        await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def engine() -> AsyncIterator[tuple[Real, Timed]]:
    """A real engine alone, and what this run makes on it."""
    real = Real(docker.from_env(), f"org.dockscale.bench={uuid.uuid4().hex[:6]}")
    timed = Timed(only=real.label)
    try:
        yield real, timed
    finally:
        await timed.close()
        await asyncio.sleep(LATE_S)
        await asyncio.to_thread(real.clean)


@asynccontextmanager
async def staged(labels: Mapping[str, str], **settings: Any) -> AsyncIterator[Stage]:
    """Run dockscale over a real engine with a labelled image, as the product does by default."""
    async with engine() as (real, _):
        await asyncio.to_thread(real.build, APP, prefixed(dict(labels)))
        timed = Timed(only=real.label)
        async with serving(timed, **{"create_ahead": True, "response_timeout": 60.0} | settings) as it:
            await until(lambda: APP in it.dockscale.registry.apps, "the app is found")
            yield Stage(it, real, timed)


class Client(asyncio.Protocol):
    """One connection that makes one request."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.first_at = 0.0
        """When the first byte of the answer came."""
        self._got = b""
        self._over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.first_at = self.first_at or time.monotonic()
        self._got += data

    def connection_lost(self, error: Exception | None) -> None:
        self._over.set_result(None)

    def ask(self) -> None:
        self.transport.write(b"GET / HTTP/1.1\r\nHost: %s.localhost\r\nConnection: close\r\n\r\n" % APP.encode())

    async def answer(self) -> Message | None:
        """The answer, if there was one and it was whole."""
        await self._over
        try:
            return read_answer(self._got, ended=True)
        except Broken:
            return None


async def connected(host: str, port: int, count: int = 1) -> list[Client]:
    """Open connections, before the clock runs."""
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Client, host, port))[1] for _ in range(count)]


async def at_once(clients: Sequence[Client]) -> tuple[list[float], int]:
    """Let all ask at once; return seconds until each had its first byte, and how many got no good answer."""
    began = time.monotonic()
    for client in clients:
        client.ask()
    answers = [await client.answer() for client in clients]
    lost = sum(answer is None or answer.status != 200 for answer in answers)
    return [client.first_at - began for client in clients], lost


async def first_byte(host: str, port: int) -> float:
    """Make one request on a connection that is open already; return seconds until the answer's first byte."""
    [seconds], lost = await at_once(await connected(host, port))
    assert not lost, "it was answered"
    return seconds


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def in_ms(name: str, seconds: Sequence[float]) -> tuple[str, ...]:
    """A table's row: median, p95, least and most."""
    return name, ms(statistics.median(seconds)), ms(p95(seconds)), ms(min(seconds)), ms(max(seconds))


def head_of(title: str, rounds: int) -> tuple[str, ...]:
    """The head of a table of such rows."""
    return f"{title}, {rounds} rounds, ms", "median", "p95", "least", "most"
