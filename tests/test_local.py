"""Requests that dockscale itself answers part by part, and connections that it hands over: what clients see of both."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from dockscale.claim import TooLate
from dockscale.core.app import App
from dockscale.core.routes import ToApp, ToHub
from dockscale.proxy.local import LocalRequest
from dockscale.proxy.peer import HELD_AT
from dockscale.proxy.wire import Malformed
from tests.support.http1 import Message, read_answer
from tests.support.origin import Wire, client, exchange
from tests.support.world import World, until, world

Serve = Callable[[LocalRequest, ToApp | ToHub], Awaitable[None]]

LINES = b" /public/services/x HTTP/1.1\r\nHost: here\r\n"
GET = b"GET" + LINES + b"\r\n"
POST = b"POST" + LINES
HELLO = POST + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: abc\r\n\r\n"
)
LAST = b"GET /health/liveness HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
SMALL_BUFFER = 4096
BIG = 8_000_000


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    transport: asyncio.Transport

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(b"hello ")

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.told.append("full")
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.told.append("free")
        self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append("lost")


class Served:
    """A hub of which every request is served by `script`."""

    def __init__(self, script: Serve) -> None:
        self.script = script
        self.requests: list[LocalRequest] = []
        self.routes: list[ToApp | ToHub] = []
        self.sockets: list[tuple[bytes, str]] = []
        self.told: list[str] = []
        """What happened to the sockets."""
        self.services: set[tuple[str, str]] = set()

    async def serve(self, request: LocalRequest, route: ToApp | ToHub) -> None:
        self.requests.append(request)
        self.routes.append(route)
        await self.script(request, route)

    def socket(self, head: bytes, address: str) -> asyncio.Protocol:
        self.sockets.append((head, address))
        return Echo(self.told)

    def refusal(self, app: App, authorization: bytes, cookie: bytes) -> tuple[int, str, str] | None:
        return None

    def has_service(self, workspace: str, name: str) -> bool:
        return (workspace, name) in self.services


async def echo(request: LocalRequest, _: ToApp | ToHub) -> None:
    """Answer with the request's body, part by part."""
    request.start(200, [])
    while part := await request.read():
        await request.write(part)
    request.end()


async def size(request: LocalRequest, _: ToApp | ToHub) -> None:
    """Answer with the size of the request's body."""
    count = 0
    while part := await request.read():
        count += len(part)
    request.reply_json(200, count)


async def hold(request: LocalRequest, _: ToApp | ToHub) -> None:
    """Answer never."""
    await asyncio.Event().wait()


async def nothing(request: LocalRequest, _: ToApp | ToHub) -> None:
    """Leave the request without an answer."""


def replies(status: int = 200, body: bytes = b"ok") -> Serve:
    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        request.reply(status, body, "text/plain")

    return script


def streams(*parts: bytes, headers: tuple[tuple[bytes, bytes], ...] = (), status: int = 200) -> Serve:
    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        request.start(status, list(headers))
        for part in parts:
            await request.write(part)
        request.end()

    return script


def raises(error: Exception, *, begun: bool = False) -> Serve:
    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        if begun:
            request.start(200, [])
            await request.write(b"abc")
        raise error

    return script


@asynccontextmanager
async def serving(
    script: Serve, labels: dict[str, str] | None = None, **settings: Any
) -> AsyncIterator[tuple[World, Served]]:
    async with world(labels, **settings) as it:
        it.dockscale.entry.hub = hub = Served(script)
        yield it, hub


async def ask(script: Serve, sent: bytes, **settings: Any) -> tuple[Wire, Served]:
    """Send a request, then one for dockscale's health, and wait for the end."""
    async with serving(script, **settings) as (it, hub):
        return await exchange(it, sent + LAST), hub


def first(wire: Wire, method: str = "GET") -> Message:
    return read_answer(bytes(wire.got), method)


def goes_on(wire: Wire, method: str = "GET") -> bool:
    """Tell whether the connection served the next request, and its answer followed at once."""
    rest = bytes(wire.got[first(wire, method).size :])
    return rest != b"" and json.loads(read_answer(rest).body) == {"status": "ok"}


# What it knows of a request.


async def test_a_request_is_told_with_what_an_app_would_get() -> None:
    fields = b"X-One: 1\r\nx-one: 2\r\nX-Real-Ip: forged\r\nTE: deflate\r\n\r\n"
    _, hub = await ask(replies(), b"GET /public/services/x?a=%2F HTTP/1.1\r\nHost: here\r\n" + fields)

    [request] = hub.requests
    assert request.target == "/public/services/x?a=%2F"
    assert hub.routes == [ToHub("/public/services/x?a=%2F")]
    assert (request.method, request.http_version) == ("GET", "1.1")
    assert (request.scheme, request.host, request.client) == ("http", "here", "127.0.0.1")
    assert [value for name, value in request.headers if name == b"x-one"] == [b"1", b"2"]
    assert request.first(b"x-request-id").decode() == request.request_id
    assert {b"x-real-ip", b"te", b"connection"} & {name for name, _ in request.headers} == set()


@pytest.mark.parametrize(
    ("trusted", "said", "client_", "scheme"),
    [
        ([], b"1.2.3.4", "127.0.0.1", "http"),
        (["127.0.0.0/8"], b"1.2.3.4", "1.2.3.4", "https"),
        (["127.0.0.0/8"], b"9.9.9.9, 1.2.3.4", "1.2.3.4", "https"),
        (["127.0.0.0/8", "10.0.0.0/8"], b"1.2.3.4, 10.0.0.7", "1.2.3.4", "https"),
        (["127.0.0.0/8", "10.0.0.0/8"], b"10.0.0.8,10.0.0.7", "10.0.0.8", "https"),
        (["127.0.0.0/8"], b"", "127.0.0.1", "https"),
    ],
    ids=["a stranger", "a proxy", "a stranger through a proxy", "two proxies", "only proxies", "nothing said"],
)
async def test_the_client_is_whom_trusted_proxies_name(
    trusted: list[str], said: bytes, client_: str, scheme: str
) -> None:
    sent = b"GET" + LINES + b"X-Forwarded-For: " + said + b"\r\nX-Forwarded-Proto: https\r\n\r\n"
    _, hub = await ask(replies(), sent, trusted_proxies=trusted)

    assert (hub.requests[0].client, hub.requests[0].scheme) == (client_, scheme)


# Answers.


@pytest.mark.parametrize(
    ("script", "body", "framing"),
    [
        (replies(), b"ok", "length"),
        (replies(body=b""), b"", "length"),
        (streams(), b"", "chunked"),
        (streams(b"a", b"", b"bc"), b"abc", "chunked"),
        (streams(b"a", b"bc", headers=((b"Content-Length", b"3"),)), b"abc", "length"),
        (streams(b"a", b"bc", b"more", headers=((b"content-length", b"3"),)), b"abc", "length"),
        (streams(headers=((b"Content-Length", b"0"),)), b"", "length"),
        (streams(b"x" * BIG), b"x" * BIG, "chunked"),
    ],
    ids=["reply", "empty reply", "no part", "parts", "counted", "longer than it says", "counted, empty", "big"],
)
async def test_an_answer_is_framed_and_the_connection_goes_on(script: Serve, body: bytes, framing: str) -> None:
    wire, hub = await ask(script, GET)

    assert (first(wire).status, first(wire).body, first(wire).framing) == (200, body, framing)
    assert goes_on(wire)
    assert hub.requests[0].status == 200
    assert not hub.requests[0].gone.is_set()


@pytest.mark.parametrize(
    ("method", "script", "told"),
    [
        ("HEAD", replies(), [b"2"]),
        ("HEAD", streams(b"abc"), []),
        ("HEAD", streams(b"abc", headers=((b"Content-Length", b"3"),)), [b"3"]),
        ("GET", streams(b"abc", status=204), []),
        ("GET", streams(b"abc", status=304), []),
        ("GET", replies(204), []),
    ],
    ids=["HEAD", "HEAD, a stream", "HEAD, counted", "204", "304", "204 reply"],
)
async def test_an_answer_that_may_have_no_body_has_none(method: str, script: Serve, told: list[bytes]) -> None:
    wire, _ = await ask(script, method.encode() + LINES + b"\r\n")

    assert first(wire, method).values("Content-Length") == told
    assert goes_on(wire, method)


@pytest.mark.parametrize("kept", [False, True])
async def test_to_http_1_0_a_stream_ends_with_the_connection(kept: bool) -> None:
    asked = b"Connection: keep-alive\r\n" if kept else b""
    wire, _ = await ask(streams(b"a", b"bc"), b"GET /public/services/x HTTP/1.0\r\n" + asked + b"\r\n")

    answer = read_answer(bytes(wire.got), ended=True)
    assert (answer.body, answer.framing, wire.ended) == (b"abc", "end", "fin")


async def test_http_1_0_may_go_on_after_an_answer_of_known_length() -> None:
    wire, _ = await ask(replies(), b"GET /public/services/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    assert first(wire).values("Connection") == [b"keep-alive"]
    assert goes_on(wire)


async def test_parts_of_an_answer_pass_at_once() -> None:
    more = asyncio.Event()

    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        request.start(200, [(b"Content-Type", b"text/event-stream")])
        await more.wait()
        await request.write(b"first")
        await asyncio.Event().wait()

    async with serving(script) as (it, _), client(it) as wire:
        wire.send(GET)
        await wire.seen(b"text/event-stream\r\n")
        more.set()

        await wire.seen(b"first")


async def test_fields_of_the_connection_are_left_out_of_an_answer() -> None:
    headers = (
        (b"Connection", b"X-Hop, close"),
        (b"X-Hop", b"1"),
        (b"Keep-Alive", b"x"),
        (b"X-Kept", b"a"),
        (b"x-kept", b"b"),
    )
    wire, _ = await ask(streams(b"a", headers=headers), GET)

    assert first(wire).without("Transfer-Encoding") == ((b"X-Kept", b"a"), (b"x-kept", b"b"))
    assert goes_on(wire)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"X-A", b"1\r\nSet-Cookie: a=b")],
        [(b"X-A", b"1\r\n\r\n<script>")],
        [(b"X-A", b"1\nX-B: 2")],
        [(b"X A", b"1")],
        [(b"Content-Length", b"1"), (b"Content-Length", b"2")],
        [(b"Content-Length", b"-1")],
    ],
)
async def test_an_answer_that_could_be_understood_in_two_ways_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    wire, _ = await ask(streams(b"a", headers=tuple(headers)), GET)

    assert (first(wire).status, json.loads(first(wire).body)["error"]) == (502, "bad_answer")
    assert goes_on(wire)


async def only_ends(request: LocalRequest, _: ToApp | ToHub) -> None:
    request.end()


async def only_writes(request: LocalRequest, _: ToApp | ToHub) -> None:
    await request.write(b"a")


@pytest.mark.parametrize("script", [only_ends, only_writes])
async def test_a_body_without_a_head_is_no_answer(script: Serve) -> None:
    wire, _ = await ask(script, GET)

    assert (first(wire).status, goes_on(wire)) == (502, True)


@pytest.mark.parametrize("status", [100, 101, 199, 99, 1000])
async def test_an_answer_must_be_final(status: int) -> None:
    wire, _ = await ask(streams(status=status), GET)

    assert (first(wire).status, goes_on(wire)) == (502, True)


async def test_an_error_is_told_as_all_errors_are() -> None:
    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        request.fail(503, "line_full", "try later", retry_after=7)

    wire, hub = await ask(script, b"GET" + LINES + b"X-Request-Id: id-1\r\n\r\n")

    assert json.loads(first(wire).body) == {"error": "line_full", "message": "try later", "request_id": "id-1"}
    assert first(wire).values("Retry-After") == [b"7"]
    assert (hub.requests[0].status, goes_on(wire)) == (503, True)


# Bodies.


@pytest.mark.parametrize("script", [echo, size], ids=["echo", "size"])
@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (GET, b""),
        (HELLO, b"hello"),
        (POST + b"Content-Length: 0\r\n\r\n", b""),
        (CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-T: 1\r\n\r\n", b"hello"),
        (POST + b"Content-Length: %d\r\n\r\n" % BIG + b"x" * BIG, b"x" * BIG),
    ],
    ids=["none", "counted", "counted, empty", "chunks", "big"],
)
async def test_a_body_is_read_to_its_end_and_the_next_request_follows(script: Serve, sent: bytes, body: bytes) -> None:
    wire, _ = await ask(script, sent)

    assert first(wire).body.strip() == (body if script is echo else b"%d" % len(body))
    assert goes_on(wire)


async def test_requests_that_come_at_once_are_answered_in_order() -> None:
    wire, hub = await ask(echo, HELLO + GET + HELLO.replace(b"hello", b"there"))

    bodies, got = [], bytes(wire.got)
    while got:
        answer = read_answer(got)
        bodies.append(answer.body)
        got = got[answer.size :]
    assert bodies[:3] == [b"hello", b"", b"there"]
    assert (len(bodies), len(hub.requests)) == (4, 3)


async def test_a_slow_reader_holds_the_client_back() -> None:
    go = asyncio.Event()

    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        await request.read()
        await go.wait()
        await size(request, _)

    async with serving(script) as (it, _), client(it) as wire:
        wire.send(CHUNKED)
        for _part in range(BIG // 10_000):
            wire.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        wire.send(b"0\r\n\r\n" + LAST)
        [own] = it.dockscale.main.clients
        await until(lambda: not own.transport.is_reading(), "it is held back")
        go.set()
        await wire.over()

        assert goes_on(wire)


async def test_a_slow_client_holds_the_writer_back() -> None:
    written = 0

    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        nonlocal written
        request.start(200, [])
        for _part in range(BIG // 10_000):
            await request.write(b"x" * 10_000)
            written += 10_000
        request.end()

    async with serving(script) as (it, _), client(it, buffer=SMALL_BUFFER) as wire:
        wire.transport.pause_reading()
        wire.send(GET + LAST)
        [own] = it.dockscale.main.clients
        await until(lambda: own.full, "the client is full")
        assert own.transport.get_write_buffer_size() < 2 * HELD_AT
        assert written < BIG

        wire.transport.resume_reading()
        await wire.over()

        assert (len(first(wire).body), goes_on(wire)) == (BIG, True)


async def test_both_directions_flow_at_once() -> None:
    async with serving(echo) as (it, _), client(it) as wire:
        wire.send(CHUNKED)
        for number in range(3):
            wire.send(b"1\r\n%d\r\n" % number)
            await wire.seen(b"1\r\n%d\r\n" % number)
        wire.send(b"0\r\n\r\n" + LAST)
        await wire.over()

        assert (first(wire).body, goes_on(wire)) == (b"012", True)


async def test_who_waits_to_be_asked_for_the_body_is_asked_when_it_is_read() -> None:
    async with serving(size) as (it, _), client(it) as wire:
        wire.send(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        await wire.seen(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.send(b"hello" + LAST)
        await wire.over()

        assert (first(wire).body.strip(), goes_on(wire)) == (b"5", True)


@pytest.mark.parametrize("script", [replies(), streams(b"ok")], ids=["reply", "stream"])
async def test_who_is_not_asked_for_the_body_has_its_answer_and_the_connection_ends(script: Serve) -> None:
    async with serving(script) as (it, _), client(it) as wire:
        wire.send(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        await wire.over()

        assert (first(wire).body, first(wire).values("Connection"), wire.ended) == (b"ok", [b"close"], "fin")


@pytest.mark.parametrize("script", [replies(), streams(b"ok")], ids=["reply", "stream"])
async def test_a_body_that_nobody_reads_does_no_harm(script: Serve) -> None:
    wire, _ = await ask(script, HELLO)

    assert (first(wire).body, goes_on(wire)) == (b"ok", True)


async def test_a_body_of_which_only_a_part_is_read_ends_the_connection() -> None:
    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        await request.read()
        request.reply(200, b"enough", "text/plain")

    async with serving(script) as (it, _), client(it) as wire:
        wire.send(POST + b"Content-Length: 5\r\n\r\nhel")
        await wire.over()

        assert (first(wire).body, first(wire).values("Connection")) == (b"enough", [b"close"])


async def whole(request: LocalRequest, _: ToApp | ToHub) -> None:
    request.reply(200, await request.read_all(5), "text/plain")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (HELLO, 200),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", 200),
        (POST + b"Content-Length: 6\r\nExpect: 100-continue\r\n\r\n", 413),
        (POST + b"Content-Length: 6\r\n\r\nhello!", 413),
        (CHUNKED + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", 413),
    ],
)
async def test_a_whole_body_may_be_as_large_as_is_said(sent: bytes, status: int) -> None:
    wire, _ = await ask(whole, sent)

    assert first(wire).status == status
    assert status == 200 or json.loads(first(wire).body)["error"] == "body_too_large"


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (CHUNKED + b"b\r\nhello world\r\n0\r\n\r\n", (413, "body_too_large")),
        (CHUNKED + b"x\r\n", (400, "bad_request")),
        (POST + b"Content-Length: 5\r\n\r\nhel", (408, "too_slow")),
        (CHUNKED, (408, "too_slow")),
    ],
    ids=["too large", "broken", "stalls", "never begins"],
)
async def test_a_body_that_fails_has_the_clients_fault_for_an_answer(sent: bytes, expected: tuple[int, str]) -> None:
    async with serving(size, max_body_bytes=10, client_timeout=0.2) as (it, hub):
        wire = await exchange(it, sent)

        assert (first(wire).status, json.loads(first(wire).body)["error"]) == expected
        assert hub.requests[0].status == expected[0]


async def test_a_body_that_fails_after_the_answer_began_cuts_the_connection() -> None:
    async with serving(echo) as (it, _):
        wire = await exchange(it, CHUNKED + b"2\r\nhe\r\nx\r\n")

        assert wire.ended == "reset"
        assert not wire.got.endswith(b"0\r\n\r\n")


# Those who leave, and those who fail.


async def read_and_hold(request: LocalRequest, _: ToApp | ToHub) -> None:
    await request.read()
    await asyncio.Event().wait()


async def write_all_the_time(request: LocalRequest, _: ToApp | ToHub) -> None:
    request.start(200, [])
    while True:
        await request.write(b"x" * 10_000)


@pytest.mark.parametrize(
    ("script", "sent"),
    [
        (hold, GET),
        (size, POST + b"Content-Length: 5\r\n\r\nhel"),
        (read_and_hold, POST + b"Content-Length: %d\r\n\r\n" % BIG + b"x" * BIG),
        (write_all_the_time, GET),
    ],
    ids=["waiting", "within its body", "held back", "within its answer"],
)
async def test_who_serves_is_cancelled_when_the_client_leaves(script: Serve, sent: bytes) -> None:
    ended: list[BaseException] = []

    async def watched(request: LocalRequest, route: ToApp | ToHub) -> None:
        try:
            await script(request, route)
        except BaseException as error:
            ended.append(error)
            with pytest.raises(ConnectionResetError):
                await request.read()
            with pytest.raises(ConnectionResetError):
                request.fail(500, "internal", "too late")
            raise

    with capture_logs() as told:
        async with serving(watched) as (it, hub), client(it) as wire:
            wire.send(sent)
            await until(lambda: hub.requests, "it is served")
            await asyncio.sleep(0.05)  # what can flow has flowed
            wire.reset()
            await until(lambda: ended, "it has ended")

            assert isinstance(ended[0], asyncio.CancelledError)
            assert hub.requests[0].gone.is_set()
            assert hub.requests[0].status == 499
            assert [line for line in told if line["event"] == "request_failed"] == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (raises(ValueError("a bug")), (500, "internal")),
        (nothing, (500, "internal")),
        (raises(TimeoutError()), (500, "internal")),
        (raises(Malformed("no JSON", 400, "bad_request")), (400, "bad_request")),
        (raises(TooLate("no instance was free")), (504, "no_instance_ready")),
    ],
    ids=["a bug", "no answer", "a time-out", "malformed", "one of the table"],
)
async def test_what_is_raised_becomes_an_answer(script: Serve, expected: tuple[int, str]) -> None:
    with capture_logs() as told:
        wire, hub = await ask(script, GET)

    assert (first(wire).status, json.loads(first(wire).body)["error"]) == expected
    assert hub.requests[0].status == expected[0]
    assert len([line for line in told if line["event"] == "request_failed"]) == (expected[0] == 500)


async def test_one_that_is_cancelled_by_its_own_side_is_answered_too() -> None:
    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        raise asyncio.CancelledError

    wire, _ = await ask(script, GET)

    assert first(wire).status == 500


async def begins_and_stops(request: LocalRequest, _: ToApp | ToHub) -> None:
    request.start(200, [])
    await request.write(b"abc")


@pytest.mark.parametrize(
    ("script", "bugs"),
    [
        (raises(ValueError("a bug"), begun=True), 1),
        (begins_and_stops, 1),
        (streams(b"abc", headers=((b"Content-Length", b"5"),)), 0),
    ],
    ids=["a bug", "no end", "shorter than it says"],
)
async def test_an_answer_that_breaks_off_is_cut_and_never_looks_whole(script: Serve, bugs: int) -> None:
    with capture_logs() as told:
        wire, _ = await ask(script, GET)

    assert wire.ended == "reset"
    assert not wire.got.endswith(b"0\r\n\r\n")
    assert len([line for line in told if line["event"] == "request_failed"]) == bugs


async def test_what_the_hub_answers_is_counted_by_status() -> None:
    async with serving(replies(201)) as (it, _):
        await exchange(it, GET + LAST)
        async with it.session.get(it.admin + "/metrics") as metrics:
            shown = await metrics.text()

        assert it.dockscale.entry.answered == {201: 1}
        assert 'dockscale_hub_answers_total{code="201"} 1' in shown


async def test_lines_of_its_own_are_in_every_answer() -> None:
    def with_lines(script: Serve) -> Serve:
        async def whole(request: LocalRequest, route: ToApp | ToHub) -> None:
            request.lines = (b"X-More: 1",)
            await script(request, route)

        return whole

    for script in (replies(), streams(b"a"), raises(TooLate("no")), raises(Malformed("no", 413, "too_large"))):
        wire, _ = await ask(with_lines(script), GET)

        assert first(wire).values("X-More") == [b"1"]


async def test_one_answer_is_enough() -> None:
    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        request.reply(200, b"ok", "text/plain")
        with pytest.raises(ConnectionResetError):
            request.reply_json(200, "again")
        with pytest.raises(ConnectionResetError):
            request.end()

    wire, _ = await ask(script, GET)

    assert (first(wire).body, goes_on(wire)) == (b"ok", True)


async def test_at_the_end_of_dockscale_a_request_may_still_be_answered() -> None:
    go = asyncio.Event()

    async def script(request: LocalRequest, _: ToApp | ToHub) -> None:
        await go.wait()
        request.reply(200, b"ok", "text/plain")

    async with serving(script) as (it, hub), client(it) as wire:
        wire.send(GET)
        await until(lambda: hub.requests)
        closing = asyncio.create_task(it.dockscale.main.close(5.0))
        await asyncio.sleep(0)
        go.set()
        await wire.over()
        await closing

        assert (first(wire).body, first(wire).values("Connection")) == (b"ok", [b"close"])


# Whom a request is for.


async def test_a_request_for_an_app_of_type_rpc_goes_to_the_hub() -> None:
    async with serving(raises(TooLate("no instance was free")), {"type": "rpc"}) as (it, hub):
        wire = await exchange(it, b"GET /public/apps/web/a?b HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")

        assert hub.routes == [ToApp("web", "/a?b", "/public/apps/web")]
        assert hub.requests[0].first(b"x-forwarded-prefix") == b"/public/apps/web"
        assert json.loads(first(wire).body)["app_id"] == "web"
        assert first(wire).values("Retry-After") != []


async def test_an_app_of_another_type_is_served_by_its_instance() -> None:
    async with serving(replies(), {"type": "demo"}) as (it, hub):
        assert (await it.get())[1]["instance"].startswith("web-")
        assert hub.requests == []


async def test_a_websocket_to_an_app_of_type_rpc_is_refused() -> None:
    async with serving(replies(), {"type": "rpc"}) as (it, hub), client(it) as wire:
        wire.send(UPGRADE.replace(b"here", b"web.localhost") % b"/ws")
        await wire.seen(b"request_id")

        assert (first(wire).status, json.loads(first(wire).body)["error"]) == (501, "not_implemented")
        assert hub.sockets == []
        assert it.dockscale.entry.refused == {501: 1}


@pytest.mark.parametrize(("name", "status"), [(b"svc", 200), (b"other", 404)])
async def test_an_address_below_apps_is_a_services_if_there_is_one(name: bytes, status: int) -> None:
    async with serving(replies()) as (it, hub):
        hub.services.add(("team", "svc"))
        wire = await exchange(it, b"GET /team/apps/%b/a HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n" % name)

        assert first(wire).status == status
        assert it.dockscale.entry.refused == ({} if status == 200 else {404: 1})


async def test_without_upgrade_the_socket_tells_what_it_is_for() -> None:
    async with serving(replies()) as (it, _):
        wire = await exchange(it, b"GET /ws HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")

        assert (first(wire).status, json.loads(first(wire).body)["error"]) == (426, "upgrade_required")
        assert first(wire).values("Upgrade") == [b"websocket"]
        assert b"Upgrade" in first(wire).values("Connection")
        assert it.dockscale.entry.refused == {426: 1}


@pytest.mark.parametrize("path", [b"/ws", b"/rpc", b"/public/services/x", b"/team/apps/svc/"])
@pytest.mark.parametrize("asked", [b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"])
async def test_without_a_hub_its_addresses_lead_nowhere(path: bytes, asked: bytes) -> None:
    async with world() as it, client(it) as wire:
        it.dockscale.entry.hub = None
        wire.send(b"GET %b HTTP/1.1\r\nHost: here\r\n%b\r\n" % (path, asked))
        await wire.seen(b"request_id")

        assert first(wire).status == 404


# Connections that are handed over.


@pytest.mark.parametrize("path", [b"/ws", b"/ws?token=a", b"/", b"/?token=a"])
async def test_a_websocket_is_handed_over_with_its_head_and_what_follows(path: bytes) -> None:
    async with serving(replies()) as (it, hub), client(it) as wire:
        wire.send(UPGRADE % path + b"early ")
        await wire.seen(b"hello early ")
        wire.send(b"late")
        await wire.seen(b"late")

        [(head, address)] = hub.sockets
        assert (bytes(wire.got), address) == (b"hello early late", "127.0.0.1")
        assert head.startswith(b"GET " + path + b" HTTP/1.1\r\nHost: here\r\nSec-WebSocket-Key: abc\r\n")
        assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in head
        assert head.endswith(b"\r\n\r\n")


async def test_a_websocket_at_the_root_of_an_app_is_the_apps() -> None:
    async with serving(replies(), {"route.path": "/"}) as (it, hub):
        async with client(it) as wire:
            wire.send(UPGRADE % b"/")
            await wire.seen(b'"instance": "web-')
        assert hub.sockets == []


async def test_whom_it_is_handed_to_is_told_when_the_client_is_full_and_free() -> None:
    async with serving(replies()) as (it, hub), client(it, buffer=SMALL_BUFFER) as wire:
        wire.transport.pause_reading()
        wire.send(UPGRADE % b"/ws" + b"x" * BIG)
        await until(lambda: "full" in hub.told, "it is told")
        wire.transport.resume_reading()
        await wire.until(lambda: len(wire.got) == BIG + len(b"hello "), "all came back")

        await until(lambda: hub.told[-1] == "free", "it is told")
    await until(lambda: hub.told[-1] == "lost", "it is told")


async def test_no_time_out_of_requests_ends_what_was_handed_over() -> None:
    short = serving(replies(), keepalive_timeout=0.1, header_timeout=0.1, client_timeout=0.1)
    async with short as (it, _), client(it) as wire:
        wire.send(UPGRADE % b"/ws")
        await wire.seen(b"hello ")
        await asyncio.sleep(0.4)
        wire.send(b"still here")

        await wire.seen(b"still here")


async def test_what_was_handed_over_counts_as_a_client_until_it_ends() -> None:
    async with serving(replies(), max_connections=1) as (it, hub):
        async with client(it) as inside:
            inside.send(UPGRADE % b"/ws")
            await inside.seen(b"hello ")
            async with client(it) as waiting:
                waiting.send(GET)
                await asyncio.sleep(0.1)
                assert (bytes(waiting.got), len(it.dockscale.main.clients)) == (b"", 1)

                inside.close()

                await waiting.seen(b"ok")
        assert hub.told == ["made", "lost"]


async def test_what_was_handed_over_is_cut_when_the_time_at_the_end_is_over() -> None:
    async with serving(replies(), shutdown_timeout=0.1) as (it, hub), client(it) as wire:
        wire.send(UPGRADE % b"/ws")
        await wire.seen(b"hello ")

        await it.dockscale.main.close(0.1)

        await wire.over()
        assert wire.ended == "reset"
        assert hub.told == ["made", "lost"]
        assert it.dockscale.main.clients == set()
