"""What connections go through when several things happen to them: nothing hangs, nothing is counted twice or kept."""

import asyncio

import pytest

from dockscale.proxy.listener import GONE_LOOK_S
from tests.support.http1 import read_answer
from tests.support.origin import OK, Origin, Wire, client, exchange, idle, on_head, replies, staged
from tests.support.world import World, until

HOST = b"Host: web.localhost\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000
SMALL_BUFFER = 4096


async def take_all(wire: Wire, size: int) -> None:
    wire.transport.resume_reading()
    await wire.until(lambda: len(wire.got) >= size, "the answer has come")


async def slow_download(it: World, origin: Origin, wire: Wire) -> None:
    """Let an answer fill everything on its way, then take it."""
    origin.script = replies(BIG)
    wire.transport.pause_reading()
    wire.send(GET)
    await until(lambda: it.app().pool.in_flight == 1)
    await asyncio.sleep(0.3)  # everything between here and the origin fills
    await take_all(wire, len(BIG))
    origin.script = replies(OK)


async def test_after_a_slow_download_the_instance_is_read_from_again() -> None:
    async with staged(response_timeout=2.0) as (it, origin), client(it, buffer=SMALL_BUFFER) as wire:
        await slow_download(it, origin, wire)

        for _ in range(3):
            assert read_answer(bytes((await exchange(it, LAST)).got)).status == 200


async def test_after_a_slow_download_an_idle_client_is_still_sent_away() -> None:
    async with staged(keepalive_timeout=0.5) as (it, origin), client(it, buffer=SMALL_BUFFER) as wire:
        await slow_download(it, origin, wire)

        await wire.over()


@pytest.mark.parametrize("host", [b"web.localhost", b"nobody"])
async def test_who_asks_and_asks_and_never_reads_fills_no_memory(host: bytes) -> None:
    async with staged(client_timeout=30.0) as (it, origin):
        origin.script = replies(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000)
        async with client(it, buffer=SMALL_BUFFER) as wire:
            wire.transport.pause_reading()
            ask = b"GET /a HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
            wire.send(ask * 20_000)
            [own] = it.dockscale.main.clients
            await until(lambda: own.full, "it has all it can take")
            most = 0
            for _ in range(50):
                await asyncio.sleep(0.01)
                most = max(most, own.transport.get_write_buffer_size() + len(own.unread))

        assert most < 1_000_000


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc", 499),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", 499),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", 499),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nabc", 101),
    ],
    ids=["length", "until close", "chunks", "websocket"],
)
async def test_a_client_that_leaves_within_an_answer_is_counted_once(answer: bytes, status: int) -> None:
    async with staged() as (it, origin):
        origin.script = on_head(answer)
        async with client(it) as wire:
            wire.send(b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            await wire.seen(b"abc")
            wire.reset()
        await idle(it)

        assert dict(it.app().stats.requests) == {status: 1}


async def test_who_waits_in_line_with_a_big_body_and_leaves_gives_up_the_turn() -> None:
    one_place = staged({"autoscaling.max_concurrency": "1"})
    async with one_place as (it, origin), client(it) as busy, client(it) as waiting:
        origin.script = on_head()
        busy.send(GET)
        await until(lambda: it.app().pool.in_flight == 1)
        waiting.send(b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
        await until(lambda: it.app().pool.waiting == 1)
        await asyncio.sleep(0.1)  # more comes than is taken, so it is held back

        waiting.reset()

        async with asyncio.timeout(4 * GONE_LOOK_S):
            await until(lambda: it.app().pool.waiting == 0)


async def test_a_put_with_a_body_gets_no_connection_that_the_instance_has_just_closed() -> None:
    async with staged() as (it, origin):
        await exchange(it, LAST)
        [kept] = [wire for wire in origin.wires if not wire.lost]
        kept.close()

        wire = await exchange(it, b"PUT /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi")

        assert read_answer(bytes(wire.got)).status == 200


async def test_options_for_the_whole_server_are_no_bug() -> None:
    async with staged() as (it, _):
        wire = await exchange(it, b"OPTIONS * HTTP/1.1\r\nHost: nobody\r\nConnection: close\r\n\r\n")

        assert read_answer(bytes(wire.got)).status == 404


@pytest.mark.parametrize("name", [b"X_Forwarded_For", b"x-forwarded_proto", b"X-Forwarded-User", b"X_Real_IP"])
async def test_no_spelling_of_a_forwarding_field_passes(name: bytes) -> None:
    async with staged() as (it, origin):
        chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n" + name + b": forged\r\n\r\n"
        await exchange(it, b"POST /a HTTP/1.1\r\n" + HOST + name + b": forged\r\nConnection: close\r\n" + chunked)

        assert len(origin.requests) == 1
        assert b"forged" not in origin.requests[0]


async def test_what_a_trusted_proxys_connection_names_is_still_told() -> None:
    async with staged(trusted_proxies=["127.0.0.0/8"]) as (it, origin):
        await exchange(it, b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: close, x-forwarded-proto\r\n\r\n")

        assert origin.requests[0].count(b"X-Forwarded-Proto: http\r\n") == 1


async def test_a_socket_that_is_told_to_go_has_time_to_say_goodbye() -> None:
    async with staged() as (it, origin):
        origin.script = on_head(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        async with client(it) as wire:
            wire.send(b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            await wire.seen(b"101")

            it.dockscale.entry.close_tunnels()

            await wire.seen(b"\x88\x02\x03\xf4")
            wire.send(b"\x88\x80mask")
            await wire.over()
        assert wire.ended == "fin"
