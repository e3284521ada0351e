"""A step of load, times five at once: how soon it is decided on, and how soon the instances are there.

Two instances serve N requests per minute, which is nearly as much as they should. Then 5 N are written at once, to
connections that are open. That is a burst, and the app goes up to its maximum of 10. *decision* is the time from the
first of these requests to the decision, all arrivals before the one that crosses the line included. *90 %* is the time
from the same moment until 9 of 10 are ready.

Direct, before each step: the engine alone creates and starts as many more, the same number at a time, and each is asked
until its port accepts, as dockscale asks. What counts is when as many of them are there.

Through dockscale the machine has the 5 N requests to serve meanwhile. The ratio is the median of the rounds' ratios.
"""

import asyncio
import statistics
import time
import uuid
from collections.abc import Sequence

from bench.report import Verdict, table
from bench.stage import (
    APP,
    PLAIN,
    PORT,
    SLEEPS,
    Part,
    Stage,
    at_once,
    connected,
    first_byte,
    head_of,
    host_of,
    in_ms,
    ms,
    p95,
    staged,
)
from dockscale.config import Settings
from dockscale.core.load import BURST_S
from dockscale.core.policy import Decision
from dockscale.probe import until_ready
from tests.support.world import until

FEW, MANY = 2, 10
ENOUGH = 9
TARGET = 30
N = 50
TIMES = 5
DECISION_S = 0.1
RATIO = 1.5
HERE = "127.0.0.1"
LABELS = SLEEPS | {
    "autoscaling.min_instances": str(FEW),
    "autoscaling.max_instances": str(MANY),
    "autoscaling.target_requests_per_instance": str(TARGET),
}
DEFAULT_PARALLEL = int(Settings.model_fields["parallel_starts"].default)


async def step(rounds: int, parallels: Sequence[int] = (DEFAULT_PARALLEL,)) -> Part:
    tables, verdicts = [], []
    for parallel in parallels:
        shown, judged = await _with(rounds, parallel)
        tables.append(shown)
        if parallel == DEFAULT_PARALLEL:
            verdicts += judged
    return Part(tuple(tables), tuple(verdicts))


async def _with(rounds: int, parallel: int) -> tuple[str, list[Verdict]]:
    decisions, waits, alone, lost = [], [], [], 0
    async with staged(LABELS, parallel_starts=parallel) as stage:
        for _ in range(rounds):
            await stage.asleep()
            alone.append(await _alone(stage, parallel))
            await _serving_few(stage)
            decision, wait, missing = await _step(stage)
            decisions.append(decision)
            waits.append(wait)
            lost += missing
    ratios = [wait / floor for wait, floor in zip(waits, alone, strict=True)]
    rows = [
        in_ms("decision", decisions),
        in_ms(f"90 % of {MANY} ready", waits),
        in_ms(f"direct: as many of {MANY - FEW} accept", alone),
        ("ratio", *(f"{f(ratios):.2f}" for f in (statistics.median, p95, min, max))),
    ]
    ratio, latest = statistics.median(ratios), max(decisions)
    return table(head_of(f"Step × {TIMES}, {parallel} starts at a time", rounds), rows), [
        Verdict(f"step × {TIMES}: decision ≤ {ms(DECISION_S)} ms", f"{ms(latest)} ms at most", latest <= DECISION_S),
        Verdict(f"step × {TIMES}: 90 % ready ≤ {RATIO} × the engine's own time", f"{ratio:.2f} ×", ratio <= RATIO),
        Verdict(f"step × {TIMES}: 0 requests lost", str(lost), lost == 0),
    ]


async def _alone(stage: Stage, parallel: int) -> float:
    """Start as many containers as the step will, without dockscale; return seconds until enough of them accept."""
    bound = asyncio.Semaphore(parallel)
    made: list[str] = []
    accepted: list[float] = []

    async def one() -> None:
        async with bound:
            container_id = await stage.engine.clone(PLAIN, f"direct-{uuid.uuid4().hex[:8]}", stage.real.labels, {})
            made.append(container_id)
            await stage.engine.start(container_id)
        await until_ready(host_of(await stage.engine.inspect(container_id)), PORT, None)
        accepted.append(time.monotonic())

    began = time.monotonic()
    await asyncio.gather(*(one() for _ in range(MANY - FEW)))
    await asyncio.gather(*map(stage.engine.remove, made))
    return sorted(accepted)[ENOUGH - FEW - 1] - began


async def _serving_few(stage: Stage) -> None:
    """Let N requests be served within a minute, without a burst."""
    copies = stage.engine.copies
    await first_byte(HERE, stage.it.dockscale.main_port)
    await until(lambda: stage.it.states(APP) == {"ready": FEW}, "it is awake")
    for _ in range(TIMES):
        _, lost = await at_once(await connected(HERE, stage.it.dockscale.main_port, N // TIMES))
        assert not lost
        stage.it.clock.advance(BURST_S + 1)
    await until(lambda: stage.engine.copies > copies, "the next copy is there")
    assert stage.it.states(APP) == {"ready": FEW}, "that was no burst"


async def _step(stage: Stage) -> tuple[float, float, int]:
    """Return seconds to the decision, and until enough are ready, and how many requests were lost."""
    app = stage.it.app(APP)
    clients = await connected(HERE, stage.it.dockscale.main_port, TIMES * N)
    decided: list[Decision] = []

    def watch(decision: Decision, _: bool) -> None:
        if decision.start:
            decided.append(decision)

    app.watchers.add(watch)
    began = stage.it.clock()
    _, lost = await at_once(clients)
    await until(lambda: stage.it.states(APP) == {"ready": MANY}, "all are ready")
    app.watchers.discard(watch)
    ready = sorted(each.ready_at for each in app.pool if each.ready_at is not None)
    return decided[0].at - began, ready[ENOUGH - 1] - began, lost
