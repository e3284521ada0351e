"""Waking: from asleep, from standby, and by a crowd.

From asleep. A round makes two measurements, one after the other:

1. direct: create and start a container of the trivial app through the same engine client. *boot* is the time from
   "started" to "the port accepts", found by another process that tries every 0.5 ms. Then one GET, straight to it.
2. through dockscale: the app sleeps. It has been awake, so a copy was created ahead, as by default. A client on a
   connection that is open already sends one GET. *engine* is what the start took, and *boot* is found as in 1.

*added* = first byte - engine - boot, all three of the same wake: starts and boots vary by more from one to the next
than dockscale adds. It holds noticing, deciding, finding out that the port accepts, proxying, and the app's own first
answer, which the direct series shows as well. Asking the engine for the address goes on while the app boots.

From standby. The app sleeps, one instance is paused. The time counts from the request to its first byte; *unpause* is
what the engine took of it. Direct: unpause a container, and then ask it.

Crowd. The app sleeps, with default labels; all requests are written at once to connections that are open. Starts are
counted until well after the second in which stragglers of a crowd count.

dockscale and the clients run in this process, which counts against it.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.report import Verdict, table
from bench.stage import (
    APP,
    PAUSE_S,
    PLAIN,
    PORT,
    SLEEPS,
    Part,
    Stage,
    Timed,
    at_once,
    connected,
    first_byte,
    head_of,
    host_of,
    in_ms,
    ms,
    p95,
    staged,
    witness,
)
from dockscale.core.app import STRAGGLERS_S
from dockscale.core.catalog import Container
from tests.support.world import until

ADDED_S = 0.015
STANDBY_S = 0.025
CROWD = 500
HERE = "127.0.0.1"

Rows = dict[str, list[float]]


async def from_asleep(rounds: int) -> Part:
    seen: Rows = {}
    async with staged(SLEEPS) as stage, witness() as engine_witness:
        stage.engine.witness = engine_witness
        await _wake(stage)  # so that a copy is made ahead, and what is loaded at first use is
        for _ in range(rounds):
            for name, value in (await _alone(stage) | await _wake(stage)).items():
                seen.setdefault(name, []).append(value)
    added = p95(seen["**added by dockscale**"])
    verdict = Verdict(f"wake from asleep: p95 added ≤ {ms(ADDED_S)} ms", f"{ms(added)} ms", added <= ADDED_S)
    return Part((_rows("Wake from asleep", seen),), (verdict,))


async def _wake(stage: Stage) -> dict[str, float]:
    await stage.asleep()
    copies = stage.engine.copies
    total = await first_byte(HERE, stage.it.dockscale.main_port)
    assert stage.engine.witness is not None
    boot = await stage.engine.witness.accepted() - stage.engine.started_at
    took = stage.engine.start_s
    await until(lambda: stage.engine.copies > copies, "the next copy is there")
    return {
        "first byte through dockscale": total,
        "of it: engine, start": took,
        "of it: boot, started → port accepts": boot,
        "**added by dockscale**": total - took - boot,
    }


async def _alone(stage: Stage) -> dict[str, float]:
    engine = stage.engine
    async with _container(stage) as container:
        took = engine.start_s
        assert engine.witness is not None
        boot = await engine.witness.accepted() - engine.started_at
        return {
            "direct: engine, start": took,
            "direct: boot": boot,
            "direct: first answer": await first_byte(host_of(container), PORT),
        }


@asynccontextmanager
async def _container(stage: Stage) -> AsyncIterator[Container]:
    """Run one container without dockscale."""
    engine: Timed = stage.engine
    container_id = await engine.clone(PLAIN, f"direct-{uuid.uuid4().hex[:8]}", stage.real.labels, {})
    try:
        await engine.start(container_id)
        yield await engine.inspect(container_id)
    finally:
        await engine.remove(container_id)


async def from_standby(rounds: int) -> Part:
    seen: Rows = {"first byte through dockscale": [], "of it: engine, unpause": []}
    alone: Rows = {"direct: engine, unpause": [], "direct: unpause and first byte": []}
    async with staged(SLEEPS | {"autoscaling.standby_instances": "1"}) as stage:
        await first_byte(HERE, stage.it.dockscale.main_port)
        for _ in range(rounds):
            await until(lambda: stage.it.states(APP) == {"ready": 1, "standby": 1}, "a spare is there")
            await stage.asleep()
            total = await first_byte(HERE, stage.it.dockscale.main_port)
            for values, value in zip(seen.values(), (total, stage.engine.unpause_s), strict=True):
                values.append(value)
        await until(lambda: stage.it.states(APP) == {"ready": 1, "standby": 1}, "nothing is being started")
        async with _container(stage) as container:
            await until_answered(host_of(container))
            for _ in range(rounds):
                await stage.engine.pause(container.id)
                [client] = await connected(host_of(container), PORT)
                await stage.engine.unpause(container.id)
                [after], _ = await at_once([client])
                for values, value in zip(
                    alone.values(), (stage.engine.unpause_s, stage.engine.unpause_s + after), strict=True
                ):
                    values.append(value)
    total = p95(seen["first byte through dockscale"])
    verdict = Verdict(f"wake from standby: p95 ≤ {ms(STANDBY_S)} ms", f"{ms(total)} ms", total <= STANDBY_S)
    return Part((_rows("Wake from standby", seen | alone),), (verdict,))


async def until_answered(host: str) -> None:
    """Wait until a container that was just started answers."""
    while True:
        try:
            await first_byte(host, PORT)
            return
        except OSError:
            await asyncio.sleep(PAUSE_S)


async def crowd(rounds: int) -> Part:
    starts, lost, waits = [], 0, []
    async with staged(SLEEPS) as stage:
        for _ in range(rounds):
            await stage.asleep()
            before = stage.engine.starts
            clients = await connected(HERE, stage.it.dockscale.main_port, CROWD)
            seconds, missing = await at_once(clients)
            await asyncio.sleep(2 * STRAGGLERS_S)
            starts.append(stage.engine.starts - before)
            waits.append(max(seconds))
            lost += missing
    verdicts = (
        Verdict(f"{CROWD} requests at a sleeping app: 1 start", ", ".join(map(str, starts)), set(starts) == {1}),
        Verdict(f"{CROWD} requests at a sleeping app: 0 lost", str(lost), lost == 0),
    )
    return Part((_rows(f"Crowd of {CROWD}", {"first byte of the last one": waits}),), verdicts)


def _rows(title: str, seen: Rows) -> str:
    [*values] = seen.values()
    return table(head_of(title, len(values[0])), [in_ms(name, seconds) for name, seconds in seen.items()])
