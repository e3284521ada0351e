"""The host's budget over all apps, from the outside: who is refused and told so, who gives way, who comes next."""

import asyncio
from dataclasses import replace

from dockscale.core.policy import Held
from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.world import ENABLED, prefixed, serving, until

MB = 1024 * 1024
SLEEPS = {"startup_config.stop_after_inactive": "30"}


def engine_with(**apps: dict[str, str]) -> MemoryEngine:
    engine = MemoryEngine()
    for app_id, labels in apps.items():
        engine.add_image(app_id, Program(backend), ENABLED | prefixed(labels))
    return engine


async def test_an_app_that_finds_no_room_is_told_why_and_gets_it_when_there_is_some() -> None:
    async with serving(engine_with(one=SLEEPS, two={"autoscaling.queue_timeout": "0.2"}), max_instances=1) as it:
        await it.get(app_id="one")

        status, told = await it.get(app_id="two")

        decision = it.app("two").decision
        assert decision is not None
        assert decision.held_by == (Held.HOST_BUDGET,)
        assert (status, told["error"]) == (504, "no_instance_ready")
        assert "DOCKSCALE_MAX_INSTANCES" in told["message"]
        it.clock.advance(31)
        it.tick("one")
        await until(lambda: not it.app("one").pool.instances)
        assert (await it.get(app_id="two"))[0] == 200


async def test_whoever_waits_for_room_gets_it_as_soon_as_it_is_there_the_most_important_first() -> None:
    apps = {"old": SLEEPS | {"priority": "9"}, "tin": {"priority": "1"}, "gold": {"priority": "2"}}
    async with serving(engine_with(**apps), max_instances=1) as it:
        await it.get(app_id="old")
        for app_id in ("tin", "gold"):
            it.app(app_id).memory = it.app(app_id).memory.__class__(awake=True)
            it.tick(app_id)
        assert it.states("tin") == it.states("gold") == {}

        it.clock.advance(31)
        it.tick("old")

        await until(lambda: it.states("gold") == {"ready": 1})
        assert it.states("tin") == {}


async def test_a_spare_of_another_app_gives_way() -> None:
    spare = {"autoscaling.standby_instances": "1", "lazy": "false", "autoscaling.min_instances": "0"}
    async with serving(engine_with(one=spare, two={}), max_instances=1) as it:
        await until(lambda: it.states("one") == {"standby": 1})

        assert (await it.get(app_id="two"))[0] == 200
        assert it.states("one") == {}
        it.tick("one")
        assert it.states("one") == {}


async def test_the_apps_own_spares_stay_within_the_budget_too() -> None:
    spares = {"autoscaling.standby_instances": "3", "autoscaling.min_instances": "2"}
    async with serving(engine_with(one=spares), max_instances=3) as it:
        await it.get(app_id="one")

        await until(lambda: it.states("one") == {"ready": 2, "standby": 1})
        assert it.engine.starts == 3


async def test_an_idle_instance_of_a_less_important_app_gives_way_and_a_busy_one_does_not() -> None:
    apps = {"low": {"priority": "-1"}, "high": {"autoscaling.queue_timeout": "0.3"}}
    async with serving(engine_with(**apps), max_instances=1) as it:
        await it.get(app_id="low")
        [serving_it] = it.app("low").pool
        lease = it.app("low").pool.claim()
        assert lease is not None
        assert (await it.get(app_id="high"))[0] == 504
        lease.release()

        assert (await it.get(app_id="high"))[0] == 200
        assert serving_it.why == "it gave way to high (the host's budget)"


async def test_nobody_gives_way_to_an_app_whose_next_start_is_not_due() -> None:
    engine = engine_with(low={"priority": "-1"}, high={})
    async with serving(engine, max_instances=1) as it:
        high = it.app("high")
        high.memory = replace(high.memory, awake=True, failures=6, retry_at=it.clock() + 60)
        await it.get(app_id="low")

        it.tick("high")

        decision = high.decision
        assert decision is not None
        assert decision.held_by == (Held.BACKOFF,)
        assert it.states("low") == {"ready": 1}


async def test_whoever_waits_gets_the_place_of_a_less_important_instance_soon_after_that_became_idle() -> None:
    async with serving(engine_with(low={"priority": "-1"}, high={}), max_instances=1) as it:
        await it.get(app_id="low")
        asking = asyncio.create_task(it.get("/slow?s=0.3", app_id="low"))
        await until(lambda: it.app("low").pool.in_flight)

        assert (await it.get(app_id="high"))[0] == 200

        assert (await asking)[0] == 200


async def test_the_memory_limits_of_all_instances_stay_within_the_budget() -> None:
    engine = MemoryEngine()
    engine.add_image("plain", Program(backend))
    for app_id in ("one", "two"):
        labels = prefixed({"app_id": app_id, "autoscaling.min_instances": "3", "autoscaling.queue_timeout": "0.5"})
        engine.add_container(app_id, "plain", ENABLED | labels, memory=256 * MB)
    async with serving(engine, memory_budget="1g") as it:
        assert (await it.get(app_id="one"))[0] == 200
        assert (await it.get(app_id="two"))[0] == 200

        await until(lambda: it.ready("one") == 3)
        decision = it.app("two").decision
        assert decision is not None
        assert (it.states("two"), decision.held_by) == ({"ready": 1}, (Held.HOST_BUDGET,))


async def test_what_was_found_counts_with_the_limit_that_it_has_and_not_with_that_of_a_newer_template() -> None:
    engine = MemoryEngine()
    engine.add_image("plain", Program(backend))
    service = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
    old = engine.add_container("web-old", "plain", ENABLED | service, memory=800 * MB)
    await engine.start(old.id)
    engine.add_container("web-new", "plain", ENABLED | service, memory=300 * MB)
    async with serving(engine, memory_budget="1g") as it:
        first = it.app().journal[0].load
        assert (first.have, first.room) == (1, 0)


async def test_all_that_runs_counts_before_the_next_dockscale_starts_anything() -> None:
    engine = engine_with(eager={"lazy": "false"}, web={})
    revision = next(image.id for image in (await engine.list()).images if image.name == "web")
    labels = {"managed": "true", "instance-of": "web", "revision": revision}
    found = engine.add_container("web-1-ab12", "web", prefixed(labels))
    await engine.start(found.id)
    async with serving(engine, max_instances=1) as it:
        await until(lambda: it.ready() == 1)

        assert it.states("eager") == {}
        assert engine.starts == 1


async def test_a_place_made_for_a_new_version_may_go_to_a_more_important_app_and_the_version_is_tried_later() -> None:
    one = {"autoscaling.max_instances": "1"}
    async with serving(engine_with(web=one, gold=SLEEPS | {"priority": "5"}), max_instances=1) as it:
        await it.get()
        asking = asyncio.create_task(it.get("/slow?s=0.3"))
        await until(lambda: it.app().pool.in_flight)
        golden = asyncio.create_task(it.get(app_id="gold"))
        await until(lambda: it.app("gold").pool.waiting)

        it.engine.add_image("web", Program(backend), ENABLED | prefixed(one))

        assert ((await asking)[0], (await golden)[0]) == (200, 200)
        assert it.states() == {}
        it.clock.advance(31)
        it.tick("gold")
        await until(lambda: it.states() == {"ready": 1} and not it.app().stale())
        assert it.app().memory.shunned == ""
