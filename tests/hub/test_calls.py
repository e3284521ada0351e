"""Calls of an rpc app's services by the unmodified client, on instances that are real clients too."""

import asyncio
from collections import Counter

import pytest

from tests.support.worker import client, rpc_world
from tests.support.world import until

THREE = {"autoscaling.min_instances": "3", "autoscaling.max_instances": "3"}


async def test_the_first_get_service_starts_a_sleeping_app() -> None:
    async with rpc_world() as it, client(it) as api:
        service = await api.get_service("default@bot")

        assert await service.echo({"a": [1, b"x"]}) == {"a": [1, b"x"]}
        assert it.states("bot") == {"ready": 1}


async def test_sixty_concurrent_calls_of_one_proxy_reach_every_instance() -> None:
    async with rpc_world(THREE) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)

        served = Counter(await asyncio.gather(*(service.who() for _ in range(60))))

        assert len(served) == 3
        assert it.app("bot").pool.in_flight == 0


@pytest.mark.parametrize(("mode", "most"), [("first", 12), ("last", 12), ("round_robin", 4)])
async def test_a_mode_that_is_asked_for_wins_over_the_apps_own(mode: str, most: int) -> None:
    async with rpc_world(THREE) as it, client(it) as api:
        service = await api.get_service("default@bot", mode=mode)
        await until(lambda: it.ready("bot") == 3)

        served = Counter([await service.who() for _ in range(12)])

        assert max(served.values()) == most


async def test_callbacks_generators_and_what_is_returned_stay_with_their_instance() -> None:
    async with rpc_world(THREE) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)

        assert await service.call(lambda number: number * 3, 4) == [0, 3, 6, 9]
        assert [item async for item in await service.count(5)] == [0, 1, 2, 3, 4]
        assert [item async for item in await service.acount(5)] == [0, 1, 2, 3, 4]
        counter = await service.counter()
        assert [await counter.inc() for _ in range(3)] == [1, 2, 3]


async def test_what_is_large_goes_in_parts_both_ways_and_through_callbacks() -> None:
    async with rpc_world(THREE) as it, client(it) as api:
        service = await api.get_service("default@bot")

        assert await service.size(b"z" * 1_500_000) == 1_500_000
        assert len(await service.big(1_500_000)) == 1_500_000
        assert [len(part) for part in await service.call(lambda _: b"q" * 700_000, 2)] == [700_000, 700_000]


async def test_an_error_reaches_the_caller_with_its_words() -> None:
    async with rpc_world() as it, client(it) as api:
        service = await api.get_service("default@bot")

        with pytest.raises(Exception, match="out of cheese"):
            await service.fail("out of cheese")
