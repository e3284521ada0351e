"""Lives of instances that connect to dockscale by themselves, over the memory engine and a hub that tests command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from dockscale import life
from dockscale.core.pool import Instance, client_id
from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.rpc import FakeRpc
from tests.support.world import ENABLED, World, appears, prefixed, serving, until

EAGER = {"type": "rpc", "lazy": "false"}
QUICK = {"startup_config.timeout": "0.05"}


@asynccontextmanager
async def hub(*, everybody: bool = True) -> AsyncIterator[tuple[World, FakeRpc]]:
    """A dockscale without apps, with a hub at which instances are registered by themselves or on command."""
    async with serving(MemoryEngine()) as it:
        yield it, FakeRpc(it, everybody=everybody)


async def has_app(it: World, labels: dict[str, str] | None = None, *, program: Program | None = None) -> None:
    it.engine.add_image("web", program or Program(backend), ENABLED | prefixed(EAGER | (labels or {})), ports=())
    await appears(it, "web")


def only(it: World) -> Instance:
    [instance] = it.app().pool
    return instance


def unplug(it: World, rpc: FakeRpc, instance: Instance) -> None:
    """Break the connection of an instance, which does not come back before it is told to."""
    rpc.everybody = False
    rpc.clients = {each.client_id for each in it.app().pool if each is not instance}
    it.dockscale.scaler.unplugged(it.app(), instance)


async def test_an_instance_is_ready_when_it_has_registered_its_service() -> None:
    async with hub(everybody=False) as (it, rpc):
        await has_app(it)
        await until(lambda: it.engine.starts == 1)
        before = it.states()

        rpc.clients.add(only(it).client_id)

        await until(lambda: it.states() == {"ready": 1})
        assert before == {"starting": 1}


async def test_a_copy_finds_in_its_environment_the_name_that_it_is_known_by() -> None:
    async with hub() as (it, _):
        await has_app(it)
        await until(lambda: it.ready() == 1)

        environment = it.engine.environment(only(it).container_id)

        assert environment == {"HYPHA_CLIENT_ID": client_id(only(it).name), "HYPHA_APP_ID": "web"}


async def test_a_copy_made_ahead_is_given_the_name_of_the_instance_that_it_becomes() -> None:
    async with serving(MemoryEngine(), create_ahead=True) as it:
        FakeRpc(it)
        await has_app(it)
        await until(lambda: it.ready() == 1)
        first = only(it)
        await until(lambda: any(box.container.state == "created" for box in it.engine._boxes.values()))

        await it.engine.crash(first.container_id)

        await until(lambda: it.states() == {"ready": 1} and only(it) is not first)
        assert it.engine.environment(only(it).container_id)["HYPHA_CLIENT_ID"] == only(it).client_id


async def test_an_instance_that_does_not_register_in_time_has_failed_to_start() -> None:
    async with hub(everybody=False) as (it, _):
        await has_app(it, QUICK | {"startup_config.wait_for_service": "model"})

        await until(lambda: it.app().failure)

        name = it.app().failure.partition(":")[0]
        told = f"it did not register the service 'model' as client '{name}__rlb' within 0.05 s (startup_config.timeout)"
        assert it.app().failure == f"{name}: {told}"


async def test_without_rpc_an_instance_fails_to_start_and_says_so() -> None:
    async with hub() as (it, _):
        it.dockscale.scaler._lives.rpc = None

        await has_app(it)

        await until(lambda: it.app().failure)
        assert "this dockscale has no RPC" in it.app().failure
        assert it.engine.starts == 0


async def test_an_instance_that_cannot_be_told_where_to_connect_to_fails_to_start_and_says_why() -> None:
    async with hub() as (it, rpc):
        rpc.refusal = "the network none has no gateway"

        await has_app(it)

        await until(lambda: it.app().failure)
        assert "the network none has no gateway" in it.app().failure


async def test_a_labelled_container_is_only_what_copies_are_made_of() -> None:
    async with hub() as (it, _):
        it.engine.add_image("plain", Program(backend), ports=())
        made = it.engine.add_container(
            "web", "plain", ENABLED | prefixed(EAGER | {"autoscaling.max_instances": "1"}), env={"COLOUR": "red"}
        )

        await appears(it, "web")
        await until(lambda: it.ready() == 1)

        assert only(it).managed
        assert it.engine.environment(only(it).container_id)["COLOUR"] == "red"
        assert (await it.engine.inspect(made.id)).state == "created"


async def test_a_container_that_runs_and_registers_is_adopted() -> None:
    async with hub(everybody=False) as (it, rpc):
        it.engine.add_image("plain", Program(backend), ports=())
        made = it.engine.add_container("web", "plain", ENABLED | prefixed({"type": "rpc"}))
        await it.engine.start(made.id)
        rpc.clients.add("web__rlb")

        await appears(it, "web")

        await until(lambda: it.states() == {"ready": 1})
        assert only(it).name == "web"


async def test_a_container_that_runs_and_cannot_register_is_told_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(life, "RECONNECT_S", 0.05)
    async with hub(everybody=False) as (it, _):
        it.engine.add_image("plain", Program(backend), ports=())
        made = it.engine.add_container("web", "plain", ENABLED | prefixed({"type": "rpc"} | QUICK))
        await it.engine.start(made.id)

        await appears(it, "web")

        await until(lambda: it.app().failure)
        assert it.app().failure.endswith("made by hand, it needs the HYPHA_* variables that copies are given")


async def test_an_unplugged_instance_gets_no_calls_and_nobody_takes_its_place_until_it_registers_again() -> None:
    async with hub() as (it, rpc):
        await has_app(it)
        await until(lambda: it.ready() == 1)
        instance = only(it)

        unplug(it, rpc, instance)
        it.tick()
        away, place = it.states(), it.app().pool.claim()
        rpc.clients.add(instance.client_id)

        await until(lambda: it.states() == {"ready": 1})
        assert (away, place) == ({"starting": 1}, None)
        assert only(it) is instance
        assert it.engine.starts == 1


async def test_an_unplugged_instance_that_stays_away_is_ejected_and_replaced() -> None:
    async with hub() as (it, rpc):
        await has_app(it, {"startup_config.timeout": "0.2"})
        await until(lambda: it.ready() == 1)
        lost = only(it)

        unplug(it, rpc, lost)
        await until(lambda: lost.ejected)
        rpc.everybody = True

        await until(lambda: it.states() == {"ready": 1})
        assert only(it) is not lost
        assert lost.why.startswith("its connection broke, and it did not register the service 'default'")
        assert (it.app().stats.ejected, it.app().stats.start_failures) == (1, 0)
        await until(lambda: len(it.engine._boxes) == 1)


async def test_an_unplugged_instance_that_turns_out_to_be_dead_is_replaced_as_one_that_died() -> None:
    async with hub() as (it, rpc):
        await has_app(it)
        await until(lambda: it.ready() == 1)
        dead = only(it)

        unplug(it, rpc, dead)
        await it.engine.crash(dead.container_id)
        await until(lambda: it.app().stats.deaths == 1)
        rpc.everybody = True

        await until(lambda: it.states() == {"ready": 1} and only(it) is not dead)
        assert (it.app().stats.deaths, it.app().stats.start_failures) == (1, 0)


async def test_an_unplugged_instance_may_be_told_to_go() -> None:
    async with hub() as (it, rpc):
        await has_app(it)
        await until(lambda: it.ready() == 1)
        app = it.app()
        unplug(it, rpc, only(it))

        it.engine.remove_image("web")

        await until(lambda: not it.engine._boxes)
        assert (app.stats.start_failures, app.stats.ejected) == (0, 0)


async def test_one_on_standby_registers_again_before_it_serves() -> None:
    async with hub() as (it, rpc):
        await has_app(it, {"autoscaling.standby_instances": "1", "autoscaling.max_instances": "2"})
        await until(lambda: it.states() == {"ready": 1, "standby": 1})
        [serves, spare] = sorted(it.app().pool, key=lambda each: each.spare)
        it.dockscale.scaler.unplugged(it.app(), spare)  # nothing that is paused answers pings
        paused = spare.state

        rpc.everybody = False
        await it.engine.crash(serves.container_id)
        await until(lambda: spare.starting)
        rpc.clients.add(spare.client_id)

        await until(lambda: str(spare.state) == "ready")
        assert str(paused) == "standby"


async def test_an_instance_is_shown_by_the_name_of_its_client() -> None:
    async with hub() as (it, _):
        await has_app(it)
        await until(lambda: it.ready() == 1)

        [shown] = it.dockscale.control.explain("web")["instances"]

        assert shown["address"] == only(it).client_id
