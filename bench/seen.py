"""What looking at a hundred apps takes: `dockscale ps`, the dashboard's first paint, an open page's share of a core.

On the memory engine; dockscale runs in this process, the verb and the browser in others. All apps are awake, and each
counts a request every second, so that its load is another each time the page looks. *first paint* is what Chromium
says of a page opened anew, its files not yet kept. *share* is this process's CPU time over `OPEN_S` with the page open,
less that over as long without; rounds alternate.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Page, async_playwright, expect

from bench.report import Verdict, table
from bench.stage import Part, head_of, in_ms, ms, p95
from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.browser import CHROMIUM
from tests.support.world import ENABLED, World, prefixed, serving, until

APPS = 100
PS_S = 0.3
PAINT_S = 0.5
SHARE = 0.01
OPEN_S = 10.0
SHARES = 3
"""How often the share is measured: each takes twice `OPEN_S`."""
FIRST_PAINT = 'performance.getEntriesByName("first-contentful-paint")[0].startTime / 1000'


async def seen(rounds: int) -> Part:
    engine = MemoryEngine()
    for number in range(APPS):
        labels = prefixed({"app_id": f"app-{number}", "lazy": "false"})
        engine.add_image(f"app-{number}", Program(backend), ENABLED | labels)
    async with serving(engine) as it, async_playwright() as play:
        await until(lambda: all(it.ready(app_id) for app_id in it.dockscale.registry.apps), "all are awake")
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        listed = [await _ps(it) for _ in range(rounds)]
        painted = [await _paint(it, browser) for _ in range(rounds)]
        async with _asked(it):
            shares = [await _share(it, browser) for _ in range(SHARES)]
        await browser.close()
    share = statistics.median(shares)
    rows = [in_ms("dockscale ps, as a process", listed), in_ms("dashboard, first paint", painted)]
    return Part(
        (
            table(head_of(f"Looking at {APPS} apps", rounds), rows),
            table((f"An open page of {APPS} apps, {SHARES} rounds", "% of a core"), [_percent(shares)]),
        ),
        (
            Verdict(f"dockscale ps: p95 ≤ {ms(PS_S)} ms", f"{ms(p95(listed))} ms", p95(listed) <= PS_S),
            Verdict(f"dashboard: p95 of paint ≤ {ms(PAINT_S)} ms", f"{ms(p95(painted))} ms", p95(painted) <= PAINT_S),
            Verdict(f"an open page ≤ {SHARE:.0%} of a core", f"{share:.2%}", share <= SHARE),
        ),
    )


async def _ps(it: World) -> float:
    began = time.perf_counter()
    verb = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dockscale.cli", "ps", stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"DOCKSCALE_ADMIN_PORT": str(it.dockscale.admin_port)},
    )  # fmt: skip
    told, _ = await verb.communicate()
    took = time.perf_counter() - began
    assert verb.returncode == 0
    assert told.count(b"ready") >= APPS
    return took


async def _paint(it: World, browser: Browser) -> float:
    async with _opened(it, browser) as page:
        await page.wait_for_function(FIRST_PAINT)
        return float(await page.evaluate(FIRST_PAINT))


async def _share(it: World, browser: Browser) -> float:
    alone = await _cpu_s()
    async with _opened(it, browser):
        return (await _cpu_s() - alone) / OPEN_S


async def _cpu_s() -> float:
    began = time.process_time()
    await asyncio.sleep(OPEN_S)
    return time.process_time() - began


@asynccontextmanager
async def _opened(it: World, browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context()  # with nothing kept
    page = await context.new_page()
    await page.goto(it.admin)
    await expect(page.get_by_role("row")).to_have_count(APPS + 1)
    yield page
    await context.close()


@asynccontextmanager
async def _asked(it: World) -> AsyncIterator[None]:
    """Count a request for each app every second."""

    async def ask() -> None:
        while True:
            for app in it.dockscale.registry.apps.values():
                app.arrive()
                app.leave()
            await asyncio.sleep(1.0)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()


def _percent(shares: list[float]) -> tuple[str, str]:
    values = [f"{100 * share:.2f}" for share in (statistics.median(shares), min(shares), max(shares))]
    return "server's share, median (least – most)", f"{values[0]} ({values[1]} – {values[2]})"
