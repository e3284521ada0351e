"""What else than requests an app is scaled by: concurrency, the line's time, a gauge of its own, the time of day."""

import asyncio
from datetime import datetime

import pytest
from aiohttp import web

from dockscale.core.policy import Held, Reason
from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.world import ENABLED, World, prefixed, serving, until, world

GAUGED = prefixed({"autoscaling.metric_name": "queue_depth", "autoscaling.metric_target": "10", "lazy": "false"})


async def last_reasons(it: World) -> list[Reason]:
    return [decision.reason for decision in it.app().journal if decision.start]


async def test_more_at_once_than_twice_the_target_brings_more_instances_within_the_second() -> None:
    async with world({"autoscaling.target_concurrency": "2", "lazy": "false"}) as it:
        await until(lambda: it.ready() == 1)

        crowd = [asyncio.create_task(it.get("/slow?s=2")) for _ in range(6)]

        await until(lambda: len(it.app().pool.instances) > 1)
        assert it.app().pool.in_flight == 6
        assert (await last_reasons(it))[:2] == [Reason.MINIMUM, Reason.BURST]
        assert [status for status, _ in await asyncio.gather(*crowd)] == [200] * 6


async def test_as_many_at_once_as_the_target_says_bring_none() -> None:
    async with world({"autoscaling.target_concurrency": "8", "lazy": "false"}) as it:
        await until(lambda: it.ready() == 1)

        await asyncio.gather(*(it.get("/slow?s=1.3") for _ in range(7)))

        assert it.engine.starts == 1


async def test_a_line_that_is_gone_before_a_start_could_help_brings_none() -> None:
    program = Program(backend, boot_s=0.4)
    async with world({"autoscaling.max_concurrency": "1", "lazy": "false"}, program=program) as it:
        await until(lambda: it.ready() == 1)
        await it.get("/slow?s=0.01")

        await asyncio.gather(*(it.get("/slow?s=0.01") for _ in range(5)))

        assert it.engine.starts == 1


async def test_a_line_that_would_take_longer_than_a_start_brings_as_many_as_shorten_it_to_that() -> None:
    program = Program(backend, boot_s=0.2)
    async with world({"autoscaling.max_concurrency": "1", "lazy": "false"}, program=program) as it:
        await until(lambda: it.ready() == 1)
        await it.get("/slow?s=0.3")

        crowd = [asyncio.create_task(it.get("/slow?s=0.3")) for _ in range(6)]

        await until(lambda: it.engine.starts > 1)
        assert Reason.NO_PLACE in await last_reasons(it)
        assert [status for status, _ in await asyncio.gather(*crowd)] == [200] * 6


async def test_a_line_whose_pace_nobody_knows_is_not_let_wait_for_longer_than_a_start() -> None:
    program = Program(backend, boot_s=0.1)
    async with world({"autoscaling.max_concurrency": "1", "lazy": "false"}, program=program) as it:
        await until(lambda: it.ready() == 1)

        crowd = [asyncio.create_task(it.get("/slow?s=1")) for _ in range(3)]

        await until(lambda: it.ready() == 3)
        assert [status for status, _ in await asyncio.gather(*crowd)] == [200] * 3


class Gauge:
    """A program whose instances tell a gauge."""

    def __init__(self, value: float | str) -> None:
        self.value = value

    def __call__(self, instance: str) -> web.Application:
        async def metrics(_: web.Request) -> web.Response:
            return web.Response(text=f"# TYPE queue_depth gauge\nqueue_depth {self.value}\n")

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        return app


async def test_a_gauge_of_the_apps_own_brings_more_instances_and_fewer() -> None:
    engine, gauge = MemoryEngine(), Gauge(25)
    engine.add_image("web", Program(gauge), ENABLED | GAUGED | prefixed({"autoscaling.scale_down_cooldown": "0"}))
    async with serving(engine, interval=0.05) as it:
        await until(lambda: it.ready() == 3)
        assert Reason.METRIC in await last_reasons(it)

        gauge.value = 1
        it.clock.advance(61)

        await until(lambda: it.states() == {"ready": 1})


async def test_a_gauge_is_not_counted_for_instances_that_were_not_asked_yet() -> None:
    engine = MemoryEngine()
    engine.add_image("web", Program(Gauge(20)), ENABLED | GAUGED | prefixed({"autoscaling.scale_up_cooldown": "0"}))
    async with serving(engine) as it:
        await until(lambda: it.ready() == 1)
        it.app().gauge, it.app().gauge_on = 20.0, 1
        it.tick()
        await until(lambda: it.ready() == 3)

        it.tick()

        assert it.states() == {"ready": 3}


async def test_a_gauge_that_labels_name_no_more_is_forgotten() -> None:
    engine = MemoryEngine()
    engine.add_image("web", Program(Gauge(5)), ENABLED | GAUGED)
    async with serving(engine) as it:
        it.app().gauge = 5.0

        engine.add_image("web", Program(backend), ENABLED)
        await it.settled()

        assert it.app().gauge is None


async def test_a_gauge_that_cannot_be_read_holds_back_going_down_and_says_why() -> None:
    engine, gauge = MemoryEngine(), Gauge(15)
    engine.add_image("web", Program(gauge), ENABLED | GAUGED)
    async with serving(engine, interval=0.05) as it:
        await until(lambda: it.ready() == 2)

        gauge.value = "many"
        it.clock.advance(700)
        await until(lambda: it.app().gauge_failure)
        it.tick()

        decision = it.app().decision
        assert decision is not None
        assert (decision.reason, decision.held_by) == (Reason.QUIET, (Held.NO_METRIC,))
        shown = it.dockscale.control.explain("web")
        assert "many" in shown["gauge_failure"]
        assert "queue_depth, which could not be read" in shown["decision"]["explanation"]


def at(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    class Then(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]  # the one use is with a zone
            return datetime.fromisoformat(moment)

    monkeypatch.setattr("dockscale.scaler.datetime", Then)


async def test_a_schedule_wakes_an_app_keeps_it_at_its_minimum_and_lets_it_go(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = {"autoscaling.schedule": "0 8 * * * = 3; 0 20 * * * = 0", "startup_config.stop_after_inactive": "30"}
    at(monkeypatch, "2026-03-03T07:59:00+00:00")
    async with world(schedule, interval=0.05) as it:
        await it.settled()
        assert it.states() == {}

        at(monkeypatch, "2026-03-03T08:00:00+00:00")
        await until(lambda: it.ready() == 3)
        assert await last_reasons(it) == [Reason.SCHEDULE]
        it.clock.advance(3600)
        it.tick()
        assert it.states() == {"ready": 3}

        at(monkeypatch, "2026-03-03T20:00:00+00:00")
        await until(lambda: it.states() == {})


async def test_an_app_without_scaling_has_one_instance_whatever_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, "2026-03-03T07:59:00+00:00")
    async with world({"autoscaling.enabled": "false", "autoscaling.schedule": "0 6 * * * = 0"}) as it:
        await it.get()
        it.clock.advance(700)
        it.tick()

        assert it.states() == {"ready": 1}
