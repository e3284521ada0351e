"""An engine that is slow, refuses, falls silent or goes away, and clocks that were set.

A bystander is asked all the time meanwhile: traffic to what runs needs no engine.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import structlog

from dockscale.core.spec import INSTANCE_OF, LAST_DOWN, MANAGED, REVISION
from dockscale.engine.docker import DockerEngine
from tests.support.faulty import Faulty, faulty
from tests.support.real import Real, in_thread
from tests.support.world import World, appears, asked_all_the_time, prefixed, serving, until

pytestmark = pytest.mark.engine

UNTIRING = {"autoscaling.target_requests_per_instance": "1000000"}
SHOP = UNTIRING | {"app_id": "shop", "shutdown_config.stop_timeout": "1s", "startup_config.stop_after_inactive": "5m"}
LIST = r"GET \S+/containers/json"
SHOW = r"GET \S+/containers/[0-9a-f]+/json"
IMAGE = r"GET \S+/images/\S+/json"
CREATE = r"POST \S+/containers/create"
START = r"POST \S+/start"
STOP = r"POST \S+/stop"
REMOVE = r"DELETE \S+/containers/"
EVENTS = r"GET \S+/events"


@pytest.fixture
async def engine() -> AsyncIterator[Faulty]:
    async with faulty() as engine:
        yield engine


@pytest.fixture
async def it(engine: Faulty, real: Real) -> AsyncIterator[World]:
    bystander = await in_thread(lambda: real.create("bystander", prefixed(UNTIRING | {"app_id": "bystander"})))
    await in_thread(bystander.start)
    await in_thread(lambda: real.build("shop", prefixed(SHOP)))
    async with (
        serving(DockerEngine(engine.url, only=real.label)) as world,
        asked_all_the_time(world, "bystander"),
    ):
        await appears(world, "shop")
        yield world


async def explained(it: World) -> dict[str, Any]:
    async with it.session.get(f"{it.admin}/api/apps/shop") as answer:
        told: dict[str, Any] = await answer.json()
        return told


def copies(real: Real) -> list[str]:
    return [str(box.name) for box in real.containers() if box.labels.get(MANAGED)]


async def only_what_serves_is_left(it: World, real: Real, *app_ids: str) -> None:
    def serving() -> set[str]:
        return {instance.name for app_id in app_ids or ("shop",) for instance in it.app(app_id).pool}

    await until(lambda: set(copies(real)) == serving(), "nothing is orphaned")


async def test_a_slow_engine_still_wakes_an_app_once_for_a_crowd(it: World, real: Real, engine: Faulty) -> None:
    engine.delay_s = 1.0

    answers = await asyncio.gather(*(it.get("/", "shop") for _ in range(20)))

    assert [status for status, _ in answers] == [200] * 20
    assert len(copies(real)) == 1


@pytest.mark.parametrize("asked", [IMAGE, CREATE, START, SHOW, LIST])
async def test_a_start_that_the_engine_refuses_says_why_and_is_tried_again(
    it: World, real: Real, engine: Faulty, asked: str
) -> None:
    engine.refused[asked] = "no space left on device"
    status, body = await it.get("/", "shop")
    told = await explained(it)
    engine.refused.clear()
    it.clock.advance(5)

    after = await it.get("/", "shop")

    assert (status, body["error"]) == (502, "start_failed")
    assert "the engine refused: no space left on device" in body["message"]
    assert "no space left on device" in told["failure"]
    assert after[0] == 200
    await only_what_serves_is_left(it, real)


@pytest.mark.parametrize("asked", [CREATE, START, SHOW, LIST])
async def test_what_the_engine_did_without_saying_so_is_no_orphan(
    it: World, real: Real, engine: Faulty, asked: str
) -> None:
    engine.cut[asked] = 0
    status, body = await it.get("/", "shop")
    engine.cut.clear()
    it.clock.advance(5)

    after = await it.get("/", "shop")

    assert (status, body["error"], after[0]) == (502, "start_failed", 200)
    await only_what_serves_is_left(it, real)


@pytest.mark.parametrize("asked", [STOP, REMOVE])
async def test_an_end_that_the_engine_refuses_is_told_and_tried_until_it_is_done(
    it: World, real: Real, engine: Faulty, asked: str
) -> None:
    await it.get("/", "shop")
    [first] = copies(real)
    engine.refused[asked] = "device or resource busy"
    with structlog.testing.capture_logs() as logs:
        it.clock.advance(301)
        it.tick("shop")
        await until(lambda: [line for line in logs if line["event"] == "remove_failed"])
    told = await explained(it)
    status, _ = await it.get("/", "shop")
    engine.refused.clear()

    await until(lambda: first not in copies(real), "it is removed in the end")

    assert "device or resource busy" in str(logs)
    assert [each["state"] for each in told["instances"]] == ["draining"]
    assert status == 200
    await only_what_serves_is_left(it, real)


async def test_a_silent_engine_keeps_nobody_from_what_runs_and_is_used_again(
    it: World, real: Real, engine: Faulty
) -> None:
    await in_thread(lambda: real.build("hasty", prefixed({"app_id": "hasty", "autoscaling.queue_timeout": "1s"})))
    await appears(it, "hasty")
    engine.answering.clear()
    waiting = asyncio.create_task(it.get("/", "shop"))
    status, body = await it.get("/", "hasty")
    running = await it.get("/", "bystander")
    engine.answering.set()

    assert (status, body["error"]) == (504, "no_instance_ready")
    assert running[0] == 200
    assert (await waiting)[0] == 200
    assert (await it.get("/", "hasty"))[0] == 200
    await only_what_serves_is_left(it, real, "shop", "hasty")


async def test_an_engine_that_goes_away_is_named_and_what_happened_meanwhile_is_seen(
    it: World, real: Real, engine: Faulty
) -> None:
    await it.get("/", "shop")
    [first] = copies(real)
    await engine.close()
    await until(lambda: not it.dockscale.registry.engine_up)
    while_away = await it.get("/", "shop")
    await in_thread(lambda: real.client.containers.get(first).remove(force=True))
    await in_thread(lambda: real.create("late", prefixed({"app_id": "late"})))
    await engine.open()

    await appears(it, "late")
    await until(lambda: first not in it.app("shop").pool.instances)

    assert while_away[0] == 200
    assert (await it.get("/", "shop"))[0] == 200
    await only_what_serves_is_left(it, real)


async def test_a_start_while_the_engine_is_away_says_so(it: World, real: Real, engine: Faulty) -> None:
    await engine.close()

    status, body = await it.get("/", "shop")
    await engine.open()
    it.clock.advance(5)

    assert (status, body["error"]) == (502, "start_failed")
    assert "Cannot connect" in body["message"]
    assert (await it.get("/", "shop"))[0] == 200


async def test_events_that_break_off_are_followed_anew(it: World, real: Real, engine: Faulty) -> None:
    for name in ("one", "two", "three"):
        await engine.hang_up(EVENTS)
        await in_thread(partial(real.create, name, prefixed({"app_id": name})))
        await appears(it, name)


async def test_a_listing_that_breaks_off_changes_nothing_and_is_asked_for_again(
    it: World, real: Real, engine: Faulty
) -> None:
    await it.get("/", "shop")
    engine.cut[LIST] = 300
    with structlog.testing.capture_logs() as logs:
        await in_thread(lambda: real.create("late", prefixed({"app_id": "late"})))
        await until(lambda: [line for line in logs if line["event"] == "list_failed"])
    states = it.states("shop")
    engine.cut.clear()

    await appears(it, "late")

    assert states == {"ready": 1}
    assert it.states("shop") == {"ready": 1}


@pytest.mark.parametrize("seconds", [-86400.0, 86400.0], ids=["yesterday", "tomorrow"])
async def test_a_clock_that_was_set_keeps_no_cooldown_from_ending(
    real: Real, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    image = await in_thread(lambda: real.build("shop", prefixed(UNTIRING | {"app_id": "shop"})))
    revision = str(real.client.images.get(image).id)
    labels = {MANAGED: "true", INSTANCE_OF: "shop", REVISION: revision, LAST_DOWN: f"{time.time():.0f}"}
    for number in (1, 2):
        await in_thread(real.create(f"shop-{number}", labels, image=image).start)
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + seconds)

    async with serving(DockerEngine(only=real.label)) as it:
        await until(lambda: it.ready("shop") == 2)
        status, _ = await it.get("/", "shop")
        it.clock.advance(it.app("shop").spec.autoscaling.scale_down_cooldown + 61)
        it.tick("shop")
        down = it.states("shop")
        box = await in_thread(lambda: real.create("late", prefixed({"app_id": "late"})))
        await in_thread(box.start)
        await appears(it, "late")

    assert status == 200
    assert down == {"ready": 1, "draining": 1}
