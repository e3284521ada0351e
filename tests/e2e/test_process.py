"""dockscale as a process: ended politely, killed, started again; the containers outlive it."""

import asyncio
import signal
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.support.process import Server, process
from tests.support.real import Real
from tests.support.world import prefixed

pytestmark = pytest.mark.engine


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as it:
        yield it


async def ready(server: Server, session: aiohttp.ClientSession, instances: int) -> dict[str, object]:
    """Wait until this many are ready, and return what the API says."""
    async with asyncio.timeout(20):
        while True:
            told = await server.explain(session, "web")
            if told.get("instances_by_state", {}).get("ready") == instances:
                return told
            await asyncio.sleep(0.02)


async def test_killed_and_started_again_it_adopts_what_runs(real: Real, session: aiohttp.ClientSession) -> None:
    labels = {"app_id": "web", "autoscaling.min_instances": "2", "port": "8000"}
    real.build("web", prefixed(labels))
    async with process(session, ONLY=real.label) as server:
        async with session.get(server.base + "/public/apps/web/") as answer:
            assert answer.status == 200
        await ready(server, session, 2)
        before = real.running()

        await server.end(signal.SIGKILL)
        during = real.running()
        await server.start(session)
        told = await ready(server, session, 2)
        async with session.get(server.base + "/public/apps/web/") as answer:
            after_status = answer.status

        assert len(before) == 2
        assert before == during == real.running()
        assert after_status == 200
        assert sorted(each["name"] for each in told["instances"]) == before  # type: ignore[attr-defined]  # JSON


async def test_half_made_and_orphaned_copies_are_removed_at_the_next_start(
    real: Real, session: aiohttp.ClientSession
) -> None:
    real.build("web", prefixed({"app_id": "web", "port": "8000"}))
    managed = {"dockscale.managed": "true"}
    real.create("half", managed | {"dockscale.instance-of": "web"})
    orphan = real.create("orphan", managed | {"dockscale.instance-of": "gone", "dockscale.app_id": "gone"})
    orphan.start()

    async with process(session, ONLY=real.label), asyncio.timeout(20):
        while real.containers():
            await asyncio.sleep(0.05)


async def test_told_to_stop_it_ends_what_is_in_flight_and_leaves_the_containers(
    real: Real, session: aiohttp.ClientSession
) -> None:
    real.build("web", prefixed({"app_id": "web", "port": "8000"}))
    async with process(session, ONLY=real.label) as server:
        async with session.get(server.base + "/public/apps/web/") as answer:
            assert answer.status == 200
        slow = asyncio.create_task(get_status(session, server.base + "/public/apps/web/slow?ms=1000"))
        async with asyncio.timeout(10):
            while (await server.explain(session, "web"))["load"]["in_flight"] != 1:
                await asyncio.sleep(0.01)

        code = await server.end(signal.SIGTERM)

        assert await slow == 200
        assert code == 0
        assert len(real.running()) == 1


async def get_status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        await answer.read()
        return answer.status
