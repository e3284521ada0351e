"""From one template to the next, over the memory engine and real sockets: new ones first, and a way back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.world import ENABLED, World, prefixed, serving, until, world

ONE = {"autoscaling.max_instances": "1", "startup_config.timeout": "0.3"}
BROKEN = Program(backend, exits="cannot import name 'app'")


def publish(it: World, labels: dict[str, str], program: Program) -> None:
    it.engine.add_image("web", program, ENABLED | prefixed(labels))


def running(it: World) -> list[str]:
    return sorted(box.container.name for box in it.engine._boxes.values() if box.container.runs)


class Slow(MemoryEngine):
    """Stopping takes its time here, before and after a listing can show it."""

    async def stop(self, container_id: str, timeout: float) -> None:
        await asyncio.sleep(0.3)
        await super().stop(container_id, timeout)
        await asyncio.sleep(0.1)


class OutlivesDockscale(MemoryEngine):
    async def close(self) -> None:
        pass


@asynccontextmanager
async def most_running(it: World) -> AsyncIterator[list[int]]:
    """Count how many run all along; the largest number is the last of the list."""
    seen = [0]

    async def watch() -> None:
        while True:
            seen.append(max(seen[-1], len(running(it))))
            await asyncio.sleep(0.001)

    watching = asyncio.create_task(watch())
    yield seen
    watching.cancel()


async def ask_all_along(it: World, answers: list[tuple[int, str]]) -> None:
    while True:
        status, shown = await it.get()
        answers.append((status, shown["instance"] if status == 200 else shown["message"]))


async def test_a_new_version_is_ready_before_an_old_one_leaves() -> None:
    gate = asyncio.Event()
    async with world({"lazy": "false"}) as it:
        await until(lambda: it.ready() == 1)
        _, old = await it.get()

        publish(it, {}, Program(backend, gate=gate))
        await until(lambda: it.states() == {"ready": 1, "starting": 1})
        assert (await it.get())[1]["instance"] == old["instance"]
        gate.set()

        await until(lambda: old["instance"] not in it.app().pool.instances)
        assert it.states() == {"ready": 1}


async def test_a_version_that_never_gets_ready_leaves_the_old_one_serving_and_says_so() -> None:
    async with world({"lazy": "false"}) as it:
        await until(lambda: it.ready() == 1)
        _, old = await it.get()

        publish(it, {}, BROKEN)
        await until(lambda: it.app().stats.start_failures == 1)

        assert (await it.get())[1]["instance"] == old["instance"]
        assert "cannot import name 'app'" in it.app().rollout_failure
        assert "cannot import name 'app'" in it.dockscale.control.explain("web")["rollout_failure"]


async def test_a_version_that_never_gets_ready_is_tried_again_when_its_pause_is_over() -> None:
    async with world({"lazy": "false"}) as it:
        await until(lambda: it.ready() == 1)

        publish(it, {"lazy": "false"}, BROKEN)

        await until(lambda: it.app().stats.start_failures == 2)


async def test_the_next_version_that_does_get_ready_takes_over() -> None:
    async with world({"lazy": "false"}) as it:
        await until(lambda: it.ready() == 1)
        _, old = await it.get()
        publish(it, {}, BROKEN)
        await until(lambda: it.app().stats.start_failures == 1)
        it.clock.advance(120)

        publish(it, {}, Program(backend))

        await until(lambda: it.states() == {"ready": 1} and old["instance"] not in it.app().pool.instances)
        assert it.app().rollout_failure == ""


async def test_where_there_is_no_room_the_old_one_makes_room_and_no_request_is_lost() -> None:
    async with world(ONE) as it:
        _, old = await it.get()
        answers: list[tuple[int, str]] = []
        asking = asyncio.create_task(ask_all_along(it, answers))

        publish(it, ONE, Program(backend, boot_s=0.05))
        await until(lambda: it.states() == {"ready": 1} and old["instance"] not in it.app().pool.instances)
        await until(lambda: answers and answers[-1][1] != old["instance"])
        asking.cancel()

        assert {status for status, _ in answers} == {200}
        await until(lambda: len(it.engine._boxes) == 1)


async def test_where_there_is_no_room_a_version_that_fails_gives_the_place_back_and_no_request_is_lost() -> None:
    async with world(ONE) as it:
        _, old = await it.get()
        answers: list[tuple[int, str]] = []
        asking = asyncio.create_task(ask_all_along(it, answers))

        publish(it, ONE, BROKEN)
        await until(lambda: it.app().memory.shunned and it.states() == {"ready": 1} and len(answers) > 9)
        asking.cancel()

        assert {status for status, _ in answers} == {200}
        assert running(it) == [old["instance"]]
        assert (await it.get())[1]["instance"] == old["instance"]
        assert "cannot import name 'app'" in it.app().rollout_failure


async def test_a_version_that_failed_in_an_old_ones_place_is_not_tried_there_again_but_the_next_is() -> None:
    async with world(ONE) as it:
        _, old = await it.get()
        publish(it, ONE, BROKEN)
        await until(lambda: it.app().memory.shunned and it.states() == {"ready": 1})
        it.clock.advance(600)
        it.tick()
        assert running(it) == [old["instance"]]
        assert it.states() == {"ready": 1}

        publish(it, ONE, Program(backend))

        await until(lambda: it.states() == {"ready": 1} and running(it) != [old["instance"]])
        assert (await it.get())[0] == 200


async def test_never_more_than_max_instances_run_while_versions_change() -> None:
    labels = {"autoscaling.max_instances": "2", "autoscaling.min_instances": "2", "lazy": "false"}
    async with world(labels) as it:
        await until(lambda: it.ready() == 2)
        async with most_running(it) as most:
            for program in (Program(backend), BROKEN, Program(backend, boot_s=0.02)):
                it.clock.advance(120)
                publish(it, labels, program)
                await asyncio.sleep(0.3)
            it.clock.advance(120)
            it.tick()
            await until(lambda: it.states() == {"ready": 2} and not it.app().stale())

        assert most[-1] == 2


async def test_where_there_is_no_room_one_old_instance_after_the_other_makes_room() -> None:
    gate = asyncio.Event()
    labels = {"autoscaling.max_instances": "2", "autoscaling.min_instances": "2", "lazy": "false"}
    async with world(labels) as it:
        await until(lambda: it.ready() == 2)

        publish(it, labels, Program(backend, gate=gate))
        await until(lambda: it.app().aside)
        await it.settled()
        it.tick()

        assert it.states() == {"ready": 1, "starting": 1}
        gate.set()
        await until(lambda: it.states() == {"ready": 2} and not it.app().stale())


async def test_where_there_is_no_room_a_version_that_fails_has_ended_before_the_old_one_is_back() -> None:
    engine = Slow()
    engine.add_image("web", Program(backend), ENABLED | prefixed(ONE))
    async with serving(engine) as it:
        _, old = await it.get()
        answers: list[tuple[int, str]] = []
        asking = asyncio.create_task(ask_all_along(it, answers))

        async with most_running(it) as most:
            publish(it, ONE, Program(backend, gate=asyncio.Event()))
            await until(lambda: it.app().memory.shunned and it.states() == {"ready": 1} and len(answers) > 9)
        asking.cancel()

        assert most[-1] == 1
        assert {status for status, _ in answers} == {200}
        assert running(it) == [old["instance"]]


async def test_what_makes_room_for_a_version_has_not_died() -> None:
    engine = Slow()
    engine.add_image("web", Program(backend), ENABLED | prefixed(ONE))
    async with serving(engine) as it:
        await it.get()

        publish(it, ONE, Program(backend))
        await it.settled()
        await until(lambda: it.states() == {"ready": 1} and not it.app().stale() and len(it.engine._boxes) == 1)

        assert it.app().stats.deaths == 0


async def test_where_there_is_no_room_a_version_is_tried_also_if_nobody_asks_meanwhile() -> None:
    labels = ONE | {"autoscaling.min_instances": "0"}
    async with world(labels) as it:
        _, old = await it.get()

        publish(it, labels, Program(backend))

        await until(lambda: it.states() == {"ready": 1} and running(it) != [old["instance"]])
        assert it.app().memory.shunned == ""


async def test_where_there_is_no_room_a_version_that_comes_while_another_starts_is_tried_in_its_place() -> None:
    labels = ONE | {"startup_config.timeout": "20"}
    async with world(labels) as it:
        await it.get()
        async with most_running(it) as most:
            publish(it, labels, Program(backend, gate=asyncio.Event()))
            await until(lambda: it.app().aside)

            publish(it, labels, Program(backend))

            await until(lambda: it.states() == {"ready": 1} and not it.app().stale() and len(it.engine._boxes) == 1)
        assert most[-1] == 1
        assert it.app().memory.shunned == ""


async def test_a_version_that_starts_is_not_stopped_because_the_app_is_quiet() -> None:
    labels = {"lazy": "false", "autoscaling.scale_down_cooldown": "0"}
    new = Program(backend, exits="the database is away")
    async with world(labels) as it:
        await until(lambda: it.ready() == 1)
        publish(it, labels, new)
        await until(lambda: it.app().stats.start_failures == 1)
        new.exits, new.boot_s = None, 0.1
        it.clock.advance(120)
        it.tick()

        await until(lambda: it.states() == {"ready": 1} and not it.app().stale())
        assert it.engine.starts <= 4


async def test_a_version_is_not_stopped_because_the_app_is_quiet_and_an_earlier_one_failed() -> None:
    labels = {"autoscaling.max_instances": "2", "autoscaling.scale_down_cooldown": "0"}
    async with world(ONE) as it:
        await it.get()
        publish(it, ONE, BROKEN)
        await until(lambda: it.app().memory.shunned and it.states() == {"ready": 1})
        it.clock.advance(120)

        publish(it, labels, Program(backend, boot_s=0.1))
        await it.settled()

        await until(lambda: it.states() == {"ready": 1} and not it.app().stale())
        assert it.engine.starts <= 4


async def test_what_is_told_of_a_version_that_failed_goes_with_it() -> None:
    async with world({"lazy": "false"}) as it:
        await until(lambda: it.ready() == 1)
        publish(it, {}, BROKEN)
        await until(lambda: it.app().rollout_failure)

        publish(it, {}, Program(backend, gate=asyncio.Event()))
        await it.settled()

        assert it.app().rollout_failure == ""


async def test_an_app_that_is_removed_while_one_is_set_aside_leaves_nothing() -> None:
    gate = asyncio.Event()
    labels = ONE | {"startup_config.timeout": "20"}
    async with world(labels) as it:
        await it.get()
        publish(it, labels, Program(backend, gate=gate))
        await until(lambda: it.app().aside)

        it.engine.remove_image("web")

        await until(lambda: not it.engine._boxes)


async def test_spares_of_an_earlier_version_are_replaced_and_never_serve() -> None:
    labels = {"autoscaling.standby_instances": "1"}
    async with world(labels) as it:
        await it.get()
        await until(lambda: it.states() == {"ready": 1, "standby": 1})
        old = set(it.app().pool.instances)

        publish(it, labels, Program(backend))

        await until(lambda: it.states() == {"ready": 1, "standby": 1} and not old & set(it.app().pool.instances))
        assert (await it.get())[1]["instance"] not in old


async def test_what_the_next_dockscale_finds_serves_until_a_version_that_came_meanwhile_is_ready() -> None:
    engine = OutlivesDockscale()
    engine.add_image("web", Program(backend), ENABLED | prefixed({"lazy": "false"}))
    async with serving(engine) as it:
        _, old = await it.get()
    gate = asyncio.Event()
    engine.add_image("web", Program(backend, gate=gate), ENABLED | prefixed({"lazy": "false"}))
    async with serving(engine) as it:
        assert (await it.get())[1]["instance"] == old["instance"]
        gate.set()

        await until(lambda: it.states() == {"ready": 1} and not it.app().stale())
    await MemoryEngine.close(engine)


async def test_one_set_aside_is_removed_by_the_next_dockscale_if_this_one_is_killed() -> None:
    engine = MemoryEngine()
    engine.add_image("web", Program(backend), ENABLED | prefixed(ONE))
    left = engine.add_container(
        "web-1-ab12", "web", {"dockscale.managed": "true", "dockscale.instance-of": "web", "dockscale.revision": "old"}
    )
    await engine.start(left.id)
    await engine.stop(left.id, 0.0)
    async with serving(engine):
        await until(lambda: not engine._boxes)
