"""What an app and its clients see through the main port, over real sockets."""

import asyncio
import io
import json
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import Morsel, SimpleCookie

import aiohttp
import pytest
from aiohttp import WSMsgType
from aiohttp.web import Application, Request, Response, StreamResponse

from dockscale.core.pool import EJECT_AFTER, State
from dockscale.engine.memory import Program
from tests.support.backend import backend
from tests.support.http1 import read_answer
from tests.support.origin import Wire, client, staged
from tests.support.world import World, until, world


@pytest.fixture
async def web() -> AsyncIterator[World]:
    async with world() as it:
        yield it


async def raw(it: World, sent: bytes) -> bytes:
    """Send bytes as they are and return all that comes back until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", it.dockscale.main_port)
    writer.write(sent)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


def fields(body: dict[str, list[list[str]]], name: str) -> list[str]:
    return [value for key, value in body["headers"] if key.lower() == name.lower()]


@pytest.mark.parametrize(
    ("host", "path", "seen"),
    [
        ("web.localhost", "/a/b?x=1&y=%2F", "/a/b?x=1&y=%2F"),
        ("WEB.localhost:9527", "/", "/"),
        ("127.0.0.1", "/public/apps/web/", "/"),
        ("127.0.0.1", "/public/apps/web/a%20b/c?q=%20+&&", "/a%20b/c?q=%20+&&"),
        ("web.localhost", "//twice//", "//twice//"),
    ],
)
async def test_the_app_sees_the_path_byte_for_byte(web: World, host: str, path: str, seen: str) -> None:
    answer = await raw(web, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    assert json.loads(answer.partition(b"\r\n\r\n")[2])["target"] == seen


async def test_without_the_last_slash_it_redirects_and_keeps_the_query(web: World) -> None:
    async with web.session.get(web.base + "/public/apps/web?a=1", allow_redirects=False) as answer:
        assert answer.status == 307
        assert answer.headers["Location"] == "/public/apps/web/?a=1"


async def test_the_app_is_told_where_the_request_came_from(web: World) -> None:
    async with web.session.get(web.base + "/public/apps/web/") as answer:
        body = await answer.json()

    assert fields(body, "X-Forwarded-For") == ["127.0.0.1"]
    assert fields(body, "X-Forwarded-Proto") == ["http"]
    assert fields(body, "X-Forwarded-Host") == fields(body, "Host") == [web.base.removeprefix("http://")]
    assert fields(body, "X-Forwarded-Prefix") == ["/public/apps/web"]
    assert len(fields(body, "X-Request-Id")[0]) == 16


async def test_a_clients_own_forwarding_fields_are_replaced(web: World) -> None:
    forged = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https", "X-Real-Ip": "1.2.3.4", "Forwarded": "for=x"}

    _, body = await web.get(headers=forged)

    assert fields(body, "X-Forwarded-For") == ["127.0.0.1"]
    assert fields(body, "X-Forwarded-Proto") == ["http"]
    assert fields(body, "X-Real-Ip") == fields(body, "Forwarded") == []


async def test_a_trusted_proxys_forwarding_fields_are_believed() -> None:
    async with world(trusted_proxies=["127.0.0.0/8"]) as it:
        _, body = await it.get(headers={"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"})

        assert fields(body, "X-Forwarded-For") == ["1.2.3.4, 127.0.0.1"]
        assert fields(body, "X-Forwarded-Proto") == ["https"]


@pytest.mark.parametrize(("sent", "kept"), [("abc-123", True), ("bad id\t", False), ("x" * 200, False)])
async def test_a_sane_request_id_is_kept(web: World, sent: str, kept: bool) -> None:
    _, body = await web.get(headers={"X-Request-Id": sent})

    assert (fields(body, "X-Request-Id") == [sent]) is kept


async def test_hop_by_hop_fields_go_no_further(web: World) -> None:
    _, body = await web.get(headers={"Connection": "X-Secret", "X-Secret": "1", "TE": "deflate", "Keep-Alive": "x"})

    for name in ("X-Secret", "TE", "Keep-Alive", "Connection"):
        assert fields(body, name) == []


async def test_repeated_fields_of_the_answer_are_kept_in_order_and_nothing_is_made_up(web: World) -> None:
    async with web.session.get(web.base + "/public/apps/web/") as answer:
        await answer.read()

    assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]
    assert answer.headers.getall("Server")[0].startswith("Python/")
    assert answer.headers["X-Dockscale-Instance"].startswith("web-1-")
    assert answer.headers["Server-Timing"].startswith("queue;dur=")


async def test_the_answers_own_fields_can_be_turned_off() -> None:
    async with world(response_headers=False) as it, it.session.get(it.base + "/public/apps/web/") as answer:
        assert "X-Dockscale-Instance" not in answer.headers
        assert "Server-Timing" not in answer.headers


async def test_server_timing_tells_the_start_apart() -> None:
    async with world(program=Program(backend, boot_s=0.2)) as it:
        async with it.session.get(it.base + "/public/apps/web/") as answer:
            parts = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))

        assert float(parts["start"]) >= 190
        assert float(parts["queue"]) < 100


async def test_parts_of_a_streamed_answer_pass_at_once(web: World) -> None:
    await web.get()
    async with web.session.get(web.base + "/public/apps/web/stream?n=3&s=0.2") as answer:
        async with asyncio.timeout(0.19):
            first = await answer.content.readuntil(b"\n\n")

        assert first == b"data: 0\n\n"
        assert await answer.content.read() == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_is_streamed_both_ways(web: World, chunked: bool) -> None:
    sent = bytes(range(256)) * 8192

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(sent), 100_000):
            yield sent[start : start + 100_000]

    body = parts() if chunked else io.BytesIO(sent)
    async with web.session.post(web.base + "/public/apps/web/echo", data=body) as answer:
        assert await answer.read() == sent


async def test_an_upload_reaches_the_app_before_it_is_whole(web: World) -> None:
    more = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await more.wait()
        yield b"second"

    async with asyncio.timeout(5), web.session.post(web.base + "/public/apps/web/echo", data=parts()) as answer:
        assert await answer.content.readany() == b"first"
        more.set()
        assert await answer.content.read() == b"second"


async def test_a_big_answer_holds_back_the_instance_not_the_memory(web: World) -> None:
    async with web.session.get(web.base + "/public/apps/web/big?size=50000000") as answer:
        size = 0
        async for part in answer.content.iter_chunked(65536):
            size += len(part)

    assert size == 50_000_000


async def test_expect_continue_is_answered_once_the_instance_can_take_the_body(web: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", web.dockscale.main_port)
    writer.write(
        b"POST /echo HTTP/1.1\r\nHost: web.localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
        b"Connection: close\r\n\r\n"
    )
    async with asyncio.timeout(5):
        interim = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello")
        rest = await reader.read()
    writer.close()

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"hello" in rest


@pytest.mark.parametrize("code", [204, 304])
async def test_answers_without_a_body_have_none(web: World, code: int) -> None:
    answer = await raw(
        web, f"GET /status?code={code} HTTP/1.1\r\nHost: web.localhost\r\nConnection: close\r\n\r\n".encode()
    )

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {code} ".encode())
    assert b"transfer-encoding" not in head.lower()
    assert body == b""


async def test_head_has_the_length_and_no_body(web: World) -> None:
    async with web.session.head(web.base + "/public/apps/web/big?size=1234") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Length"] == "1234"


async def test_http_1_0_clients_are_served(web: World) -> None:
    answer = await raw(web, b"GET /stream HTTP/1.0\r\nHost: web.localhost\r\n\r\n")

    assert answer.endswith(b"data: 0\n\ndata: 1\n\ndata: 2\n\n")


# What goes wrong.


@pytest.mark.parametrize(
    ("request_line", "host"),
    [
        ("GET /public/apps/web/../../admin HTTP/1.1", "localhost"),
        ("GET /../etc/passwd HTTP/1.1", "web.localhost"),
        ("GET /public/apps/web/%2e%2E/x HTTP/1.1", "localhost"),
    ],
)
async def test_a_path_that_climbs_is_refused(web: World, request_line: str, host: str) -> None:
    answer = await raw(web, f"{request_line}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"error": "bad_path"' in answer
    assert web.engine.starts == 0


async def test_an_address_that_nobody_owns_is_404_and_names_the_apps(web: World) -> None:
    status, body = await web.get(app_id="nobody")

    assert status == 404
    assert body["error"] == "no_such_app"
    assert body["apps"] == ["/public/apps/web/"]


async def test_a_browser_gets_a_page_for_an_error(web: World) -> None:
    status, body = await web.get(app_id="nobody", headers={"Accept": "text/html"})

    assert status == 404
    assert body.startswith("<!doctype html>")


async def test_a_workspace_lists_its_apps(web: World) -> None:
    async with web.session.get(web.base + "/public/apps") as answer:
        assert await answer.json() == [{"app_id": "web", "name": "web", "description": "", "url": "/public/apps/web/"}]


async def test_a_get_that_got_no_answer_is_tried_again_and_a_post_is_not(web: World) -> None:
    got, body = await web.get("/hang-up")
    async with web.session.post(web.base + "/public/apps/web/hang-up") as posted:
        refused = await posted.json()

    assert (got, body["error"]) == (502, "instance_died")
    assert (posted.status, refused["error"], refused["app_id"]) == (502, "instance_died", "web")
    assert web.app().pool.in_flight == 0


async def test_an_answer_that_is_no_http_is_a_bad_gateway(web: World) -> None:
    status, body = await web.get("/garbage")

    assert (status, body["error"]) == (502, "bad_answer")


async def test_an_answer_that_breaks_off_is_a_cut_connection_never_a_clean_end(web: World) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        await web.get("/break-off")

    await until(lambda: web.app().stats.requests[502] == 1)
    assert web.app().pool.in_flight == 0


async def test_an_instance_that_does_not_answer_in_time_is_a_gateway_timeout() -> None:
    async with world(response_timeout=0.1) as it:
        status, body = await it.get("/slow?s=0.5")

        assert (status, body["error"]) == (504, "no_answer")


async def test_exact_with_several_instances_is_a_conflict() -> None:
    async with world({"service_selection_mode": "exact", "autoscaling.min_instances": "2"}) as it:
        await it.get()
        await until(lambda: it.ready() == 2)

        status, body = await it.get()

        assert (status, body["error"]) == (409, "several_instances")


async def test_a_client_that_goes_away_ends_its_request(web: World) -> None:
    await web.get()
    asked = asyncio.create_task(web.get("/slow?s=0.4"))
    await until(lambda: web.app().pool.in_flight == 1)

    asked.cancel()

    await until(lambda: web.app().pool.in_flight == 0)
    assert web.app().stats.requests[499] == 1


async def test_an_instance_that_cannot_be_reached_is_a_bad_gateway() -> None:
    async with world({"lazy": "false"}) as it:
        await until(it.ready)
        [instance] = it.app().pool
        instance.address = ("127.63.0.1", 8000)  # nobody listens there

        status, body = await it.get()

        assert (status, body["error"]) == (502, "instance_died")
        assert it.app().pool.in_flight == 0


async def test_a_bug_is_a_500_with_a_request_id_and_is_counted_as_one() -> None:
    async with world({"lazy": "false"}) as it:
        await until(it.ready)
        [instance] = it.app().pool
        instance.address = ("\ud800", 80)  # what nothing foresees: no connection fails like that

        status, body = await it.get(headers={"X-Request-Id": "abc"})

        assert (status, body["error"], body["request_id"]) == (500, "internal", "abc")
        assert it.app().stats.requests[500] == 1
        assert it.app().pool.in_flight == 0


# WebSocket.


async def test_a_websocket_is_a_tunnel(web: World) -> None:
    url = web.base + "/public/apps/web/ws"
    async with web.session.ws_connect(url, protocols=("rpc",)) as ws:
        hello = await ws.receive_json()
        await ws.send_str("héllo")
        text = await ws.receive_str()
        await ws.send_bytes(b"x" * 300_000)
        data = await ws.receive_bytes()
        in_flight = web.app().pool.in_flight
        await ws.close(code=4001)

    assert hello["instance"].startswith("web-1-")
    assert hello["protocol"] == ws.protocol == "rpc"
    assert text == "héllo"
    assert data == b"x" * 300_000
    assert in_flight == 1
    await until(lambda: web.app().pool.in_flight == 0)


async def test_a_websocket_that_the_app_refuses_gets_its_answer(web: World) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await web.session.ws_connect(web.base + "/public/apps/web/status?code=403")

    assert refused.value.status == 403


async def test_an_instance_that_dies_ends_its_sockets(web: World) -> None:
    ws = await web.session.ws_connect(web.base + "/public/apps/web/ws")
    await ws.receive_json()
    [instance] = web.app().pool

    await web.engine.crash(instance.container_id)

    async with asyncio.timeout(5):
        ended = await ws.receive()
    assert ended.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)
    await ws.close()


async def test_a_socket_that_outlasts_the_drain_is_told_to_reconnect() -> None:
    async with world({"shutdown_config.drain_timeout": "100ms"}) as it:
        async with it.session.ws_connect(it.base + "/public/apps/web/ws") as ws:
            await ws.receive_json()
            [instance] = it.app().pool

            it.app().pool.drain(instance, "test")

            async with asyncio.timeout(5):
                ended = await ws.receive()
        assert (ended.type, ended.data) == (WSMsgType.CLOSE, 1012)
        await until(lambda: instance.name not in it.app().pool.instances)


async def test_dockscales_own_end_lets_requests_finish_and_tells_sockets() -> None:
    async with world(shutdown_timeout=5.0) as it:
        await it.get()
        ws = await it.session.ws_connect(it.base + "/public/apps/web/ws")
        await ws.receive_json()
        slow = asyncio.create_task(it.get("/slow?s=0.3"))
        await until(lambda: it.app().pool.in_flight == 2)
        stopping = asyncio.create_task(ws.receive())
    ended = await stopping

    assert (ended.type, ended.data) == (WSMsgType.CLOSE, 1012)
    assert (await slow)[0] == 200


async def test_a_silent_socket_stays_open_longer_than_an_answer_may_take() -> None:
    async with world(response_timeout=0.1) as it, it.session.ws_connect(it.base + "/public/apps/web/ws") as ws:
        await ws.receive_json()
        await ws.send_str("before")
        await ws.receive_str()
        with pytest.raises(TimeoutError):
            await ws.receive(timeout=0.4)

        await ws.send_str("after")

        assert await ws.receive_str() == "after"


# Which instance.

PREFIX = "/public/apps/web"
NOWHERE = ("127.63.0.1", 8000)
"""An address at which nobody listens."""


@asynccontextmanager
async def several(number: int, mode: str, **labels: str) -> AsyncIterator[World]:
    """Run dockscale with that many ready instances of `web`."""
    chosen = {"lazy": "false", "autoscaling.min_instances": str(number), "service_selection_mode": mode} | labels
    async with world(chosen) as it:
        await until(lambda: it.ready() == number, f"{number} instances are ready")
        yield it


async def ask(it: World, path: str = "/", cookie: str = "", host: str = "") -> tuple[str, Morsel[str] | None]:
    """Ask an app; return the name of the instance that answered and the cookie of dockscale's own that it set."""
    headers = {"Cookie": cookie} if cookie else {}
    if host:
        headers["Host"] = host
    async with it.session.get(it.base + (path if host else PREFIX + path), headers=headers) as answer:
        assert answer.status == 200
        await answer.read()
        cookies = SimpleCookie()
        for line in answer.headers.getall("Set-Cookie", []):
            cookies.load(line)
        return answer.headers["X-Dockscale-Instance"], cookies.get("dockscale-web")


@asynccontextmanager
async def busy(it: World, number: int, cookie: str = "") -> AsyncIterator[None]:
    """Keep that many requests in flight or waiting."""
    before = it.app().pool.in_flight + it.app().pool.waiting
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(it, "/stream?n=9999&s=0.05", cookie), name="busy") for _ in range(number)]
        pool = it.app().pool
        await until(lambda: pool.in_flight + pool.waiting == before + number, f"{number} more are busy")
        try:
            yield
        finally:
            for each in asked:
                each.cancel()
    await until(lambda: pool.in_flight + pool.waiting == before, "they have gone")


@pytest.mark.parametrize(("host", "path"), [("", "/public/apps/web/"), ("web.localhost", "/")])
async def test_a_sticky_client_gets_a_cookie_for_the_apps_addresses_until_its_browser_closes(
    host: str, path: str
) -> None:
    async with several(2, "sticky") as it:
        name, cookie = await ask(it, host=host)

        assert cookie is not None
        assert cookie.value == it.app().pool.instances[name].token
        assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == (path, True, "Lax")
        assert (cookie["expires"], cookie["max-age"], cookie["domain"]) == ("", "", "")


async def test_a_sticky_client_stays_with_its_instance_while_others_come_and_go() -> None:
    async with world({"service_selection_mode": "sticky", "autoscaling.max_concurrency": "2"}) as it:
        name, given = await ask(it)
        assert given is not None
        mine = f"a=b; dockscale-web={given.value}; c=d"

        async with busy(it, 3):
            await until(lambda: it.ready() == 2, "there is another instance")
            elsewhere, cookie = await ask(it, cookie=mine)
            assert elsewhere != name, "its own is full"
            assert cookie is None, "it was a guest there"
        asked = [await ask(it, cookie=mine) for _ in range(6)]
        assert asked == [(name, None)] * 6

        [other] = [each for each in it.app().pool if each.name != name]
        it.app().pool.drain(other, "test")
        assert await ask(it, cookie=mine) == (name, None)


async def test_a_sticky_client_whose_instance_leaves_stays_with_the_next_one() -> None:
    async with several(3, "sticky") as it:
        name, given = await ask(it)
        assert given is not None

        it.app().pool.drain(it.app().pool.instances[name], "test")

        other, new = await ask(it, cookie=f"dockscale-web={given.value}")
        assert other != name
        assert new is not None
        assert new.value == it.app().pool.instances[other].token
        asked = [await ask(it, cookie=f"dockscale-web={new.value}") for _ in range(6)]
        assert asked == [(other, None)] * 6


async def test_a_cookie_that_names_nobody_is_replaced() -> None:
    async with several(2, "sticky") as it:
        name, cookie = await ask(it, cookie="dockscale-web=nobody; dockscale-other=x")

        assert cookie is not None
        assert cookie.value == it.app().pool.instances[name].token


@pytest.mark.parametrize("mode", ["random", "first", "last", "min_load", "round_robin", "power_of_two"])
async def test_only_sticky_clients_get_a_cookie_and_only_they_are_asked_for_it(mode: str) -> None:
    async with several(2, mode) as it:
        token = next(iter(it.app().pool)).token
        asked = [await ask(it, cookie=f"dockscale-web={token}") for _ in range(20)]

    assert {cookie for _, cookie in asked} == {None}
    assert (len({name for name, _ in asked}) == 1) is (mode in ("first", "last"))


async def test_round_robin_goes_round() -> None:
    async with several(3, "round_robin") as it:
        names = [(await ask(it))[0] for _ in range(9)]

    assert len(set(names[:3])) == 3
    assert names == names[:3] * 3


async def test_power_of_two_spares_the_busier_one() -> None:
    async with several(2, "power_of_two") as it, busy(it, 1):
        names = {(await ask(it))[0] for _ in range(10)}

        [idle_one] = [each.name for each in it.app().pool if not each.in_flight]
        assert names == {idle_one}


async def test_power_of_two_is_even_with_many_at_once() -> None:
    async with several(2, "power_of_two") as it, busy(it, 10):
        assert [each.in_flight for each in it.app().pool] == [5, 5]


# Instances that fail, and who pays for it.


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_instance_that_refuses_connections_is_replaced_and_no_request_fails(method: str) -> None:
    async with several(2, "first") as it:
        broken, other = it.app().pool
        broken.address = NOWHERE

        for number in range(EJECT_AFTER):
            assert (broken.state, broken.failed_connections) == (State.READY, number)
            async with it.session.request(method, it.base + PREFIX + "/", data=b"x" * 100_000) as answer:
                assert answer.status == 200
                assert answer.headers["X-Dockscale-Instance"] == other.name
                assert (await answer.json())["body"] == "x" * 100_000

        assert broken.ejected
        await until(lambda: it.ready() == 2 and broken.name not in it.app().pool.instances, "another has its place")
        assert it.app().stats.ejected == 1
        assert set(it.app().stats.requests) == {200}


async def test_one_connection_that_stands_forgives_those_that_failed() -> None:
    async with several(2, "first") as it:
        await it.quiet()
        first, _ = it.app().pool
        address = first.address
        for _ in range(3):
            first.address = NOWHERE
            for _ in range(EJECT_AFTER - 1):
                await ask(it)
            first.address = address
            assert (await ask(it))[0] == first.name
            await it.session.post(it.base + PREFIX + "/hang-up")  # so that no connection is kept

        assert (first.ejected, first.failed_connections) == (False, 0)


async def test_the_last_instance_is_never_ejected() -> None:
    async with several(1, "random") as it:
        [last] = it.app().pool
        address, last.address = last.address, NOWHERE

        asked = [await it.get() for _ in range(EJECT_AFTER + 1)]

        assert {(status, body["error"]) for status, body in asked} == {(502, "instance_died")}
        assert (last.state, last.ejected) == (State.READY, False)
        last.address = address
        assert (await it.get())[0] == 200


async def test_who_gets_no_place_is_told_when_to_come_again() -> None:
    labels = {"autoscaling.max_concurrency": "1", "autoscaling.max_instances": "1", "autoscaling.max_queue": "1"}
    async with several(1, "random", **labels, **{"autoscaling.queue_timeout": "300ms"}) as it, busy(it, 1):

        async def refused() -> tuple[int, str, str]:
            async with it.session.get(it.base + PREFIX + "/") as answer:
                return answer.status, (await answer.json())["error"], answer.headers["Retry-After"]

        waiting = asyncio.create_task(refused())
        await until(lambda: it.app().pool.waiting == 1)
        told = [await refused(), await waiting]

    assert [(status, word) for status, word, _ in told] == [(503, "line_full"), (504, "no_instance_ready")]
    for _, _, retry_after in told:
        assert retry_after.isdecimal()
        assert 1 <= int(retry_after) <= 60


def deaf(reached: Counter[tuple[str, str]]) -> Program:
    """A program that counts what reaches it, and closes the connection instead of an answer."""

    def serve(name: str) -> Application:
        async def hang_up(request: Request) -> StreamResponse:
            reached[name, request.method] += 1
            assert request.transport is not None
            request.transport.close()
            return Response()

        app = Application()
        app.router.add_route("*", "/{rest:.*}", hang_up)
        return app

    return Program(serve)


@pytest.mark.parametrize(("method", "most"), [("GET", 3), ("DELETE", 3), ("POST", 1), ("PATCH", 1)])
async def test_what_gets_no_answer_goes_elsewhere_unless_it_may_have_been_done(method: str, most: int) -> None:
    reached: Counter[tuple[str, str]] = Counter()
    labels = {"lazy": "false", "autoscaling.min_instances": "3", "service_selection_mode": "first"}
    async with world(labels, program=deaf(reached)) as it:
        await until(lambda: it.ready() == 3)

        async with it.session.request(method, it.base + PREFIX + "/") as answer:
            assert (answer.status, (await answer.json())["error"]) == (502, "instance_died")

        assert reached.total() == most
        assert {asked for _, asked in reached} == {method}
        assert len(reached) == min(most, 2), "it goes to another one than the last"
        assert it.app().stats.requests == {502: 1}


def end_at_once(wire: Wire) -> None:
    """End a connection now, not when the loop gets to it."""
    with socket.socket(fileno=os.dup(wire.transport.get_extra_info("socket").fileno())) as it:
        it.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("first", ["the instance", "the client"])
async def test_a_post_just_when_its_kept_connection_is_closed_gets_a_fresh_one(first: str) -> None:
    post = b"POST /a HTTP/1.1\r\nHost: web.localhost\r\nContent-Length: 5\r\n\r\nhello"
    async with staged() as (it, origin), client(it) as wire:
        for _ in range(20):
            origin.forget()
            wire.got.clear()
            wire.send(b"GET /a HTTP/1.1\r\nHost: web.localhost\r\n\r\n")
            await wire.seen(b"\r\n\r\nok")
            [kept] = origin.wires
            wire.got.clear()

            # Both at once: dockscale learns of them in the same moment.
            if first == "the client":
                wire.send(post)
            end_at_once(kept)
            if first == "the instance":
                wire.send(post)

            await wire.seen(b"\r\n\r\nok")
            assert (read_answer(bytes(wire.got)).status, len(origin.wires)) == (200, 2)
            assert [request.partition(b" ")[0] for request in origin.requests] == [b"GET", b"POST"]
            await kept.over()
