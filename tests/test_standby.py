"""Standby: paused instances that are there before they are needed, over the memory engine and real sockets."""

import asyncio
from dataclasses import replace

import pytest

from dockscale.core.pool import State
from dockscale.engine import EngineError
from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.world import ENABLED, World, prefixed, serving, until, world

SPARE = {"autoscaling.standby_instances": "1"}
SLEEPS = {"startup_config.stop_after_inactive": "30"}
BUSY = {"autoscaling.target_requests_per_instance": "10", "autoscaling.scale_up_cooldown": "0"}


class OutlivesDockscale(MemoryEngine):
    async def close(self) -> None:
        pass


def paused(it: World) -> list[str]:
    return sorted(box.container.name for box in it.engine._boxes.values() if box.container.state == "paused")


async def with_spare(it: World) -> str:
    """Wake the app, wait until its spare is parked, and return which instance serves."""
    _, shown = await it.get()
    await until(lambda: it.states() == {"ready": 1, "standby": 1})
    return str(shown["instance"])


async def test_a_spare_is_started_once_the_app_is_awake_and_is_paused_when_it_has_proved_ready() -> None:
    async with world(SPARE) as it:
        first = await with_spare(it)

        assert len(paused(it)) == 1
        assert first not in paused(it)
        assert it.engine.starts == 2


async def test_an_eager_app_has_its_spare_without_a_request() -> None:
    async with world(SPARE | {"lazy": "false", "autoscaling.min_instances": "0"}) as it:
        await until(lambda: it.states() == {"standby": 1})

        assert len(paused(it)) == 1


async def test_going_up_unpauses_the_spare_and_another_one_takes_its_place() -> None:
    async with world(SPARE | BUSY) as it:
        await with_spare(it)
        [spare] = paused(it)

        await asyncio.gather(*(it.get() for _ in range(9)))

        await until(lambda: it.states() == {"ready": 2, "standby": 1})
        assert it.app().pool.instances[spare].state is State.READY
        assert paused(it) != [spare]
        assert it.app().stats.standby_start.count == 1


async def test_a_sleeping_app_keeps_its_spare_and_wakes_from_it() -> None:
    async with world(SPARE | SLEEPS) as it:
        await with_spare(it)
        [spare] = paused(it)
        it.clock.advance(31)
        it.tick()
        await until(lambda: it.states() == {"standby": 1})

        status, shown = await it.get()

        assert (status, shown["instance"]) == (200, spare)
        await until(lambda: it.states() == {"ready": 1, "standby": 1})


async def test_one_that_is_not_needed_any_more_is_parked_where_a_spare_is_missing() -> None:
    async with world(SPARE | SLEEPS | {"autoscaling.max_instances": "1"}) as it:
        _, shown = await it.get()
        assert it.states() == {"ready": 1}  # there is no room for a spare beside it
        it.clock.advance(31)
        it.tick()

        await until(lambda: it.states() == {"standby": 1})
        assert paused(it) == [shown["instance"]]
        assert (await it.get())[1]["instance"] == shown["instance"]
        assert it.engine.starts == 1


async def test_one_that_is_to_be_parked_finishes_what_it_has_first() -> None:
    async with world(SPARE | SLEEPS | {"autoscaling.max_instances": "2", "autoscaling.min_instances": "0"}) as it:
        await with_spare(it)
        await asyncio.gather(it.get(), it.get())
        slow = asyncio.create_task(it.get("/slow?s=0.3"))
        await until(lambda: it.app().pool.in_flight == 1)
        it.clock.advance(61)
        [serving_it] = [instance for instance in it.app().pool if instance.in_flight]
        serving_it.parks = True
        it.app().pool.drain(serving_it, "quiet")

        assert (await slow)[0] == 200
        await until(lambda: serving_it.state is State.STANDBY)


async def test_a_spare_serves_also_while_no_start_is_due_because_the_last_one_failed() -> None:
    async with world(SPARE | SLEEPS) as it:
        await with_spare(it)
        [spare] = paused(it)
        it.clock.advance(31)
        it.tick()
        await until(lambda: it.states() == {"standby": 1})
        it.app().memory = replace(it.app().memory, failures=6, retry_at=it.clock() + 60)

        status, shown = await it.get()

        assert (status, shown["instance"]) == (200, spare)


async def test_connections_that_failed_before_an_instance_proved_itself_anew_are_forgotten() -> None:
    async with world(SPARE | SLEEPS | {"autoscaling.max_instances": "1"}) as it:
        await it.get()
        [only] = it.app().pool
        it.app().pool.connect_failed(only)
        it.clock.advance(31)
        it.tick()
        await until(lambda: it.states() == {"standby": 1})

        await it.get()

        assert only.failed_connections == 0


async def test_spares_never_serve_and_never_count_as_ready() -> None:
    async with world(SPARE) as it:
        serving_it = await with_spare(it)

        answers = [(await it.get())[1]["instance"] for _ in range(8)]

        assert set(answers) == {serving_it}
        assert it.app().load().ready == 1
        assert it.app().load().standby == 1


async def test_spares_leave_room_for_what_serves() -> None:
    async with world(SPARE | BUSY | {"autoscaling.max_instances": "2", "autoscaling.standby_instances": "5"}) as it:
        await with_spare(it)
        assert it.engine.starts == 2

        await asyncio.gather(*(it.get() for _ in range(9)))

        await until(lambda: it.states() == {"ready": 2})
        assert it.engine.starts == 2


async def test_a_spare_that_grew_old_is_replaced_by_a_new_one_which_is_there_first() -> None:
    async with world(SPARE | {"autoscaling.standby_max_age": "1h"}, program=Program(backend, boot_s=0.1)) as it:
        await with_spare(it)
        [old] = paused(it)
        it.clock.advance(3601)
        it.tick()

        await until(lambda: it.states() == {"ready": 1, "standby": 1, "starting": 1})
        await until(lambda: it.states() == {"ready": 1, "standby": 1})
        assert paused(it) != [old]


async def test_a_spare_that_dies_is_replaced_and_nobody_notices() -> None:
    async with world(SPARE) as it:
        await with_spare(it)
        [spare] = paused(it)
        [victim] = [box.container for box in it.engine._boxes.values() if box.container.name == spare]

        await it.engine.crash(victim.id)
        await until(lambda: spare not in it.app().pool.instances)
        it.clock.advance(2)
        it.tick()

        await until(lambda: it.states() == {"ready": 1, "standby": 1})
        assert paused(it) != [spare]
        assert (await it.get())[0] == 200


async def test_a_spare_that_answers_no_more_when_it_is_needed_is_replaced_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dockscale.life.WAKE_S", 0.2)
    async with world(SPARE | SLEEPS | {"startup_config.health_path": "/status?code=200"}) as it:
        await with_spare(it)
        [spare] = paused(it)
        it.clock.advance(31)
        it.tick()
        await until(lambda: it.states() == {"standby": 1})
        [box] = [box for box in it.engine._boxes.values() if box.container.name == spare]
        await box.runner.cleanup()

        status, shown = await it.get()

        assert (status, shown["instance"] != spare) == (200, True)
        await until(lambda: spare not in it.app().pool.instances)
        assert it.app().failure == ""


async def test_nobody_waits_for_the_end_of_a_spare_that_answers_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockscale.life.WAKE_S", 0.2)
    async with world(SPARE | SLEEPS | {"startup_config.health_path": "/status?code=200"}) as it:
        await with_spare(it)
        it.clock.advance(31)
        it.tick()
        await until(lambda: it.states() == {"standby": 1})
        [box] = [box for box in it.engine._boxes.values() if box.container.state == "paused"]
        await box.runner.cleanup()
        ends = asyncio.Event()
        stop = it.engine.stop

        async def slow_stop(container_id: str, timeout: float) -> None:
            await ends.wait()
            await stop(container_id, timeout)

        monkeypatch.setattr(it.engine, "stop", slow_stop)

        assert (await it.get())[0] == 200
        assert it.states()["draining"] >= 1
        ends.set()


async def test_an_app_that_does_not_survive_being_paused_wakes_by_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockscale.life.WAKE_S", 0.1)
    labels = SLEEPS | {"autoscaling.standby_instances": "3", "startup_config.health_path": "/status?code=200"}
    async with world(labels) as it:
        await it.get()
        await until(lambda: it.states() == {"ready": 1, "standby": 3})
        it.clock.advance(31)
        it.tick()
        await until(lambda: it.states() == {"standby": 3})
        unpause = it.engine.unpause

        async def spoil(container_id: str) -> None:
            await unpause(container_id)
            await it.engine._boxes[container_id].runner.cleanup()

        monkeypatch.setattr(it.engine, "unpause", spoil)

        assert (await it.get())[0] == 200


async def test_a_spare_unpaused_by_hand_is_replaced() -> None:
    async with world(SPARE) as it:
        await with_spare(it)
        [spare] = paused(it)
        [box] = [box for box in it.engine._boxes.values() if box.container.name == spare]

        await it.engine.unpause(box.container.id)
        await until(lambda: spare not in it.app().pool.instances)

        assert (await it.get())[0] == 200


async def test_an_engine_that_cannot_pause_is_asked_less_and_less_and_what_serves_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(container_id: str) -> None:
        raise EngineError("no freezer")

    async with world(SPARE) as it:
        pause = it.engine.pause
        monkeypatch.setattr(it.engine, "pause", refuse)
        assert (await it.get())[0] == 200
        await until(lambda: it.app().memory.spare_failures == 1 and it.states() == {"ready": 1})

        assert it.app().memory.failures == 0
        assert (await it.get())[0] == 200
        monkeypatch.setattr(it.engine, "pause", pause)
        await until(lambda: it.states() == {"ready": 1, "standby": 1})


async def test_the_next_dockscale_adopts_what_serves_and_what_is_paused() -> None:
    engine = OutlivesDockscale()
    engine.add_image("web", Program(backend), ENABLED | prefixed(SPARE))
    async with serving(engine) as it:
        first = await with_spare(it)
        [spare] = paused(it)
    async with serving(engine) as it:
        await until(lambda: it.states() == {"ready": 1, "standby": 1})

        assert paused(it) == [spare]
        assert (await it.get())[1]["instance"] == first
        assert engine.starts == 2
    await MemoryEngine.close(engine)


async def test_a_spare_that_is_taken_over_is_not_the_beginning_of_a_cooldown() -> None:
    engine = OutlivesDockscale()
    engine.add_image("web", Program(backend), ENABLED | prefixed(SPARE | SLEEPS))
    async with serving(engine) as it:
        await with_spare(it)
        it.clock.advance(31)
        it.tick()
        await until(lambda: it.states() == {"standby": 1})
    async with serving(engine) as it:
        await until(lambda: it.states() == {"standby": 1})

        assert it.app().memory.last_up is None
    await MemoryEngine.close(engine)


async def test_spares_end_with_their_app() -> None:
    async with world(SPARE) as it:
        await with_spare(it)

        it.engine.remove_image("web")

        await until(lambda: not it.engine._boxes)


async def test_spares_that_a_label_asks_for_no_more_end() -> None:
    async with world(SPARE) as it:
        await with_spare(it)

        it.engine.add_image("web", Program(backend), ENABLED)
        await it.settled()

        await until(lambda: it.states() == {"ready": 1} and len(it.engine._boxes) == 1)
        assert paused(it) == []
