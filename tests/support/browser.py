"""A real browser without a window, in tests. Needs the fixture `browser_ready`."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Page, async_playwright, expect

from tests.support.world import BOUND_S

CHROMIUM = "/usr/bin/chromium"
expect.set_options(timeout=BOUND_S * 1000)


@asynccontextmanager
async def browsing(expected: str = r"Failed to load resource: ", **context: Any) -> AsyncIterator[Page]:
    """Open an empty page. That nothing went wrong in it but what is `expected` is asserted in the end.

    Chromium writes of each answer that is no success; those are what some tests are about.
    """
    wrong: list[str] = []
    async with async_playwright() as play:
        # It is started as root in containers, where its own sandbox cannot be.
        browser = await play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        page = await browser.new_page(**context)
        page.set_default_timeout(BOUND_S * 1000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if told.type == "error" else None)
        try:
            yield page
        finally:
            await browser.close()
    unexpected = [each for each in wrong if not re.match(expected, each)]
    assert not unexpected, unexpected
