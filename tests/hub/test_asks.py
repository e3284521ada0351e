"""ASGI services of apps, asked over RPC: a request is a call of `get`, `post` and the like."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from hypha_rpc import connect_to_server
from hypha_rpc.utils.serve import register_asgi_service

from dockscale.engine.memory import MemoryEngine
from dockscale.hub import asks
from dockscale.hub.tokens import User
from tests.hub.test_asgi import nothing_left
from tests.hub.test_instances import outlasting
from tests.support.process import free_port
from tests.support.worker import client, connect, rpc_world
from tests.support.world import World, appears, serving, until

TWO = {"autoscaling.min_instances": "2", "autoscaling.max_instances": "2"}


class Site:
    """The same FastAPI application on each instance, and what happened to it."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.began = 0
        self.left = 0
        """Requests whose caller went."""
        self.ended = 0
        """What was done after an answer."""

    async def __call__(self, env: Mapping[str, str]) -> None:
        api = await connect(env)
        try:
            app = self.app(env["HYPHA_CLIENT_ID"])
            await register_asgi_service(api, "site", app, visibility="public")
            await register_asgi_service(api, "hidden", app, visibility="protected")
            await api.register_service({
                "id": "default", "type": "ASGI", "config": {"visibility": "public"}, "get": lambda path: f"own {path}",
                "serve": lambda args: app(args["scope"], args["receive"], args["send"]),
            })  # fmt: skip
            await asyncio.Event().wait()
        finally:
            await api.disconnect()

    def app(self, me: str) -> FastAPI:
        app = FastAPI()

        @app.get("/api/status")
        async def status(request: Request) -> dict[str, Any]:
            return {
                "by": me, "query": request.query_params.multi_items(), "path": request["path"],
                "headers": dict(request.headers), "client": request.client and request.client.host,
            }  # fmt: skip

        @app.post("/api/process")
        async def process(data: dict[str, Any]) -> dict[str, Any]:
            self.began += 1
            await self.gate.wait()
            return {"by": me, "input": data}

        @app.api_route("/echo", methods=["POST", "PUT", "PATCH", "DELETE"])
        async def echo(request: Request) -> Response:
            return Response(await request.body(), media_type=request.headers.get("content-type"))

        @app.get("/text")
        async def text() -> Response:
            return PlainTextResponse("ü", headers={"X-Own": "1"})

        @app.get("/stream")
        async def stream(n: int) -> Response:
            async def parts() -> AsyncIterator[bytes]:
                for _ in range(n):
                    yield b"x" * 100_000

            return StreamingResponse(parts())

        @app.get("/fails")
        async def fails() -> None:
            raise KeyError("of the app's own")

        @app.get("/moved/")
        async def moved() -> None:
            pass

        @app.get("/waits")
        async def waits(request: Request) -> None:
            self.began += 1
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.left += 1

        @app.get("/later")
        async def later(tasks: BackgroundTasks) -> str:
            async def end() -> None:
                await self.gate.wait()
                self.ended += 1

            tasks.add_task(end)
            return "soon"

        return app


@asynccontextmanager
async def site(labels: Mapping[str, str] | None = None, **settings: Any) -> AsyncIterator[tuple[World, Site]]:
    """An app that is a FastAPI application; nothing of what was asked is left at the end."""
    here = Site()
    async with rpc_world(labels, runs=here, **settings) as it:
        yield it, here
        await until(lambda: not nothing_left(it), "all is given back")


async def test_an_application_is_asked_as_if_it_were_a_service_with_functions() -> None:
    async with site() as (it, _), client(it, client_id="me") as api:
        service = await api.get_service("site@bot")

        status = await service.get("/api/status?x=1", params={"a": ["ü", 2]}, headers={"X-A": "1", "Host": "other"})
        assert status["query"] == [["x", "1"], ["a", "ü"], ["a", "2"]]
        assert (status["headers"]["x-a"], status["headers"]["host"]) == ("1", "bot.localhost")
        assert (status["path"], status["client"]) == ("/api/status", "public/me")
        assert await service.post("/echo", {"data": ["x"]}) == {"data": ["x"]}
        assert await service.put("/echo", "text") == "text"
        assert await service.patch("/echo", b"\x00" * 700_000) == b"\x00" * 700_000
        assert await service.delete("/echo", json=[1]) == [1]
        assert await service.get("/text") == "ü"
        assert len(await service.get("/stream", params={"n": 25})) == 2_500_000
        assert "serve" in service


async def test_an_answer_can_be_had_with_its_status_and_headers() -> None:
    async with site() as (it, _), client(it) as api:
        service = await api.get_service("site@bot")
        good, bad = await service.request("get", "/text"), await service.request("GET", "/nowhere")
        head = await service.request("HEAD", "/text")

    assert (good["status"], good["headers"]["x-own"], good["body"]) == (200, "1", "ü")
    assert (bad["status"], bad["body"]) == (404, {"detail": "Not Found"})
    assert (head["status"], head["body"]) == (405, "")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"path": "/nowhere"}, "site@bot answered GET /nowhere with 404: {'detail': 'Not Found'}"),
        ({"path": "/fails"}, "with 500: Internal Server Error"),
        ({"path": "/moved"}, "with 307: http://bot.localhost/moved/"),
        ({"path": "no/slash"}, "must start with /"),
        ({"path": 5}, "must start with /"),
        ({"params": {"a": None}}, "the parameter a must be"),
        ({"params": 5}, "params must be"),
        ({"headers": {"a": 1}}, "headers must be"),
        ({"headers": {"a": "1\r\nb: 2"}}, "line end"),
        ({"data": {"a": b"x"}}, "not JSON serializable"),
        ({"other": 1}, "unexpected keyword"),
    ],
)  # fmt: skip
async def test_what_is_no_success_is_an_error(how: dict[str, Any], told: str) -> None:
    async with site() as (it, _), client(it) as api:
        service = await api.get_service("site@bot")

        with pytest.raises(Exception, match=told):
            await service.get(**{"path": "/text", **how})


async def test_twenty_at_once_are_spread_over_the_instances_and_each_is_counted_once() -> None:
    async with site(TWO | {"service_selection_mode": "min_load"}) as (it, here), client(it) as api:
        service = await api.get_service("site@bot")
        await until(lambda: it.ready("bot") == 2)
        asking = [asyncio.ensure_future(service.post("/api/process", {"data": n})) for n in range(20)]
        await until(lambda: here.began == 20)
        in_flight = sorted(instance.in_flight for instance in it.app("bot").pool)
        here.gate.set()
        answers = await asyncio.gather(*asking)
        stats = it.app("bot").stats
        await until(lambda: stats.rpc_calls >= 20)

        assert in_flight == [10, 10]
        assert [answer["input"]["data"] for answer in answers] == list(range(20))
        assert (sum(stats.requests.values()), stats.requests[200], stats.rpc_calls) == (20, 20, 20)


async def test_what_an_application_answers_is_counted_by_its_status() -> None:
    async with site() as (it, _), client(it) as api:
        service, stats = await api.get_service("site@bot"), it.app("bot").stats
        for path in ("/text", "/nowhere", "/fails"):
            await service.request("GET", path)
            await it.session.get(f"{it.base}/public/apps/bot{path}")
        await until(lambda: stats.rpc_calls == 6)

        assert dict(stats.requests) == {200: 2, 404: 2, 500: 2}


async def test_the_mode_that_a_service_was_got_with_chooses_the_instance() -> None:
    async with site(TWO) as (it, _), client(it) as api:
        first, last = [await api.get_service("site@bot", mode=mode) for mode in ("first", "last")]
        await until(lambda: it.ready("bot") == 2)
        by = [{(await service.get("/api/status"))["by"] for _ in range(5)} for service in (first, last)]

    assert len(by[0]) == len(by[1]) == 1
    assert by[0] != by[1]


async def test_a_service_keeps_what_it_has_of_these_names_itself() -> None:
    async with site() as (it, _), client(it) as api:
        service = await api.get_service("default@bot")
        async with it.session.get(it.base + "/public/services/default@bot/get?path=/a") as answer:
            over_http = await answer.json()

        assert (await service.get("/a"), over_http) == ("own /a", "own /a")
        assert await service.post("/echo", "x") == "x"


async def test_what_is_no_asgi_service_has_none_of_them() -> None:
    async with rpc_world() as it, client(it) as api:
        service = await api.get_service("default@bot")

        assert "post" not in service


async def test_each_call_needs_the_permission_that_the_service_does() -> None:
    async with site(auth="token") as (it, _):
        tokens = it.dockscale.rpc.manager._tokens
        mine, others = [
            tokens.issue(User("somebody", {workspace: "rw"}, current_workspace=workspace))
            for workspace in ("public", "other")
        ]
        async with client(it, token=mine) as member, client(it, token=others) as stranger:
            public, hidden = [await member.get_service(name) for name in ("site@bot", "hidden@bot")]
            forged = await stranger.get_service("public/site@bot")

            assert await hidden.get("/text") == "ü"
            assert await forged.get("/text") == await public.get("/text") == "ü"
            with pytest.raises(Exception, match="protected in the workspace public"):
                await stranger.get_service("public/hidden@bot")
            forging = stranger.rpc._generate_remote_method({
                "_rtype": "method", "_rtarget": "*/http", "_rmethod": "services.asgi.hidden@bot@.get",
                "_rpromise": True, "_rname": "get",
            })  # fmt: skip
            with pytest.raises(Exception, match="protected in the workspace public"):
                await forging("/text")


@pytest.mark.parametrize("key", ["", "@", "site", "site@nowhere@", "no@bot@", "site@bot@worst", "site@bot@a@b"])
async def test_a_call_that_names_nothing_is_refused(key: str) -> None:
    async with site() as (it, _), client(it) as api:
        asking = api.rpc._generate_remote_method({
            "_rtype": "method", "_rtarget": "*/http", "_rmethod": f"services.asgi.{key}.get", "_rpromise": True,
            "_rname": "get",
        })  # fmt: skip
        with pytest.raises(Exception, match=r"not found|no selection mode"):
            await asking("/text")


async def test_what_was_given_out_works_on_after_a_restart_of_dockscale() -> None:
    port = free_port()
    with outlasting(Site()) as engine:
        async with serving(engine, port=port) as it:
            api = await connect_to_server({"server_url": it.base})
            service = await api.get_service("site@bot")
        async with serving(engine, port=port) as it:
            await appears(it, "bot")
            await until(lambda: it.ready("bot") == 1 and it.dockscale.rpc.hub.count == 2, "both clients are back")

            assert await service.get("/text") == "ü"
            await api.disconnect()
        await MemoryEngine.close(engine)


async def test_an_answer_that_is_too_large_for_a_value_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asks, "MOST_ANSWER_BYTES", 450_000)
    async with site() as (it, _), client(it) as api:
        service = await api.get_service("site@bot")

        assert len(await service.get("/stream?n=4")) == 400_000
        with pytest.raises(Exception, match="larger than 450000 bytes"):
            await service.get("/stream?n=5")


async def test_an_application_is_told_when_its_caller_goes() -> None:
    async with site() as (it, here):
        async with client(it) as api:
            service = await api.get_service("site@bot")
            asking = asyncio.ensure_future(service.get("/waits"))
            await until(lambda: here.began)
        await until(lambda: here.left == 1)
        await until(lambda: it.app("bot").pool.in_flight == 0)
        await asyncio.wait([asking])

        assert asking.exception()


async def test_what_an_application_does_after_its_answer_goes_on() -> None:
    async with site() as (it, here):
        async with client(it) as api:
            answer = await (await api.get_service("site@bot")).get("/later")
            in_flight = it.app("bot").pool.in_flight
        here.gate.set()
        await until(lambda: here.ended == 1)

    assert (answer, in_flight) == ("soon", 1)


async def test_a_call_wakes_an_app_that_has_gone_to_sleep() -> None:
    async with site() as (it, _), client(it) as api:
        service, app = await api.get_service("site@bot"), it.app("bot")
        it.dockscale.scaler.rest(app, app.pool)
        await until(lambda: not it.states("bot"))

        assert await asyncio.gather(*(service.get("/text") for _ in range(5))) == ["ü"] * 5


async def test_a_call_in_the_line_outlasts_its_callers_patience_for_signs_of_life() -> None:
    labels = {"autoscaling.max_instances": "1", "autoscaling.max_concurrency": "1"}
    async with site(labels) as (it, here), client(it, method_timeout=2) as api:
        service = await api.get_service("site@bot")
        asking = [asyncio.ensure_future(service.post("/api/process", {"data": n})) for n in range(2)]
        await until(lambda: here.began)
        done, _ = await asyncio.wait(asking, timeout=3)
        here.gate.set()

        assert not done
        assert len(await asyncio.gather(*asking)) == 2


async def test_a_full_line_is_told_in_its_own_words() -> None:
    labels = {"autoscaling.max_instances": "1", "autoscaling.max_concurrency": "1", "autoscaling.max_queue": "1"}
    async with site(labels) as (it, here), client(it) as api:
        service = await api.get_service("site@bot")
        asking = [asyncio.ensure_future(service.post("/api/process", {})) for _ in range(2)]
        await until(lambda: it.app("bot").pool.waiting)
        with pytest.raises(Exception, match="LineFull"):
            await service.get("/text")
        here.gate.set()

        assert await asyncio.gather(*asking)


async def test_an_instance_that_dies_fails_what_was_asked_of_it() -> None:
    async with site() as (it, here), client(it) as api:
        service = await api.get_service("site@bot")
        asking = asyncio.ensure_future(service.post("/api/process", {}))
        await until(lambda: here.began)
        [instance] = it.app("bot").pool.candidates()
        await it.engine.crash(instance.container_id)

        with pytest.raises(Exception, match="ConnectionError: the instance"):
            await asking


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("get?path=/text", 200, "ü"),
        ("get?path=/text&_mode=first", 200, "ü"),
        ("get?path=/nowhere", 502, "site@bot answered GET /nowhere with 404"),
        ("get?path=5", 400, "must start with /"),
        ("get?where=/", 400, "unexpected keyword"),
    ],
)
async def test_over_http_they_are_called_like_functions(path: str, status: int, told: str) -> None:
    async with site() as (it, _), it.session.get(f"{it.base}/public/services/site@bot/{path}") as answer:
        value = await answer.json()

    assert answer.status == status
    assert told in (value["message"] if status != 200 else value)


async def test_over_http_a_body_is_the_arguments() -> None:
    async with site() as (it, _):
        url, given = f"{it.base}/public/services/site@bot/post", {"path": "/echo", "data": {"a": 1}}
        async with it.session.post(url, json=given) as answer:
            assert await answer.json() == {"a": 1}
