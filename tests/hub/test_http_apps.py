"""Apps that speak HTTP, called as services."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from dockscale.core.pool import State
from dockscale.engine.memory import Program
from tests.support.worker import client
from tests.support.world import until, world


def site(_: str) -> web.Application:
    async def status(request: web.Request) -> web.Response:
        return web.json_response({"query": dict(request.query), "cookie": request.headers.get("Cookie")})

    async def process(request: web.Request) -> web.Response:
        body = await request.read()
        return web.json_response({"type": request.content_type, "size": len(body), "body": body[:100].decode()})

    async def text(request: web.Request) -> web.Response:
        answer = web.Response(text="ü")
        answer.set_cookie("a", "1")
        return answer

    async def big(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 2_000_000)

    async def moved(request: web.Request) -> web.Response:
        raise web.HTTPFound("http://elsewhere/")

    async def broken(request: web.Request) -> web.Response:
        return web.Response(text="{", content_type="application/json")

    async def dies(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    app = web.Application()
    app.add_routes([
        web.get("/api/status", status), web.route("*", "/api/process", process), web.get("/text", text),
        web.get("/big", big), web.get("/moved", moved), web.get("/broken", broken), web.route("*", "/dies", dies),
    ])  # fmt: skip
    return app


async def test_an_app_is_asked_like_a_service() -> None:
    async with world(program=Program(site)) as it, client(it) as api:
        service = await api.get_service("anything@web")

        assert await service.get("/api/status", params={"a": "1"}) == {"query": {"a": "1"}, "cookie": None}
        posted = await service.post("/api/process", {"data": "item"})
        assert (posted["type"], json.loads(posted["body"])) == ("application/json", {"data": "item"})
        assert (await service.put("/api/process", b"\x00" * 500_000))["size"] == 500_000
        assert (await service.patch("/api/process", "text"))["type"] == "text/plain"
        assert await service.delete("/api/process", headers={"X": "1"})
        assert await service.get("/text") == "ü"
        assert (await service.get("/api/status"))["cookie"] is None
        assert len(await service.get("/big")) == 2_000_000
        assert await service.get("/broken") == "{"
        whole = await service.request("GET", "/nowhere")
        assert (whole["status"], whole["headers"]["Content-Type"]) == (404, "text/plain; charset=utf-8")
        assert await api.get_service(service.id)


@pytest.mark.parametrize(
    ("method", "path", "told"),
    [
        ("GET", "/nowhere", "with 404"),
        ("GET", "/moved", "with 302: http://elsewhere/"),
        ("POST", "/dies", "before it answered"),
        ("GET", "/dies", "before it answered"),
        ("GET", "no/slash", "must start with /"),
    ],
)
async def test_an_app_that_does_not_answer_well_is_an_error(method: str, path: str, told: str) -> None:
    async with world(program=Program(site)) as it, client(it) as api:
        service = await api.get_service("x@web")

        with pytest.raises(Exception, match=told):
            await getattr(service, method.lower())(path)
        assert it.app().pool.in_flight == 0


async def test_what_frames_a_request_is_not_the_callers_to_say() -> None:
    framing = {"Content-Length": "1", "Transfer-Encoding": "chunked", "Host": "other", "Connection": "close"}
    async with world(program=Program(site)) as it, client(it) as api:
        service = await api.get_service("x@web")

        assert (await service.post("/api/process", "twelve bytes", headers=framing))["size"] == 12
        with pytest.raises(Exception, match="is none of"):
            await service.request("CONNECT", "/")


async def test_an_app_is_asked_by_who_got_its_functions_before_a_restart() -> None:
    async with world(program=Program(site)) as it, client(it) as api:
        kept = {"_rtype": "method", "_rtarget": "*/http", "_rmethod": "services.http.web.get", "_rpromise": True}

        assert await api.rpc._generate_remote_method(kept | {"_rname": "get"})("/text") == "ü"


async def test_a_call_outlasts_a_start_that_takes_longer_than_its_caller_waits_for_a_sign_of_life() -> None:
    program = Program(site, gate=(gate := asyncio.Event()))
    async with world(program=program) as it, client(it, method_timeout=2) as api:
        service = await api.get_service("x@web")
        asking = asyncio.ensure_future(service.get("/api/status"))
        await until(lambda: it.app().pool.counts()[State.STARTING])
        done, _ = await asyncio.wait({asking}, timeout=3)
        gate.set()

        assert not done
        assert await asking


async def test_calls_of_several_clients_go_out_at_once() -> None:
    together = asyncio.Barrier(150)

    def waits(_: str) -> web.Application:
        async def meet(request: web.Request) -> web.Response:
            await together.wait()
            return web.json_response(1)

        app = web.Application()
        app.add_routes([web.get("/", meet)])
        return app

    async with world(program=Program(waits)) as it, client(it) as one, client(it) as other:
        services = [await api.get_service("x@web") for api in (one, other)]
        calls: list[Any] = [service.get("/") for service in services for _ in range(75)]

        assert sum(await asyncio.gather(*calls)) == 150
