"""What operators are told, as values, over the memory engine."""

import time
from dataclasses import fields
from datetime import UTC, datetime

import pytest

from dockscale.control import UnknownApp
from dockscale.core.load import Load
from dockscale.engine.memory import Program
from tests.support.backend import backend
from tests.support.world import ENABLED, eject, prefixed, until, world

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
        assert "1 requests wait and no instance is ready" in wake["explanation"]
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
