"""Takes the pictures of docs/dashboard anew: real pages of a dockscale in this process, over the memory engine."""

import asyncio
from math import sin
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.browser import browsing
from tests.support.world import ENABLED, World, prefixed, serving, until

PICTURES = Path(__file__).parent.parent.parent / "docs" / "dashboard"
BUSY = {"autoscaling.scale_up_cooldown": "10", "autoscaling.scale_down_cooldown": "30"}
APPS: dict[str, dict[str, str]] = {
    "blog": {},
    "hello": BUSY | {
        "name": "Hello", "description": "The demo app, says which instance answers", "autoscaling.max_instances": "4",
        "autoscaling.target_requests_per_instance": "20", "autoscaling.scale_up_threshold": "0.8",
    },
    "search": {"autoscaling.target_requests_per_instance": "40", "autoscaling.max_instances": "5"},
    "shop": {"autoscaling.target_requests_per_instance": "60", "autoscaling.max_instances": "8"},
    "thumbnails": {},
    "reports": {"autoscaling.max_instance": "3"},
    "tickets": {"name": "Tickets", "startup_config.waiting_page": "true"},
}  # fmt: skip
PORT = 9627
"""So that the addresses in two pictures are the same."""
LOOK_S = 10
DARK, LIGHT = {"color_scheme": "dark", "locale": "en-GB"}, {"color_scheme": "light", "locale": "en-GB"}


async def main() -> None:
    engine, gate = MemoryEngine(), asyncio.Event()
    for app_id, labels in APPS.items():
        program = Program(backend, gate=gate) if app_id == "tickets" else Program(backend)
        engine.add_image(app_id, program, ENABLED | prefixed(labels))
    engine.add_image("mailer", Program(backend, exits="no database at db:5432"), ENABLED)
    async with serving(engine, port=PORT) as it:
        await it.settled()
        await hour(it)
        await overview(it, "overview-light.png", LIGHT, width=1180)
        await overview(it, "overview-dark.png", DARK, width=1180)
        await overview(it, "phone.png", LIGHT, width=390)
        await one_app(it)
        await waiting(it)


async def hour(it: World) -> None:
    """Let an hour go by as dockscale sees it: the clock is set forward, the requests are real."""
    await it.get(app_id="mailer")
    for look in range(360):
        wave = 5 + 4.5 * sin(look / 28) + look % 3
        await ask(it, "hello", round(wave) if look > 25 else 0)
        await ask(it, "shop", 20 if look > 200 else 0)
        await ask(it, "search", 3 if look > 320 else 0)
        it.dockscale.scaler.look(it.dockscale.registry.apps.values(), it.session)
        await until(lambda: all(not it.states(each).get("starting") for each in ("hello", "shop", "search")))
        it.clock.advance(LOOK_S)
    await ask(it, "hello", 34)
    for line in ("started", "GET /api/status 200 in 51 ms", "GET /api/status 200 in 50 ms"):
        for instance in it.app("hello").pool:
            it.engine.write(instance.container_id, line)


async def ask(it: World, app_id: str, times: int) -> None:
    await asyncio.gather(*(it.get(app_id=app_id) for _ in range(times)))


async def opened(page: Page, url: str) -> None:
    await page.goto(url)
    await expect(page.locator("#link")).to_have_text("● Live")


async def overview(it: World, name: str, context: dict[str, Any], *, width: int) -> None:
    async with browsing(viewport={"width": width, "height": 800}, **context) as page:
        await opened(page, it.admin + "/")
        await expect(page.get_by_role("link", name="reports")).to_be_visible()
        await page.screenshot(path=PICTURES / name)


async def one_app(it: World) -> None:
    async with browsing(viewport={"width": 1180, "height": 1050}, **DARK) as page:
        await opened(page, it.admin + "/#/app/hello")
        await page.locator("canvas").nth(1).wait_for()
        await page.get_by_label("Whose lines").scroll_into_view_if_needed()
        await expect(page.get_by_role("log")).to_be_visible()
        await page.screenshot(path=PICTURES / "app-dark.png", full_page=True)


async def waiting(it: World) -> None:
    async with browsing(viewport={"width": 720, "height": 340}, **LIGHT) as page:
        await page.goto(f"{it.base}/public/apps/tickets/")
        await expect(page.locator("li.now")).to_have_text("the app gets ready to answer")
        await page.screenshot(path=PICTURES / "waiting.png", animations="disabled")


if __name__ == "__main__":
    asyncio.run(main())
