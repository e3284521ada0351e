"""Services that answer HTTP: ASGI applications and functions, of apps and of any client."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from hypha_rpc.utils.serve import register_asgi_service

from tests.support.origin import client as wire_client
from tests.support.worker import client, connect, rpc_world
from tests.support.world import World, until, world

PART = b"x" * 100_000


class Site:
    """A FastAPI application, and what happened to it."""

    def __init__(self) -> None:
        self.app = app = FastAPI()
        self.gate = asyncio.Event()
        self.sent = 0
        self.left = 0
        """Requests whose client went."""

        @app.get("/items/{name:path}")
        async def item(name: str, request: Request) -> dict[str, Any]:
            return {"name": name, "query": request.query_params.multi_items(), "raw": request["raw_path"].decode()}

        @app.post("/echo")
        async def echo(request: Request) -> Response:
            return Response(b"".join([part async for part in request.stream()]))

        @app.get("/cookies")
        async def cookies(request: Request, response: Response) -> dict[str, str]:
            response.set_cookie("a", "1")
            response.set_cookie("b", "2")
            return request.cookies

        @app.get("/status/{status}")
        async def status(status: int) -> Response:
            return Response(status_code=status)

        @app.get("/stream")
        async def stream(n: int) -> Response:
            return StreamingResponse(self.parts(n))

        @app.get("/gated")
        async def gated() -> Response:
            async def parts() -> AsyncIterator[bytes]:
                yield b"first"
                await self.gate.wait()
                yield b"last"

            return StreamingResponse(parts())

        @app.get("/waits")
        async def waits(request: Request) -> None:
            while (await request.receive())["type"] != "http.disconnect":
                self.sent += 1
            self.left += 1

        @app.get("/fails")
        async def fails() -> None:
            raise KeyError("of the app's own")

        @app.get("/breaks-off")
        async def breaks_off() -> Response:
            async def parts() -> AsyncIterator[bytes]:
                yield b"first"
                raise ValueError("of the app's own")

            return StreamingResponse(parts())

    async def parts(self, n: int) -> AsyncIterator[bytes]:
        for _ in range(n):
            self.sent += 1
            yield PART

    async def work(self, env: Mapping[str, str]) -> None:
        api = await connect(env)
        try:
            await register_asgi_service(api, "default", self.app)
            await asyncio.Event().wait()
        finally:
            await api.disconnect()


@asynccontextmanager
async def site(**settings: Any) -> AsyncIterator[tuple[World, Site, str]]:
    """An app that is a FastAPI application, and its address."""
    it = Site()
    async with rpc_world(runs=it.work, **settings) as where:
        yield where, it, where.base + "/public/apps/bot"
        await until(lambda: not nothing_left(where), "all is given back")


def nothing_left(it: World) -> str:
    """What is still there of requests that have ended; empty if nothing is."""
    rpc, app = it.dockscale.rpc, it.app("bot")
    left = {"open": rpc.calls.open, "backs": rpc.calls.backs, "in_flight": app.pool.in_flight}
    return str({name: what for name, what in (left | sessions(it)).items() if what} or "")


def sessions(it: World) -> dict[str, Any]:
    """Calls that dockscale itself has open, by who of it made them."""
    peers = it.dockscale.rpc.hub.peers.values()
    return {peer.full_id: open_ones for peer in peers if (open_ones := getattr(peer, "sessions", {}))}


async def test_a_fastapi_application_answers_with_paths_queries_and_cookies_as_they_came() -> None:
    async with site() as (it, _, base), aiohttp.ClientSession(cookies={"c": "3"}) as session:
        async with session.get(base + "/items/a%2Fb%20%C3%BC?x=1&x=%26&y=") as answer:
            item = await answer.json()
        async with session.get(base + "/cookies", headers={"Cookie": "d=4"}) as answer:
            set_cookies = answer.headers.getall("Set-Cookie")
        status, openapi = await it.get("/openapi.json", "bot")

    assert item["name"] == "a/b ü"
    assert item["query"] == [["x", "1"], ["x", "&"], ["y", ""]]
    assert [each.partition(";")[0] for each in set_cookies] == ["a=1", "b=2"]
    assert (status, "/items/{name}" in openapi["paths"]) == (200, True)


@pytest.mark.parametrize(("path", "status"), [("/status/204", 204), ("/status/304", 304), ("/nowhere", 404)])
async def test_an_answer_without_a_body_leaves_the_connection_usable(path: str, status: int) -> None:
    async with site() as (it, _, base):
        async with it.session.get(base + path, allow_redirects=False) as answer:
            await answer.read()
        async with it.session.head(base + "/stream?n=1") as head:
            pass

    assert (answer.status, head.status) == (status, 405)


async def test_a_body_of_any_size_goes_both_ways_part_by_part() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield PART

    async with site() as (it, _, base), it.session.post(base + "/echo", data=parts()) as answer:
        body = await answer.read()

    assert body == PART * 30


async def test_each_part_of_an_answer_comes_as_soon_as_it_is_sent() -> None:
    async with site() as (it, here, base), it.session.get(base + "/gated") as answer:
        first = await answer.content.readany()
        here.gate.set()
        last = await answer.content.read()

    assert (first, last) == (b"first", b"last")


async def test_a_slow_reader_holds_the_application_back() -> None:
    async with site() as (it, here, _):
        async with wire_client(it) as wire:
            wire.transport.pause_reading()
            wire.send(b"GET /public/apps/bot/stream?n=2000 HTTP/1.1\r\nHost: here\r\n\r\n")
            await until(lambda: any(each.full for each in it.dockscale.main.clients))
            before = -1
            while before != here.sent:
                before = here.sent
                await asyncio.sleep(0.2)
        assert here.sent < 200


async def test_an_application_is_told_when_its_client_goes() -> None:
    async with site() as (it, here, base):
        asking = asyncio.create_task(it.session.get(base + "/waits"))
        await until(lambda: here.sent and it.dockscale.rpc.calls.backs, "it has all, and waits for more")
        asking.cancel()

        await until(lambda: here.left == 1)


async def test_a_client_that_goes_is_counted_as_gone_and_not_as_a_failure_of_the_application() -> None:
    async with site() as (it, here, base):
        answer = await it.session.get(base + "/gated")
        assert await answer.content.readany() == b"first"
        answer.close()
        await until(lambda: not sessions(it), "nobody waits for the answer any more")
        here.gate.set()
        waiting = asyncio.create_task(it.session.get(base + "/waits"))
        await until(lambda: here.sent and it.dockscale.rpc.calls.backs, "it has all, and waits for more")
        waiting.cancel()

        await until(lambda: it.app("bot").stats.rpc_calls == 2)

        assert dict(it.app("bot").stats.requests) == {499: 2}


async def test_a_hundred_requests_at_once_wait_for_their_parts_on_one_instance() -> None:
    async with site() as (it, here, base):

        async def ask() -> bytes:
            async with it.session.get(base + "/gated") as answer:
                return await answer.read()

        asking = [asyncio.create_task(ask()) for _ in range(120)]
        await until(lambda: len(it.dockscale.rpc.calls.open) == 120)
        here.gate.set()

        assert await asyncio.gather(*asking) == [b"firstlast"] * 120


async def test_what_an_application_fails_with_is_told_or_cuts_the_answer_off() -> None:
    async with site() as (it, _, base):
        async with it.session.get(base + "/fails") as answer:
            text = await answer.text()
        async with it.session.get(base + "/breaks-off") as broken:
            with pytest.raises(aiohttp.ClientPayloadError):
                await broken.read()

    assert (answer.status, text) == (500, "Internal Server Error")


async def test_an_instance_that_dies_within_its_answer_never_ends_it_cleanly() -> None:
    async with site() as (it, _, base), it.session.get(base + "/gated") as answer:
        await answer.content.readany()
        [instance] = it.app("bot").pool.candidates()
        await it.engine.crash(instance.container_id)

        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_full_line_is_told_as_to_any_request() -> None:
    labels = {"autoscaling.max_instances": "1", "autoscaling.max_concurrency": "1", "autoscaling.max_queue": "0"}
    async with (
        rpc_world(labels, runs=Site().work) as it,
        it.session.get(it.base + "/public/apps/bot/gated") as answer,
    ):
        await answer.content.readany()
        async with it.session.get(it.base + "/public/apps/bot/gated") as refused:
            told = await refused.json()

    assert (refused.status, told["error"], told["app_id"]) == (503, "line_full", "bot")
    assert int(refused.headers["Retry-After"]) >= 1
    assert told["request_id"]


# What a service may answer.


def asgi_service(name: str, serve: Any, **config: Any) -> dict[str, Any]:
    return {"id": name, "type": "asgi", "serve": serve, "config": {"visibility": "public", **config}}


async def ends_at_once(args: Any) -> None:
    pass


async def sends_nonsense(args: Any) -> None:
    await args["send"]({"type": "http.response.start", "status": "many"})


async def sends_bad_headers(args: Any) -> None:
    await args["send"]({"type": "http.response.start", "status": 200, "headers": [["a b", "1\r\n"]]})


async def only_body(args: Any) -> None:
    await args["send"]({"type": "http.response.body", "body": b"x"})


@pytest.mark.parametrize("serve", [ends_at_once, sends_nonsense, sends_bad_headers, only_body])
async def test_what_is_no_answer_is_a_bad_gateway(serve: Any) -> None:
    async with world() as it, client(it) as api:
        await api.register_service(asgi_service("svc", serve))
        async with it.session.get(it.base + "/public/apps/svc/") as answer:
            told = await answer.json()

    assert (answer.status, told["error"]) == (502, "bad_answer")


async def test_a_service_of_any_client_is_reached_by_its_names_and_without_slash_redirected() -> None:
    async def serve(args: Any) -> None:
        await args["send"]({"type": "http.response.start", "status": 200, "headers": []})
        await args["send"]({"type": "http.response.body", "body": args["scope"]["path"].encode()})

    async with world() as it, client(it, client_id="me") as api:
        await api.register_service(asgi_service("svc", serve))
        texts = []
        for path in ("svc/", "me:svc/a", "me%3Asvc/b%20c", "svc?_mode=random", "svc/x?_mode=first"):
            async with it.session.get(it.base + f"/public/apps/{path}") as answer:
                texts.append(await answer.text())
        async with it.session.get(it.base + "/public/apps/me:svc?a=1", allow_redirects=False) as moved:
            pass

    assert texts == ["/", "/a", "/b c", "/", "/x"]
    assert (moved.status, moved.headers["Location"]) == (307, "/public/apps/me:svc/?a=1")


async def test_a_token_that_is_not_dockscales_is_the_services_own_affair() -> None:
    async def serve(args: Any) -> None:
        headers = dict(args["scope"]["headers"])
        await args["send"]({"type": "http.response.start", "status": 200, "headers": []})
        await args["send"]({"type": "http.response.body", "body": headers[b"authorization"]})

    async with world() as it, client(it) as api:
        await api.register_service(asgi_service("svc", serve))
        async with it.session.get(it.base + "/public/apps/svc/", headers={"Authorization": "Bearer mine"}) as answer:
            text = await answer.text()

    assert (answer.status, text) == (200, "Bearer mine")


# Functions.


def functions(**more: Any) -> dict[str, Any]:
    def seen(event: Any) -> dict[str, Any]:
        kept = ("method", "path", "query_string", "body", "function_path")
        shown = {name: event.get(name) for name in kept} | {"accept": event["headers"].get("x-two")}
        return {"status": 201, "headers": {"X-Own": "1", "Set-Cookie": ["a=1", "b=2"]}, "body": str(shown)}

    def text(event: Any) -> dict[str, Any]:
        return {"body": "ü"}

    def data(event: Any) -> dict[str, Any]:
        return {"status": 200.0, "body": b"\x00\x01", "headers": {"Access-Control-Allow-Origin": "https://own"}}

    return {
        "id": "fns", "type": "functions", "config": {"visibility": "public"}, "index": text, "seen": seen,
        "nested": {"index": text, "deep": {"data": data}}, **more,
    }  # fmt: skip


async def test_a_path_names_a_function() -> None:
    async with world() as it, client(it) as api:
        await api.register_service(functions(default=functions()["seen"]))
        base = it.base + "/public/apps/fns/"
        got = {}
        for path in ("", "nested", "nested/", "nested/deep/data", "nested/deep", "seen/", "else/where?q=1"):
            async with it.session.get(base + path) as answer:
                got[path] = await answer.text(), answer.headers["Access-Control-Allow-Origin"]

    assert got[""] == got["nested"] == got["nested/"] == ("ü", "*")
    assert got["nested/deep/data"] == ("\x00\x01", "https://own")
    assert "'function_path': None" in got["seen/"][0]
    assert "'function_path': '/nested/deep'" in got["nested/deep"][0]
    assert "'function_path': '/else/where'" in got["else/where?q=1"][0]


async def test_a_function_gets_the_request_whole_and_says_the_answer() -> None:
    async with world() as it, client(it) as api:
        await api.register_service(functions())
        headers = [("X-Two", "1"), ("X-Two", "2")]
        async with it.session.put(it.base + "/public/apps/fns/seen?a=%20", data=b"abc", headers=headers) as answer:
            text = await answer.text()
        async with it.session.get(it.base + "/public/apps/fns/nowhere") as missing:
            told = await missing.json()
        async with it.session.head(it.base + "/public/apps/fns/") as head:
            pass

    assert (answer.status, answer.headers["X-Own"], answer.headers.getall("Set-Cookie")) == (201, "1", ["a=1", "b=2"])
    assert "'method': 'PUT', 'path': '/seen', 'query_string': 'a=%20', 'body': b'abc'" in text
    assert "'accept': '1, 2'" in text
    assert (missing.status, told["error"]) == (404, "no_such_function")
    assert (head.status, head.headers["Content-Length"]) == (200, "2")


@pytest.mark.parametrize(
    "result",
    ["text", None, {"status": 99}, {"status": "x"}, {"body": 5}, {"headers": 5}, {"headers": {"a b": "1"}}],
    ids=str,
)
async def test_a_function_that_gives_no_answer_is_a_bad_gateway(result: Any) -> None:
    async with world() as it, client(it) as api:
        await api.register_service(functions(bad=lambda event: result))
        async with it.session.get(it.base + "/public/apps/fns/bad") as answer:
            told = await answer.json()

    assert (answer.status, told["error"]) == (502, "bad_answer")


async def test_a_function_that_fails_is_an_error_of_the_service() -> None:
    def bad(event: Any) -> None:
        raise KeyError("of its own")

    async with world() as it, client(it) as api:
        await api.register_service(functions(bad=bad))
        async with it.session.get(it.base + "/public/apps/fns/bad") as answer:
            told = await answer.json()

    assert (answer.status, told["error"], told["message"]) == (500, "call_failed", "KeyError: 'of its own'")


async def test_a_page_of_another_origin_may_ask_a_function() -> None:
    asked = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}
    async with world() as it, client(it) as api:
        await api.register_service(functions())
        async with it.session.options(it.base + "/public/apps/fns/seen", headers=asked) as answer:
            pass

    assert answer.status == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Methods"] == "PUT"
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization"
