"""A storm of scale-downs under a load of all kinds (bench/mixed.py): is a request lost, is a POST handled twice?

The app is scaled by a gauge, which is set here: it asks for the maximum until all are ready, and then for nothing. So
the app goes down by its own decisions, by half at a time, the least loaded first, without a cooldown. The next
instances are started while those before still drain. This goes on until so many instances have been stopped.

On the memory engine: instances are servers in this process, on real sockets. On the real engine: containers of the
tests' app, whose POSTs are noted in files (bench/counting), and fewer of them.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import docker

from bench.mixed import KINDS, Mixed, program
from bench.report import Verdict, table
from bench.stage import APP, Part, engine
from dockscale.core.load import WINDOW_S
from dockscale.engine.memory import MemoryEngine, Program
from tests.support.world import ENABLED, World, prefixed, serving, until

MOST_IN_MEMORY, MOST_REAL = 12, 5
LABELS = {
    "app_id": APP,
    "port": "8000",
    "autoscaling.min_instances": "1",
    "autoscaling.target_requests_per_instance": "1000000",
    "autoscaling.metric_name": "wanted",
    "autoscaling.metric_target": "1",
    "autoscaling.scale_up_cooldown": "0",
    "autoscaling.scale_down_cooldown": "0",
}


async def storm(downs: int, real_downs: int) -> Part:
    rows, verdicts = [], []
    counted: Counter[str] = Counter()
    async with _memory(counted) as it:
        mixed = await _storm(it, downs, MOST_IN_MEMORY)
        rows.append(_row("memory engine", it, mixed))
    verdicts += _judge("memory engine", downs, mixed, counted)
    with tempfile.TemporaryDirectory(prefix="dockscale-bench-") as folder:
        async with _real(Path(folder)) as it:
            mixed = await _storm(it, real_downs, MOST_REAL)
            rows.append(_row("real engine", it, mixed))
        counted = await asyncio.to_thread(_noted, Path(folder))
    verdicts += _judge("real engine", real_downs, mixed, counted)
    return Part((table(("Storm of scale-downs", "stopped", "started", *KINDS), rows),), tuple(verdicts))


@asynccontextmanager
async def _memory(counted: Counter[str]) -> AsyncIterator[World]:
    engine = MemoryEngine()
    most = {"autoscaling.max_instances": str(MOST_IN_MEMORY)}
    engine.add_image(APP, Program(program(counted)), ENABLED | prefixed(LABELS | most))
    async with serving(engine, create_ahead=True) as it:
        yield it


@asynccontextmanager
async def _real(folder: Path) -> AsyncIterator[World]:
    async with engine() as (real, timed):
        real.create(
            APP,
            prefixed(LABELS | {"autoscaling.max_instances": str(MOST_REAL)}),
            entrypoint=["python3", "-I", "-S", "/bench/app.py"],
            mounts=[
                docker.types.Mount("/bench", str(Path(__file__).parent / "counting"), type="bind", read_only=True),
                docker.types.Mount("/counted", str(folder), type="bind"),
            ],
        )
        async with serving(timed, create_ahead=True) as it:
            await until(lambda: APP in it.dockscale.registry.apps, "the app is found")
            yield it


async def _storm(it: World, downs: int, most: int) -> Mixed:
    """Stop so many instances."""
    app = it.app(APP)
    it.clock.advance(WINDOW_S)  # what was watched for less than that does not go down
    async with Mixed(it, APP).running() as mixed:
        while app.stats.scale_events["down"] < downs:
            app.gauge = float(most)
            it.tick(APP)
            await until(lambda: it.ready(APP) == most, "all are ready")
            app.gauge = 0.0
            while it.ready(APP) > 1:
                it.tick(APP)
    return mixed


def _noted(folder: Path) -> Counter[str]:
    return Counter(number for each in folder.iterdir() for number in each.read_text().split())


def _row(name: str, it: World, mixed: Mixed) -> tuple[str, ...]:
    events = it.app(APP).stats.scale_events
    return name, *(f"{events[way]}" for way in ("down", "up")), *(str(mixed.done[kind]) for kind in KINDS)


def _judge(name: str, downs: int, mixed: Mixed, counted: Counter[str]) -> list[Verdict]:
    lost, twice = sum(mixed.lost.values()), sum(count > 1 for count in counted.values())
    unhandled = sum(number not in counted for number in mixed.posted)
    why = f" ({'; '.join(mixed.lost)})" if lost else ""
    return [
        Verdict(
            f"{downs} scale-downs, {name}: 0 requests lost", f"{lost} of {mixed.done.total() + lost}{why}", not lost
        ),
        Verdict(
            f"{downs} scale-downs, {name}: 0 POSTs handled twice",
            f"{twice} of {len(mixed.posted)}" + (f", {unhandled} not at all" if unhandled else ""),
            not twice and not unhandled,
        ),
    ]
