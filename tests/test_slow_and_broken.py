"""Clients and instances that are slow, silent or gone: each gets its end, and gives back what it held."""

import asyncio
import json

import pytest

from tests.support.http1 import Broken, read_answer
from tests.support.origin import OK, Origin, Spoken, Wire, client, exchange, idle, on_head, replies, staged
from tests.support.world import World, until, world

HOST = b"Host: web.localhost\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
LAST = b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\n" + HOST
UPLOAD = POST + b"Content-Length: 1000\r\n\r\n"
LENGTH_1000 = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n" + b"x" * 40_000_000


def status_and_word(wire: Wire) -> tuple[int, str]:
    answer = read_answer(bytes(wire.got), ended=True)
    assert answer.size == len(wire.got)
    return answer.status, json.loads(answer.body)["error"]


async def goes_on(it: World, origin: Origin) -> bool:
    """Tell whether every place was given back and the next request is served."""
    await idle(it)
    origin.script = replies(OK)
    return read_answer(bytes((await exchange(it, LAST)).got)).body == b"ok"


async def in_flight(it: World) -> None:
    await until(lambda: it.app().pool.in_flight == 1, "a request has a place")


# Slow clients.


async def test_a_client_that_leaves_while_its_body_is_held_back_gives_its_place_back() -> None:
    async with staged() as (it, origin):

        async def script(wire: Spoken) -> None:
            await wire.head()
            wire.transport.pause_reading()
            await asyncio.Event().wait()

        origin.script = script
        async with client(it) as wire:
            wire.send(POST + b"Content-Length: 40000000\r\n\r\n" + b"x" * 20_000_000)
            [own] = it.dockscale.main.clients
            await until(lambda: not own.transport.is_reading(), "it is held back")

            wire.reset()

            await idle(it)


@pytest.mark.parametrize("begun", [b"G", b"GET /a HTTP/1.1\r\n", GET[:-2]], ids=["a byte", "a line", "all but the end"])
async def test_a_head_that_comes_too_slowly_is_refused(begun: bytes) -> None:
    async with staged(header_timeout=0.15) as (it, origin):
        async with client(it) as wire:
            wire.send(begun)
            await wire.over()

        assert status_and_word(wire) == (408, "too_slow")
        assert wire.ended == "fin"
        assert origin.got == b""
        assert await goes_on(it, origin)


async def test_dripping_a_head_wins_no_time() -> None:
    async with staged(header_timeout=0.15) as (it, origin):
        async with client(it) as wire:
            await wire.drip(b"GET /a HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 10_000, 0.01)
            await wire.over()

        assert status_and_word(wire) == (408, "too_slow")
        assert origin.got == b""


async def test_the_second_head_is_held_to_the_same_time() -> None:
    async with staged(header_timeout=0.15) as (it, _):
        async with client(it) as wire:
            wire.send(GET + b"GET")
            await wire.over()

        first = read_answer(bytes(wire.got))
        assert first.status == 200
        assert read_answer(bytes(wire.got[first.size :])).status == 408


async def test_a_connection_on_which_nothing_comes_is_closed_without_a_word() -> None:
    async with staged(keepalive_timeout=0.15, header_timeout=0.15) as (it, _):
        async with client(it) as wire:
            await wire.over()

        assert wire.got == b""


async def test_a_connection_that_rests_after_an_answer_is_closed_without_a_word() -> None:
    async with staged(keepalive_timeout=0.15) as (it, _):
        async with client(it) as wire:
            wire.send(GET)
            await wire.over()

        assert read_answer(bytes(wire.got)).size == len(wire.got)


async def test_a_request_that_takes_longer_than_a_connection_may_rest_is_served() -> None:
    async with staged(keepalive_timeout=0.1, header_timeout=0.1, client_timeout=0.1) as (it, origin):

        async def script(wire: Spoken) -> None:
            await wire.request()
            await asyncio.sleep(0.5)
            wire.send(OK)

        origin.script = script
        wire = await exchange(it, LAST)

        assert read_answer(bytes(wire.got)).body == b"ok"


@pytest.mark.parametrize(
    "begun",
    [UPLOAD + b"a" * 10, UPLOAD, POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe"],
    ids=["in the body", "before it", "in a chunk"],
)
async def test_a_body_that_stalls_is_refused_and_gives_its_place_back(begun: bytes) -> None:
    async with staged(client_timeout=0.15) as (it, origin):
        async with client(it) as wire:
            wire.send(begun)
            await wire.over()

        assert status_and_word(wire) == (408, "too_slow")
        await until(lambda: all(each.ended for each in origin.wires), "the instance's connection is cut")
        assert await goes_on(it, origin)


async def test_a_body_that_comes_slowly_but_comes_is_taken() -> None:
    async with staged(client_timeout=0.3) as (it, origin):
        async with client(it) as wire:
            wire.send(POST + b"Connection: close\r\nContent-Length: 40\r\n\r\n")
            await wire.drip(b"a" * 40, 0.02)
            await wire.over()

        assert read_answer(bytes(wire.got)).body == b"ok"
        assert origin.requests[0].endswith(b"a" * 40)


async def test_a_client_that_takes_nothing_is_cut_and_its_place_given_back() -> None:
    async with staged(client_timeout=0.2) as (it, origin):
        origin.script = replies(BIG)
        async with client(it, buffer=4096) as wire:
            wire.transport.pause_reading()
            wire.send(GET)
            await in_flight(it)

            await idle(it)
        assert await goes_on(it, origin)


async def test_a_client_that_takes_little_but_takes_is_let_be() -> None:
    async with staged(client_timeout=0.5) as (it, origin):
        size = 6_000_000
        origin.script = replies(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        async with client(it, buffer=65536) as wire:
            wire.send(LAST)
            async with asyncio.timeout(10):
                while not wire.ended:
                    wire.transport.pause_reading()
                    await asyncio.sleep(0.01)
                    wire.transport.resume_reading()
                    await asyncio.sleep(0.002)

        assert len(read_answer(bytes(wire.got)).body) == size


# Clients that go away.


@pytest.mark.parametrize("how", ["reset", "close", "finish"])
async def test_a_client_that_goes_in_a_head_leaves_nothing_behind(how: str) -> None:
    async with staged() as (it, origin):
        async with client(it) as wire:
            wire.send(GET[:20])
            await asyncio.sleep(0)
            getattr(wire, how)()
            await wire.until(lambda: wire.ended or wire.lost)

        assert origin.got == b""
        assert await goes_on(it, origin)


@pytest.mark.parametrize("how", ["reset", "close", "finish"])
async def test_a_client_that_goes_in_a_body_ends_the_request_at_the_instance(how: str) -> None:
    async with staged() as (it, origin):
        async with client(it) as wire:
            wire.send(UPLOAD + b"half")
            await until(lambda: b"half" in origin.got)
            getattr(wire, how)()

            await until(lambda: all(each.ended for each in origin.wires), "the instance's connection is cut")
        assert await goes_on(it, origin)
        assert it.app().stats.requests[499] == 1


@pytest.mark.parametrize("how", ["reset", "close", "finish"])
async def test_a_client_that_goes_before_its_answer_gives_its_place_back(how: str) -> None:
    async with staged() as (it, origin):
        origin.script = on_head()
        async with client(it) as wire:
            wire.send(GET)
            await until(lambda: origin.got)
            getattr(wire, how)()

            await idle(it)
        await until(lambda: all(each.ended for each in origin.wires), "the instance's connection is cut")
        assert await goes_on(it, origin)
        assert it.app().stats.requests[499] == 1


@pytest.mark.parametrize("how", ["reset", "close", "finish"])
async def test_a_client_that_goes_while_its_answer_comes_gives_its_place_back(how: str) -> None:
    async with staged() as (it, origin):
        origin.script = on_head(LENGTH_1000 + b"half")
        async with client(it) as wire:
            wire.send(GET)
            await wire.seen(b"half")
            getattr(wire, how)()

            await idle(it)
        await until(lambda: all(each.ended for each in origin.wires), "the instance's connection is cut")
        assert await goes_on(it, origin)


@pytest.mark.parametrize("how", ["reset", "close", "finish"])
async def test_a_client_that_goes_while_it_waits_leaves_the_line(how: str) -> None:
    async with staged({"autoscaling.max_concurrency": "1"}) as (it, origin):
        origin.script = on_head()
        async with client(it) as first, client(it) as second:
            first.send(GET)
            await in_flight(it)
            second.send(GET)
            await until(lambda: it.app().pool.waiting == 1, "the second waits")

            getattr(second, how)()
            await until(lambda: it.app().pool.waiting == 0, "the line is empty")

            assert it.app().pool.in_flight == 1
        assert await goes_on(it, origin)
        assert origin.requests == [origin.requests[-1]]


async def test_a_client_that_goes_while_nothing_runs_leaves_the_line() -> None:
    async with world() as it:
        gate = asyncio.Event()
        [program] = it.engine.programs.values()
        program.gate = gate
        async with client(it) as wire:
            wire.send(GET)
            await until(lambda: it.app().pool.waiting == 1, "the request waits for a start")

            wire.reset()

            await idle(it)
        gate.set()
        assert (await it.get())[0] == 200


async def test_a_client_that_goes_with_requests_unanswered_has_none_of_them_sent() -> None:
    async with staged() as (it, origin):
        origin.script = on_head()
        async with client(it) as wire:
            wire.send(GET + b"POST /b HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
            await until(lambda: origin.got)
            wire.reset()

            await idle(it)
        assert await goes_on(it, origin)
        assert b"/b" not in origin.got


# Instances that go away.


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_an_instance_that_takes_no_connection_is_a_bad_gateway(method: bytes) -> None:
    async with staged() as (it, origin):
        [instance] = it.app().pool
        instance.address = (origin.address[0], 1)  # nobody listens there

        wire = await exchange(it, LAST.replace(b"GET", method))

        assert status_and_word(wire) == (502, "instance_died")
        instance.address = origin.address
        assert await goes_on(it, origin)


@pytest.mark.parametrize("end", [Spoken.close, Spoken.reset, Spoken.finish], ids=["close", "reset", "finish"])
@pytest.mark.parametrize(("method", "sent"), [(b"GET", 3), (b"PUT", 3), (b"POST", 1), (b"PATCH", 1)])
async def test_only_what_may_be_sent_twice_is_sent_again_when_no_answer_comes(
    method: bytes, sent: int, end: object
) -> None:
    async with staged() as (it, origin):
        origin.script = replies(then=end)  # type: ignore[arg-type]  # a method of Spoken, whichever

        wire = await exchange(it, LAST.replace(b"GET", method))

        assert status_and_word(wire) == (502, "instance_died")
        assert len(origin.requests) == sent
        assert await goes_on(it, origin)


@pytest.mark.parametrize("method", [b"PUT", b"POST"])
async def test_a_request_whose_body_has_begun_is_not_sent_again(method: bytes) -> None:
    async with staged() as (it, origin):
        origin.script = replies(then=Spoken.reset)

        sent = method + b" /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"
        wire = await exchange(it, sent)

        assert status_and_word(wire) == (502, "instance_died")
        assert len(origin.requests) == 1
        assert await goes_on(it, origin)


@pytest.mark.parametrize("end", [Spoken.close, Spoken.reset], ids=["close", "reset"])
async def test_an_instance_that_goes_in_its_answers_head_is_a_bad_gateway(end: object) -> None:
    async with staged() as (it, origin):

        async def script(wire: Spoken) -> None:
            await wire.request()
            wire.send(b"HTTP/1.1 200 OK\r\nContent-")
            await asyncio.sleep(0.02)  # for the bytes to be read before a reset takes them back
            end(wire)  # type: ignore[operator]  # a method of Spoken, whichever
            raise ConnectionError

        origin.script = script
        wire = await exchange(it, LAST)

        assert status_and_word(wire)[0] == 502
        assert len(origin.requests) == 1
        assert await goes_on(it, origin)


@pytest.mark.parametrize("how", ["close", "reset", "finish"])
@pytest.mark.parametrize("framing", [b"Content-Length: 99", b"Transfer-Encoding: chunked"])
async def test_an_instance_that_goes_in_its_answers_body_cuts_the_client(framing: bytes, how: str) -> None:
    async with staged() as (it, origin):
        origin.script = on_head(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n4\r\nhalf\r\n")
        async with client(it) as wire:
            wire.send(GET)
            await wire.seen(b"half")
            getattr(origin.wires[0], how)()
            await wire.over()

        with pytest.raises(Broken):
            read_answer(bytes(wire.got), ended=True)
        await idle(it)
        assert it.app().stats.requests[502] == 1
        assert await goes_on(it, origin)


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_an_instance_that_goes_in_an_upload_is_a_bad_gateway(how: str) -> None:
    async with staged() as (it, origin):
        async with client(it) as wire:
            wire.send(UPLOAD + b"half")
            await until(lambda: b"half" in origin.got)
            getattr(origin.wires[0], how)()
            await wire.over()

        assert status_and_word(wire) == (502, "instance_died")
        assert await goes_on(it, origin)


async def test_an_instance_that_reads_nothing_holds_the_client_back_until_it_is_too_late() -> None:
    async with staged(response_timeout=0.3) as (it, origin):

        async def script(wire: Spoken) -> None:
            wire.transport.pause_reading()
            await until(lambda: it.app().pool.in_flight == 0, "dockscale gave up")
            raise ConnectionError

        origin.script = script
        async with client(it) as wire:
            wire.send(POST + b"Content-Length: 40000000\r\n\r\n" + b"x" * 40_000_000)
            await wire.over()

        assert b" 504 " in wire.got[:20]
        assert await goes_on(it, origin)


async def test_an_instance_that_never_answers_is_a_gateway_timeout() -> None:
    async with staged(response_timeout=0.2) as (it, origin):
        origin.script = on_head()

        wire = await exchange(it, LAST)

        assert status_and_word(wire) == (504, "no_answer")
        assert len(origin.wires) == 1
        assert await goes_on(it, origin)


async def test_an_answer_that_stalls_is_cut() -> None:
    async with staged(response_timeout=0.2) as (it, origin):
        origin.script = on_head(LENGTH_1000 + b"half")

        wire = await exchange(it, LAST)

        with pytest.raises(Broken):
            read_answer(bytes(wire.got), ended=True)
        assert await goes_on(it, origin)


# Connections that are closed just when they are used.


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_kept_connection_that_the_instance_closes_loses_no_request(method: bytes, how: str) -> None:
    async with staged() as (it, origin):
        for _ in range(10):
            await exchange(it, LAST)
            for wire in origin.wires:
                getattr(wire, how)()

            answered = await exchange(it, LAST.replace(b"GET", method))

            assert read_answer(bytes(answered.got)).status == 200


async def test_a_request_on_a_kept_connection_that_dies_under_it_is_sent_again() -> None:
    async with staged() as (it, origin):
        died = []

        async def script(wire: Spoken) -> None:
            await wire.request()
            if wire is origin.wires[0] and len(origin.requests) == 2:
                died.append(wire)
                wire.reset()
                raise ConnectionError
            wire.send(OK)

        origin.script = script
        await exchange(it, LAST)
        again = await exchange(it, LAST)

        assert len(died) == 1
        assert read_answer(bytes(again.got)).body == b"ok"
        assert await goes_on(it, origin)


async def test_a_request_in_the_moment_in_which_its_connection_is_closed_is_answered_or_was_never_sent_on() -> None:
    async with staged(keepalive_timeout=0.1) as (it, origin):
        for step in range(8):
            origin.forget()
            async with client(it) as wire:
                wire.send(GET)
                await wire.seen(b"\r\n\r\nok")
                await asyncio.sleep(0.09 + step * 0.004)
                wire.send(GET)
                await wire.until(lambda: wire.ended or wire.lost)

            await idle(it)
            assert len(origin.requests) == wire.got.count(b"\r\n\r\nok")
