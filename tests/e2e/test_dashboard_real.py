"""What people see in a browser of a real dockscale on a real engine: the dashboard, and the page for those who wait."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from functools import partial

import aiohttp
import pytest
from playwright.async_api import Locator, Page, expect

from tests.support.browser import browsing
from tests.support.faulty import Faulty, faulty
from tests.support.process import Server, process
from tests.support.real import Real, in_thread
from tests.support.world import prefixed

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("browser_ready")]

WEB = {"app_id": "web", "port": "8000", "autoscaling.max_instances": "3", "shutdown_config.stop_timeout": "1s"}
WAITING = WEB | {"startup_config.waiting_page": "true"}
CREATE = r"POST \S+/containers/create"
START = r"POST \S+/start"
WRITE = "echo a line of $HOSTNAME > /proc/1/fd/1"
"""As the container's own process does."""


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as it:
        yield it


@pytest.fixture
async def engine() -> AsyncIterator[Faulty]:
    async with faulty() as engine:
        yield engine


async def get(session: aiohttp.ClientSession, server: Server) -> int:
    async with session.get(f"{server.base}/public/apps/web/") as answer:
        return answer.status


async def opened(page: Page, server: Server, path: str = "/") -> None:
    await page.goto(server.admin + path)
    await expect(page.locator("#link")).to_have_text("● Live")


def ready(page: Page) -> Locator:
    return page.locator(".members tbody tr").filter(has_text="ready")


async def scale(page: Page, instances: int) -> None:
    await page.get_by_label("Instances", exact=True).fill(str(instances))
    await page.get_by_role("button", name="Scale to").click()


async def test_an_app_is_woken_scaled_read_and_renewed_by_hand(real: Real, session: aiohttp.ClientSession) -> None:
    await in_thread(lambda: real.build("web", prefixed(WEB)))
    async with process(session, ONLY=real.label) as server, browsing() as page:
        await opened(page, server)
        await expect(page.get_by_role("row", name="web")).to_contain_text("asleep")
        await page.get_by_role("link", name="web", exact=True).click()
        decisions = page.get_by_role("list", name="Decisions").get_by_role("listitem")

        await page.get_by_role("button", name="Wake").click()
        await expect(ready(page)).to_have_count(1)
        await expect(page.locator(".outcome")).to_have_text("Waking: done.")
        await scale(page, 3)
        await expect(ready(page)).to_have_count(3)
        await expect(decisions.filter(has_text="1 → 3 instances: 3 were asked for by hand")).to_have_count(1)
        for name in real.running():
            await in_thread(partial(real.client.containers.get(name).exec_run, ["sh", "-c", WRITE]))
        await page.get_by_label("Whose lines").scroll_into_view_if_needed()
        await expect(page.get_by_role("log").get_by_text("a line of")).to_have_count(3)

        before = real.running()
        await page.get_by_role("button", name="Restart").click()
        for name in before:
            await expect(page.get_by_role("row", name=name)).to_have_count(0)
        await expect(ready(page)).to_have_count(3)
        leaves = real.running()[0]
        await page.get_by_role("button", name=f"Drain {leaves}").click()
        await expect(page.get_by_role("row", name=leaves)).to_have_count(0)
        await scale(page, 1)
        await expect(page.locator(".outcome")).to_contain_text("Scaling to 1: ")
        await page.get_by_role("button", name="Sleep").click()
        await expect(page.get_by_text("None runs.")).to_be_visible()
        assert len(before) == 3
        assert real.running() == []

        assert await get(session, server) == 200
        await expect(ready(page)).to_have_count(1)
        await expect(decisions.filter(has_text="0 → 1 instances: 1 request waits")).to_have_count(2)


async def test_a_lost_server_is_said_to_be_so_and_found_again_as_it_is_then(
    real: Real, session: aiohttp.ClientSession
) -> None:
    await in_thread(lambda: real.build("web", prefixed(WEB | {"autoscaling.min_instances": "2"})))
    async with process(session, ONLY=real.label) as server, browsing() as page:
        assert await get(session, server) == 200
        await opened(page, server, "/#/app/web")
        await expect(ready(page)).to_have_count(2)
        [gone, stays] = real.running()

        await server.end(signal.SIGTERM)
        await expect(page.locator("#link")).to_contain_text("No answer from dockscale")
        await expect(page.locator("body")).to_have_attribute("data-stale", "")
        await in_thread(lambda: real.client.containers.get(gone).remove(force=True))
        await server.start(session)

        await expect(page.locator("#link")).to_have_text("● Live")
        await expect(page.get_by_role("row", name=gone)).to_have_count(0)
        await expect(page.get_by_role("row", name=stays)).to_contain_text("ready")
        await scale(page, 3)
        await expect(ready(page)).to_have_count(3)


async def test_a_lost_engine_is_said_to_be_so_until_it_is_back(
    real: Real, session: aiohttp.ClientSession, engine: Faulty
) -> None:
    await in_thread(lambda: real.build("web", prefixed(WEB)))
    async with process(session, ONLY=real.label, ENGINE=engine.url) as server, browsing() as page:
        assert await get(session, server) == 200
        await opened(page, server, "/#/app/web")
        await expect(ready(page)).to_have_count(1)

        await engine.close()
        await page.reload()  # it would ask again in 10 s at most
        await expect(page.get_by_text("The engine is away")).to_be_visible()
        assert await get(session, server) == 200
        await engine.open()
        await expect(page.get_by_text("The engine is away")).to_be_hidden()


async def test_a_browser_waits_on_a_page_that_tells_each_step_and_goes_on_to_the_app(
    real: Real, session: aiohttp.ClientSession, engine: Faulty
) -> None:
    await in_thread(lambda: real.build("web", prefixed(WAITING), environment={"BOOT_DELAY": "1.5"}))
    engine.slow |= {CREATE: 1.0, START: 1.0}
    async with process(session, ONLY=real.label, ENGINE=engine.url) as server, browsing() as page:
        await page.goto(f"{server.base}/public/apps/web/?seen=by+people")
        program = asyncio.create_task(get(session, server))
        await expect(page.get_by_role("heading")).to_have_text("web is starting")
        for step in ("its container is created", "the container starts", "the app gets ready to answer"):
            await expect(page.locator("li.now")).to_have_text(step)
        await expect(page.locator("li.done")).to_have_count(2)
        held = not program.done()

        await expect(page.get_by_text('"instance": ')).to_be_visible()
        assert "seen=by+people" in await page.inner_text("body")
        assert held
        assert await program == 200
        assert len(real.running()) == 1


async def test_a_browser_without_scripts_goes_on_to_the_app_too(real: Real, session: aiohttp.ClientSession) -> None:
    await in_thread(lambda: real.build("web", prefixed(WAITING), environment={"BOOT_DELAY": "1"}))
    async with process(session, ONLY=real.label) as server, browsing(java_script_enabled=False) as page:
        await page.goto(f"{server.base}/public/apps/web/")
        await expect(page.get_by_role("heading")).to_have_text("web is starting")

        await expect(page.get_by_text('"instance": ')).to_be_visible()


async def test_a_browser_that_waits_for_an_app_that_cannot_start_is_told_why(
    real: Real, session: aiohttp.ClientSession
) -> None:
    await in_thread(lambda: real.build("web", prefixed(WAITING), environment={"EXIT_AT_ONCE": "3"}))
    async with process(session, ONLY=real.label) as server, browsing() as page:
        await page.goto(f"{server.base}/public/apps/web/")

        await expect(page.get_by_text(re.compile("probe: leaving with code 3"))).to_be_visible()
        await opened(page, server, "/#/app/web")
        await expect(page.get_by_role("alert").filter(has_text="probe: leaving with code 3")).to_be_visible()
        await expect(page.locator(".title .badge")).to_contain_text("failing")
