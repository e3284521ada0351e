"""Instances as clients: who is one, what becomes of one whose connection breaks, sleeps, or outlasts dockscale."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypha_rpc import connect_to_server

from dockscale.core.pool import Instance
from dockscale.engine.memory import MemoryEngine, Program
from dockscale.hub.socket import Socket
from tests.support.backend import backend
from tests.support.process import free_port
from tests.support.worker import Crew, client, rpc_world, work
from tests.support.world import ENABLED, World, appears, prefixed, serving, until


def only(it: World) -> Instance:
    [instance] = it.app("bot").pool
    return instance


def socket_of(it: World, instance: Instance) -> Socket:
    [found] = [each for each in it.dockscale.rpc.door.sockets if instance.client_id in repr(each)]
    return found


async def test_an_instance_whose_connection_breaks_comes_back_and_calls_wait_for_it_meanwhile() -> None:
    async with rpc_world() as it, client(it) as api:
        service = await api.get_service("default@bot")
        instance = only(it)

        socket_of(it, instance).transport.abort()
        await until(lambda: instance.unplugged)

        assert await service.who() == instance.client_id
        assert (it.engine.starts, only(it)) == (1, instance)


async def test_a_call_on_an_instance_whose_connection_breaks_fails_and_tells_why() -> None:
    crew = Crew()
    async with rpc_world(runs=crew) as it, client(it) as api:
        service = await api.get_service("default@bot")
        call = asyncio.ensure_future(service.hold())
        await until(lambda: crew.count("began") == 1)

        socket_of(it, only(it)).transport.abort()

        with pytest.raises(Exception, match=r"ConnectionError: the instance bot-1-.* left while it worked on"):
            await call
        crew.gate.set()
        assert dict(it.app("bot").stats.requests) == {502: 1}


async def test_an_instance_that_dies_with_a_generator_under_way_ends_it_with_an_error() -> None:
    async with rpc_world() as it, client(it) as api:
        service = await api.get_service("default@bot")
        items = await service.count(100)
        await anext(items)

        await it.engine.crash(only(it).container_id)

        with pytest.raises(Exception, match=r"not connected|left while|[Dd]isconnected"):
            async for _ in items:
                pass
        assert it.dockscale.rpc.calls.generators == {}


@pytest.mark.parametrize("taken", ["bot__lb", "bot__lb_first"])
async def test_nobody_can_have_the_id_at_which_an_app_is_called(taken: str) -> None:
    async with rpc_world() as it:
        with pytest.raises(Exception, match="and not an app's"):
            async with client(it, client_id=taken):
                pass


async def test_the_id_of_an_instance_is_refused_to_whoever_has_no_token_for_it() -> None:
    async with rpc_world(runs=Crew(boot_s=0.5)) as it, client(it) as api:
        service = asyncio.ensure_future(api.get_service("default@bot"))
        await until(lambda: list(it.app("bot").pool))

        with pytest.raises(Exception, match="is an instance's, which has a token for it"):
            async with client(it, client_id=only(it).client_id):
                pass
        assert await (await service).who() == only(it).client_id
        with pytest.raises(Exception, match="is an instance's"):
            async with client(it, client_id=only(it).client_id):
                pass


async def test_an_app_that_sleeps_on_standby_serves_calls_again_without_a_start() -> None:
    labels = {
        "autoscaling.standby_instances": "1", "autoscaling.max_instances": "1",
        "startup_config.stop_after_inactive": "30",
    }  # fmt: skip
    async with rpc_world(labels) as it, client(it) as api:
        service = await api.get_service("default@bot")
        before = await service.who()
        it.clock.advance(31)
        it.tick("bot")
        await until(lambda: it.states("bot") == {"standby": 1})

        assert await service.who() == before
        assert it.engine.starts == 1


async def test_what_an_instance_registers_is_its_apps() -> None:
    async with rpc_world() as it, client(it) as api:
        await api.get_service("default@bot")

        [info] = [each for each in await api.list_services() if each["id"].endswith("__rlb:default")]

        assert info["app_id"] == "bot"


class OutlivesDockscale(MemoryEngine):
    """Containers run on when dockscale ends."""

    async def close(self) -> None: ...


@contextmanager
def outlasting(program: Any) -> Iterator[OutlivesDockscale]:
    engine = OutlivesDockscale()
    engine.add_image(
        "bot", Program(backend, connects=program), ENABLED | prefixed({"type": "rpc", "app_id": "bot"}), ports=()
    )
    yield engine


async def test_proxies_work_on_after_a_restart_of_dockscale() -> None:
    port = free_port()
    with outlasting(work) as engine:
        async with serving(engine, port=port) as it:
            api = await connect_to_server({"server_url": it.base})
            service = await api.get_service("default@bot")
            before = await service.who()
        async with serving(engine, port=port) as it:
            await appears(it, "bot")
            await until(lambda: it.ready("bot") == 1 and it.dockscale.rpc.hub.count == 2, "both clients are back")

            after = await service.who()
            [info] = [each for each in await api.list_services() if each["id"].endswith("__rlb:default")]
            await api.disconnect()
        await MemoryEngine.close(engine)

    assert (after, info["app_id"]) == (before, "bot")
    assert engine.starts == 1
