"""dockscale over a real daemon, with the docker SDK as witness of what the daemon really did."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from dockscale.core.pool import State
from dockscale.engine.docker import DockerEngine
from tests.support.real import HELLO, Real, in_thread
from tests.support.world import World, appears, keep_asking, prefixed, serving, until

pytestmark = pytest.mark.engine

UNTIRING = {"autoscaling.target_requests_per_instance": "1000000"}
SMALL = {"autoscaling.target_requests_per_instance": "20", "autoscaling.scale_up_cooldown": "0"}


@pytest.fixture
async def it(real: Real) -> AsyncIterator[World]:
    async with serving(DockerEngine(only=real.label)) as world:
        yield world


async def test_a_labelled_image_starts_exactly_one_container_for_a_crowd(it: World, real: Real) -> None:
    await in_thread(lambda: real.build("shop", prefixed({"app_id": "shop"})))
    await appears(it, "shop")
    before = real.containers()

    answers = await asyncio.gather(*(it.get("/", "shop") for _ in range(100)))

    assert before == []
    assert [status for status, _ in answers] == [200] * 100
    [box] = real.containers()
    assert str(box.name).startswith("shop-1-")
    assert {body["instance"] for _, body in answers} == {str(box.id)[:12]}


async def test_a_container_that_is_labelled_later_answers_without_a_restart(it: World, real: Real) -> None:
    box = real.create("whoami", prefixed({"app_id": "whoami", "port": "8000"}))
    await in_thread(box.start)
    await appears(it, "whoami")

    status, body = await it.get("/hi?x=1", "whoami")

    assert status == 200
    assert body["path"] == "/hi?x=1"
    assert body["instance"] == str(box.id)[:12]


async def test_it_scales_up_with_load_and_down_under_load_without_losing_a_request(it: World, real: Real) -> None:
    labels = SMALL | {"app_id": "web", "autoscaling.max_instances": "3", "autoscaling.scale_down_cooldown": "0"}
    real.create("web", prefixed(labels))
    await appears(it, "web")
    for _ in range(60):
        assert (await it.get())[0] == 200
    await until(lambda: it.ready() == 3)
    up = len(real.running())
    stop = asyncio.Event()
    slow = [asyncio.create_task(it.get("/slow?ms=1500")) for _ in range(6)]
    await until(lambda: it.app().pool.in_flight == 6)
    it.clock.advance(61)
    it.tick()
    it.clock.advance(61)
    it.tick()
    draining = it.states()
    load = asyncio.create_task(keep_asking(it, "web", stop))
    await until(lambda: it.app().pool.counts()[State.DRAINING] == 0)
    stop.set()

    assert up == 3
    assert draining == {"ready": 2, "draining": 1}
    assert [status for status, _ in await asyncio.gather(*slow)] == [200] * 6
    assert set(await load) == {200}


async def test_a_killed_instance_is_replaced_and_gets_are_not_lost(it: World, real: Real) -> None:
    labels = {"app_id": "web", "autoscaling.min_instances": "2"} | UNTIRING
    await in_thread(lambda: real.build("web", prefixed(labels)))
    await appears(it, "web")
    await it.get()
    await until(lambda: it.ready() == 2)
    names = real.running()
    stop = asyncio.Event()
    load = asyncio.create_task(keep_asking(it, "web", stop))

    await in_thread(lambda: real.client.containers.get(names[0]).kill("SIGKILL"))
    await until(lambda: it.states() == {"ready": 2} and names[0] not in it.app().pool.instances)
    stop.set()

    assert set(await load) == {200}
    after = real.running()
    assert len(after) == 2
    assert names[1] in after
    assert names[0] not in [str(box.name) for box in real.containers()]


async def test_a_new_template_takes_over_without_losing_a_request(it: World, real: Real) -> None:
    compose = {"com.docker.compose.project": real.named("shop"), "com.docker.compose.service": "web"}
    labels = prefixed(UNTIRING) | compose
    old = real.create("web-old", labels)
    await in_thread(old.start)
    await appears(it, "web")
    await until(lambda: it.ready() == 1)
    stop = asyncio.Event()
    load = asyncio.create_task(keep_asking(it, "web", stop))

    new = await in_thread(lambda: real.create("web-new", labels, environment={"VERSION": "2"}))
    await until(lambda: [i.name for i in it.app().pool] == [new.name] and it.ready() == 1)
    stop.set()

    assert set(await load) == {200}
    assert real.running() == [new.name]


async def test_an_image_that_exits_at_once_says_what_it_wrote(it: World, real: Real) -> None:
    real.create("broken", prefixed({"app_id": "broken"}), environment={"EXIT_AT_ONCE": "3"})
    await appears(it, "broken")

    status, body = await it.get("/", "broken")

    assert (status, body["error"]) == (502, "start_failed")
    assert "probe: leaving with code 3" in body["message"]


async def test_an_app_that_never_listens_is_a_clear_error_and_leaves_nothing(it: World, real: Real) -> None:
    await in_thread(
        lambda: real.build(
            "deaf",
            prefixed(
                {"app_id": "deaf", "port": "81", "startup_config.timeout": "2s", "shutdown_config.stop_timeout": "1s"}
            ),
        )
    )
    await appears(it, "deaf")

    status, body = await it.get("/", "deaf")

    assert (status, body["error"]) == (502, "start_failed")
    assert "did not accept a connection on port 81 within 2 s" in body["message"]
    await until(lambda: it.states("deaf") == {})
    assert real.containers() == []


async def test_bad_labels_are_reported_and_disturb_nobody_else(it: World, real: Real) -> None:
    real.create("bad", prefixed({"app_id": "bad", "autoscaling.max_instance": "3", "port": "many"}))
    good = real.create("good", prefixed({"app_id": "good"}))
    await appears(it, "good")
    await until(lambda: it.dockscale.registry.invalid)

    async with it.session.get(it.admin + "/api/apps/bad") as answer:
        told = await answer.json()
    status, _ = await it.get("/", "good")

    assert told["state"] == "invalid"
    assert any("did you mean dockscale.autoscaling.max_instances?" in problem for problem in told["problems"])
    assert any("dockscale.port = 'many'" in problem for problem in told["problems"])
    assert status == 200
    assert real.running() == [good.name]


async def test_a_container_made_with_rm_is_never_stopped_by_dockscale(it: World, real: Real) -> None:
    box = real.create("web", prefixed({"app_id": "web", "startup_config.stop_after_inactive": "5m"}), auto_remove=True)
    await in_thread(box.start)
    await appears(it, "web")
    await until(lambda: it.ready() == 1)

    it.clock.advance(400)
    it.tick()

    assert it.states() == {"ready": 1}
    assert real.running() == [box.name]


async def test_hello_streams_and_echoes_through_the_proxy(it: World, real: Real) -> None:
    real.create("hello", prefixed({"app_id": "hello2"}), image=HELLO)
    await appears(it, "hello2")
    base = it.base + "/public/apps/hello2"

    async with it.session.get(base + "/api/stream?count=2") as answer:
        events = (await answer.text()).split("\n\n")
    async with it.session.ws_connect(base + "/ws") as ws:
        await ws.send_str("hi")
        echoed = json.loads(await ws.receive_str())
    async with it.session.get(base + "/") as answer:
        page = await answer.text()

    instance = str(real.containers()[0].id)[:12]
    assert len([event for event in events if instance in event]) == 2
    assert echoed == {"instance_id": instance, "echo": "hi"}
    assert instance in page


async def test_two_with_one_id_keep_the_older_and_name_both(it: World, real: Real) -> None:
    first = real.create("one", prefixed({"app_id": "twin"}))
    second = real.create("two", prefixed({"app_id": "twin"}))
    await until(lambda: it.dockscale.registry.invalid)

    [invalid] = it.dockscale.registry.invalid
    assert invalid.source == f"container {second.name}"
    assert f"is taken by container {first.name}" in invalid.problems[0]
