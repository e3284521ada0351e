"""The dashboard in a real browser, over the memory engine: what people see and do there."""

import asyncio
import json
from dataclasses import replace

import pytest
from playwright.async_api import Page, expect

from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.browser import browsing
from tests.support.process import free_port
from tests.support.world import ENABLED, World, prefixed, serving, until, world

pytestmark = pytest.mark.usefixtures("browser_ready")

FOCUSED = """(() => {
  const it = document.activeElement;
  return [it.tagName, it.textContent, getComputedStyle(it).outlineStyle];
})()"""
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


async def opened(page: Page, it: World, path: str = "/") -> None:
    """Open a page and wait until it is live."""
    await page.goto(it.admin + path)
    await expect(page.locator("#link")).to_have_text("● Live")


def write(it: World, *lines: str) -> None:
    for instance in it.app().pool:
        it.engine.write(instance.container_id, *lines)


async def test_all_apps_are_seen_with_state_load_and_the_reason_for_it_as_they_change() -> None:
    async with world({"autoscaling.max_instances": "3"}) as it, browsing() as page:
        it.engine.add_image("broken", Program(backend), ENABLED | prefixed({"autoscaling.max_instance": "3"}))
        await it.settled()
        await opened(page, it)
        row = page.get_by_role("row", name="web")
        await expect(row).to_contain_text("asleep")
        await expect(row).to_contain_text("nobody asks for it")

        await it.get()

        await expect(row).to_contain_text("ready")
        await expect(row).to_contain_text("1 / 3")
        await expect(row).to_contain_text("Held back by min_instances (1)")
        await expect(row.get_by_role("meter")).to_have_attribute("aria-valuetext", "1 a minute per instance, below 30")
        assert (
            await row.get_by_role("link", name="http").get_attribute("href")
            == it.dockscale.control.list()[1]["urls"][0]
        )
        await expect(page.get_by_role("listitem").filter(has_text="broken")).to_contain_text("did you mean")
        await expect(page.get_by_text("1 app, 1 awake · 1 instance ready")).to_be_visible()


async def test_an_app_that_comes_later_appears_and_one_that_goes_disappears() -> None:
    async with world() as it, browsing() as page:
        await opened(page, it)
        it.engine.add_image("blog", Program(backend), ENABLED)
        await it.settled()
        await expect(page.get_by_role("row", name="blog")).to_be_visible()

        it.engine.remove_image("web")
        await it.settled()

        await expect(page.get_by_role("row", name="web")).to_have_count(0)
        await page.get_by_label("Find an app").fill("shop")
        await expect(page.get_by_text("No app is called so.")).to_be_visible()


async def test_one_app_shows_its_hour_its_instances_its_decisions_and_its_settings() -> None:
    async with world({"description": "sells things"}) as it, browsing() as page:
        await opened(page, it)
        await page.get_by_role("link", name="web", exact=True).click()
        await expect(page.get_by_text("None runs.")).to_be_visible()
        await expect(page.get_by_text("sells things")).to_have_count(2)  # once among the settings

        await it.get()

        [name] = it.app().pool.instances
        await expect(page.get_by_role("row", name=name)).to_contain_text("ready")
        woken = page.get_by_role("list", name="Decisions").get_by_role("listitem").filter(has_text="0 → 1")
        await expect(woken).to_contain_text("1 request waits and no instance is ready")
        await expect(page.get_by_role("img", name="Ready instances over the last hour: now 1")).to_be_visible()
        await expect(page.get_by_role("img", name="Goes up above 90, down below 30")).to_be_visible()
        await expect(page.locator("dl.settings")).to_contain_text("autoscaling.max_instances10")


async def test_logs_are_followed_of_all_instances_or_of_one() -> None:
    async with world({"autoscaling.min_instances": "2"}) as it, browsing() as page:
        await it.get()
        await until(lambda: it.ready() == 2)
        write(it, "first line")
        await opened(page, it, "/#/app/web")
        lines = page.get_by_role("log")
        await page.get_by_label("Whose lines").scroll_into_view_if_needed()
        await expect(lines.get_by_text("first line")).to_have_count(2)

        write(it, "second line")
        await expect(lines.get_by_text("second line")).to_have_count(2)
        await page.get_by_label("Whose lines").select_option(next(iter(it.app().pool.instances)))

        await expect(lines.get_by_text("second line")).to_have_count(1)


async def test_buttons_do_what_they_say() -> None:
    async with world({"autoscaling.max_instances": "3"}) as it, browsing() as page:
        await opened(page, it, "/#/app/web")
        members, heard = page.locator(".members tbody tr"), page.locator(".outcome")
        ready = members.filter(has_text="ready")

        await page.get_by_role("button", name="Wake").click()
        await expect(ready).to_have_count(1)
        await expect(heard).to_have_text("Waking: done.")
        await page.get_by_label("Instances", exact=True).fill("2")
        await page.get_by_label("Instances", exact=True).press("Enter")
        await expect(ready).to_have_count(2)
        before = list(it.app().pool.instances)
        await page.get_by_role("button", name="Restart").click()
        for name in before:
            await expect(page.get_by_role("row", name=name)).to_have_count(0)
        await expect(ready).to_have_count(2)
        gone = next(iter(it.app().pool.instances))
        await page.get_by_role("button", name=f"Drain {gone}").click()
        await expect(page.get_by_role("row", name=gone)).to_have_count(0)
        await page.get_by_role("button", name="Sleep").click()
        await expect(page.get_by_text("None runs.")).to_be_visible()
        await expect(page.locator(".title .badge")).to_contain_text("asleep")


async def test_what_dockscale_refuses_is_shown_in_its_words() -> None:
    async with world({"autoscaling.max_instances": "3"}) as it, browsing() as page:
        await opened(page, it, "/#/app/web")
        await page.get_by_label("Instances", exact=True).fill("4")
        await page.get_by_role("button", name="Scale to").click()

        await expect(page.locator(".outcome")).to_contain_text("Scaling to 4: web may have 3 at most")
        assert it.states() == {}


async def test_it_says_that_dockscale_is_gone_and_catches_up_when_it_is_back() -> None:
    port = free_port()
    first, second = MemoryEngine(), MemoryEngine()
    first.add_image("web", Program(backend), ENABLED)
    second.add_image("web", Program(backend), ENABLED)
    second.add_image("blog", Program(backend), ENABLED)
    async with browsing() as page:
        async with serving(first, admin_port=port) as it:
            await opened(page, it)
            await it.get()
            await expect(page.get_by_role("row", name="web")).to_contain_text("ready")

        await expect(page.locator("#link")).to_contain_text("No answer from dockscale")
        async with serving(second, admin_port=port) as it:
            await expect(page.locator("#link")).to_have_text("● Live")
            await expect(page.get_by_role("row", name="web")).to_contain_text("asleep")
            await expect(page.get_by_role("row", name="blog")).to_be_visible()


async def test_a_page_that_nobody_can_see_holds_no_connection_and_catches_up_when_it_is_seen_again() -> None:
    async with world() as it, browsing() as page:
        await opened(page, it)
        row = page.get_by_role("row", name="web")
        await expect(row).to_contain_text("asleep")

        await page.evaluate(HIDE, True)
        await until(lambda: not it.app().watchers)
        await it.get()
        await page.evaluate(HIDE, False)

        await expect(row).to_contain_text("ready")
        assert len(it.app().watchers) == 1


async def test_that_the_engine_is_away_is_said_on_each_page() -> None:
    async with world() as it, browsing() as page:
        it.dockscale.registry.engine_up = False
        for path in ("/", "/#/app/web"):
            await opened(page, it, path)
            await expect(page.get_by_text("The engine is away")).to_be_visible()
        it.dockscale.registry.engine_up = True
        await page.reload()

        await expect(page.get_by_text("None runs.")).to_be_visible()
        await expect(page.get_by_text("The engine is away")).to_be_hidden()


async def test_whatever_apps_say_is_text() -> None:
    async with world({"description": EVIL, "name": EVIL}) as it, browsing() as page:
        it.engine.add_image("bad", Program(backend), ENABLED | prefixed({"port": EVIL}))
        await it.settled()
        await it.get()
        write(it, EVIL, "\x1b[31mred")
        await opened(page, it)
        await expect(page.get_by_text("onerror").first).to_be_visible()
        await page.get_by_role("link", name="web", exact=True).click()
        await page.get_by_label("Whose lines").scroll_into_view_if_needed()
        await expect(page.get_by_role("log").get_by_text(EVIL)).to_be_visible()
        await expect(page.get_by_text(EVIL)).to_have_count(4)

        assert await page.title() == "web · dockscale"
        assert await page.locator("main img, main script").count() == 0


async def test_the_token_is_asked_for_once_and_kept_for_the_tab() -> None:
    async with world(admin_token="secret") as it, browsing() as page:
        await page.goto(it.admin + "/")
        await page.keyboard.press("Escape")
        await page.get_by_role("textbox", name="Token").fill("wrong")
        await page.get_by_role("textbox", name="Token").press("Enter")
        await expect(page.get_by_text("does not know this token")).to_be_visible()
        await page.get_by_role("textbox", name="Token").fill("secret")
        await page.get_by_role("textbox", name="Token").press("Enter")
        await expect(page.locator("#link")).to_have_text("● Live")

        await page.reload()

        await expect(page.get_by_role("row", name="web")).to_be_visible()
        await expect(page.get_by_role("dialog")).to_have_count(0)
        assert await page.evaluate("[localStorage.length, document.cookie]") == [0, ""]


async def test_an_app_that_is_not_there_or_refused_is_said_to_be_so() -> None:
    async with world() as it, browsing() as page:
        it.engine.add_image("broken", Program(backend), ENABLED | prefixed({"port": "x"}))
        await it.settled()
        await opened(page, it, "/#/app/shop")
        await expect(page.get_by_role("alert").filter(has_text="'shop'")).to_be_visible()

        await page.goto(it.admin + "/#/app/broken")
        await expect(page.get_by_role("alert").filter(has_text="dockscale.port")).to_be_visible()
        it.engine.add_image("shop", Program(backend), ENABLED)
        await it.settled()
        await page.goto(it.admin + "/#/app/shop")

        await expect(page.get_by_role("button", name="Wake")).to_be_visible()


async def test_a_page_that_is_left_open_does_not_grow() -> None:
    async with world() as it, browsing() as page:
        await it.get()
        write(it, *(f"line {number}" for number in range(1000)))
        await opened(page, it, "/#/app/web")
        await page.get_by_label("Whose lines").scroll_into_view_if_needed()
        await expect(page.get_by_role("log").get_by_text("line 999")).to_be_visible()
        size = "document.querySelectorAll('*').length"
        decisions = page.get_by_role("list", name="Decisions").get_by_role("listitem")
        for number in range(250):
            it.app().memory = replace(it.app().memory, gone=(f"web-{number} died",))
            it.tick()
        await expect(decisions.first).to_contain_text("web-249 died")
        before = await page.evaluate(size)

        for number in range(250, 500):
            it.app().memory = replace(it.app().memory, gone=(f"web-{number} died",))
            it.tick()
            await asyncio.sleep(0)
        write(it, "the end")
        await expect(decisions.first).to_contain_text("web-499 died")
        await expect(page.get_by_role("log").get_by_text("the end")).to_be_visible()

        assert await decisions.count() == 200
        assert await page.evaluate(size) <= before + 10


async def test_a_hundred_apps_are_listed_found_and_do_not_make_the_page_grow() -> None:
    async with world() as it, browsing() as page:
        for number in range(99):
            it.engine.add_image(f"app-{number}", Program(backend), ENABLED)
        await it.settled()
        await opened(page, it)
        rows = page.locator(".apps tbody tr")
        await expect(rows).to_have_count(100)
        size = "document.querySelectorAll('*').length"
        before = await page.evaluate(size)

        for number in range(50):
            for app_id in list(it.dockscale.registry.apps):
                it.app(app_id).memory = replace(it.app(app_id).memory, gone=(f"{number} died",))
                it.tick(app_id)
            await asyncio.sleep(0)
        await expect(rows.filter(has_text="49 died")).to_have_count(100)
        assert await page.evaluate(size) == before

        await page.get_by_label("Find an app").fill("app-42")
        await expect(rows).to_have_count(1)
        await expect(page.get_by_text("100 apps, 0 awake")).to_be_visible()


async def test_all_can_be_reached_by_keyboard() -> None:
    async with world() as it, browsing() as page:
        await opened(page, it)
        await page.keyboard.press("Tab")
        await expect(page.get_by_text("Skip to the content")).to_be_focused()
        await expect(page.get_by_text("Skip to the content")).to_be_in_viewport()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        for _ in range(2):
            await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="web", exact=True)).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="web")).to_be_focused()

        await expect(page.get_by_role("button", name="Wake")).to_be_visible()
        reached = set()
        for _ in range(20):
            await page.keyboard.press("Tab")
            kind, text, outline = await page.evaluate(FOCUSED)
            if kind == "BODY":
                break
            reached.add(text)
            assert outline != "none", f"{kind} {text} shows that it has the focus"

        assert reached >= {"Wake", "Sleep", "Restart", "Scale to"}


@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_nothing_sticks_out_of_a_narrow_screen(width: int) -> None:
    labels = {"description": "x" * 300, "route.path": "/" + "long" * 30}
    async with world(labels) as it, browsing(viewport={"width": width, "height": 700}) as page:
        it.engine.add_image("broken", Program(backend), ENABLED | prefixed({"port": "y" * 300}))
        await it.settled()
        await it.get()
        write(it, "z" * 1000)
        for path in ("/", "/#/app/web"):
            await opened(page, it, path)
            await expect(page.get_by_text("ready").first).to_be_visible()

            assert await page.evaluate("document.documentElement.scrollWidth") == width, path


async def test_it_keeps_within_its_own_rules_and_asks_nobody_but_dockscale() -> None:
    async with world() as it, browsing(color_scheme="dark") as page:
        hosts: set[str] = set()
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        await it.get()
        await opened(page, it, "/#/app/web")
        await page.locator("canvas").nth(1).wait_for()

        assert hosts == {it.admin.removeprefix("http://")}
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert sum(json.loads(f"[{background[4:-1]}]")) < 150, "it is dark where dark is preferred"
