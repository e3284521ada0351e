"""How the apps follow the engine, over the memory engine."""

import asyncio

import aiohttp
from pydantic import SecretStr
from structlog.testing import capture_logs

from dockscale.config import Settings
from dockscale.core.catalog import Listing
from dockscale.engine import Event
from dockscale.engine.memory import MemoryEngine, Program
from dockscale.server import running
from tests.support.backend import backend
from tests.support.world import ENABLED, prefixed, serving, until, world

WRONG = ENABLED | prefixed({"port": "http"})


class Muffled(MemoryEngine):
    """An engine whose events can get lost, as on a broken connection."""

    lost = False

    def _tell(self, event: Event = Event.CHANGED) -> None:
        if not self.lost:
            super()._tell(event)


async def test_an_image_that_is_labelled_becomes_an_app_and_goes_with_it() -> None:
    async with world() as it:
        it.engine.add_image("shop", Program(backend), ENABLED)
        await until(lambda: "shop" in it.dockscale.registry.apps)
        status, _ = await it.get("/", "shop")
        it.engine.remove_image("shop")
        await until(lambda: "shop" not in it.dockscale.registry.apps)

        assert status == 200
        assert (await it.get("/", "shop"))[0] == 404
        assert (await it.get())[0] == 200


async def test_who_asks_for_an_app_before_it_is_found_waits_for_that() -> None:
    async with world() as it:
        it.engine.add_image("shop", Program(backend), ENABLED)
        await asyncio.sleep(0)  # the engine says that something has changed
        assert "shop" not in it.dockscale.registry.apps

        assert (await it.get("/", "shop"))[0] == 200


async def test_who_asks_the_admin_port_about_an_app_before_it_is_found_waits_for_that() -> None:
    async with world() as it:
        it.engine.add_image("shop", Program(backend), ENABLED)
        await asyncio.sleep(0)  # the engine says that something has changed
        assert "shop" not in it.dockscale.registry.apps

        async with it.session.post(it.admin + "/api/apps/shop/wake") as answer:
            assert answer.status == 200


async def test_changed_labels_change_the_app_and_keep_its_history() -> None:
    async with world() as it:
        await it.get()
        app = it.app()
        it.engine.add_image("web", Program(backend), ENABLED | prefixed({"autoscaling.max_instances": "3"}))
        await until(lambda: app.spec.bounds == (1, 3))

        assert it.app() is app
        assert app.stats.requests == {200: 1}


async def test_a_route_follows_its_label() -> None:
    async with world({"route.host": "old.example"}) as it:
        it.engine.add_image("web", Program(backend), ENABLED | prefixed({"route.host": "new.example"}))
        await until(lambda: it.app().spec.route.host == ("new.example",))

        for host, expected in (("old.example", 404), ("new.example", 200)):
            async with it.session.get(it.base, headers={"Host": host}) as answer:
                assert (host, answer.status) == (host, expected)


async def test_what_happened_while_events_were_lost_is_seen_when_they_come_again() -> None:
    async with serving(Muffled()) as it:
        it.engine.lost = True
        it.engine.add_image("web", Program(backend), ENABLED)

        with capture_logs() as logs:
            it.engine.drop_events()
            await until(lambda: "web" in it.dockscale.registry.apps)

        assert [line["event"] for line in logs if line["event"].startswith("engine")] == ["engine_away", "engine_up"]
        assert it.dockscale.registry.engine_up


async def test_an_engine_that_cannot_be_listed_takes_no_app_away_and_is_asked_again() -> None:
    async with world() as it:
        await it.get()
        it.engine.away = True
        with capture_logs() as logs:
            it.engine.add_image("shop", Program(backend), ENABLED)
            await until(lambda: any(line["event"] == "list_failed" for line in logs))

        during = sorted(it.dockscale.registry.apps), (await it.get())[0]
        it.engine.away = False
        await until(lambda: "shop" in it.dockscale.registry.apps)

        assert during == (["web"], 200)


async def test_an_app_that_is_refused_is_told_once_and_leaves_the_others_alone() -> None:
    async with world() as it:
        with capture_logs() as logs:
            it.engine.add_image("shop", Program(backend), WRONG)
            for _ in range(3):
                await it.settled()

        [told] = [line for line in logs if line["event"] == "app_invalid"]
        assert (told["log_level"], told["source"], told["app"]) == ("error", "image shop", "shop")
        assert told["problems"] == [it.dockscale.registry.invalid[0].problems[0]]
        assert (await it.get())[0] == 200


async def test_a_refusal_for_another_reason_is_told_again_and_a_repair_ends_it() -> None:
    async with world() as it:
        with capture_logs() as logs:
            it.engine.add_image("shop", Program(backend), WRONG)
            await it.settled()
            it.engine.add_image("shop", Program(backend), ENABLED | prefixed({"prot": "1"}))
            await it.settled()
            it.engine.add_image("shop", Program(backend), ENABLED)
            await it.settled()

        assert sum(line["event"] == "app_invalid" for line in logs) == 2
        assert it.dockscale.registry.invalid == ()
        assert sorted(it.dockscale.registry.apps) == ["shop", "web"]


async def test_an_app_whose_labels_turn_bad_is_no_longer_served() -> None:
    async with world() as it:
        await it.get()
        app = it.app()
        it.engine.add_image("web", Program(backend), WRONG)
        await until(lambda: not it.dockscale.registry.apps)

        assert app.retired
        assert (await it.get())[0] == 404
        await until(lambda: not app.pool.instances)


class Slow(MemoryEngine):
    """An engine whose listings are held up on their way, once `gate` is set."""

    gate: asyncio.Event | None = None
    asked = 0

    async def list(self) -> Listing:
        listing = await super().list()
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        return listing


async def test_a_listing_that_was_held_up_undoes_nothing_of_a_newer_one() -> None:
    engine = Slow()
    async with serving(engine) as it:
        asked, engine.gate = engine.asked, asyncio.Event()
        old = asyncio.create_task(it.settled())
        await until(lambda: engine.asked > asked)
        engine.add_image("web", Program(backend), ENABLED)
        new = asyncio.create_task(it.settled())
        gate, engine.gate = engine.gate, None
        gate.set()
        await asyncio.gather(old, new)

        assert (await it.get())[0] == 200
        assert not it.app().retired


async def test_who_asks_for_nobody_is_told_so_once_no_listing_is_due_or_after_a_second() -> None:
    engine = Slow()
    engine.add_image("web", Program(backend), ENABLED)
    async with serving(engine) as it:
        registry = it.dockscale.registry
        asked, engine.gate = engine.asked, asyncio.Event()
        held_up = asyncio.create_task(it.settled())
        await until(lambda: engine.asked > asked)
        patient = asyncio.create_task(it.get("/", "nobody"))
        leaving = asyncio.create_task(it.get("/", "nobody"))
        await until(lambda: len(registry.told) == 2, "both wait")

        assert (await it.get())[0] == 200, "nobody else does"
        leaving.cancel()
        await until(lambda: len(registry.told) == 1, "who leaves waits no longer")
        assert (await patient)[0] == 404

        last = asyncio.create_task(it.get("/", "nobody"))
        await until(lambda: len(registry.told) == 1)
        engine.gate.set()
        assert (await last)[0] == 404
        await held_up
        assert registry.told == set()


async def test_before_the_engine_has_answered_no_address_is_said_to_be_nobodys() -> None:
    engine = Slow()
    engine.add_image("web", Program(backend), ENABLED)
    engine.gate = asyncio.Event()
    secret = SecretStr("of tests, and long enough to be one")
    settings = Settings(host="127.0.0.1", port=0, admin_port=0, token_secret=secret, _env_file=None)
    async with aiohttp.ClientSession() as session, running(settings, engine) as dockscale:
        url = f"http://127.0.0.1:{dockscale.main_port}/public/apps/web/"
        async with session.get(url) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            assert (await answer.json())["error"] == "engine_away"
        early = asyncio.create_task(session.get(url))
        await until(lambda: dockscale.registry.told)
        engine.gate.set()
        async with await early as answer:
            assert answer.status == 200
