"""What people do to containers, images and networks while dockscale looks after them.

Each test has a bystander: another app that is asked all the time, and must not lose a single request.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from docker.models.containers import Container as Box

from dockscale.engine.docker import DockerEngine
from tests.support.real import PROBE, Real, in_thread
from tests.support.world import World, appears, asked_all_the_time, keep_asking, prefixed, serving, until

pytestmark = pytest.mark.engine

UNTIRING = {"autoscaling.target_requests_per_instance": "1000000"}
SHOP = UNTIRING | {"app_id": "shop", "shutdown_config.stop_timeout": "1s"}
PAIR = SHOP | {"autoscaling.min_instances": "2"}


@pytest.fixture
async def it(real: Real) -> AsyncIterator[World]:
    bystander = await in_thread(lambda: real.create("bystander", prefixed(UNTIRING | {"app_id": "bystander"})))
    await in_thread(bystander.start)
    async with serving(DockerEngine(only=real.label)) as world, asked_all_the_time(world, "bystander"):
        yield world


async def explained(it: World, app_id: str = "shop") -> str:
    """All that `dockscale explain` knows, as one text."""
    async with it.session.get(f"{it.admin}/api/apps/{app_id}") as answer:
        return await answer.text()


async def vanishes(it: World, app_id: str) -> None:
    await until(lambda: app_id not in it.dockscale.registry.apps, f"{app_id} is gone")


def leave_network(box: Box) -> None:
    assert box.client is not None
    box.client.networks.get("bridge").disconnect(box)


ENDS: dict[str, tuple[Callable[[Box], object], str]] = {
    "stopped": (lambda box: box.stop(timeout=1), "its container is exited"),
    "killed": (lambda box: box.kill(), "its container is exited"),
    "paused": (lambda box: box.pause(), "its container is paused"),
    "removed": (lambda box: box.remove(force=True), "its container (is exited|is removing|was removed)"),
    "restarted": (lambda box: box.restart(timeout=1), "its container (is exited|has another address)"),
    "taken off its network": (leave_network, "its container has (no|another) address"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_copy_that_is_hurt_by_hand_is_replaced_without_losing_a_request(
    it: World, real: Real, end: str
) -> None:
    hurt, why = ENDS[end]
    await in_thread(lambda: real.build("shop", prefixed(PAIR)))
    await appears(it, "shop")
    await it.get("/", "shop")
    await until(lambda: it.ready("shop") == 2)
    victim, survivor = (instance.name for instance in it.app("shop").pool)
    stop = asyncio.Event()
    load = asyncio.create_task(keep_asking(it, "shop", stop))

    await in_thread(lambda: hurt(real.client.containers.get(victim)))
    await until(lambda: it.states("shop") == {"ready": 2} and victim not in it.app("shop").pool.instances)
    stop.set()

    assert set(await load) == {200}
    assert re.search(f"{victim} died: {why}", await explained(it))
    await until(lambda: victim not in [str(box.name) for box in real.containers()], "the copy is removed")
    assert survivor in real.running()


@pytest.mark.parametrize("end", sorted(ENDS.keys() - {"removed"}))
async def test_a_labelled_container_that_is_hurt_by_hand_is_replaced_and_kept(it: World, real: Real, end: str) -> None:
    hurt, why = ENDS[end]
    box = await in_thread(lambda: real.create("shop", prefixed(SHOP)))
    await in_thread(box.start)
    await appears(it, "shop")
    await until(lambda: it.ready("shop") == 1)
    first = it.app("shop").pool.instances[str(box.name)]

    await in_thread(lambda: hurt(box))
    await until(lambda: first.lost, "the harm is noticed")
    status, _ = await it.get("/", "shop")

    assert status == 200
    assert re.search(f"{box.name} died: {why}", await explained(it))
    assert box.name in [each.name for each in real.containers()]


async def test_a_labelled_container_that_is_unpaused_by_hand_serves_again(it: World, real: Real) -> None:
    box = await in_thread(lambda: real.create("shop", prefixed(SHOP)))
    await in_thread(box.start)
    await appears(it, "shop")
    await until(lambda: it.ready("shop") == 1)
    await in_thread(box.pause)
    await until(lambda: it.ready("shop") == 1 and box.name not in it.app("shop").pool.instances, "a copy serves")

    await in_thread(box.unpause)

    await until(lambda: it.ready("shop") == 2 and box.name in it.app("shop").pool.instances)


async def test_a_copy_renamed_by_hand_goes_on_serving_and_is_removed_in_the_end(it: World, real: Real) -> None:
    await in_thread(lambda: real.build("shop", prefixed(SHOP | {"startup_config.stop_after_inactive": "5m"})))
    await appears(it, "shop")
    await it.get("/", "shop")
    [instance] = it.app("shop").pool

    await in_thread(lambda: real.client.containers.get(instance.name).rename(real.named("another")))
    await it.settled()
    status, _ = await it.get("/", "shop")
    serving = it.states("shop")
    it.clock.advance(301)
    it.tick("shop")
    await until(lambda: it.states("shop") == {})

    assert (status, serving) == (200, {"ready": 1})
    assert real.named("another") not in [box.name for box in real.containers()]


async def test_a_labelled_container_renamed_by_hand_is_the_app_of_its_new_name(it: World, real: Real) -> None:
    old, new = real.named("old"), real.named("new")
    box = await in_thread(lambda: real.create("old", prefixed(UNTIRING)))
    await in_thread(box.start)
    await appears(it, old)
    await until(lambda: it.ready(old) == 1)

    await in_thread(lambda: box.rename(new))
    await appears(it, new)
    status, told = await it.get("/", new)

    assert (status, told["instance"]) == (200, str(box.id)[:12])
    assert (await it.get("/", old))[0] == 404


async def test_copies_of_a_labelled_container_that_is_removed_by_hand_finish_and_go(it: World, real: Real) -> None:
    make = partial(real.create, "shop", prefixed(PAIR | {"service_selection_mode": "last"}))
    box = await in_thread(make)
    await appears(it, "shop")
    await it.get("/", "shop")
    await until(lambda: it.ready("shop") == 2)
    [copy] = [instance.name for instance in it.app("shop").pool if instance.managed]
    slow = asyncio.create_task(it.get("/slow?ms=1500", "shop"))
    await until(lambda: it.app("shop").pool.instances[copy].in_flight)

    await in_thread(lambda: box.remove(force=True))
    await vanishes(it, "shop")
    refused = await it.get("/", "shop")
    finished = await slow
    await until(lambda: copy not in [str(each.name) for each in real.containers()])
    await in_thread(make)
    await appears(it, "shop")

    assert (refused[0], refused[1]["error"]) == (404, "no_such_app")
    assert finished[0] == 200
    assert (await it.get("/", "shop"))[0] == 200


@pytest.mark.parametrize("awake", [True, False], ids=["awake", "asleep"])
async def test_an_image_deleted_by_hand_is_no_app_until_it_is_built_again(it: World, real: Real, awake: bool) -> None:
    build = partial(real.build, "shop", prefixed(SHOP))
    tag = await in_thread(build)
    await appears(it, "shop")
    slow = asyncio.create_task(it.get("/slow?ms=1500", "shop")) if awake else None
    await until(lambda: it.app("shop").pool.in_flight == awake)

    await in_thread(lambda: real.client.images.remove(tag, force=True))
    await vanishes(it, "shop")
    refused = await it.get("/", "shop")
    finished = await slow if slow else None
    await in_thread(build)
    await appears(it, "shop")

    assert (refused[0], refused[1]["error"]) == (404, "no_such_app")
    assert finished is None or finished[0] == 200
    assert (await it.get("/", "shop"))[0] == 200


async def test_a_labelled_container_without_its_image_serves_alone_and_says_why(it: World, real: Real) -> None:
    image = await in_thread(lambda: real.build("base", prefixed(PAIR)))
    box = await in_thread(lambda: real.create("shop", prefixed(PAIR), image=image))
    await in_thread(lambda: real.client.images.remove(str(real.client.images.get(image).id), force=True))
    await it.settled()

    status, told = await it.get("/", "shop")
    await until(lambda: it.app("shop").failure)

    assert (status, told["instance"]) == (200, str(box.id)[:12])
    assert "No such image" in await explained(it)
    assert (await it.get("/", "shop"))[0] == 200


async def test_a_network_removed_while_an_app_sleeps_is_named_and_used_again_when_it_is_back(
    it: World, real: Real
) -> None:
    name = real.named("net")
    network = await in_thread(lambda: real.client.networks.create(name, labels=real.labels))
    await in_thread(lambda: real.create("shop", prefixed(SHOP), network=name))
    await appears(it, "shop")
    await in_thread(network.remove)

    refused = await it.get("/", "shop")
    await in_thread(lambda: real.client.networks.create(name, labels=real.labels))
    it.clock.advance(5)
    status, _ = await it.get("/", "shop")

    assert (refused[0], refused[1]["error"]) == (502, "start_failed")
    assert f"network {name} not found" in refused[1]["message"]
    assert status == 200


async def test_a_name_that_is_taken_is_told_and_another_one_used(
    it: World, real: Real, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix = real.label[-6:]
    taken = await in_thread(lambda: real.client.containers.create(PROBE, name=f"shop-1-{suffix}", labels=real.labels))
    await in_thread(lambda: real.build("shop", prefixed(SHOP)))
    await appears(it, "shop")
    suffixes = iter([suffix])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(suffixes, "free" + suffix))

    refused = await it.get("/", "shop")
    it.clock.advance(5)
    status, _ = await it.get("/", "shop")

    assert (refused[0], refused[1]["error"]) == (502, "start_failed")
    assert "already in use" in refused[1]["message"]
    assert status == 200
    assert taken.name in [box.name for box in real.containers()]


async def test_an_image_built_again_with_nonsense_is_refused_until_it_is_good(it: World, real: Real) -> None:
    await in_thread(lambda: real.build("shop", prefixed(SHOP)))
    await appears(it, "shop")
    before = await it.get("/", "shop")

    await in_thread(lambda: real.build("shop", prefixed(SHOP | {"port": "many"})))
    await vanishes(it, "shop")
    refused = await it.get("/", "shop")
    story = await explained(it)
    await in_thread(lambda: real.build("shop", prefixed(SHOP | {"port": "8000"})))
    await appears(it, "shop")
    after = await it.get("/", "shop")

    assert (before[0], refused[0], after[0]) == (200, 404, 200)
    assert "dockscale.port = 'many'" in story
    assert it.dockscale.registry.invalid == ()


async def test_a_compose_service_recreated_with_nonsense_is_refused_until_it_is_good(it: World, real: Real) -> None:
    compose = {"com.docker.compose.project": real.named("shop"), "com.docker.compose.service": "shop"}
    good = prefixed(SHOP) | compose
    old = await in_thread(lambda: real.create("shop-old", good))
    await in_thread(old.start)
    await appears(it, "shop")
    before = await it.get("/", "shop")

    bad = await in_thread(lambda: real.create("shop-bad", good | prefixed({"autoscaling.max_instance": "3"})))
    await in_thread(lambda: old.remove(force=True))
    await vanishes(it, "shop")
    refused = await it.get("/", "shop")
    story = await explained(it)
    await in_thread(lambda: bad.remove(force=True))
    await in_thread(lambda: real.create("shop-new", good))
    await appears(it, "shop")
    after = await it.get("/", "shop")

    assert (before[0], refused[0], after[0]) == (200, 404, 200)
    assert "did you mean dockscale.autoscaling.max_instances?" in story
    assert it.dockscale.registry.invalid == ()
