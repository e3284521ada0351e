"""The page for browsers whose app is not ready."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dockscale.engine.memory import Program
from dockscale.server import CannotStart
from tests.support.backend import backend
from tests.support.world import World, until, world

LABELS = {"startup_config.waiting_page": "true", "name": "My <App>"}
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
ASKS = {"X-Dockscale-Waiting": "1"}


async def ask(it: World, headers: dict[str, str], method: str = "GET") -> tuple[int, str, Any]:
    async with it.session.request(method, f"{it.base}/public/apps/web/", headers=headers) as answer:
        return answer.status, await answer.text(), answer.headers


async def progress(it: World) -> Any:
    async with it.session.get(f"{it.base}/public/apps/web/", headers=ASKS) as answer:
        assert answer.status == 200
        return await answer.json()


async def test_a_browser_gets_a_page_at_once_and_the_app_wakes_for_it() -> None:
    gate = asyncio.Event()
    async with world(LABELS, program=Program(backend, gate=gate)) as it:
        status, page, headers = await ask(it, BROWSER)
        again, _, _ = await ask(it, BROWSER)
        await until(lambda: it.engine.starts == 1)
        steps = [(await progress(it))["step"]]
        gate.set()
        await until(lambda: it.ready() == 1)
        steps.append((await progress(it))["step"])

        assert (status, again, headers["Cache-Control"], headers["Retry-After"]) == (503, 503, "no-store", "2")
        assert "My &lt;App&gt; is starting" in page
        assert "{{" not in page
        assert steps == ["answering", "ready"]
        status, body, _ = await ask(it, BROWSER)
        assert status == 200
        assert "starting" not in body
        assert it.engine.starts == 1
        await until(lambda: it.app().pool.in_flight == it.app().pool.waiting == 0)


@pytest.mark.parametrize(
    ("headers", "method"), [({"Accept": "application/json"}, "GET"), ({}, "GET"), (BROWSER, "POST"), (BROWSER, "HEAD")]
)
async def test_a_program_waits_for_the_answer_as_always(headers: dict[str, str], method: str) -> None:
    async with world(LABELS) as it:
        status, _, _ = await ask(it, headers, method)

        assert status == 200


async def test_without_the_label_a_browser_waits_and_its_field_goes_to_the_app() -> None:
    async with world() as it:
        status, _, _ = await ask(it, BROWSER | ASKS)

        assert status == 200


async def test_what_the_page_asks_does_not_reach_the_app_and_is_no_load() -> None:
    async with world(LABELS) as it:
        await it.get()
        before = it.app().load().requests

        told = [await progress(it) for _ in range(3)]

        assert told == [{"step": "ready"}] * 3
        assert it.app().load().requests == before


async def test_an_app_that_cannot_start_tells_the_browser_why() -> None:
    async with world(LABELS, program=Program(backend, exits="no database")) as it:
        await ask(it, BROWSER)
        await until(lambda: it.app().failure)

        told = await progress(it)
        status, page, _ = await ask(it, BROWSER)

        assert told["step"] == ""
        assert "no database" in told["failure"]
        assert (status, "no database" in page) == (503, True)


async def test_the_page_can_be_the_operators_own(tmp_path: Path) -> None:
    own = tmp_path / "own.html"
    own.write_text("<h1>{{name}} ({{app_id}})</h1>")
    gate = asyncio.Event()
    async with world(LABELS, program=Program(backend, gate=gate), waiting_page=str(own)) as it:
        _, page, _ = await ask(it, BROWSER)
        gate.set()
        await until(lambda: it.ready() == 1)

        assert page == "<h1>My &lt;App&gt; (web)</h1>"
    with pytest.raises(CannotStart, match="DOCKSCALE_WAITING_PAGE"):
        async with world(LABELS, waiting_page=str(tmp_path / "nowhere.html")):
            pass


async def test_who_stands_in_line_for_the_page_goes_when_dockscale_ends() -> None:
    async with world(LABELS, program=Program(backend, gate=asyncio.Event())) as it:
        await ask(it, BROWSER)

        assert it.app().pool.waiting == 1
