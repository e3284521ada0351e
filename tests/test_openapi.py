"""The admin port's OpenAPI document, and that dockscale answers as it says. So does each test of the admin port."""

import json
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from dockscale.admin import api, openapi, problems
from dockscale.engine.memory import Program
from tests.support.backend import backend
from tests.support.openapi import check_answer, check_event, operation
from tests.support.world import ENABLED, World, prefixed, until, world

DOCS = Path(__file__).parent.parent / "docs"
BOOK = {"name": "Book", "image": "plain"}


class Asking:
    """Asks, holds answers and events against the document, and keeps which there were."""

    def __init__(self, it: World) -> None:
        self._it = it
        self.operations: set[str] = set()
        self.events: set[tuple[str, str]] = set()

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        async with self._it.session.request(method, self._it.admin + path, **more) as answer:
            text = await answer.text()
            told = json.loads(text) if answer.content_type.endswith("json") else text or None
        check_answer(method, path, answer.status, answer.content_type, told)
        assert answer.status < 300, told
        self.operations.add(operation(method, path)["operationId"])
        return told

    async def listen(
        self, path: str, last: str, method: str = "GET", then: Callable[[], object] = lambda: None, **more: Any
    ) -> None:
        """Hear a stream up to the first event of the name `last`; after the very first event, do `then`."""
        headers, name = {"Accept": "text/event-stream"}, ""
        async with self._it.session.request(method, self._it.admin + path, headers=headers, **more) as answer:
            assert (answer.status, answer.content_type) == (200, "text/event-stream")
            while name != last:
                lines = (await answer.content.readuntil(b"\n\n")).decode().splitlines()
                if not name:
                    then()
                name = lines[0].removeprefix("event: ")
                check_event(method, path, name, json.loads(lines[1].removeprefix("data: ")))
                self.operations.add(operation(method, path)["operationId"])
                self.events.add((operation(method, path)["operationId"], name))


def test_the_document_is_valid() -> None:
    validate(openapi.document(asks_for_token=True))


async def test_it_has_each_route_and_no_other() -> None:
    async with world() as it:
        admin = api.build(it.dockscale.control, _nothing, "text/plain", "127.0.0.1", None)
    routes = {(route.method, route.resource.canonical) for route in admin.router.routes() if route.resource}

    assert {route for route in routes if route[0] != "HEAD"} == set(openapi.OPERATIONS)


def decide_often(it: World) -> None:
    """Make more decisions than are kept for a reader."""
    for number in range(300):
        it.app().memory = replace(it.app().memory, gone=(f"web-{number} died",))
        it.tick()


async def _nothing() -> Any:
    yield b""


async def test_dockscale_answers_and_tells_as_the_document_says() -> None:
    async with world({"autoscaling.max_instances": "3"}) as it:
        it.engine.add_image("plain", Program(backend))
        it.engine.add_image("broken", Program(backend), ENABLED | prefixed({"port": "x"}))
        await it.settled()
        asking = Asking(it)
        for path in ("/", "/dashboard/main.js", "/api/openapi.json", "/metrics", "/api/report", "/api/apps/broken"):
            await asking.ask("GET", path)
        await asking.ask("GET", "/", headers={"Accept": "text/html"})
        await asking.ask("POST", "/api/apps", json=BOOK)
        await asking.listen("/api/apps?overwrite=true", "installed", "POST", json=BOOK | {"description": "another"})
        await asking.listen("/api/apps", "failed", "POST", json=BOOK)

        first = await asking.ask("POST", "/api/apps/web/wake")
        await asking.ask("POST", "/api/apps/web/start")
        it.engine.write(it.app().pool.instances[first["name"]].container_id, "a line")
        it.dockscale.scaler.look([it.app()], it.session)
        for path in ("/api/apps", "/api/apps/web", "/api/apps/web/history", "/api/apps/web/logs"):
            await asking.ask("GET", path)
        await asking.listen("/api/events", "load")
        await asking.listen("/api/apps/web/events", "instances")
        await asking.listen("/api/apps/web/logs?tail=1", "line")
        await asking.ask("POST", "/api/apps/web/scale?instances=2")
        await until(lambda: it.ready() == 2)
        await asking.ask("POST", "/api/apps/web/restart")
        await asking.ask("POST", f"/api/apps/web/drain?instance={first['name']}")
        await asking.ask("POST", "/api/apps/web/stop")
        await asking.ask("POST", "/api/apps/web/sleep")
        await asking.ask("DELETE", "/api/apps/book")
        for path in ("/api/events", "/api/apps/web/events"):
            await asking.listen(path, "missed", then=lambda: decide_often(it))
        it.engine.add_image("blog", Program(backend), ENABLED)
        await it.settled()
        for path in ("/api/events", "/api/apps/blog/events", "/api/apps/blog/logs"):
            await it.settled()
            await asking.listen(path, "removed", then=lambda: it.engine.remove_image("blog"))
            it.engine.add_image("blog", Program(backend), ENABLED)
            await it.settled()

        assert asking.operations == {each.id for each in openapi.OPERATIONS.values()}
        assert asking.events == {(each.id, event) for each in openapi.OPERATIONS.values() for event in each.events}


async def test_the_type_of_a_problem_leads_to_what_it_means() -> None:
    async with world() as it:
        async with it.session.get(it.admin + "/api/apps/shop") as answer:
            problem = await answer.json(content_type=problems.MEDIA_TYPE)
        path, _, pointer = problem["type"].partition("#")
        async with it.session.get(it.admin + path) as answer:
            found = await answer.json()
        for part in pointer.strip("/").split("/"):
            found = found[part]

        assert problem["status"] == 404
        assert found["title"] == problem["title"]
        assert found["properties"]["error"] == {"const": "no_such_app"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("GET", "/nowhere", None, 404, "not_found"),
        ("GET", "/dashboard/nowhere.js", None, 404, "not_found"),
        ("PUT", "/api/apps/web", None, 405, "method_not_allowed"),
        ("POST", "/api/apps", b"{", 400, "bad_request"),
        ("POST", "/api/apps", b"\xff", 400, "bad_request"),
        ("POST", "/api/apps", b"[" * 100_000, 400, "bad_request"),
        ("POST", "/api/apps", b" " * (api.MOST_MANIFEST_BYTES + 1), 413, "too_large"),
    ],
)
async def test_whatever_is_refused_is_a_problem(method: str, path: str, body: Any, status: int, word: str) -> None:
    data = BytesIO(body) if body else None
    async with world() as it, it.session.request(method, it.admin + path, data=data) as answer:
        problem = await answer.json(content_type=problems.MEDIA_TYPE)

        check_answer(method, path, answer.status, answer.content_type, problem)
        assert (answer.status, problem["status"], problem["error"]) == (status, status, word)
        assert answer.headers.get("Allow") == ("DELETE, GET, HEAD" if status == 405 else None)


async def test_a_bug_is_a_problem_too_and_tells_no_more_than_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError("a secret")

    async with world() as it:
        monkeypatch.setattr(it.dockscale.control, "report", bug)
        async with it.session.get(it.admin + "/api/report") as answer:
            problem = await answer.json(content_type=problems.MEDIA_TYPE)

        check_answer("GET", "/api/report", answer.status, answer.content_type, problem)
        assert problem["error"] == "internal"
        assert "secret" not in json.dumps(problem)


def test_the_page_about_it_has_each_kind_of_problem() -> None:
    rows = [f"| {kind.status} | `{kind.word}` | {kind.title} |" for kind in sorted(problems.KINDS)]
    lines = (DOCS / "api.md").read_text().splitlines()

    assert [line for line in lines if line.startswith("| ") and line[2].isdigit()] == rows


@pytest.mark.parametrize("token", [None, "secret"])
async def test_the_document_says_whether_a_token_is_asked_for(token: str | None) -> None:
    async with world(admin_token=token) as it:
        headers = {"Authorization": f"Bearer {token}"}
        async with it.session.get(it.admin + "/api/openapi.json", headers=headers) as answer:
            told = await answer.json()

        assert told["security"] == ([{"token": []}] if token else [])
        validate(told)
