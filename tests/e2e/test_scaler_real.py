"""Standby, budgets and failed versions over a real daemon, with the docker SDK as witness."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dockscale.engine.docker import DockerEngine
from tests.support.real import Real
from tests.support.world import World, prefixed, serving, until

pytestmark = pytest.mark.engine

ONE = {"app_id": "web", "port": "8000", "autoscaling.max_instances": "1", "startup_config.timeout": "5s"}
SPARE = {
    "app_id": "web",
    "port": "8000",
    "autoscaling.standby_instances": "1",
    "startup_config.stop_after_inactive": "30",
}


@pytest.fixture
async def it(real: Real) -> AsyncIterator[World]:
    async with serving(DockerEngine(only=real.label), create_ahead=True) as world:
        yield world


async def in_thread(call: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(call)


async def appears(it: World) -> None:
    await until(lambda: "web" in it.dockscale.registry.apps, "the app is found")


def states(real: Real) -> dict[str, str]:
    return {str(box.name): str(box.status) for box in real.containers()}


async def test_a_spare_is_paused_wakes_the_app_and_gets_a_successor(it: World, real: Real) -> None:
    await in_thread(lambda: real.build("web", prefixed(SPARE)))
    await appears(it)
    _, first = await it.get()
    await until(lambda: it.states() == {"ready": 1, "standby": 1})
    [spare] = [name for name, state in states(real).items() if state == "paused"]
    it.clock.advance(31)
    it.tick()
    await until(lambda: it.states() == {"standby": 1})
    asleep = sorted(states(real).values())

    status, second = await it.get()

    assert asleep == ["created", "paused"]
    assert (status, second["instance"] != first["instance"]) == (200, True)
    assert states(real)[spare] == "running"
    await until(lambda: it.states() == {"ready": 1, "standby": 1})
    assert [name for name, state in states(real).items() if state == "paused"] != [spare]


async def test_one_that_leaves_is_parked_with_what_it_remembers(it: World, real: Real) -> None:
    await in_thread(lambda: real.build("web", prefixed(SPARE | {"autoscaling.max_instances": "1"})))
    await appears(it)
    _, first = await it.get()
    it.clock.advance(31)
    it.tick()
    await until(lambda: it.states() == {"standby": 1})
    assert list(states(real).values()).count("paused") == 1

    _, again = await it.get()

    assert again["instance"] == first["instance"]


async def test_a_labelled_container_itself_can_be_the_spare_and_is_never_removed(it: World, real: Real) -> None:
    box = await in_thread(lambda: real.create("web", prefixed(SPARE | {"autoscaling.max_instances": "1"})))
    await appears(it)
    await it.get()
    it.clock.advance(31)
    it.tick()
    await until(lambda: it.states() == {"standby": 1})
    assert states(real) == {box.name: "paused"}

    assert (await it.get())[0] == 200
    assert states(real) == {box.name: "running"}


async def test_where_there_is_no_room_a_version_that_fails_gives_the_place_back(it: World, real: Real) -> None:
    await in_thread(lambda: real.build("web", prefixed(ONE)))
    await appears(it)
    _, old = await it.get()
    answers: list[int] = []

    async def ask() -> None:
        while True:
            answers.append((await it.get())[0])

    asking = asyncio.create_task(ask())
    await in_thread(lambda: real.build("web", prefixed(ONE), environment={"EXIT_AT_ONCE": "3"}))
    await until(lambda: it.app().memory.shunned and it.states() == {"ready": 1})
    asking.cancel()

    assert set(answers) == {200}
    assert (await it.get())[1]["instance"] == old["instance"]
    assert "leaving with code 3" in it.app().rollout_failure
    assert sorted(states(real).values()).count("running") == 1


async def test_memory_limits_of_real_containers_count_towards_the_budget(real: Real) -> None:
    labels = {"app_id": "web", "port": "8000", "autoscaling.min_instances": "5"}
    await in_thread(lambda: real.create("web", prefixed(labels), mem_limit="64m"))
    async with serving(DockerEngine(only=real.label), memory_budget="200m") as it:
        await appears(it)
        assert (await it.get())[0] == 200
        await until(lambda: it.ready() == 3)

        decision = it.app().decision
        assert decision is not None
        assert [str(held) for held in decision.held_by] == ["host_budget"]
        assert len(real.running()) == 3
