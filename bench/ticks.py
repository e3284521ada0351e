"""What it costs to look at a thousand apps, one after the other, as every `DOCKSCALE_INTERVAL`, or to scrape them.

On the memory engine. A tenth of the apps are awake, with one instance each, the others sleep; nothing is to be changed.
A figure is the time for all of them. Nothing else runs in the process. Only a scrape lets others have their turn: one
task that is always ready takes it, and the longest that it had to wait is how long a scrape holds up a request.
"""

import asyncio
import time

from bench.report import Verdict, table
from bench.stage import Part, head_of, in_ms, ms, p95
from dockscale.engine.memory import MemoryEngine, Program
from dockscale.metrics import render
from dockscale.registry import Registry
from dockscale.server import spare_collections
from tests.support.backend import backend
from tests.support.world import ENABLED, prefixed, serving, until

APPS = 1000
AWAKE = 100
TARGET_S = 0.01
SCRAPE_TARGET_S = 0.2
HOLD_UP_TARGET_S = 0.01


async def ticks(rounds: int) -> Part:
    engine = MemoryEngine()
    for number in range(APPS):
        lazy = {} if number < AWAKE else {"lazy": "true"}
        labels = prefixed({"app_id": f"app-{number}", "lazy": "false"} | lazy)
        engine.add_image(f"app-{number}", Program(backend), ENABLED | labels)
    async with serving(engine, create_ahead=True) as it:
        apps = list(it.dockscale.registry.apps.values())
        await until(lambda: sum(it.ready(app.app_id) for app in apps) == AWAKE, "some are awake")
        spare_collections()
        took = []
        for _ in range(rounds):
            began = time.perf_counter()
            it.dockscale.scaler.look(apps, it.session)
            took.append(time.perf_counter() - began)
        scrapes = [await _scrape(it.dockscale.registry) for _ in range(rounds)]
    scraped, held_up = ([each[which] for each in scrapes] for which in (0, 1))
    rows = [in_ms("a look at each", took), in_ms("a scrape", scraped), in_ms("longest hold-up by it", held_up)]
    return Part(
        (table(head_of(f"{APPS} apps, {AWAKE} awake", rounds), rows),),
        (
            _verdict(f"a look at {APPS} apps", took, TARGET_S),
            _verdict(f"a scrape of {APPS} apps", scraped, SCRAPE_TARGET_S),
            _verdict(f"longest that a scrape of {APPS} apps holds up a request", held_up, HOLD_UP_TARGET_S),
        ),
    )


async def _scrape(registry: Registry) -> tuple[float, float]:
    """Seconds that a scrape takes while another task takes all its turns, and the longest that this one waited."""
    longest = 0.0

    async def wait_for_turns() -> None:
        nonlocal longest
        while True:
            waits_from = time.perf_counter()
            await asyncio.sleep(0)
            longest = max(longest, time.perf_counter() - waits_from)

    other = asyncio.create_task(wait_for_turns())
    await asyncio.sleep(0)
    began = time.perf_counter()
    async for _ in render(registry):
        pass
    took = time.perf_counter() - began
    other.cancel()
    return took, longest


def _verdict(what: str, took: list[float], target: float) -> Verdict:
    return Verdict(f"{what}: p95 ≤ {ms(target)} ms", f"{ms(p95(took))} ms", p95(took) <= target)
