"""Never above `max_instances` and, once awake, below `min_instances` only while a start is under way.

A minute on the real engine, with something new every second, in an order by chance: a crowd that asks for more than
the maximum, a container killed from outside, the image rebuilt (a rollout), or a minute without load, set forward on
dockscale's clock, after which the app goes down. Every 50 ms the docker SDK lists what runs, which is what `docker ps`
shows. That dockscale has a start under way, or waits after one that failed because the container was killed while it
started, is what it says itself. A look that shows too few and no start is counted if the one before did, too: the end
of a container takes the engine some 50 ms to tell.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import docker

from bench.report import Verdict, table
from bench.stage import APP, Part, Stage, at_once, connected, staged
from dockscale.core.load import WINDOW_S
from dockscale.core.policy import BURST_REQUESTS
from tests.support.world import prefixed, until

LEAST, MOST = 2, 5
LOOK_S = 0.05
ACT_S = 1.0
CROWD = 8 * BURST_REQUESTS
LABELS = {
    "app_id": APP,
    "autoscaling.min_instances": str(LEAST),
    "autoscaling.max_instances": str(MOST),
    "autoscaling.target_requests_per_instance": "20",
    "autoscaling.scale_up_cooldown": "0",
    "autoscaling.scale_down_cooldown": "0",
}


@dataclass(slots=True)
class Seen:
    running: Counter[int] = field(default_factory=Counter)
    """How often so many ran."""
    below: int = 0
    """Looks that showed too few, and that a start was under way."""
    unexplained: int = 0
    """Looks that showed too few, as the one before, and no start."""
    acts: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    """Requests of the crowds that were not answered with 200: those on a container that was killed."""


async def bounds(seconds: float) -> Part:
    seen = Seen()
    async with staged(LABELS, interval=10.0) as stage:
        await at_once(await connected("127.0.0.1", stage.it.dockscale.main_port))
        await until(lambda: stage.it.ready(APP) == LEAST, "it is awake")
        looking = asyncio.create_task(_look(stage, seen), name="docker ps")
        await _storm(stage, seen, seconds)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    looks, most = seen.running.total(), max(seen.running)
    over = sum(count for number, count in seen.running.items() if number > MOST)
    rows = [(str(number), str(seen.running[number])) for number in sorted(seen.running)]
    acts = [(name, str(count)) for name, count in sorted(seen.acts.items())]
    return Part(
        (
            table((f"Running at once, {looks} looks in {seconds:g} s", "looks"), rows),
            table(("Storm", ""), [*acts, ("answers of crowds that were not 200", str(seen.lost))]),
        ),
        (
            Verdict(f"never above max_instances ({MOST})", f"{most} at most, {over} of {looks} looks above", not over),
            Verdict(
                f"below min_instances ({LEAST}) only while a start is under way",
                f"{seen.below} of {looks} looks below, {seen.unexplained} without a start",
                not seen.unexplained,
            ),
        ),
    )


async def _look(stage: Stage, seen: Seen) -> None:
    api = stage.real.client.api
    labels = [stage.real.label, "dockscale.managed=true"]
    missing = False
    while True:
        due = time.monotonic() + LOOK_S
        shown = await asyncio.to_thread(api.containers, filters={"label": labels})
        running = len(shown)
        seen.running[running] += 1
        few = running < LEAST
        started = _a_start_is_under_way(stage)
        seen.below += few and started
        seen.unexplained += few and not started and missing
        missing = few and not started
        await asyncio.sleep(max(0.0, due - time.monotonic()))


def _a_start_is_under_way(stage: Stage) -> bool:
    app = stage.it.app(APP)
    return any(instance.starting for instance in app.pool) or stage.it.clock() < app.memory.retry_at


async def _storm(stage: Stage, seen: Seen, seconds: float) -> None:
    chance = random.Random(7)
    end = time.monotonic() + seconds
    bag: list[Act] = []
    async with asyncio.TaskGroup() as tasks:
        while time.monotonic() < end:
            if not bag:
                bag = chance.sample(ACTS, len(ACTS))
            act = bag.pop()
            seen.acts[act.__name__.removeprefix("_")] += 1
            tasks.create_task(act(stage, seen), name=act.__name__)
            await asyncio.sleep(ACT_S)


async def _crowd(stage: Stage, seen: Seen) -> None:
    _, lost = await at_once(await connected("127.0.0.1", stage.it.dockscale.main_port, CROWD))
    seen.lost += lost


async def _kill(stage: Stage, _: Seen) -> None:
    running = await asyncio.to_thread(stage.real.running)
    if running:
        await asyncio.to_thread(_kill_one, stage, random.choice(running))


def _kill_one(stage: Stage, name: str) -> None:
    try:
        stage.real.client.api.kill(name)
    except docker.errors.APIError as error:
        if error.status_code not in (404, 409):  # it has ended by itself since
            raise


async def _rebuild(stage: Stage, seen: Seen) -> None:
    version = {"VERSION": str(seen.acts["rebuild"])}
    await asyncio.to_thread(stage.real.build, APP, prefixed(LABELS), environment=version)


async def _calm(stage: Stage, _: Seen) -> None:
    for _again in range(2):  # the burst is over when the load has been below the line for as long
        stage.it.clock.advance(WINDOW_S + 1)
        stage.it.tick(APP)


Act = Callable[[Stage, Seen], Coroutine[Any, Any, None]]
ACTS: tuple[Act, ...] = (_crowd, _crowd, _crowd, _kill, _kill, _kill, _calm, _calm, _rebuild)
"""Each of these comes once before any of them comes again."""
