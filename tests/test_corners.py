"""Corners: bounds that are just met, ends that come at a bad moment, shortages of this machine's own."""

import asyncio
import socket
import time
from contextlib import AsyncExitStack

import pytest

from dockscale.proxy.wire import MAX_CHUNK_LINE, MAX_TRAILERS, Chunked
from tests.support.http1 import read_answer
from tests.support.origin import client, exchange, idle, on_head, staged
from tests.support.world import until, world
from tests.test_limits import ANSWERED, GET, HEAD, HOST, SLOW, answers


async def test_clients_that_come_in_two_bursts_are_all_served() -> None:
    stalled = []
    for pause in range(8):
        async with staged(max_connections=8) as (it, origin):
            socks = [socket.socket() for _ in range(8)]
            for number, each in enumerate(socks):
                each.connect(("127.0.0.1", it.dockscale.main_port))
                each.setblocking(False)
                if number == 3:
                    for _ in range(pause):
                        await asyncio.sleep(0)
            for each in socks:
                each.send(GET)
            for _ in range(200):
                await asyncio.sleep(0.001)
            if len(origin.requests) < 8:
                stalled.append((pause, len(origin.requests)))
            for each in socks:
                each.close()
    assert stalled == []


async def test_what_finishes_at_the_end_is_told_that_the_connection_closes() -> None:
    async with AsyncExitStack() as outside:
        async with world({"lazy": "false"}) as it:
            await until(it.ready)
            busy = await outside.enter_async_context(client(it))
            busy.send(SLOW % b"0.2")
            await until(lambda: it.app().pool.in_flight == 1)
        await busy.over()
        [answer] = answers(busy)
        assert answer.values("Connection") == [b"close"]


async def test_who_arrives_while_dockscale_ends_does_not_hold_it_up() -> None:
    held_up = []
    for pause in range(6):
        async with AsyncExitStack() as outside:
            async with staged(shutdown_timeout=1.5) as (it, _):
                coming = outside.enter_context(socket.socket())
                coming.connect(("127.0.0.1", it.dockscale.main_port))
                for _ in range(pause):
                    await asyncio.sleep(0)
                began = time.monotonic()
            if time.monotonic() - began > 1:
                held_up.append(pause)
    assert held_up == []


async def test_an_answer_cut_at_the_end_never_looks_whole_to_an_old_client() -> None:
    async with AsyncExitStack() as outside:
        async with world({"lazy": "false"}, shutdown_timeout=0.2) as it:
            await until(it.ready)
            wire = await outside.enter_async_context(client(it))
            wire.send(b"GET /stream?n=1000&s=0.02 HTTP/1.0\r\n" + HOST + b"\r\n")
            await wire.seen(b"data: 1")
        await wire.over()
        assert wire.ended == "reset"


async def test_nor_when_it_took_too_little() -> None:
    async with staged(client_timeout=0.2) as (it, origin), client(it, buffer=4096) as wire:
        origin.script = on_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2000000\r\n" + b"x" * 0x2000000)
        wire.transport.pause_reading()
        wire.send(b"GET / HTTP/1.0\r\n" + HOST + b"\r\n")
        await until(lambda: it.app().pool.in_flight == 1)
        await idle(it)
        wire.transport.resume_reading()
        await wire.over()
        assert wire.ended == "reset"


async def test_a_head_just_at_its_bound_passes_however_it_is_cut() -> None:
    async with staged(max_header_bytes=1024) as (it, _), client(it) as wire:
        head = HEAD + b"a" * (1024 - len(HEAD)) + b"\r\n\r\n"
        wire.send(head[:-1])
        await asyncio.sleep(0.05)
        wire.send(head[-1:])
        assert read_answer(await wire.over()).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"1;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\nx\r\n0\r\n\r\n",
        b"0\r\nX: " + b"a" * (MAX_TRAILERS - 3) + b"\r\n\r\n",
    ],
    ids=["chunk line", "trailers"],
)
def test_lines_just_at_their_bound_pass_however_they_are_cut(data: bytes) -> None:
    whole, cut = Chunked(), Chunked()
    whole.feed(data)
    assert whole.done
    for byte in data:
        cut.feed(bytes([byte]))
    assert cut.done


@pytest.mark.parametrize("first", ["the instance", "the client"])
async def test_a_post_just_when_bytes_come_on_a_kept_connection_gets_a_fresh_one(first: str) -> None:
    post = b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
    async with staged() as (it, origin), client(it) as wire:
        for _ in range(20):
            origin.forget()
            wire.got.clear()
            wire.send(GET)
            await wire.seen(ANSWERED)
            kept = origin.wires[-1]
            wire.got.clear()
            if first == "the client":
                wire.send(post)
            kept.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            if first == "the instance":
                wire.send(post)
            await until(lambda: b"\r\n\r\n" in wire.got)
            assert read_answer(bytes(wire.got)).status == 200, origin.requests
            await kept.over()


async def test_a_refused_head_has_no_body() -> None:
    async with staged(max_body_bytes=10) as (it, _):
        wire = await exchange(it, b"HEAD / HTTP/1.1\r\n" + HOST + b"Content-Length: 11\r\n\r\n")
        assert read_answer(bytes(wire.got), "HEAD").size == len(wire.got)
