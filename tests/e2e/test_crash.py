"""dockscale killed with -9 at any moment: the next one finds everything, and nothing is orphaned or above its bound."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.support.process import Server, process
from tests.support.real import Real
from tests.support.world import prefixed

pytestmark = pytest.mark.engine

MAX = 4
LABELS = {
    "app_id": "web",
    "port": "8000",
    "autoscaling.max_instances": str(MAX),
    "autoscaling.standby_instances": "1",
    "autoscaling.target_requests_per_instance": "5",
    "autoscaling.scale_up_cooldown": "0",
}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as it:
        yield it


async def burst(server: Server, session: aiohttp.ClientSession) -> None:
    """Enough requests to want `MAX` instances; whether they are answered is not the point here."""

    async def ask() -> None:
        try:
            async with session.get(server.base + "/public/apps/web/") as answer:
                await answer.read()
        except aiohttp.ClientError:
            pass

    await asyncio.gather(*(ask() for _ in range(20)))


async def settled(server: Server, session: aiohttp.ClientSession, real: Real) -> dict[str, str]:
    """Wait until nothing is on its way any more, and return the state of each of the app's containers by name."""
    async with asyncio.timeout(30):
        while True:
            told = await server.explain(session, "web")
            known = {each["name"] for each in told.get("instances", ())}
            states = told.get("instances_by_state", {})
            seen = {str(box.name): str(box.status) for box in real.containers()}
            live = {name: state for name, state in seen.items() if state != "created"}
            if states.get("ready") and not states["starting"] and not states["draining"] and set(live) == known:
                return seen
            await asyncio.sleep(0.05)


async def test_killed_at_any_moment_it_leaves_nothing_that_the_next_one_does_not_know(
    real: Real, session: aiohttp.ClientSession
) -> None:
    real.build("web", prefixed(LABELS))
    chance = random.Random(4)
    async with process(session, ONLY=real.label) as server:
        for _ in range(8):
            load = asyncio.create_task(burst(server, session))
            await asyncio.sleep(chance.uniform(0.0, 1.5))
            await server.end(signal.SIGKILL)
            await load
            assert sum(box.status in ("running", "paused") for box in real.containers()) <= MAX
            await server.start(session)
        async with session.get(server.base + "/public/apps/web/") as answer:
            assert answer.status == 200

        states = list((await settled(server, session, real)).values())

    assert states.count("running") + states.count("paused") <= MAX
    assert states.count("paused") <= 1
    assert states.count("created") <= 1
    assert states.count("exited") == 0


async def test_what_was_adopted_is_not_stopped_in_the_first_minute(real: Real, session: aiohttp.ClientSession) -> None:
    real.build("web", prefixed(LABELS | {"startup_config.stop_after_inactive": "4", "autoscaling.min_instances": "2"}))
    async with process(session, ONLY=real.label, INTERVAL="0.2") as server:
        async with session.get(server.base + "/public/apps/web/") as answer:
            assert answer.status == 200
        await settled(server, session, real)
        before = real.running()
        await server.end(signal.SIGKILL)
        await server.start(session)

        await asyncio.sleep(5)

        told = await server.explain(session, "web")
        assert real.running() == before
        assert told["decision"]["reason"] == "idle"
        assert told["decision"]["held_by"] == ["window"]
