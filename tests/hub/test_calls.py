"""Calls of an rpc app's services by the unmodified client, on instances that are real clients too."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from dockscale.engine.memory import Program
from dockscale.hub.calls import GENERATOR_IDLE_S
from dockscale.hub.tokens import User
from tests.support.backend import backend
from tests.support.worker import Crew, client, rank, rpc_world, work
from tests.support.world import ENABLED, World, prefixed, until

THREE = {"autoscaling.min_instances": "3", "autoscaling.max_instances": "3"}
ONE = {"autoscaling.max_instances": "1", "autoscaling.max_concurrency": "1"}
LABELS = ENABLED | prefixed({"type": "rpc", "app_id": "bot", "autoscaling.max_instances": "2"})


def rest(it: World) -> None:
    """Let the instances of `bot` leave."""
    it.dockscale.scaler.rest(it.app("bot"), it.app("bot").pool)


def nothing_is_booked(it: World) -> bool:
    calls = it.dockscale.rpc.calls
    return not (calls.open or calls.parts or calls.backs or calls.generators or it.app("bot").pool.in_flight)


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


async def test_a_proxy_wakes_the_app_that_has_gone_to_sleep_since() -> None:
    async with rpc_world({"startup_config.stop_after_inactive": "30"}) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await service.who()
        it.clock.advance(31)
        it.tick("bot")
        await until(lambda: it.states("bot") == {})

        assert await service.echo("up") == "up"


async def test_a_caller_with_a_short_timeout_waits_through_a_long_start() -> None:
    async with rpc_world(runs=Crew(boot_s=3.0)) as it, client(it, method_timeout=1) as api:
        service = await api.get_service("default@bot")
        rest(it)
        await until(lambda: it.states("bot") == {})

        assert await service.echo("at last") == "at last"


async def test_who_finds_the_line_full_is_told_so_and_the_others_have_their_turns() -> None:
    crew = Crew()
    async with rpc_world(ONE | {"autoscaling.max_queue": "1"}, runs=crew) as it, client(it) as api:
        service = await api.get_service("default@bot")
        first = asyncio.ensure_future(service.hold())
        await until(lambda: crew.count("began") == 1)
        second = asyncio.ensure_future(service.hold())
        await until(lambda: it.app("bot").pool.waiting == 1)

        with pytest.raises(Exception, match="LineFull: 1 requests are waiting already"):
            await service.hold()

        crew.gate.set()
        assert await first == await second
        assert dict(it.app("bot").stats.requests) == {200: 2, 503: 1}


async def test_who_waits_too_long_in_the_line_is_told_so() -> None:
    crew = Crew()
    labels = ONE | {"autoscaling.queue_timeout": "0.1", "lazy": "false"}
    async with rpc_world(labels, runs=crew) as it, client(it) as api:
        await until(lambda: it.ready("bot") == 1)
        service = await api.get_service("default@bot")
        first = asyncio.ensure_future(service.hold())
        await until(lambda: crew.count("began") == 1)

        with pytest.raises(Exception, match=r"TooLate: no instance was free within 0\.1 s"):
            await service.hold()

        crew.gate.set()
        await first


async def test_a_caller_that_leaves_the_line_leaves_nothing_there() -> None:
    crew = Crew()
    async with rpc_world(ONE, runs=crew) as it, client(it) as api:
        service = await api.get_service("default@bot")
        first = asyncio.ensure_future(service.hold())
        await until(lambda: crew.count("began") == 1)
        async with client(it) as other:
            same = await other.get_service("default@bot")
            waits = asyncio.ensure_future(same.hold())
            await until(lambda: it.app("bot").pool.waiting == 1)
        await until(lambda: it.app("bot").pool.waiting == 0)
        with pytest.raises(Exception, match=r"[Cc]onnection"):
            await waits

        crew.gate.set()
        await first
        assert crew.count("began") == 1
        assert dict(it.app("bot").stats.requests) == {200: 1, 499: 1}


async def test_an_app_that_fails_to_start_tells_why() -> None:
    labels = {"startup_config.timeout": "0.2", "startup_config.wait_for_service": "never"}
    async with rpc_world(labels) as it, client(it) as api:
        with pytest.raises(Exception, match=r"StartFailed: .*did not register the service 'never'"):
            await api.get_service("default@bot")
        with pytest.raises(Exception, match="Failing: the last start failed"):
            await api.get_service("default@bot")


async def test_a_service_that_an_app_has_not_is_a_clear_error() -> None:
    async with rpc_world() as it, client(it) as api:
        with pytest.raises(Exception, match="bot has no service model, only default, secret, web"):
            await api.get_service("model@bot")


async def test_no_instance_has_more_calls_at_once_than_it_may() -> None:
    crew = Crew()
    labels = THREE | {"autoscaling.max_concurrency": "2"}
    async with rpc_world(labels, runs=crew) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)
        calls = asyncio.gather(*(service.hold() for _ in range(10)))
        await until(lambda: crew.count("began") == 6)
        at_once, waiting = [each.in_flight for each in it.app("bot").pool], it.app("bot").pool.waiting

        crew.gate.set()
        served = Counter(await calls)

        assert (at_once, waiting) == ([2, 2, 2], 4)
        assert sum(served.values()) == 10


async def test_load_is_calls_whatever_they_consist_of_and_it_adds_instances() -> None:
    labels = {"autoscaling.max_instances": "3", "autoscaling.target_requests_per_instance": "10"}
    async with rpc_world(labels) as it, client(it) as api:
        service = await api.get_service("default@bot")
        for _ in range(3):
            await service.call(lambda number: number, 5)
        await service.size(b"x" * 700_000)
        alone = (it.app("bot").load().requests, it.ready("bot"))

        for number in range(20):
            await service.echo(number)
        it.tick("bot")

        assert alone == (4, 1)
        assert it.app("bot").load().requests == 24
        assert it.app("bot").stats.rpc_calls == 24
        await until(lambda: it.ready("bot") == 3)


async def test_an_app_does_not_sleep_while_a_call_is_worked_on() -> None:
    crew = Crew()
    async with rpc_world({"startup_config.stop_after_inactive": "30"}, runs=crew) as it, client(it) as api:
        service = await api.get_service("default@bot")
        call = asyncio.ensure_future(service.hold())
        await until(lambda: crew.count("began") == 1)
        it.clock.advance(31)
        it.tick("bot")
        awake = it.states("bot")

        crew.gate.set()

        assert awake == {"ready": 1}
        assert await call


async def test_an_instance_is_stopped_only_when_its_calls_are_over() -> None:
    crew = Crew()
    async with rpc_world(runs=crew) as it, client(it) as api:
        service = await api.get_service("default@bot")
        call = asyncio.ensure_future(service.hold())
        await until(lambda: crew.count("began") == 1)
        rest(it)
        drains = it.states("bot")

        crew.gate.set()
        me = await call
        await until(lambda: it.states("bot") == {})

        assert drains == {"draining": 1}
        assert crew.told == [("began", me), ("ended", me), ("stopped", me)]


async def test_a_call_that_outlasts_the_drain_fails_with_the_reason() -> None:
    crew = Crew()
    async with rpc_world({"shutdown_config.drain_timeout": "0.1"}, runs=crew) as it, client(it) as api:
        service = await api.get_service("default@bot")
        call = asyncio.ensure_future(service.hold())
        await until(lambda: crew.count("began") == 1)

        rest(it)

        with pytest.raises(Exception, match=r"ConnectionError: the instance bot-1-.* left while it worked on"):
            await call


async def test_instances_that_leave_during_a_thousand_calls_lose_none() -> None:
    async with rpc_world(THREE) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)
        leaving, answers = list(it.app("bot").pool)[:2], []

        async def call_on(first: int) -> None:
            for number in range(first, 1000, 50):
                answers.append(await service.slow(number, 0.05))

        calls = asyncio.gather(*(call_on(first) for first in range(50)))
        await until(lambda: len(answers) > 100)
        it.dockscale.scaler.rest(it.app("bot"), leaving)
        at_work = sum(each.in_flight for each in leaving)
        await calls

        assert at_work > 0
        assert sorted(answers) == list(range(1000))
        await until(lambda: not any(each in leaving for each in it.app("bot").pool))


async def test_a_rollout_during_calls_loses_none() -> None:
    # Calls alone are to ask for no second one.
    labels = {"autoscaling.max_instances": "2", "autoscaling.target_requests_per_instance": "1000000"}
    async with rpc_world(labels) as it, client(it) as api:
        service = await api.get_service("default@bot")
        old, stop, served = it.app("bot").template.id, asyncio.Event(), []

        async def call_on() -> None:
            while not stop.is_set():
                served.append(await service.slow("x", 0.01))

        calls = asyncio.gather(*(call_on() for _ in range(5)))
        it.engine.add_image("bot", Program(backend, connects=work), LABELS, ports=())
        await until(lambda: it.app("bot").template.id != old and it.states("bot") == {"ready": 1})
        await until(lambda: all(each.revision != old for each in it.app("bot").pool))
        stop.set()
        await calls

        assert set(served) == {"x"}


async def test_with_sticky_a_client_stays_with_its_instance() -> None:
    async with rpc_world(THREE | {"service_selection_mode": "sticky"}) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)

        assert len({await service.who() for _ in range(12)}) == 1


async def test_with_min_load_a_call_goes_where_fewest_are() -> None:
    crew = Crew()
    async with rpc_world(THREE | {"service_selection_mode": "min_load"}, runs=crew) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)
        held = asyncio.gather(*(service.hold() for _ in range(2)))
        await until(lambda: crew.count("began") == 2)

        served = {await service.who() for _ in range(6)}
        crew.gate.set()

        assert len({*await held, *served}) == 3
        assert len(served) == 1


async def test_exact_means_the_only_instance_and_is_an_error_with_several() -> None:
    async with rpc_world(THREE) as it, client(it) as api:
        await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)

        with pytest.raises(Exception, match="Multiple services found"):
            await api.get_service("default@bot", mode="exact")


async def test_an_app_that_may_be_served_by_one_only_refuses_calls_while_there_are_several() -> None:
    async with rpc_world(THREE | {"service_selection_mode": "exact"}) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)

        with pytest.raises(Exception, match="SeveralInstances: 3 instances are ready"):
            await service.who()


async def test_one_can_be_selected_by_what_its_function_says() -> None:
    async with rpc_world(THREE) as it, client(it) as api:
        await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)

        least = await api.get_service("default@bot", mode="select:min:rank")
        most = await api.get_service("default@bot", mode="select:max:rank")

        ranks = sorted(rank(each.client_id) for each in it.app("bot").pool)
        assert [rank(await each.who()) for each in (least, most)] == [ranks[0], ranks[-1]]


async def test_a_call_to_one_instance_stays_there_counts_there_and_is_waited_for() -> None:
    crew = Crew()
    async with rpc_world(THREE, runs=crew) as it, client(it) as api:
        await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)
        instance = list(it.app("bot").pool)[1]
        service = await api.get_service(f"{instance.client_id}:default")
        served = {await service.who() for _ in range(5)}
        assert await service.size(b"x" * 700_000) == 700_000
        call = asyncio.ensure_future(service.hold())
        await until(lambda: crew.count("began") == 1)

        counted = (instance.in_flight, instance.per_minute(it.clock()), it.app("bot").load().requests)
        it.dockscale.scaler.rest(it.app("bot"), [instance])
        crew.gate.set()

        assert await call == instance.client_id
        assert served == {instance.client_id}
        assert counted == (1, 7, 7)
        await until(lambda: crew.count("stopped") == 1)
        assert crew.told[-2:] == [("ended", instance.client_id), ("stopped", instance.client_id)]


async def test_functions_within_functions_reach_whom_they_belong_to() -> None:
    async with rpc_world(THREE) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await until(lambda: it.ready("bot") == 3)

        async def called_by_instance(given: Any) -> str:
            return f"told: {await given('asked')}"

        told = await service.call_deep(lambda: called_by_instance)

        assert told.startswith("told: asked by bot-")


async def test_a_generator_keeps_its_instance_until_its_last_item() -> None:
    crew = Crew()
    async with rpc_world(runs=crew) as it, client(it) as api:
        service = await api.get_service("default@bot")
        items = await service.held_items()
        first = await anext(items)
        rest(it)
        drains = it.states("bot")

        crew.gate.set()
        others = [item async for item in items]

        assert (first, drains, others) == (1, {"draining": 1}, [2])
        await until(lambda: it.states("bot") == {})
        assert nothing_is_booked(it)


async def test_a_generator_that_nobody_asks_any_more_lets_its_instance_go() -> None:
    async with rpc_world() as it, client(it) as api:
        service = await api.get_service("default@bot")
        items = await service.count(5)
        await anext(items)
        kept = it.app("bot").pool.in_flight

        it.clock.advance(GENERATOR_IDLE_S + 1)
        it.dockscale.rpc.calls.sweep()

        assert (kept, it.app("bot").pool.in_flight) == (1, 0)
        await items.aclose()


async def test_nothing_is_booked_when_all_calls_are_over() -> None:
    async with rpc_world(THREE) as it, client(it) as api:
        service = await api.get_service("default@bot")
        await service.call(lambda _: b"q" * 700_000, 3)
        await service.call(lambda _: 1, 3)
        await service.size(b"x" * 700_000)
        await service.big(700_000)

        await until(lambda: nothing_is_booked(it))


async def test_another_workspace_reaches_what_is_public_alone() -> None:
    async with rpc_world(auth="token") as it:
        token = it.dockscale.rpc.instances._tokens.issue(User("guest", {"elsewhere": "rw"}, "elsewhere"))
        async with client(it, token=token, workspace="elsewhere") as api:
            service = await api.get_service("public/default@bot")

            assert await service.echo("seen") == "seen"
            assert await service.call(lambda number: number, 2) == [0, 1]
            assert len(await service.big(700_000)) == 700_000
            with pytest.raises(Exception, match="PermissionError"):
                await api.get_service("public/secret@bot")
