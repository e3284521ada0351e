"""An rpc app whose instances are containers on a real daemon, called by the unmodified clients."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dockscale.engine.docker import DockerEngine
from tests.support import node
from tests.support.real import Real, in_thread
from tests.support.worker import client
from tests.support.world import World, prefixed, serving, until

pytestmark = pytest.mark.engine

RPC = "dockscale-rpc:test"
THREE = {"autoscaling.min_instances": "3", "autoscaling.max_instances": "3"}


@asynccontextmanager
async def bot(real: Real, **labels: str) -> AsyncIterator[World]:
    """Run dockscale where containers reach it, with the app `bot`."""
    own = prefixed({"type": "rpc", "app_id": "bot", **labels})
    await in_thread(lambda: real.build("bot", own, base=RPC))
    async with serving(DockerEngine(only=real.label), host="0.0.0.0") as it:
        await until(lambda: "bot" in it.dockscale.registry.apps, "the app is found")
        yield it


async def test_one_proxy_starts_the_app_and_its_calls_reach_all_containers(real: Real) -> None:
    async with bot(real, **THREE) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)

        served = Counter(each["instance"] for each in await asyncio.gather(*(service.who() for _ in range(60))))
        first = await api.get_service("default@bot", mode="first")
        by_first = {(await first.who())["instance"] for _ in range(6)}

        names = {box.id[:12] for box in await in_thread(real.containers) if box.status == "running"}
        assert served.keys() == names
        assert len(by_first) == 1


async def test_a_scale_down_during_a_thousand_calls_loses_none(real: Real) -> None:
    async with bot(real, **THREE, service_selection_mode="round_robin") as it, client(it) as api:
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)
        limit = asyncio.Semaphore(32)

        async def call(number: int) -> Any:
            async with limit:
                return await service.slow(number, 0.02)

        calls = asyncio.gather(*(call(number) for number in range(1000)))
        await asyncio.sleep(0.1)
        for instance in it.app("bot").pool.candidates()[:2]:
            it.app("bot").pool.drain(instance, "the test wants it to leave")
        answers = await calls

        assert answers == list(range(1000))
        await until(lambda: it.app("bot").pool.in_flight == 0)


async def test_a_container_that_is_killed_fails_its_calls_and_is_replaced(real: Real) -> None:
    async with bot(real) as it, client(it) as api:
        service = await api.get_service("default@bot")
        [killed] = [box for box in await in_thread(real.containers) if box.status == "running"]
        call = asyncio.ensure_future(service.slow(1, 60))
        await until(lambda: it.app("bot").pool.in_flight == 1)

        await in_thread(killed.kill)

        with pytest.raises(Exception, match="left"):
            await call
        assert (await service.who())["instance"] != killed.id[:12]


async def test_a_restarted_dockscale_takes_its_instances_back_and_old_proxies_work_on(real: Real) -> None:
    async with bot(real) as it:
        port = it.dockscale.main_port
        async with client(it) as api:
            service = await api.get_service("default@bot")
            before = await service.who()
    async with serving(DockerEngine(only=real.label), host="0.0.0.0", port=port) as it, client(it) as api:
        service = await api.get_service("default@bot")

        assert await service.who() == before


@pytest.mark.usefixtures("node_ready")
async def test_the_npm_client_calls_containers(real: Real) -> None:
    async with bot(real) as it:
        done = await node.visit(it.base, "default@bot", "add", "echo", "call", "acount", "fail", "size", "big")

    wrong = {name: step for name, step in done.items() if step.error and name != "fail"}
    assert wrong == {}
    assert done["fail"].error
