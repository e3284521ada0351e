"""What operators are told, as values, over the memory engine."""

import asyncio
import time
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dockscale.control import MOST_NEWS, UnknownApp, Watch
from dockscale.core.load import Load
from dockscale.engine.memory import Program
from tests.support.backend import backend
from tests.support.world import BOUND_S, ENABLED, eject, prefixed, until, world

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

        [(first, decision), (second, state)] = news
        latest = it.dockscale.control.explain("web")["decision"]
        assert (first, second) == ("decision", "state")
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
