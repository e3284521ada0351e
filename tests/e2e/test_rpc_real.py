"""Apps of type rpc on a real daemon: ordinary programs in containers, called by the unmodified clients."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypha_rpc import connect_to_server

from dockscale.engine.docker import DockerEngine
from tests.support import node
from tests.support.real import Real, in_thread
from tests.support.worker import client
from tests.support.world import World, appears, prefixed, serving, until

pytestmark = pytest.mark.engine

RPC = "dockscale-rpc:test"
THREE = {"autoscaling.min_instances": "3", "autoscaling.max_instances": "3"}


@asynccontextmanager
async def bot(real: Real, labels: dict[str, str] | None = None) -> AsyncIterator[tuple[World, Any]]:
    """A dockscale with one app of the rpc image, and a client."""
    async with serving(DockerEngine(only=real.label), host="0.0.0.0") as it, client(it) as api:
        own = prefixed({"type": "rpc", "app_id": "bot", **(labels or {})})
        await in_thread(lambda: real.build("bot", own, base=RPC))
        await appears(it, "bot")
        yield it, api


async def test_get_service_starts_a_container_and_calls_reach_it(real: Real) -> None:
    async with bot(real) as (it, api):
        service = await api.get_service("default@bot")

        told = await service.who()

        [name] = real.running()
        assert told["client_id"] == f"{name}__rlb"
        assert await service.call(lambda number: number * 2, 3) == [0, 2, 4]
        assert [item async for item in await service.acount(3, 0.01)] == [0, 1, 2]
        assert await service.size(b"x" * 700_000) == 700_000
        assert len(await service.big(700_000)) == 700_000
        with pytest.raises(Exception, match="as asked"):
            await service.fail("as asked")
        assert it.states("bot") == {"ready": 1}


async def test_sixty_concurrent_calls_reach_three_containers(real: Real) -> None:
    async with bot(real, THREE) as (it, api):
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)

        served = Counter(told["client_id"] for told in await asyncio.gather(*(service.who() for _ in range(60))))

        assert sorted(served) == [f"{name}__rlb" for name in real.running()]


@pytest.mark.parametrize("by", ["kill", "die"])
async def test_a_container_that_dies_fails_the_calls_it_has_and_is_replaced(real: Real, by: str) -> None:
    async with bot(real) as (it, api):
        service = await api.get_service("default@bot")
        before = await service.who()
        call = asyncio.ensure_future(service.slow("x", 60) if by == "kill" else service.die())

        if by == "kill":
            await until(lambda: it.app("bot").pool.in_flight == 1)
            [box] = real.containers()
            await in_thread(lambda: box.kill("SIGKILL"))

        with pytest.raises(Exception, match=r"ConnectionError: the instance bot-1-.* left while it worked on"):
            await call
        assert (await service.who())["client_id"] != before["client_id"]
        assert it.app("bot").stats.deaths == 1


async def test_containers_that_leave_end_their_calls_first(real: Real) -> None:
    async with bot(real, THREE) as (it, api):
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)
        leaving, answers = list(it.app("bot").pool)[:2], []

        async def call_on(first: int) -> None:
            for number in range(first, 1000, 50):
                answers.append(await service.slow(number, 0.05))

        calls = asyncio.gather(*(call_on(first) for first in range(50)))
        long = [await api.get_service(f"{each.client_id}:default") for each in leaving]
        last = asyncio.gather(*(each.slow("last", 3) for each in long))
        await until(lambda: len(answers) > 100)
        it.dockscale.scaler.rest(it.app("bot"), leaving)  # SIGTERM would end their programs at once
        await calls

        assert await last == ["last", "last"]
        assert sorted(answers) == list(range(1000))
        await until(lambda: not {each.name for each in leaving} & set(real.running()), "they are stopped")


async def test_a_restarted_dockscale_takes_its_containers_back_and_old_proxies_work_on(real: Real) -> None:
    async with bot(real) as (it, _):
        port = it.dockscale.main_port
        api = await connect_to_server({"server_url": it.base})
        service = await api.get_service("default@bot")
        before = await service.who()
    async with serving(DockerEngine(only=real.label), host="0.0.0.0", port=port) as it:
        await appears(it, "bot")
        await until(lambda: it.ready("bot") == 1 and it.dockscale.rpc.hub.count == 2, "both clients are back")

        assert await service.who() == before
        assert await (await api.get_service("default@bot", mode="first")).who() == before
        await api.disconnect()


async def test_the_npm_client_calls_a_container(node_ready: None, real: Real) -> None:
    async with bot(real) as (it, _):
        done = await node.visit(
            it.base, "default@bot", "add", "call", "fail", "count", "acount", "size", "big", "counter"
        )

    assert {name: done[name].value for name in ("add", "call", "count", "acount", "counter")} == {
        "add": 5, "call": [0, 10, 20], "count": [0, 1, 2, 3], "acount": [0, 1, 2, 3], "counter": [1, 5, 5],
    }  # fmt: skip
    assert "as asked" in done["fail"].error
    assert (done["size"].value, done["big"].value) == (1_000_000, {"bytes": 1_000_000})
