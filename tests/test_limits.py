"""What there is only so much of: connections, open files, bytes of a head or a body, and time at the end."""

import asyncio
import json
import os
import resource
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import pytest
from structlog.testing import capture_logs

from dockscale.core.pool import EJECT_AFTER, State
from tests.support.http1 import Message, read_answer, read_requests
from tests.support.origin import Wire, client, exchange, idle, staged
from tests.support.world import BOUND_S, World, until, world

HOST = b"Host: web.localhost\r\n"
CLOSE = b"Connection: close\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /a HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
POST = b"POST /a HTTP/1.1\r\n" + HOST + CLOSE
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW = b"GET /slow?s=%b HTTP/1.1\r\n" + HOST + b"\r\n"
ANSWERED = b"\r\n\r\nok"


def answers(wire: Wire) -> list[Message]:
    """All answers that came on a connection, each of them whole."""
    found, got = [], bytes(wire.got)
    while got:
        found.append(read_answer(got))
        got = got[found[-1].size :]
    return found


def status_and_word(wire: Wire) -> tuple[int, str]:
    answer = read_answer(bytes(wire.got), ended=True)
    return answer.status, json.loads(answer.body)["error"]


@asynccontextmanager
async def clients(it: World, number: int) -> AsyncIterator[list[Wire]]:
    """Connect that many clients at the same time."""
    async with AsyncExitStack() as stack:
        yield list(await asyncio.gather(*(stack.enter_async_context(client(it)) for _ in range(number))))


@contextmanager
def no_file_left() -> Iterator[None]:
    """Let this process open no file; those that are open stay so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Connections.


async def test_one_client_too_many_waits_and_is_served_as_soon_as_one_leaves() -> None:
    with capture_logs() as told:
        async with staged(max_connections=20) as (it, origin), AsyncExitStack() as stack:
            inside = [await stack.enter_async_context(client(it)) for _ in range(20)]
            for each in inside:
                each.send(GET)
                await each.seen(ANSWERED)

            for leaving in inside[:2]:
                origin.forget()
                late = await stack.enter_async_context(client(it))
                late.send(GET)
                inside[2].send(GET)
                await until(lambda: origin.requests, "who is inside goes on")
                await asyncio.sleep(0.05)
                assert (bytes(late.got), late.ended, len(origin.requests)) == (b"", "", 1)

                leaving.close()

                await late.seen(ANSWERED)

    full = [line["log_level"] for line in told if line["event"] == "connections_full"]
    assert full == ["warning"], "that one leaves and another comes is no news"


async def test_as_many_clients_as_may_be_are_served_although_none_leaves() -> None:
    async with staged(max_connections=40) as (it, _), clients(it, 40) as inside:
        for each in inside:
            each.send(GET)
        for each in inside:
            await each.seen(ANSWERED)


# Open files.


async def test_clients_wait_while_no_file_can_be_opened_and_are_served_afterwards() -> None:
    loop = asyncio.get_running_loop()
    with capture_logs() as told:
        async with staged() as (it, origin), client(it) as inside:
            inside.send(GET)
            await inside.seen(ANSWERED)
            outside = [socket.socket() for _ in range(3)]
            for each in outside:
                each.setblocking(False)
            with no_file_left():
                for each in outside:
                    await loop.sock_connect(each, ("127.0.0.1", it.dockscale.main_port))
                    await loop.sock_sendall(each, LAST)
                burned, began = time.process_time(), time.monotonic()
                await asyncio.sleep(1.2)
                burned, passed = time.process_time() - burned, time.monotonic() - began
                inside.send(GET)
                await until(lambda: len(origin.requests) == 2, "who is inside goes on")
            for each in outside:
                async with asyncio.timeout(BOUND_S):
                    assert b" 200 OK\r\n" in await loop.sock_recv(each, 65536)
                each.close()

    assert burned < 0.3 * passed, "it rests while it can do nothing"
    assert 1 <= [line["event"] for line in told].count("accept_paused") <= 5, "it looks again now and then only"


async def test_that_no_file_can_be_opened_is_not_the_instances_fault() -> None:
    async with staged() as (it, origin), clients(it, EJECT_AFTER + 1) as wires:
        for each in wires:  # all are accepted, while none is connected to the instance
            each.send(b"GET /health/liveness HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await each.seen(b"\r\n\r\n{")
            each.got.clear()
        [instance] = it.app().pool

        with no_file_left():
            for each in wires:
                each.send(GET)
                await each.seen(b"request_id")

        for each in wires:
            [answer] = answers(each)
            assert (answer.status, json.loads(answer.body)["error"]) == (503, "out_of_files")
            assert answer.values("Retry-After") == [b"1"]
        assert (instance.state, instance.failed_connections, origin.got) == (State.READY, 0, b"")
        for each in wires:
            each.send(GET)
            await each.seen(ANSWERED)


# Bytes.


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        (POST + b"Content-Length: 11\r\n\r\nhello world", b""),
        (POST + b"Content-Length: 11\r\nExpect: 100-continue\r\n\r\n", b""),
        (CHUNKED + b"b\r\nhello world\r\n0\r\n\r\n", None),
        (CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", None),
        (CHUNKED + b"ffffff\r\nhello world", None),
    ],
    ids=["counted", "announced", "one chunk", "two chunks", "a big chunk"],
)
async def test_a_body_larger_than_may_be_is_refused_and_never_looks_whole(sent: bytes, seen: bytes | None) -> None:
    async with staged(max_body_bytes=10) as (it, origin):
        wire = await exchange(it, sent)

        assert status_and_word(wire) == (413, "body_too_large")
        await until(lambda: all(each.ended or each.lost for each in origin.wires), "the instance's connection is cut")
        assert origin.requests == []
        assert seen is None or origin.got == seen
        await idle(it)


async def test_a_body_that_grows_too_large_after_its_answer_began_cuts_both_sides() -> None:
    async with world(max_body_bytes=100) as it, client(it) as wire:
        wire.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await wire.seen(b"hello")

        wire.send(b"60\r\n" + b"x" * 96 + b"\r\n0\r\n\r\n")
        await wire.over()

        assert wire.ended == "reset"
        assert not wire.got.endswith(b"\r\n0\r\n\r\n")
        await idle(it)
        assert it.app().stats.requests[413] == 1


@pytest.mark.parametrize(
    "sent",
    [
        POST + b"Content-Length: 10\r\n\r\n0123456789",
        CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n",
        CHUNKED + b"1\r\n0\r\n4\r\n1234\r\n5;x=y\r\n56789\r\n0\r\nX-T: 1\r\n\r\n",
    ],
    ids=["counted", "one chunk", "chunks"],
)
async def test_a_body_exactly_as_large_as_may_be_passes(sent: bytes) -> None:
    async with staged(max_body_bytes=10) as (it, origin):
        wire = await exchange(it, sent)

        assert read_answer(bytes(wire.got)).status == 200
        [request], _ = read_requests(origin.got)
        assert request.body == b"0123456789"


HEAD = b"GET /a HTTP/1.1\r\n" + HOST + CLOSE + b"X-A: "


@pytest.mark.parametrize(
    ("more", "status"), [(0, 200), (1, 431), (2, 431), (100_000, 431)], ids=["exactly", "+1", "+2", "far above"]
)
async def test_a_head_passes_up_to_its_bound(more: int, status: int) -> None:
    async with staged(max_header_bytes=1024) as (it, origin):
        wire = await exchange(it, HEAD + b"a" * (1024 - len(HEAD) + more) + b"\r\n\r\n")

        assert read_answer(bytes(wire.got)).status == status
        assert len(origin.requests) == (status == 200)


async def test_a_head_without_an_end_is_refused_once_it_is_too_large() -> None:
    async with staged(max_header_bytes=1024) as (it, origin), client(it) as fields, client(it) as target:
        fields.send(HEAD + b"a" * 1024)
        target.send(b"GET /" + b"a" * 1024)
        await fields.over()
        await target.over()

        assert status_and_word(fields) == (431, "headers_too_large")
        assert status_and_word(target) == (414, "target_too_long")
        assert origin.got == b""


# Many requests at once.


async def test_many_requests_in_one_write_are_all_answered_in_their_order() -> None:
    asked, due = b"", []
    for number in range(400):
        if number % 2:
            asked += b"GET /health/liveness HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: r%d\r\n\r\n" % number
        else:
            asked += b"GET /a HTTP/1.1\r\nHost: nobody.localhost\r\nX-Request-Id: r%d\r\n\r\n" % number
        due.append({"status": "ok"} if number % 2 else f"r{number}")
    asked += b"GET /last HTTP/1.1\r\nHost: nobody.localhost\r\nConnection: close\r\n\r\n"
    async with staged() as (it, _):
        wire = await exchange(it, asked)

    *found, last = answers(wire)
    bodies = [json.loads(answer.body) for answer in found]
    assert [body if "status" in body else body["request_id"] for body in bodies] == due
    assert {answer.status for answer in found} == {200, 404}
    assert (last.status, last.values("Connection")) == (404, [b"close"])


async def test_many_requests_in_one_write_reach_an_instance_one_after_the_other() -> None:
    async with staged() as (it, origin):
        sent = b"".join(b"GET /%d HTTP/1.1\r\n" % number + HOST + b"\r\n" for number in range(200))

        wire = await exchange(it, sent + LAST)

        assert [answer.body for answer in answers(wire)] == [b"ok"] * 201
        assert [request.split(b" ")[1] for request in origin.requests[:-1]] == [b"/%d" % n for n in range(200)]
        assert len(origin.wires) == 1


# The end.


async def test_at_the_end_idle_connections_close_at_once_and_a_request_in_flight_finishes() -> None:
    async with AsyncExitStack() as outside:
        async with world({"lazy": "false"}) as it:
            await until(it.ready)
            new, rested, busy = [await outside.enter_async_context(client(it)) for _ in range(3)]
            rested.send(GET)
            await rested.seen(b"instance")
            busy.send(SLOW % b"0.3")
            await until(lambda: it.app().pool.in_flight == 1)

            async def meanwhile() -> bytes:
                await asyncio.gather(new.over(), rested.over())
                return bytes(busy.got)

            closed = asyncio.create_task(meanwhile())
        await busy.over()

        assert await closed == b"", "nobody waits for those who ask for nothing"
        assert new.got == b""
        assert (new.ended, rested.ended, busy.ended) == ("fin", "fin", "fin")
        [answer] = answers(busy)
        assert answer.status == 200


async def test_what_has_not_ended_in_time_is_cut_and_told() -> None:
    with capture_logs() as told:
        async with AsyncExitStack() as outside:
            async with world({"lazy": "false"}, shutdown_timeout=0.2) as it:
                await until(it.ready)
                silent, streamed, half = [await outside.enter_async_context(client(it)) for _ in range(3)]
                silent.send(SLOW % b"1.5")
                streamed.send(b"GET /stream?n=1000&s=0.02 HTTP/1.1\r\n" + HOST + b"\r\n")
                half.send(GET[:20])
                await streamed.seen(b"data: 1")
                await until(lambda: it.app().pool.in_flight == 2)
                began = time.monotonic()

                async def all_over() -> float:
                    await asyncio.gather(silent.over(), streamed.over(), half.over())
                    return time.monotonic() - began

                over = asyncio.create_task(all_over())
            took = await over

    assert 0.2 <= took < 1.2
    assert (bytes(silent.got), bytes(half.got)) == (b"", b"")
    assert not streamed.got.endswith(b"0\r\n\r\n")
    [cut] = [line for line in told if line["event"] == "connections_cut"]
    assert (cut["open"], cut["after_s"]) == (3, 0.2)
