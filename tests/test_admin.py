"""The admin port: what it says, and to whom."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dockscale import watch
from dockscale.admin import api
from dockscale.engine.memory import MemoryEngine, Program
from dockscale.server import CannotStart
from tests.support.backend import backend
from tests.support.openapi import check_answer, check_event
from tests.support.world import BOUND_S, ENABLED, World, serving, until, world

STREAMS = ("/api/events", "/api/apps/web/events")
DASHBOARD = Path(api.__file__).parent / "dashboard"
NAMES = re.compile(r'"(?:/dashboard/|\./)([\w.]+)"')
PATHS = ("/", "/api/apps", "/api/apps/web", *STREAMS, "/metrics", "/nowhere")


@dataclass
class Stream:
    """Server-sent events as a browser would take them apart."""

    answer: aiohttp.ClientResponse
    method: str = "GET"

    async def block(self) -> list[str]:
        """Lines up to the next empty one; none when the stream has ended."""
        lines = []
        while line := (await self.answer.content.readline()).decode():
            if line == "\n":
                break
            lines.append(line.removesuffix("\n"))
        return lines

    async def heard(self, name: str, **facts: Any) -> dict[str, Any]:
        """Read until there is an event of this name with these facts."""
        while lines := await self.block():
            if lines[0] == f"event: {name}":
                told: dict[str, Any] = json.loads(lines[1].removeprefix("data: "))
                check_event(self.method, self.answer.url.path, name, told)
                if told.items() >= facts.items():
                    return told
        raise AssertionError(f"the stream has ended without {name} {facts}")


@asynccontextmanager
async def stream(it: World, path: str = "/api/events", *, method: str = "GET", **more: Any) -> AsyncIterator[Stream]:
    headers = {"Accept": "text/event-stream"}
    async with it.session.request(method, it.admin + path, headers=headers, **more) as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")
        yield Stream(answer, method)


def decide_anew(it: World, times: int) -> None:
    """Make decisions each of which tells something else than the one before."""
    for number in range(times):
        it.app().memory = replace(it.app().memory, gone=(f"web-{number} died",))
        it.tick()


async def test_it_says_what_control_says() -> None:
    async with world() as it:
        await it.get()
        it.tick()

        async with it.session.get(it.admin + "/api/apps") as answer:
            [short] = await answer.json()
        async with it.session.get(it.admin + "/api/apps/web") as answer:
            full = await answer.json()
        async with it.session.get(it.admin + "/") as answer:
            status = (await answer.json())["dockscale"]

        assert short.keys() == it.dockscale.control.list()[0].keys()
        assert full.keys() == it.dockscale.control.explain("web").keys()
        assert short["instances_by_state"] == {"starting": 0, "ready": 1, "draining": 0, "standby": 0}
        assert full["spec"] == it.dockscale.control.explain("web")["spec"]
        assert status == it.dockscale.control.status()


@pytest.mark.parametrize("path", ["/api/apps/shop", "/api/apps/shop/events"])
async def test_an_unknown_app_is_not_found_and_named(path: str) -> None:
    async with world() as it, it.session.get(it.admin + path) as answer:
        body = await answer.json()

        assert answer.status == 404
        assert answer.content_type == "application/problem+json"
        assert body["error"] == "no_such_app"
        assert "'shop'" in body["detail"]


async def test_it_has_no_methods_but_its_verbs() -> None:
    async with world() as it:
        for method in ("POST", "PUT", "PATCH"):
            async with it.session.request(method, it.admin + "/api/apps/web") as answer:
                assert answer.status == 405

        assert it.states() == {}


async def ask(it: World, method: str, path: str, **more: Any) -> tuple[int, Any]:
    """Ask, and hold the answer against what is documented."""
    async with it.session.request(method, it.admin + path, **more) as answer:
        told = json.loads(text) if (text := await answer.text()) and "json" in answer.content_type else text or None
        check_answer(method, path, answer.status, answer.content_type, told)
        return answer.status, told


async def test_an_app_is_installed_started_looked_at_stopped_and_uninstalled() -> None:
    async with world() as it:
        it.engine.add_image("plain", Program(backend))
        manifest = {"name": "My Shop", "image": "plain"}

        created, told = await ask(it, "POST", "/api/apps", json=manifest)
        again, _ = await ask(it, "POST", "/api/apps", json=manifest)
        replaced, _ = await ask(it, "POST", "/api/apps?overwrite=true", json=manifest)
        started, instance = await ask(it, "POST", "/api/apps/my-shop/start")
        read, logs = await ask(it, "GET", "/api/apps/my-shop/logs?type=scaling&limit=1")
        stopped, instances = await ask(it, "POST", f"/api/apps/my-shop/stop?instance={instance['name']}")
        removed, nothing = await ask(it, "DELETE", "/api/apps/my-shop")

        assert (created, again, replaced, told["id"]) == (201, 409, 201, "my-shop")
        assert (started, instance["state"]) == (200, "ready")
        assert (read, len(logs["items"]), logs["items"][0]["type"]) == (200, 1, "scaling")
        assert (stopped, [each["state"] for each in instances]) == (200, ["draining"])
        assert (removed, nothing) == (204, None)
        assert "my-shop" not in it.dockscale.registry.apps


@pytest.mark.parametrize(
    ("method", "path", "json", "status", "word"),
    [
        ("POST", "/api/apps/shop/start", None, 404, "no_such_app"),
        ("POST", "/api/apps/web/start?timeout=x", None, 400, "bad_request"),
        ("POST", "/api/apps/web/stop?instance=x", None, 404, "no_such_instance"),
        ("POST", "/api/apps/web/drain?instance=x", None, 404, "no_such_instance"),
        ("POST", "/api/apps/web/drain?instance=", None, 404, "no_such_instance"),
        ("POST", "/api/apps/web/drain", None, 400, "bad_request"),
        ("POST", "/api/apps/web/start?timeout=nan", None, 400, "bad_request"),
        ("GET", "/api/apps/web/logs?limit=-1", None, 400, "bad_request"),
        ("GET", "/api/apps/web/logs?tail=x", None, 400, "bad_request"),
        ("GET", "/api/apps/web/logs?type=x", None, 400, "bad_request"),
        ("POST", "/api/apps?overwrite=maybe", {"name": "x"}, 400, "bad_request"),
        ("POST", "/api/apps/web/scale?instances=99", None, 422, "out_of_bounds"),
        ("POST", "/api/apps/web/scale?instances=-1", None, 422, "out_of_bounds"),
        ("POST", "/api/apps/web/scale?instances=many", None, 400, "bad_request"),
        ("POST", "/api/apps/web/scale", None, 400, "bad_request"),
        ("POST", "/api/apps/shop/restart", None, 404, "no_such_app"),
        ("GET", "/api/apps/shop/logs", None, 404, "no_such_app"),
        ("DELETE", "/api/apps/web", None, 409, "labelled_by_hand"),
        ("POST", "/api/apps", {"name": "x"}, 422, "invalid"),
        ("POST", "/api/apps", ["x"], 400, "bad_request"),
        ("POST", "/api/apps", None, 400, "bad_request"),
        ("POST", "/api/apps", {"name": "x", "image": "nowhere:1"}, 502, "engine_refused"),
    ],
)
async def test_what_is_refused_is_told_with_a_word_and_a_sentence(
    method: str, path: str, json: Any, status: int, word: str
) -> None:
    async with world() as it:
        answered, body = await ask(it, method, path, json=json)

        assert (answered, body["error"]) == (status, word)
        assert body["detail"]
        assert ("problems" in body) == (word == "invalid")


async def test_an_app_is_woken_scaled_drained_restarted_and_put_to_sleep() -> None:
    async with world() as it:
        woken, instance = await ask(it, "POST", "/api/apps/web/wake")
        scaled, told = await ask(it, "POST", "/api/apps/web/scale?instances=2")
        await until(lambda: it.ready() == 2)
        drained, after = await ask(it, "POST", f"/api/apps/web/drain?instance={instance['name']}")
        await until(lambda: instance["name"] not in it.app().pool.instances and it.ready() == 2)
        restarted, renewed = await ask(it, "POST", "/api/apps/web/restart")
        slept, instances = await ask(it, "POST", "/api/apps/web/sleep")
        await until(lambda: it.states() == {})

        assert (woken, scaled, drained, restarted, slept) == (200,) * 5
        assert instance["state"] == "ready"
        assert told["decision"]["explanation"] == "1 → 2 instances: 2 were asked for by hand."
        assert after["instances_by_state"]["draining"] == 1
        assert renewed["state"] == "ready"
        assert {each["state"] for each in instances} == {"draining"}


async def test_the_steps_of_an_install_are_told_as_they_happen_to_who_asks_for_a_stream() -> None:
    async with world() as it:
        it.engine.add_image("plain", Program(backend))
        manifest = {"name": "My Shop", "image": "plain"}
        async with stream(it, "/api/apps", method="POST", json=manifest) as events:
            step = await events.heard("step", type="info")
            installed = await events.heard("installed")
            over = await events.block()
        async with stream(it, "/api/apps", method="POST", json=manifest) as events:
            failed = await events.heard("failed")

        assert "making the image" in step["text"]
        assert (installed["id"], over) == ("my-shop", [])
        assert (failed["error"], "already exists" in failed["detail"]) == ("app_exists", True)


async def test_an_install_goes_on_without_its_reader() -> None:
    gate = asyncio.Event()
    async with world() as it:
        it.engine.add_image("plain", Program(backend))
        find = it.engine.find_image

        async def slow(name: str) -> Any:
            await gate.wait()
            return await find(name)

        it.engine.find_image = slow
        async with stream(it, "/api/apps", method="POST", json={"name": "shop", "image": "plain"}):
            pass
        gate.set()

        await until(lambda: "shop" in it.dockscale.registry.apps)


async def test_logs_are_followed_by_who_asks_for_a_stream() -> None:
    async with world() as it:
        _, body = await it.get()
        container = it.app().pool.instances[body["instance"]].container_id
        it.engine.write(container, "before")
        async with stream(it, "/api/apps/web/logs?type=log&tail=1") as lines:
            before = await lines.heard("line", type="log")
            it.engine.write(container, "after")
            after = await lines.heard("line", content="after")

        assert (before["content"], before["instance"], after["instance"]) == ("before", *[body["instance"]] * 2)


async def test_no_start_in_time_is_told_so() -> None:
    async with world(program=Program(backend, gate=asyncio.Event())) as it:
        assert (await ask(it, "POST", "/api/apps/web/start?timeout=0.05"))[0] == 504


async def test_pages_of_other_sites_change_nothing() -> None:
    async with world() as it:
        foreign, _ = await ask(it, "POST", "/api/apps/web/start", headers={"Origin": "http://evil.example"})
        own, _ = await ask(it, "POST", "/api/apps/web/start", headers={"Origin": it.admin})

        assert (foreign, own) == (403, 200)


async def test_browsers_get_the_dashboard_and_programs_get_json() -> None:
    async with world() as it:
        async with it.session.get(it.admin + "/", headers={"Accept": "text/html,*/*;q=0.8"}) as answer:
            page, rules = await answer.text(), answer.headers
        for accept in ("*/*", "application/json"):
            async with it.session.get(it.admin + "/", headers={"Accept": accept}) as answer:
                assert (answer.content_type, answer.headers["Vary"]) == ("application/json", "Accept")

        assert "<title>dockscale</title>" in page
        assert rules["Vary"] == "Accept"
        assert rules["Content-Security-Policy"].startswith("default-src 'self';")
        assert "unsafe" not in rules["Content-Security-Policy"]
        assert (rules["X-Content-Type-Options"], rules["Referrer-Policy"]) == ("nosniff", "no-referrer")


async def test_all_that_the_dashboard_names_is_there_small_and_not_sent_twice() -> None:
    async with world() as it:
        size = 0
        for file in DASHBOARD.iterdir():
            async with it.session.get(f"{it.admin}/dashboard/{file.name}") as answer:
                assert answer.status == (404 if file.suffix == ".md" else 200)
                size += len(await answer.read())
                tag = answer.headers.get("ETag", "")
            if tag:
                async with it.session.get(
                    f"{it.admin}/dashboard/{file.name}", headers={"If-None-Match": tag}
                ) as answer:
                    assert (answer.status, await answer.read()) == (304, b"")

        named = {name for file in DASHBOARD.iterdir() for name in NAMES.findall(file.read_text())}
        assert named >= {"main.js", "dashboard.css", "uplot.js", "app.js"}
        assert all((DASHBOARD / name).is_file() for name in named)
        assert size < 150_000


def test_the_dashboard_makes_no_markup_of_data_and_asks_nobody_else() -> None:
    own = {file.name: file.read_text() for file in DASHBOARD.iterdir() if file.name not in ("uplot.js", "LICENSE.md")}
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|<script>|<style|style=|https?://(?!www\.w3\.org/2000/svg)\w"
    )

    assert {name: forbidden.findall(text) for name, text in own.items()} == {name: [] for name in own}


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9528", "127.0.0.1", "127.1.2.3:80", "[::1]:9528", "a.localhost"]
)
async def test_it_answers_under_names_of_this_machine(host: str) -> None:
    async with world() as it:
        assert (await ask(it, "GET", "/api/apps", headers={"Host": host}))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9528", "192.0.2.1", "localhost.evil.example", "[", "[x]:1"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/api/apps"), ("GET", "/api/events"), ("POST", "/api/apps/web/start")]
)
async def test_a_site_whose_name_was_made_to_mean_this_machine_gets_nothing(host: str, method: str, path: str) -> None:
    async with world() as it:
        status, body = await ask(it, method, path, headers={"Host": host, "Origin": f"http://{host}"})

        assert (status, body["error"]) == (421, "misdirected")
        assert "DOCKSCALE_ADMIN_TOKEN" in body["detail"]
        assert it.states() == {}


async def test_with_a_token_it_answers_under_any_name_and_the_page_is_public() -> None:
    async with world(admin_token="secret") as it:
        elsewhere = {"Host": "admin.example.org"}
        browser = elsewhere | {"Accept": "text/html"}

        async with it.session.get(it.admin + "/", headers=browser) as answer:
            assert (answer.status, answer.content_type) == (200, "text/html")
        for path in ("/dashboard/main.js", "/dashboard/dashboard.css"):
            async with it.session.get(it.admin + path, headers=elsewhere) as answer:
                assert (path, answer.status) == (path, 200)
        assert (await ask(it, "GET", "/api/apps", headers=browser))[0] == 401
        assert (await ask(it, "POST", "/", headers=browser))[0] == 401
        assert (await ask(it, "GET", "/api/apps", headers=elsewhere | {"Authorization": "Bearer secret"}))[0] == 200


async def test_the_last_lines_of_instances_can_be_asked_for() -> None:
    async with world() as it:
        _, instance = await ask(it, "POST", "/api/apps/web/start")
        for box in it.engine._boxes.values():
            box.log.extend(f"line {number}" for number in range(9))

        _, logs = await ask(it, "GET", f"/api/apps/web/logs?type=log&tail=2&instance={instance['name']}")

        assert [item["content"] for item in logs["items"]] == ["line 7", "line 8"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "sent", ["", "secret", "Bearer ", "Bearer secre", "Bearer secret2", "Basic secret", "Bearer é"]
)
async def test_without_the_token_nothing_is_said(path: str, sent: str) -> None:
    async with (
        world(admin_token="secret") as it,
        it.session.get(it.admin + path, headers={"Authorization": sent} if sent else {}) as answer,
    ):
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "web" not in await answer.text()


async def test_with_the_token_everything_is() -> None:
    async with world(admin_token="secret", admin_host="0.0.0.0") as it:
        for path in PATHS[:-1]:
            async with it.session.get(it.admin + path, headers={"Authorization": "Bearer secret"}) as answer:
                assert (path, answer.status) == (path, 200)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
@pytest.mark.parametrize("token", [None, ""])
async def test_it_is_not_opened_to_others_without_a_token(host: str, token: str | None) -> None:
    with pytest.raises(CannotStart, match=f"DOCKSCALE_ADMIN_HOST={host} .*DOCKSCALE_ADMIN_TOKEN"):
        async with serving(MemoryEngine(), admin_host=host, admin_token=token):
            pass


async def test_the_apps_port_shows_nothing_of_it() -> None:
    async with world() as it:
        for path in ("/metrics", "/api/apps", "/api/events"):
            async with it.session.get(it.base + path) as answer:
                assert (path, answer.status) == (path, 404)


@pytest.mark.parametrize("path", STREAMS)
async def test_a_stream_tells_of_decisions_and_states_from_now_to_the_end_of_the_app(path: str) -> None:
    async with world() as it, stream(it, path) as events:
        first = await events.heard("decision")
        await events.heard("state", app_id="web", state="asleep")

        await it.get()
        wake = await events.heard("decision", reason="wake", before=0)
        await events.heard(
            "state", state="ready", instances_by_state={"starting": 0, "ready": 1, "draining": 0, "standby": 0}
        )
        it.engine.remove_image("web")
        await it.settled()
        removed = await events.heard("removed")

        assert first["reason"] == "asleep"
        assert (wake["app_id"], wake["instances"], wake["load"]["waiting"]) == ("web", 1, 1)
        assert removed == {"app_id": "web"}
        if path != "/api/events":
            assert await events.block() == []


async def test_the_stream_of_one_app_is_silent_about_others() -> None:
    async with world() as it, stream(it, "/api/apps/web/events") as events:
        it.engine.add_image("blog", Program(backend), ENABLED)
        await it.settled()
        await it.get(app_id="blog")
        await it.get()

        said = [await events.block()]
        while '"state": "ready"' not in said[-1][1]:
            said.append(await events.block())

        assert {json.loads(data.removeprefix("data: "))["app_id"] for _, data in said} == {"web"}


async def test_a_stream_without_news_says_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "KEEP_ALIVE_S", 0.02)
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    async with world() as it, stream(it) as events:
        await events.heard("state")

        assert await events.block() == [": keep-alive"]
        await it.get()
        await events.heard("decision", reason="wake")


async def test_a_stream_tells_of_load_and_that_of_an_app_of_each_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    async with world() as it, stream(it) as all_apps, stream(it, "/api/apps/web/events") as one_app:
        await all_apps.heard("load", app_id="web", requests_per_minute=0)
        await one_app.heard("instances", instances=[])

        await it.get()

        told = await all_apps.heard("load", requests_per_minute=1, per_instance=1.0, in_flight=0, waiting=0)
        while not (members := (await one_app.heard("instances"))["instances"]) or members[0]["state"] != "ready":
            pass
        assert told["app_id"] == "web"
        assert members[0].keys() == it.dockscale.control.instances("web")[0].keys() - {"age_s"}


async def test_the_last_hour_of_an_app_can_be_asked_for() -> None:
    async with world() as it:
        it.dockscale.scaler.look([it.app()], it.session)

        status, told = await ask(it, "GET", "/api/apps/web/history")

        assert (status, told["app_id"], len(told["at"]), told["ready"]) == (200, "web", 1, [0])
        assert (await ask(it, "GET", "/api/apps/shop/history"))[0] == 404


async def test_a_client_that_goes_leaves_no_watcher_behind() -> None:
    async with world() as it:
        async with stream(it) as events, stream(it, "/api/apps/web/events"):
            await events.heard("decision")
            watching = len(it.app().watchers)

        await until(lambda: not it.app().watchers)
        assert watching == 2


async def test_a_client_that_reads_nothing_holds_nobody_up_and_learns_what_it_missed() -> None:
    async with world() as it:
        reader, writer = await slow_reader(it)
        async with stream(it) as other:
            await other.heard("decision")
            for _ in range(60):
                decide_anew(it, 200)
                await other.heard("decision", gone=["web-199 died"])

        seen = b""
        async with asyncio.timeout(BOUND_S):
            while b"event: missed" not in seen:
                seen = seen[-20:] + await reader.read(65536)
        writer.close()
        await writer.wait_closed()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers wait long for those who are still answered, so that nothing ends only because they lost patience."""
    runner = web.AppRunner
    monkeypatch.setattr(web, "AppRunner", lambda app, **more: runner(app, **more | {"shutdown_timeout": 3600.0}))


@pytest.mark.parametrize("path", STREAMS)
async def test_streams_come_to_their_end_when_dockscale_does(path: str, patient: None) -> None:
    async with asyncio.timeout(BOUND_S), aiohttp.ClientSession() as session:
        async with world() as it:
            answer = await session.get(it.admin + path)
            events = Stream(answer)
            await events.heard("state")

        assert await events.block() == []
        assert answer.content.exception() is None, "it is ended, not cut"


async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(patient: None) -> None:
    async with asyncio.timeout(BOUND_S), world() as it:
        _, writer = await slow_reader(it)
        await until(lambda: it.app().watchers)
        for _ in range(60):
            decide_anew(it, 200)
            await asyncio.sleep(0)

    writer.close()


async def slow_reader(it: World) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for all events, and read none."""
    it_reads = socket.socket()
    it_reads.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    it_reads.setblocking(False)
    await asyncio.get_running_loop().sock_connect(it_reads, ("127.0.0.1", it.dockscale.admin_port))
    reader, writer = await asyncio.open_connection(sock=it_reads, limit=1024)
    writer.write(b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return reader, writer
