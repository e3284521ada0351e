"""What dockscale adds to a cold start: from a request at a sleeping app to the first byte of its answer.

Run: `.venv/bin/python -m bench.cold_start [N]` (needs a Docker engine, and scripts/test-images.sh to have been run).

Method. Each of N rounds (after one that is not counted) makes two measurements, one after the other:

1. direct: create and start a container of the trivial app through the same engine client, then connect to its port
   every 0.5 ms until it is accepted. *boot* is the time from "started" to "accepted".
2. through dockscale: the app sleeps, no container of it is there. A client on a connection that is open already sends
   one GET. *total* is the time to the first byte of the answer; *engine* is what `clone` and `start` took within it;
   *boot* is found as in 1, by a thread of its own that starts as soon as the address is known.

*added* = total - engine - boot, all three of the same wake: starts and boots vary by more from one to the next than
dockscale adds, so that the difference of two wakes would tell nothing. It holds noticing, deciding, finding out that
the port accepts, and proxying the request and its answer, the app's own work on it included. Asking the engine for the
address goes on while the app boots and is not in it. The target is 30 ms in the median. The direct series shows that
neither the engine nor the app is slower under dockscale. dockscale runs in this process on uvloop, as it does by
default; the client and the probing thread run here too, which counts against it.
"""

import asyncio
import socket
import statistics
import sys
import time
import uuid
from collections.abc import Mapping, Sequence

import docker
import structlog
import uvloop

from dockscale.core.catalog import Container, Image, Template
from dockscale.engine.docker import DockerEngine
from tests.support.real import PROBE, Real
from tests.support.world import World, prefixed, serving, until

APP = "cold"
PORT = 8000
TARGET_MS = 30.0


class Timed(DockerEngine):
    """The product's engine, which notes how long creating and starting took, and then how long the app took to boot."""

    took = 0.0
    started = 0.0
    boot: "asyncio.Future[float]"

    async def clone(self, template: Template, name: str, labels: Mapping[str, str]) -> str:
        began = time.perf_counter()
        try:
            return await super().clone(template, name, labels)
        finally:
            self.took += time.perf_counter() - began

    async def start(self, container_id: str) -> None:
        began = time.perf_counter()
        await super().start(container_id)
        self.started = time.perf_counter()
        self.took += self.started - began

    async def inspect(self, container_id: str) -> Container:
        container = await super().inspect(container_id)
        [host] = container.addresses.values()
        self.boot = asyncio.get_running_loop().run_in_executor(None, _boot, host, self.started)
        return container


async def direct(engine: Timed, image: Image, labels: Mapping[str, str]) -> tuple[float, float]:
    """Start a container without dockscale; return seconds in the engine, and from then until its port accepts."""
    engine.took = 0.0
    container_id = await engine.clone(image, f"direct-{uuid.uuid4().hex[:8]}", labels)
    await engine.start(container_id)
    await engine.inspect(container_id)
    boot = await engine.boot
    await engine.remove(container_id)
    return engine.took, boot


def _boot(host: str, started: float) -> float:
    while True:
        try:
            socket.create_connection((host, PORT), timeout=0.05).close()
            return time.perf_counter() - started
        except OSError:
            time.sleep(0.0005)


async def through_dockscale(it: World) -> tuple[float, float, float]:
    """Wake the app by one request; return seconds to the first byte, and those of them for the engine and the boot."""
    it.engine.took = 0.0
    began = time.perf_counter()
    async with it.session.get(it.base + "/", headers={"Host": f"{APP}.localhost"}) as answer:
        total = time.perf_counter() - began
        assert answer.status == 200, await answer.text()
        await answer.read()
    took, boot = it.engine.took, await it.engine.boot
    it.clock.advance(3600)
    it.tick(APP)
    await until(lambda: not it.app(APP).pool.instances, "the app sleeps")
    return total, took, boot


async def measure(rounds: int) -> dict[str, list[float]]:
    client = docker.from_env()
    real = Real(client, f"org.dockscale.test=bench-{uuid.uuid4().hex[:6]}")
    engine = Timed()
    seen: dict[str, list[float]] = {
        name: [] for name in ("total", "engine", "boot", "direct engine", "direct boot", "added")
    }
    try:
        real.build(APP, prefixed({"app_id": APP, "startup_config.stop_after_inactive": "60"}))
        plain = Image(PROBE, PROBE, {}, 0.0, (PORT,))  # by its name: one that has only an id looks like a build
        async with serving(Timed(only=real.label), response_timeout=60.0) as it:
            await until(lambda: APP in it.dockscale.registry.apps, "the app is found")
            for number in range(rounds + 1):
                engine_alone, boot_alone = await direct(engine, plain, real.labels)
                async with it.session.get(it.base + "/health/liveness") as answer:  # the connection is open
                    await answer.read()
                total, within, boot = await through_dockscale(it)
                if number:
                    row = (total, within, boot, engine_alone, boot_alone, total - within - boot)
                    for name, value in zip(seen, row, strict=True):
                        seen[name].append(value * 1000)
    finally:
        await engine.close()
        await asyncio.to_thread(real.clean)
    return seen


def report(seen: dict[str, list[float]]) -> str:
    lines = [f"{'ms, ' + str(len(seen['total'])) + ' rounds':<44}{'median':>8}{'p95':>8}{'least':>8}"]
    for name, meaning in (
        ("total", "first byte through dockscale, from asleep"),
        ("engine", "  of it: engine create + start"),
        ("boot", "  of it: boot, started → port accepts"),
        ("direct engine", "engine create + start alone"),
        ("direct boot", "boot alone"),
        ("added", "added by dockscale"),
    ):
        values = seen[name]
        lines.append(f"{meaning:<44}{statistics.median(values):>8.1f}{p95(values):>8.1f}{min(values):>8.1f}")
    added = statistics.median(seen["added"])
    lines.append(f"target: {TARGET_MS:g} ms added in the median: {'met' if added <= TARGET_MS else 'MISSED'}")
    return "\n".join(lines)


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(report(runner.run(measure(rounds))))


if __name__ == "__main__":
    main()
