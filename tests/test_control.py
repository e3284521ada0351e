"""What operators are told, as values, over the memory engine."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from dockscale.claim import TooLate
from dockscale.control import AppExists, ByHand, OutOfBounds, UnknownApp, UnknownInstance
from dockscale.core.load import Load
from dockscale.core.spec import PREFIX, SpecError
from dockscale.engine import EngineError
from dockscale.engine.memory import Program
from dockscale.watch import MOST_NEWS, Watch
from tests.support.backend import backend
from tests.support.world import BOUND_S, ENABLED, World, appears, asked_all_the_time, eject, prefixed, until, world

WRONG = ENABLED | prefixed({"autoscaling.max_instance": "3"})


async def test_every_app_is_listed_by_id_and_refused_ones_with_what_is_wrong() -> None:
    async with world() as it:
        it.engine.add_image("shop", Program(backend), WRONG)
        it.engine.add_image("blog", Program(backend), ENABLED)
        await it.settled()

        listed = it.dockscale.control.list()

        assert [(app["app_id"], app["state"]) for app in listed] == [
            ("blog", "asleep"),
            ("shop", "invalid"),
            ("web", "asleep"),
        ]
        assert listed[1]["template"] == "image shop"
        [problem] = listed[1]["problems"]
        assert "dockscale.autoscaling.max_instances" in problem
        assert it.dockscale.control.status() == {"engine_up": True, "apps": 2, "invalid": 1, "instances": 0}


async def test_urls_lead_to_the_app() -> None:
    async with world({"route.path": "/shop"}) as it:
        [app] = it.dockscale.control.list()

        assert len(app["urls"]) == 3
        for url in app["urls"]:
            host = url.removeprefix("http://").partition("/")[0]
            path = url.partition(host)[2] or "/"
            async with it.session.get(it.base + path, headers={"Host": host}) as answer:
                assert (url, answer.status) == (url, 200)


async def test_an_explained_app_shows_its_instances_load_and_settings() -> None:
    async with world() as it:
        _, body = await it.get()

        app = it.dockscale.control.explain("web")

        assert app["state"] == "ready"
        [instance] = app["instances"]
        assert instance["name"] == body["instance"]
        assert (instance["state"], instance["managed"], instance["in_flight"]) == ("ready", True, 0)
        assert instance["requests_per_minute"] == app["load"]["requests_per_minute"] == 1
        assert app["load"]["scale_up_above"] == 90
        assert app["load"]["scale_down_below"] == 30
        assert app["spec"]["autoscaling"]["max_instances"] == 10


async def test_decisions_are_told_newest_first_and_why() -> None:
    async with world() as it:
        await it.get()
        it.clock.advance(10)
        it.tick()

        told = it.dockscale.control.explain("web")["decisions"]

        [wake] = [each for each in told if each["reason"] == "wake" and each["before"] == 0]
        assert wake["instances"] == 1
        assert "1 request waits and no instance is ready" in wake["explanation"]
        assert told[0]["ago_s"] < 10 <= wake["ago_s"]
        assert (told[0]["reason"], told[0]["held_by"]) == ("quiet", ["min_instances"])
        assert [each["ago_s"] for each in told] == sorted(each["ago_s"] for each in told)


async def test_a_decision_tells_its_time_and_all_that_it_rests_on() -> None:
    async with world() as it:
        began = time.time()
        await it.get()
        it.tick()

        told = it.dockscale.control.explain("web")["decisions"]

        [wake] = [each for each in told if each["reason"] == "wake" and each["before"] == 0]
        at = datetime.fromisoformat(wake["at"])
        assert at.tzinfo == UTC
        assert began - 0.01 <= at.timestamp() <= time.time() + 0.01
        assert wake["load"].keys() == {field.name for field in fields(Load)}
        assert (wake["load"]["waiting"], wake["load"]["ready"], wake["gone"]) == (1, 0, [])
        assert wake["load"]["observed_s"] == round(wake["load"]["observed_s"], 3)
        assert [each["at"] for each in told] == sorted((each["at"] for each in told), reverse=True)


async def test_what_died_is_told_with_the_decision_that_replaces_it() -> None:
    async with world({"autoscaling.min_instances": "2"}) as it:
        await it.get()
        await until(lambda: it.ready() == 2)

        ejected = eject(it)

        told = it.dockscale.control.explain("web")["decisions"]
        assert any(ejected.name in gone for each in told for gone in each["gone"])


async def test_a_failing_app_says_why() -> None:
    async with world(program=Program(backend, exits="no such module: shop")) as it:
        status, _ = await it.get()

        await until(lambda: it.states() == {})
        app = it.dockscale.control.explain("web")
        assert status == 502
        assert app["state"] == "failing"
        assert "no such module: shop" in app["failure"]


async def test_a_refused_app_is_explained_by_its_problems() -> None:
    async with world() as it:
        it.engine.add_image("shop", Program(backend), WRONG)
        await it.settled()

        assert it.dockscale.control.explain("shop") == it.dockscale.control.list()[0]


async def test_an_unknown_app_is_told_so() -> None:
    async with world() as it:
        with pytest.raises(UnknownApp, match=r"'shop'.*dockscale ps"):
            it.dockscale.control.explain("shop")


async def heard(watch: Watch, name: str, **facts: Any) -> dict[str, Any]:
    """Take news until there is one of this name with these facts."""
    async with asyncio.timeout(BOUND_S):
        while True:
            for event, told in await watch.news():
                if event == name and told.items() >= facts.items():
                    return told


async def test_who_watches_is_told_at_once_how_things_are() -> None:
    async with world() as it:
        await it.get()
        it.tick()

        with it.dockscale.control.watch() as watch:
            news = await watch.news()

        [(_, decision), (_, load), (_, state)] = news
        latest = it.dockscale.control.explain("web")["decision"]
        assert [event for event, _ in news] == ["decision", "load", "state"]
        assert load == {"app_id": "web", "requests_per_minute": 1, "per_instance": 1.0, "in_flight": 0, "waiting": 0}
        assert decision | {"ago_s": 0} == {"app_id": "web"} | latest | {"ago_s": 0}
        assert state == {
            "app_id": "web",
            "state": "ready",
            "instances_by_state": {"starting": 0, "ready": 1, "draining": 0, "standby": 0},
            "failure": "",
        }


async def test_who_watches_is_told_of_each_decision_once_however_often_it_is_repeated() -> None:
    async with world() as it:
        await it.get()
        it.tick()
        with it.dockscale.control.watch() as watch:
            await watch.news()
            for _ in range(3):
                it.tick()
            repeated = await watch.news()
            it.engine.remove_image("web")
            it.engine.add_image("web", Program(backend), ENABLED | prefixed({"autoscaling.min_instances": "2"}))
            await it.settled()
            told = await heard(watch, "decision")

        assert repeated == []
        assert (told["reason"], told["before"], told["instances"]) == ("minimum", 1, 2)


async def test_a_change_that_comes_without_a_decision_is_seen_soon() -> None:
    async with world() as it:
        await it.get()
        with it.dockscale.control.watch("web") as watch:
            await watch.news()
            it.app().failure = "no such module"

            told = await heard(watch, "state")

        assert told["failure"] == "no such module"


async def test_an_app_that_comes_later_is_watched_from_its_first_decision_on() -> None:
    async with world() as it:
        with it.dockscale.control.watch() as watch:
            await watch.news()
            it.engine.add_image("blog", Program(backend), ENABLED)
            await it.settled()
            await it.get(app_id="blog")
            decided = [decision.reason for decision in it.app("blog").journal]

            async with asyncio.timeout(BOUND_S):
                news: list[tuple[str, dict[str, Any]]] = []
                while not news:
                    news = await watch.news()

        told = [facts["reason"] for name, facts in news if name == "decision" and facts["app_id"] == "blog"]
        assert told == decided
        assert len(told) > 1


async def test_the_watch_of_one_app_ends_with_it_and_the_watch_of_all_goes_on() -> None:
    async with world() as it:
        it.engine.add_image("blog", Program(backend), ENABLED)
        await it.settled()
        with it.dockscale.control.watch("web") as one, it.dockscale.control.watch() as all_of_them:
            it.engine.remove_image("web")
            await it.settled()

            for watch in (one, all_of_them):
                await heard(watch, "removed", app_id="web")
            assert (one.ended, all_of_them.ended) == (True, False)
            it.app("blog").failure = "no such module"
            await heard(all_of_them, "state", app_id="blog")


async def test_who_does_not_take_the_news_misses_the_oldest_and_is_told_how_many() -> None:
    async with world() as it:
        with it.dockscale.control.watch("web") as watch:
            await watch.news()
            for number in range(MOST_NEWS + 44):
                it.app().memory = replace(it.app().memory, gone=(f"web-{number} died",))
                it.tick()

            (name, missed), *rest = await watch.news()

        told = [facts["gone"] for event, facts in rest if event == "decision"]
        assert (name, missed) == ("missed", {"count": 44})
        assert told == [[f"web-{number} died"] for number in range(44, MOST_NEWS + 44)]


async def test_afterwards_no_app_knows_of_a_watch() -> None:
    async with world() as it:
        with it.dockscale.control.watch(), it.dockscale.control.watch("web"):
            assert len(it.app().watchers) == 2

        assert it.app().watchers == set()


async def test_an_unknown_or_refused_app_cannot_be_watched() -> None:
    async with world() as it:
        it.engine.add_image("shop", Program(backend), WRONG)
        await it.settled()

        for app_id in ("shop", "blog"):
            with pytest.raises(UnknownApp, match=f"'{app_id}'.*dockscale ps"):
                it.dockscale.control.watch(app_id)


# What changes.

SHOP: dict[str, Any] = {"name": "My Shop", "image": "plain", "autoscaling": {"max_instances": 2}}


@asynccontextmanager
async def shop_world(**settings: Any) -> AsyncIterator[World]:
    """A world with an image without labels, of which apps can be made."""
    async with world(**settings) as it:
        it.engine.add_image("plain", Program(backend), {"dockscale.lazy": "false", "org.example": "kept"})
        yield it


async def test_an_image_is_installed_as_an_app_that_serves_at_once() -> None:
    told: list[tuple[str, str]] = []
    async with shop_world() as it:
        manifest = await it.dockscale.control.install(SHOP, tell=lambda *each: told.append(each))

        assert (manifest["id"], manifest["workspace"], manifest["image"]) == ("my-shop", "public", "plain")
        assert manifest["autoscaling"] | {"max_instances": 2, "min_instances": 1} == manifest["autoscaling"]
        assert it.app("my-shop").spec.lazy
        assert (await it.get(app_id="my-shop"))[0] == 200
        image = await it.engine.find_image("dockscale/my-shop:latest")
        assert image.labels["org.example"] == "kept"
        assert told[-1] == ("success", "my-shop is installed")


async def test_an_app_of_the_same_name_on_another_dockscale_is_another_image() -> None:
    async with shop_world(only="team=blue") as it:
        await it.dockscale.control.install(SHOP)

        assert it.app("my-shop").template.name == "dockscale/my-shop:team-blue"


async def test_an_image_that_is_not_there_is_pulled_before_it_is_given_up() -> None:
    told: list[str] = []
    async with shop_world() as it:
        with pytest.raises(EngineError, match="pull nowhere:1"):
            await it.dockscale.control.install(SHOP | {"image": "nowhere:1"}, tell=lambda _, text: told.append(text))

        assert told == ["pulling the image nowhere:1"]


async def test_all_that_is_wrong_with_a_manifest_is_told_at_once_and_nothing_is_made() -> None:
    wrong = SHOP | {"autoscaling": {"max_instance": 2, "min_instances": -1}, "workspace": "A B"}
    async with shop_world() as it:
        with pytest.raises(SpecError) as refusal:
            await it.dockscale.control.install(wrong)
        with pytest.raises(SpecError, match="source or image is missing"):
            await it.dockscale.control.install({"name": "shop"})
        with pytest.raises(SpecError, match="there is no name"):
            await it.dockscale.control.install({"image": "plain"})

        assert len(refusal.value.problems) == 3
        assert not any(PREFIX in problem for problem in refusal.value.problems)
        assert [image.name for image in (await it.engine.list()).images] == ["web"]


async def test_an_app_that_exists_is_replaced_only_if_that_is_meant_and_without_losing_a_request() -> None:
    async with shop_world() as it:
        await it.dockscale.control.install(SHOP)
        await it.get(app_id="my-shop")
        with pytest.raises(AppExists, match="already exists"):
            await it.dockscale.control.install(SHOP)
        with pytest.raises(AppExists, match="is taken"):
            await it.dockscale.control.install(SHOP | {"workspace": "other"}, overwrite=True)
        with pytest.raises(ByHand, match="image web was labelled by hand"):
            await it.dockscale.control.install(SHOP | {"app_id": "web"}, overwrite=True)
        first = [instance.name for instance in it.app("my-shop").pool]

        async with asked_all_the_time(it, "my-shop"):
            manifest = await it.dockscale.control.install(SHOP | {"version": "2"}, overwrite=True)
            await until(lambda: first[0] not in it.app("my-shop").pool.instances)

        assert manifest["version"] == it.app("my-shop").spec.version == "2"


async def test_of_two_installations_at_once_one_finds_that_the_app_exists() -> None:
    async with shop_world() as it:
        done = await asyncio.gather(*(it.dockscale.control.install(SHOP) for _ in range(2)), return_exceptions=True)

        assert [type(each) for each in done] == [dict, AppExists]


async def test_fields_of_an_installed_app_can_be_changed_and_the_others_stay() -> None:
    async with shop_world() as it:
        await it.dockscale.control.install(SHOP)

        manifest = await it.dockscale.control.edit("my-shop", {"autoscaling": {"min_instances": 2}, "name": ""})

        assert it.app("my-shop").spec.bounds == (2, 2)
        assert (manifest["name"], manifest["image"]) == ("", "plain")
        with pytest.raises(SpecError, match="min_instances"):
            await it.dockscale.control.edit("my-shop", {"autoscaling": {"min_instances": 3}})
        with pytest.raises(SpecError, match="workspace cannot be changed"):
            await it.dockscale.control.edit("my-shop", {"workspace": "other"})
        with pytest.raises(ByHand):
            await it.dockscale.control.edit("web", {"name": "Web"})
        assert it.app("my-shop").spec.bounds == (2, 2)


async def test_an_uninstalled_app_lets_its_requests_end_and_leaves_nothing() -> None:
    async with shop_world() as it:
        await it.dockscale.control.install(SHOP)
        asking = asyncio.create_task(it.get("/slow?s=0.3", app_id="my-shop"))
        await until(lambda: it.app("my-shop").pool.in_flight)

        await it.dockscale.control.uninstall("my-shop")

        listing = await it.engine.list()
        assert (await asking)[0] == 200
        assert "my-shop" not in it.dockscale.registry.apps
        assert (listing.containers, [image.name for image in listing.images]) == ((), ["web"])
        with pytest.raises(ByHand):
            await it.dockscale.control.uninstall("web")
        with pytest.raises(UnknownApp):
            await it.dockscale.control.uninstall("my-shop")


async def test_an_app_can_be_woken_without_a_request() -> None:
    async with world({"startup_config.stop_after_inactive": "60"}) as it:
        it.clock.advance(3600)

        first = await it.dockscale.control.start("web")
        it.tick()
        again = await it.dockscale.control.start("web")

        assert (first["state"], first["name"]) == ("ready", again["name"])
        assert it.states() == {"ready": 1}
        assert it.app().load().requests == 0


async def test_who_wakes_an_app_need_not_wait_for_ever() -> None:
    async with world(program=Program(backend, gate=asyncio.Event())) as it:
        with pytest.raises(TooLate, match=r"within 0\.05 s"):
            await it.dockscale.control.start("web", timeout=0.05)

        assert it.app().pool.waiting == 0


async def test_an_app_whose_last_instance_is_stopped_sleeps_until_it_is_asked_for() -> None:
    async with world({"autoscaling.min_instances": "2", "lazy": "false"}) as it:
        await until(lambda: it.ready() == 2)
        one, two = it.dockscale.control.instances("web")

        it.dockscale.control.stop("web")
        await until(lambda: it.states() == {})
        it.tick()

        assert it.states() == {}
        assert (await it.get())[0] == 200
        assert it.app().pool.instances.keys().isdisjoint({one["name"], two["name"]})


async def test_one_of_those_that_min_instances_asks_for_is_replaced_when_it_is_stopped() -> None:
    async with world({"autoscaling.min_instances": "2"}) as it:
        await it.get()
        await until(lambda: it.ready() == 2)
        [one, _] = it.dockscale.control.instances("web")

        it.dockscale.control.stop("web", one["name"])

        await until(lambda: it.ready() == 2 and one["name"] not in it.app().pool.instances)
        with pytest.raises(UnknownInstance):
            it.dockscale.control.stop("web", one["name"])


async def test_one_that_is_drained_finishes_what_it_has_and_is_replaced_if_the_minimum_asks_for_it() -> None:
    async with world({"autoscaling.min_instances": "1"}) as it:
        _, body = await it.get()
        asking = asyncio.create_task(it.get("/slow?s=0.3"))
        await until(lambda: it.app().pool.in_flight)

        told = it.dockscale.control.drain("web", body["instance"])

        assert told["instances_by_state"]["draining"] == 1
        assert (await it.get())[1]["instance"] != body["instance"]
        assert (await asking)[0] == 200
        await until(lambda: it.states() == {"ready": 1})


async def test_one_that_is_drained_is_not_replaced_if_nothing_asks_for_it() -> None:
    async with world({"autoscaling.min_instances": "0"}) as it:
        _, body = await it.get()

        it.dockscale.control.drain("web", body["instance"])

        await until(lambda: it.states() == {})
        assert it.engine.starts == 1


async def test_which_instance_is_drained_must_be_said() -> None:
    async with world() as it:
        _, body = await it.get()

        for name in ("", "web-9"):
            with pytest.raises(UnknownInstance, match=body["instance"]):
                it.dockscale.control.drain("web", name)


async def test_a_restart_replaces_every_instance_and_loses_no_request() -> None:
    async with world({"autoscaling.min_instances": "0", "autoscaling.max_instances": "3"}) as it:
        it.dockscale.control.scale("web", 2)
        await until(lambda: it.ready() == 2)
        old = set(it.app().pool.instances)
        async with asked_all_the_time(it, "web", ready=2):
            it.dockscale.control.restart("web")
            await until(lambda: not old & it.app().pool.instances.keys() and it.states() == {"ready": 2})


async def test_a_restart_where_there_is_no_room_lets_requests_wait() -> None:
    async with world({"autoscaling.max_instances": "1"}) as it:
        _, old = await it.get()
        async with asked_all_the_time(it, "web"):
            it.dockscale.control.restart("web")
            await until(lambda: old["instance"] not in it.app().pool.instances and it.states() == {"ready": 1})


async def test_a_labelled_container_is_restarted_by_copies_and_stays() -> None:
    async with world() as it:
        box = it.engine.add_container("box", "web", ENABLED | {"dockscale.app_id": "box"})
        await it.engine.start(box.id)
        await appears(it, "box")
        async with asked_all_the_time(it, "box"):
            it.dockscale.control.restart("box")
            await until(lambda: "box" not in it.app("box").pool.instances and it.states("box") == {"ready": 1})

        assert (await it.engine.inspect(box.id)).state == "exited"


async def test_a_sleeping_app_that_is_restarted_sleeps_on() -> None:
    async with world() as it:
        assert it.dockscale.control.restart("web")["state"] == "asleep"
        it.tick()

        assert it.states() == {}


async def test_as_many_as_are_asked_for_are_there_until_the_cooldown_is_over_and_load_decides() -> None:
    labels = {"autoscaling.min_instances": "0", "startup_config.stop_after_inactive": "60"}
    async with world(labels | {"autoscaling.scale_down_cooldown": "100"}) as it:
        told = it.dockscale.control.scale("web", 3)
        await until(lambda: it.ready() == 3)
        it.clock.advance(99)
        it.tick()
        kept = it.states()
        it.clock.advance(2)
        it.tick()
        await until(lambda: it.states() == {})

        assert (told["decision"]["reason"], told["decision"]["instances"]) == ("by_hand", 3)
        assert kept == {"ready": 3}


async def test_fewer_than_there_are_finish_what_they_have() -> None:
    async with world() as it:
        it.dockscale.control.scale("web", 3)
        await until(lambda: it.ready() == 3)
        async with asked_all_the_time(it, "web", ready=3):
            it.dockscale.control.scale("web", 1)
            await until(lambda: it.states() == {"ready": 1})


@pytest.mark.parametrize(
    ("labels", "wanted", "told"),
    [
        ({}, 11, r"web may have 10 at most \(dockscale\.autoscaling\.max_instances\), not 11"),
        (
            {"autoscaling.min_instances": "2"},
            1,
            r"web must have 2 at least \(dockscale\.autoscaling\.min_instances\), not 1",
        ),
        ({}, 0, r"`dockscale sleep web` lets all go"),
        ({}, -1, r"not -1"),
        ({"autoscaling.enabled": "false"}, 2, r"1 at most \(dockscale\.autoscaling\.enabled\)"),
        ({"autoscaling.schedule": "* * * * * = 4"}, 3, r"4 at least \(dockscale\.autoscaling\.schedule\)"),
    ],
    ids=["too many", "too few", "none", "negative", "not scaled", "by the schedule"],
)
async def test_what_is_out_of_bounds_is_told_with_the_label_that_says_so(
    labels: dict[str, str], wanted: int, told: str
) -> None:
    async with world(labels) as it:
        with pytest.raises(OutOfBounds, match=told):
            it.dockscale.control.scale("web", wanted)


async def test_an_app_that_does_not_exist_is_told_with_the_nearest_names() -> None:
    async with world() as it:
        with pytest.raises(UnknownApp, match=r"no valid app is called 'wob'; did you mean web\?"):
            it.dockscale.control.stop("wob")


async def test_the_logs_are_what_instances_wrote_and_how_the_app_was_scaled() -> None:
    async with world() as it:
        await it.get()
        [instance] = it.dockscale.control.instances("web")
        [container] = (await it.engine.list()).containers
        it.engine.write(container.id, "one", "two", "three")

        whole = await it.dockscale.control.logs("web")
        part = await it.dockscale.control.logs("web", instance["name"], kind="log", offset=1, limit=1)

        assert [item["content"] for item in whole["items"] if item["type"] == "log"] == ["one", "two", "three"]
        assert any("1 request waits" in item["content"] for item in whole["items"] if item["type"] == "scaling")
        assert whole["total"] == len(whole["items"]) > 3
        assert part["items"] == [{"type": "log", "instance": instance["name"], "content": "two"}]
        assert (part["total"], part["offset"], part["limit"]) == (3, 1, 1)


async def test_one_that_would_be_gone_if_it_were_stopped_is_not() -> None:
    async with world() as it:
        box = it.engine.add_container("box", "web", ENABLED | {"dockscale.app_id": "box"}, auto_remove=True)
        await it.engine.start(box.id)
        await until(lambda: "box" in it.dockscale.registry.apps and it.ready("box"))

        with pytest.raises(ByHand, match="box was made with --rm"):
            it.dockscale.control.stop("box")
        with pytest.raises(ByHand, match="box was made with --rm"):
            it.dockscale.control.drain("box", "box")
        with pytest.raises(ByHand, match="box was made with --rm"):
            it.dockscale.control.restart("box")

        assert it.states("box") == {"ready": 1}


async def test_an_image_that_was_given_another_name_by_hand_is_not_removed() -> None:
    async with shop_world() as it:
        await it.dockscale.control.install(SHOP)
        labels = (await it.engine.find_image("dockscale/my-shop:latest")).labels
        it.engine.add_image("my-copy", Program(backend), labels)

        with pytest.raises(ByHand, match="since image my-copy is the same"):
            await it.dockscale.control.uninstall("my-shop")

        assert (await it.get(app_id="my-shop"))[0] == 200


async def test_an_app_that_is_installed_anew_while_it_leaves_serves_and_nobody_waits_for_its_end() -> None:
    async with shop_world() as it:
        await it.dockscale.control.install(SHOP)
        asking = asyncio.create_task(it.get("/slow?s=0.3", app_id="my-shop"))
        await until(lambda: it.app("my-shop").pool.in_flight)
        leaving = asyncio.create_task(it.dockscale.control.uninstall("my-shop"))
        await until(lambda: "my-shop" not in it.dockscale.registry.apps)

        await it.dockscale.control.install(SHOP)
        await it.get(app_id="my-shop")
        await leaving

        assert (await asking)[0] == 200
        assert (await it.get(app_id="my-shop"))[0] == 200


async def test_the_last_hour_is_told_as_it_was_looked_at() -> None:
    async with world({"lazy": "false"}) as it:
        await until(lambda: it.ready() == 1)
        await it.get()
        for _ in range(3):
            it.dockscale.scaler.look([it.app()], it.session)
            it.clock.advance(10)

        told = it.dockscale.control.history("web")

        assert (told["requests_per_minute"], told["per_instance"], told["ready"]) == (
            [1, 1, 1],
            [1.0, 1.0, 1.0],
            [1, 1, 1],
        )
        assert [later - earlier for earlier, later in pairwise(told["at"])] == pytest.approx([10, 10], abs=1)
        assert told["at"][-1] <= told["now"]
        with pytest.raises(UnknownApp):
            it.dockscale.control.history("shop")


async def test_an_app_that_sleeps_has_an_hour_too() -> None:
    async with world() as it:
        it.dockscale.scaler.look([it.app()], it.session)

        assert it.app().at_rest
        assert it.dockscale.control.history("web")["ready"] == [0]


async def test_what_scaling_saves_is_reported_in_instance_hours() -> None:
    async with world({"autoscaling.max_instances": "4", "startup_config.stop_after_inactive": "1800"}) as it:
        await it.get()
        it.clock.advance(1800.0)
        it.tick()
        await until(lambda: it.states() == {})
        it.clock.advance(1800.0)

        told = it.dockscale.control.report()

        [row] = told["apps"]
        assert (row["app_id"], row["max_instances"], row["wakes"]) == ("web", 4, 1)
        assert row["used_h"] == pytest.approx(0.5, abs=0.01)
        assert row["always_one_h"] == row["watched_h"] == pytest.approx(1.0, abs=0.01)
        assert row["always_max_h"] == told["total"]["always_max_h"] == pytest.approx(4.0, abs=0.04)
        assert row["waited_s"] >= 0.0
