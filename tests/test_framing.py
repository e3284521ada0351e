"""Where one message ends and the next begins: what is refused, and byte for byte what passes, on bare sockets."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.support.http1 import Broken, Fields, Message, read_answer, read_request, read_requests
from tests.support.origin import OK, Origin, Spoken, Wire, client, exchange, idle, on_head, replies, staged
from tests.support.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST = b"Host: web.localhost\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST
POST = b"POST /a HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSE = b"Connection: close\r\n"
NEXT = b"GET /smuggled HTTP/1.1\r\nHost: web.localhost\r\n\r\n"
"""What follows each request that is refused, and must never be read as one."""

ADDED = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix", b"x-request-id")
REWRITTEN = ("Content-Length", "Transfer-Encoding", "Connection", "TE", "Upgrade")
CONTROLS = [byte for byte in (*range(32), 127) if byte not in b"\t\r\n"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[tuple[World, Origin]]:
    async with staged() as it:
        yield it


@pytest_asyncio.fixture(loop_scope="module")
async def it(stage: tuple[World, Origin]) -> AsyncIterator[World]:
    stage[1].forget()
    yield stage[0]
    await idle(stage[0])


@pytest.fixture
def origin(stage: tuple[World, Origin]) -> Origin:
    return stage[1]


def error_in(wire: Wire) -> tuple[int, str]:
    """The status and the word of an error that is all that came, and after which the connection was closed in order."""
    answer = read_answer(bytes(wire.got), ended=True)
    assert answer.size == len(wire.got)
    assert wire.ended == "fin"
    assert answer.values("Connection") == [b"close"]
    body = json.loads(answer.body)
    assert {"error", "message", "request_id"} <= body.keys()
    return answer.status, body["error"]


def only_request(origin: Origin) -> Message:
    """The one request that the origin got, each line of whose head is written as `Name: value`."""
    assert origin.faults == []
    [message], fault = read_requests(origin.got)
    assert fault is None
    lines = [message.start, *(name + b": " + value for name, value in message.fields)]
    head = b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    assert origin.got.startswith(head)
    return message


def own_fields(message: Message) -> Fields:
    """The fields that the client sent, without those that dockscale writes anew or adds."""
    return tuple(pair for pair in message.without(*REWRITTEN) if pair[0].lower() not in ADDED)


# What is refused.

BAD_HEADS: dict[str, bytes] = {
    "Content-Length with Transfer-Encoding": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding with Content-Length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two equal Content-Lengths": POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "two Content-Lengths": POST + b"Content-Length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "a list as Content-Length": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "Content-Length +5": POST + b"Content-Length: +5\r\n\r\nhello",
    "Content-Length -5": POST + b"Content-Length: -5\r\n\r\nhello",
    "Content-Length 5x": POST + b"Content-Length: 5x\r\n\r\nhello",
    "Content-Length 0x5": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "Content-Length 5_0": POST + b"Content-Length: 5_0\r\n\r\nhello",
    "Content-Length 5 5": POST + b"Content-Length: 5 5\r\n\r\nhello",
    "Content-Length 5.0": POST + b"Content-Length: 5.0\r\n\r\nhello",
    "Content-Length in other digits": POST + "Content-Length: ٥\r\n\r\nhello".encode(),
    "Content-Length in superscript": POST + b"Content-Length: \xb2\r\n\r\nhello",
    "empty Content-Length": POST + b"Content-Length:\r\n\r\nhello",
    "blank Content-Length": POST + b"Content-Length: \t \r\n\r\nhello",
    "Content-Length of 20 digits": POST + b"Content-Length: 00000000000000000005\r\n\r\nhello",
    "a GET's Content-Length": GET + b"Content-Length: x\r\n\r\n",
    "Transfer-Encoding identity": POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding gzip": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding chunked, gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding chunked, identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two Transfer-Encodings": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "gzip and chunked in two lines": POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked with a quote": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunked after a vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked after a no-break space": POST + b"Transfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n",
    "empty Transfer-Encoding": POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding in HTTP/1.0": b"POST /a HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": GET + b"X-A: 1\r\n 2\r\n\r\n",
    "a folded line with a tab": GET + b"X-A: 1\r\n\t2\r\n\r\n",
    "a folded Transfer-Encoding": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "a first line that is folded": b"GET /a HTTP/1.1\r\n X-A: 1\r\n" + HOST + b"\r\n",
    "a blank line of spaces": GET + b" \r\n\r\n",
    "bare LF after the request line": b"GET /a HTTP/1.1\nHost: web.localhost\r\n\r\n",
    "bare LF after a field": b"GET /a HTTP/1.1\r\nHost: web.localhost\nX-A: 1\r\n\r\n",
    "bare LF everywhere": b"GET /a HTTP/1.1\nHost: web.localhost\n\n",
    "bare LF as the empty line": GET + b"\n",
    "bare LF in a value": GET + b"X-A: 1\nX-B: 2\r\n\r\n",
    "bare LF before the request line": b"\n" + GET + b"\r\n",
    "bare CR before the request line": b"\r" + GET + b"\r\n",
    "bare CR in a value": GET + b"X-A: 1\rX-B: 2\r\n\r\n",
    "bare CR at a value's end": GET + b"X-A: 1\r\r\n\r\n",
    "bare CR in the target": b"GET /a\rb HTTP/1.1\r\n" + HOST + b"\r\n",
    "bare CR after the version": b"GET /a HTTP/1.1\r\r\n" + HOST + b"\r\n",
    "bare CR in the empty line": GET + b"\r\r\n\r\n",
    "bare CRs for line ends": b"GET /a HTTP/1.1\rHost: web.localhost\r\r\r\n\r\n",
    "space before the colon": GET + b"X-A : 1\r\n\r\n",
    "tab before the colon": GET + b"X-A\t: 1\r\n\r\n",
    "space before Content-Length's colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "space before Transfer-Encoding's colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a line without a colon": GET + b"X-A\r\n\r\n",
    "an empty name": GET + b": 1\r\n\r\n",
    "a name with a space": GET + b"X A: 1\r\n\r\n",
    "a name with a high byte": GET + b"X-\xe9: 1\r\n\r\n",
    "a name with a separator": GET + b"X(A): 1\r\n\r\n",
    "space in the target": b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    "two spaces before the target": b"GET  /a HTTP/1.1\r\n" + HOST + b"\r\n",
    "two spaces after the target": b"GET /a  HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space before the method": b" GET /a HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space after the version": b"GET /a HTTP/1.1 \r\n" + HOST + b"\r\n",
    "tabs for spaces": b"GET\t/a\tHTTP/1.1\r\n" + HOST + b"\r\n",
    "no version": b"GET /a\r\n" + HOST + b"\r\n",
    "no target": b"GET HTTP/1.1\r\n" + HOST + b"\r\n",
    "an empty target": b"GET  HTTP/1.1\r\n" + HOST + b"\r\n",
    "a version in small letters": b"GET /a http/1.1\r\n" + HOST + b"\r\n",
    "a method that is no token": b"GE(T /a HTTP/1.1\r\n" + HOST + b"\r\n",
    "a method with a high byte": b"G\xc9T /a HTTP/1.1\r\n" + HOST + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no Host": b"GET /a HTTP/1.1\r\n\r\n",
    "two Hosts": GET + HOST + b"\r\n",
    "two Hosts that differ": GET + b"host: other.localhost\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET /a HTTP/1.0\r\n" + HOST + HOST + b"\r\n",
    "an empty Host": b"GET /a HTTP/1.1\r\nHost:\r\n\r\n",
    "a Host with a space": b"GET /a HTTP/1.1\r\nHost: web.localhost b\r\n\r\n",
    "a Host with a slash": b"GET /a HTTP/1.1\r\nHost: web.localhost/b\r\n\r\n",
    "a Host with a user": b"GET /a HTTP/1.1\r\nHost: user@web.localhost\r\n\r\n",
    "a Host with a word for a port": b"GET /a HTTP/1.1\r\nHost: web.localhost:port\r\n\r\n",
    "a Host that is a list": b"GET /a HTTP/1.1\r\nHost: web.localhost, other.localhost\r\n\r\n",
    "a Host with a high byte": b"GET /a HTTP/1.1\r\nHost: web\xff.localhost\r\n\r\n",
    "a target that is no path": b"GET a HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target of another scheme": b"GET ftp://web.localhost/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target with a user": b"GET http://user@web.localhost/a HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target without an authority": b"GET http:///a HTTP/1.1\r\n" + HOST + b"\r\n",
    "a target that begins with a question": b"GET ?a HTTP/1.1\r\n" + HOST + b"\r\n",
    "* for GET": b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    "a fragment": b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n",
}  # fmt: skip

OTHER_REFUSALS: dict[str, tuple[bytes, int, str]] = {
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "not_implemented"),
    "CONNECT": (b"CONNECT web.localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n", 501, "not_implemented"),
    "HTTP/2.0": (b"GET /a HTTP/2.0\r\n" + HOST + b"\r\n", 505, ""),
    "HTTP/1.2": (b"GET /a HTTP/1.2\r\n" + HOST + b"\r\n", 505, ""),
    "HTTP/1": (b"GET /a HTTP/1\r\n" + HOST + b"\r\n", 505, ""),
    "HTTP/0.9": (b"GET /a HTTP/0.9\r\n" + HOST + b"\r\n", 505, ""),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ""),
    "an unknown Expect": (POST + b"Expect: miracles\r\nContent-Length: 5\r\n\r\nhello", 417, ""),
    "a long target": (b"GET /" + b"a" * 33000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "target_too_long"),
    "a target without an end": (b"GET /" + b"a" * 33000, 414, "target_too_long"),
    "a long field": (GET + b"X-A: " + b"a" * 33000 + b"\r\n\r\n", 431, "headers_too_large"),
    "a field without an end": (GET + b"X-A: " + b"a" * 33000, 431, "headers_too_large"),
    "many long fields": (GET + b"X-A: aaaaaaaaaaaaaaaaaaaaaaa\r\n" * 1200 + b"\r\n", 431, "headers_too_large"),
    "257 fields": (GET + b"X-A: 1\r\n" * 256 + b"\r\n", 431, "headers_too_large"),
}

# Complete heads, then bodies that are none.
BAD_BODIES: dict[str, bytes] = {
    "a size that is no number": b"xyz\r\nhello\r\n0\r\n\r\n",
    "an empty size": b"\r\nhello\r\n0\r\n\r\n",
    "an empty size with an extension": b";a=b\r\nhello\r\n0\r\n\r\n",
    "a size with a plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size with a minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "a size after a space": b" 5\r\nhello\r\n0\r\n\r\n",
    "a size before a space": b"5 \r\nhello\r\n0\r\n\r\n",
    "a size before a tab": b"5\t\r\nhello\r\n0\r\n\r\n",
    "a size of 17 digits": b"00000000000000005\r\nhello\r\n0\r\n\r\n",
    "a huge size": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a size and a word": b"5 hello\r\nhello\r\n0\r\n\r\n",
    "no CRLF after the data": b"5\r\nhello0\r\n\r\n",
    "data longer than its size": b"5\r\nhello!\r\n0\r\n\r\n",
    "bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "bare LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "bare CR after the data": b"5\r\nhello\r0\r\n\r\n",
    "bare CR after the size": b"5\rhello\r\n0\r\n\r\n",
    "bare LF after the last size": b"5\r\nhello\r\n0\n\r\n",
    "bare LF as the last line": b"5\r\nhello\r\n0\r\n\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "NUL in an extension": b"5;a\0b\r\nhello\r\n0\r\n\r\n",
    "DEL in an extension": b"5;a\x7fb\r\nhello\r\n0\r\n\r\n",
    "a long extension": b"5;" + b"a" * 1023 + b"\r\nhello\r\n0\r\n\r\n",
    "an extension without an end": b"5;" + b"a" * 3000,
    "a trailer without a colon": b"5\r\nhello\r\n0\r\nX-A\r\n\r\n",
    "a trailer with a space before its colon": b"5\r\nhello\r\n0\r\nX-A : 1\r\n\r\n",
    "a folded trailer": b"5\r\nhello\r\n0\r\nX-A: 1\r\n 2\r\n\r\n",
    "a trailer with a bare LF": b"5\r\nhello\r\n0\r\nX-A: 1\nX-B: 2\r\n\r\n",
    "a trailer with NUL": b"5\r\nhello\r\n0\r\nX-A: \0\r\n\r\n",
    "long trailers": b"5\r\nhello\r\n0\r\n" + b"X-A: aaaaaaaaaaaa\r\n" * 500 + b"\r\n",
    "a trailer without an end": b"5\r\nhello\r\n0\r\nX-A: " + b"a" * 9000,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_HEADS)
async def test_a_head_that_can_be_read_in_two_ways_is_refused(it: World, origin: Origin, name: str) -> None:
    wire = await exchange(it, BAD_HEADS[name] + NEXT)

    assert error_in(wire) == (400, "bad_request")
    assert origin.got == b""


@pytest.mark.parametrize("name", OTHER_REFUSALS)
async def test_what_dockscale_does_not_do_is_refused_with_its_own_status(it: World, origin: Origin, name: str) -> None:
    sent, status, word = OTHER_REFUSALS[name]

    wire = await exchange(it, sent + NEXT)

    assert error_in(wire)[0] == status
    assert word in ("", error_in(wire)[1])
    assert origin.got == b""


@pytest.mark.parametrize("place", ["method", "target", "version", "name", "value", "at the value's end", "Host"])
async def test_a_control_byte_anywhere_in_a_head_is_refused(it: World, origin: Origin, place: str) -> None:
    refused = {}
    for byte in CONTROLS:
        at = dict.fromkeys(("method", "target", "version", "name", "value", "at the value's end", "Host"), b"")
        at[place] = bytes([byte])
        wire = await exchange(
            it,
            b"G" + at["method"] + b"ET /" + at["target"] + b"a HTTP/1.1" + at["version"] + b"\r\nHost: web"
            + at["Host"] + b".localhost\r\nX-" + at["name"] + b"A: 1" + at["value"] + b"2" + at["at the value's end"]
            + b"\r\n\r\n" + NEXT,
        )  # fmt: skip
        refused[byte] = error_in(wire)

    assert set(refused.values()) == {(400, "bad_request")}, refused
    assert origin.got == b""


@pytest.mark.parametrize("name", BAD_BODIES)
@pytest.mark.parametrize("begun", [False, True], ids=["at once", "after its head"])
async def test_a_broken_chunk_never_becomes_the_end_of_a_request(
    it: World, origin: Origin, name: str, begun: bool
) -> None:
    async with client(it) as wire:
        wire.send(CHUNKED)
        if begun:
            wire.send(b"3\r\nabc\r\n")
            await until(lambda: b"abc" in origin.got)
        wire.send(BAD_BODIES[name] + NEXT)
        await wire.over()

    assert error_in(wire) == (400, "bad_request")
    await until(lambda: all(each.ended for each in origin.wires if each.got), "the origin's connection is cut")
    assert b"smuggled" not in origin.got
    with pytest.raises(Broken):
        read_request(origin.got)


async def test_a_broken_chunk_after_the_answers_head_cuts_the_connection(it: World, origin: Origin) -> None:
    origin.script = on_head(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
    async with client(it) as wire:
        wire.send(CHUNKED)
        await wire.seen(b"he")
        wire.send(b"x\r\n" + NEXT)
        await wire.over()

    assert wire.got.endswith(b"\r\n\r\nhe")
    await until(lambda: all(each.ended for each in origin.wires if each.got))
    assert b"smuggled" not in origin.got


async def test_what_was_answered_before_a_broken_request_stays_answered(it: World, origin: Origin) -> None:
    wire = await exchange(it, GET + b"\r\n" + POST + b"Content-Length: x\r\n\r\n" + NEXT)

    first = read_answer(bytes(wire.got))
    assert (first.status, first.body) == (200, b"ok")
    assert read_answer(bytes(wire.got[first.size :])).status == 400
    assert only_request(origin).start == b"GET /a HTTP/1.1"


@pytest.mark.parametrize(
    "sent",
    [POST + b"Content-Length: 11\r\n\r\n", CHUNKED + b"b\r\nhello world", CHUNKED + b"6\r\nhello \r\n5\r\nworld\r\n"],
)
async def test_a_body_above_the_bound_is_refused(sent: bytes) -> None:
    async with staged(max_body_bytes=10) as (it, origin):
        wire = await exchange(it, sent)

        assert error_in(wire) == (413, "body_too_large")
        assert len(origin.got.partition(b"\r\n\r\n")[2]) < 30
        await idle(it)


async def test_a_body_just_at_the_bound_passes() -> None:
    async with staged(max_body_bytes=10) as (it, origin):
        await exchange(it, POST + CLOSE + b"Content-Length: 10\r\n\r\n0123456789")
        await exchange(it, POST + CLOSE + b"Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n")

        messages = [message for wire in origin.wires for message in read_requests(bytes(wire.got))[0]]
        assert [message.body for message in messages] == [b"0123456789", b"0123456789"]


async def test_the_bound_of_a_head_can_be_set() -> None:
    async with staged(max_header_bytes=1024) as (it, _):
        fits = await exchange(it, GET + CLOSE + b"X-A: " + b"a" * 800 + b"\r\n\r\n")
        too_large = await exchange(it, GET + b"X-A: " + b"a" * 1000 + b"\r\n\r\n")
        too_long = await exchange(it, b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\n" + HOST + b"\r\n")

    assert read_answer(bytes(fits.got)).status == 200
    assert error_in(too_large) == (431, "headers_too_large")
    assert error_in(too_long) == (414, "target_too_long")


# What passes.

PATHS: dict[str, tuple[bytes, bytes]] = {
    "a path": (b"GET /a/b HTTP/1.1", b"GET /a/b HTTP/1.1"),
    "a query": (b"GET /a?b=c&d HTTP/1.1", b"GET /a?b=c&d HTTP/1.1"),
    "a lone question mark": (b"GET /a? HTTP/1.1", b"GET /a? HTTP/1.1"),
    "question marks": (b"GET /a??b? HTTP/1.1", b"GET /a??b? HTTP/1.1"),
    "percent encodings as they are": (b"GET /%7Ea%2f%e9%zz HTTP/1.1", b"GET /%7Ea%2f%e9%zz HTTP/1.1"),
    "high bytes": (b"GET /\xc3\xa9\xff\x80?\xfe HTTP/1.1", b"GET /\xc3\xa9\xff\x80?\xfe HTTP/1.1"),
    "odd signs": (b"GET /\"<>\\^`{|}'[];@!$,:= HTTP/1.1", b"GET /\"<>\\^`{|}'[];@!$,:= HTTP/1.1"),
    "two slashes": (b"GET //a//b HTTP/1.1", b"GET //a//b HTTP/1.1"),
    "another method": (b"M-SEARCH!#$%&'*+.^_`|~ /a HTTP/1.1", b"M-SEARCH!#$%&'*+.^_`|~ /a HTTP/1.1"),
    "a method in small letters": (b"get /a HTTP/1.1", b"get /a HTTP/1.1"),
    "an absolute target": (b"GET http://web.localhost/a?b HTTP/1.1", b"GET /a?b HTTP/1.1"),
    "an absolute target, https": (b"GET HTTPS://web.localhost/a? HTTP/1.1", b"GET /a? HTTP/1.1"),
    "an absolute target without a path": (b"GET http://web.localhost HTTP/1.1", b"GET / HTTP/1.1"),
    "* for OPTIONS": (b"OPTIONS * HTTP/1.1", b"OPTIONS * HTTP/1.1"),
    "an old version": (b"GET /a HTTP/1.0", b"GET /a HTTP/1.1"),
    "an empty line before": (b"\r\nGET /a HTTP/1.1", b"GET /a HTTP/1.1"),
    "two empty lines before": (b"\r\n\r\nGET /a HTTP/1.1", b"GET /a HTTP/1.1"),
}  # fmt: skip

FIELDS: dict[str, tuple[bytes, list[tuple[bytes, bytes]]]] = {
    "in order, with their names as sent": (
        b"x-B: 2\r\nX-a: 1\r\nx-b: 3\r\n", [(b"x-B", b"2"), (b"X-a", b"1"), (b"x-b", b"3")],
    ),
    "blanks around values trimmed": (b"X-A: \t 1 \t 2 \t\r\nX-B:3\r\n", [(b"X-A", b"1 \t 2"), (b"X-B", b"3")]),
    "an empty value": (b"X-A:\r\nX-B: \r\n", [(b"X-A", b""), (b"X-B", b"")]),
    "high bytes": (b"X-A: \x80\xff\xc3\xa9 caf\xe9\r\n", [(b"X-A", b"\x80\xff\xc3\xa9 caf\xe9")]),
    "high bytes that look like blanks at the ends": (b"X-A: \xa01\x85\r\n", [(b"X-A", b"\xa01\x85")]),
    "colons": (b"X-A: :b:c\r\n", [(b"X-A", b":b:c")]),
    "odd names": (b"!#$%&'*+-.^_`|~0Az: 1\r\n", [(b"!#$%&'*+-.^_`|~0Az", b"1")]),
    "a long value": (b"X-A: " + b"a" * 30000 + b"\r\n", [(b"X-A", b"a" * 30000)]),
    "many": (b"X-A: 1\r\n" * 250, [(b"X-A", b"1")] * 250),
    "none that Connection names": (b"X-A: 1\r\nConnection: x-a,  X-B,\r\nX-B: 2\r\nX-C: 3\r\n", [(b"X-C", b"3")]),
    "none that a second Connection names": (b"Connection: keep-alive\r\nConnection: X-A\r\nX-A: 1\r\n", []),
    "none of one connection": (
        b"Keep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authenticate: x\r\nProxy-Authorization: x\r\nUpgrade: h2c\r\n",
        [],
    ),
    "none of forwarding": (
        (b"Forwarded: for=x\r\nX-Forwarded-For: 1.2.3.4\r\nx-forwarded-host: x\r\nX-FORWARDED-PROTO: x\r\n"
         b"X-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /x\r\nX-Forwarded-Server: x\r\nX-Real-Ip: x\r\n"), [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PATHS)
async def test_the_request_line_passes_byte_for_byte(it: World, origin: Origin, name: str) -> None:
    sent, seen = PATHS[name]

    wire = await exchange(it, sent + b"\r\n" + HOST + CLOSE + b"\r\n")

    assert read_answer(bytes(wire.got)).status == 200
    assert only_request(origin).start == seen
    assert own_fields(only_request(origin)) == ((b"Host", b"web.localhost"),)


@pytest.mark.parametrize("name", FIELDS)
async def test_fields_pass_byte_for_byte(it: World, origin: Origin, name: str) -> None:
    sent, seen = FIELDS[name]

    wire = await exchange(it, GET + CLOSE + sent + b"\r\n")

    assert read_answer(bytes(wire.got)).status == 200
    message = only_request(origin)
    assert list(own_fields(message)) == [(b"Host", b"web.localhost"), *seen]
    assert message.values("Connection") == message.values("Upgrade") == message.values("TE") == []


async def test_what_dockscale_adds_stands_last(it: World, origin: Origin) -> None:
    await exchange(
        it, b"GET /public/apps/web/a? HTTP/1.1\r\nUser-Agent: x\r\nHost: 127.0.0.1:1\r\nConnection: close\r\n\r\n"
    )

    assert re.fullmatch(
        rb"GET /a\? HTTP/1.1\r\nUser-Agent: x\r\nHost: 127.0.0.1:1\r\nX-Forwarded-For: 127.0.0.1\r\n"
        rb"X-Forwarded-Proto: http\r\nX-Forwarded-Host: 127.0.0.1:1\r\nX-Forwarded-Prefix: /public/apps/web\r\n"
        rb"X-Request-Id: [0-9a-f]{16}\r\n\r\n",
        origin.got,
    )


async def test_connection_cannot_take_away_what_frames_or_what_dockscale_adds(it: World, origin: Origin) -> None:
    named = b"Connection: close, Content-Length, Host, X-Forwarded-For, X-Forwarded-Host, X-Request-Id\r\n"
    await exchange(it, POST + named + b"Content-Length: 5\r\n\r\nhello")

    message = only_request(origin)
    assert message.body == b"hello"
    assert message.values("Host") == [b"web.localhost"]
    assert message.values("X-Forwarded-For") == [b"127.0.0.1"]
    assert message.values("X-Forwarded-Host") == [b"web.localhost"]
    assert len(message.values("X-Request-Id")) == 1


async def test_an_absolute_targets_authority_is_the_host(it: World, origin: Origin) -> None:
    await exchange(it, b"GET http://web.localhost:80/a HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n")

    message = only_request(origin)
    assert message.values("Host") == [b"web.localhost:80"]
    assert message.values("X-Forwarded-Host") == [b"web.localhost:80"]


async def test_a_request_that_may_have_no_host_reaches_the_origin_with_one(it: World, origin: Origin) -> None:
    wire = await exchange(it, b"GET /public/apps/web/a HTTP/1.0\r\n\r\n")

    assert read_answer(bytes(wire.got), ended=True).status == 200
    assert len(only_request(origin).values("Host")) == 1


@pytest.mark.parametrize("te", [b"trailers", b"deflate;q=0.5, Trailers"])
async def test_te_tells_of_trailers_and_of_nothing_else(it: World, origin: Origin, te: bytes) -> None:
    await exchange(it, GET + b"Connection: close, TE\r\nTE: " + te + b"\r\n\r\n")

    message = only_request(origin)
    assert message.values("TE") == [b"trailers"]
    assert message.values("Connection") == [b"TE"]


BODIES: dict[str, tuple[bytes, str, bytes, list[tuple[bytes, bytes]]]] = {
    "no body": (b"\r\n", "none", b"", []),
    "an empty body": (b"Content-Length: 0\r\n\r\n", "length", b"", []),
    "a body": (b"Content-Length: 5\r\n\r\nhello", "length", b"hello", []),
    "a length with zeros": (b"Content-Length: 0000000000000000005\r\n\r\nhello", "length", b"hello", []),
    "a body that looks like a request": (b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT, "length", NEXT, []),
    "no chunks": (b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "chunked", b"", []),
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", "chunked", b"hello", []),
    "CHUNKED": (b"transfer-encoding:CHUNKED\t\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "chunked", b"hello", []),
    "sizes with zeros": (
        b"Transfer-Encoding: chunked\r\n\r\n0000000000000005\r\nhello\r\n000\r\n\r\n", "chunked", b"hello", [],
    ),
    "sizes in letters": (
        b"Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", "chunked", b"0123456789", [],
    ),
    "data that looks like an end": (
        b"Transfer-Encoding: chunked\r\n\r\n7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "chunked", b"\r\n0\r\n\r\n", [],
    ),
    "extensions": (b'Transfer-Encoding: chunked\r\n\r\n5;a;b=c;d="e"\r\nhello\r\n0;f\r\n\r\n', "chunked", b"hello", []),
    "trailers": (
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1 \r\nx-sum:\xff\r\n\r\n",
        "chunked", b"hello", [(b"X-Sum", b"1"), (b"x-sum", b"\xff")],
    ),
    "trailers that would frame, route or authorise": (
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: x\r\n"
         b"Connection: X-A\r\nKeep-Alive: 5\r\nX-A: 1\r\nProxy-Authorization: x\r\nTE: x\r\nUpgrade: x\r\n\r\n"),
        "chunked", b"", [(b"X-A", b"1")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("method", [b"POST", b"GET", b"DELETE"])
async def test_bodies_pass_with_their_kind_of_framing(it: World, origin: Origin, method: bytes, name: str) -> None:
    sent, framing, body, trailers = BODIES[name]

    wire = await exchange(it, method + b" /a HTTP/1.1\r\n" + HOST + CLOSE + sent)

    assert read_answer(bytes(wire.got)).status == 200
    message = only_request(origin)
    assert (message.framing, message.body, list(message.trailers)) == (framing, body, trailers)
    assert message.values("Content-Length") == ([b"%d" % len(body)] if framing == "length" else [])
    assert message.values("Transfer-Encoding") == ([b"chunked"] if framing == "chunked" else [])
    assert message.size == len(origin.got)


async def test_a_request_arrives_the_same_however_it_is_cut(it: World, origin: Origin) -> None:
    sent = POST + CLOSE + b"X-Request-Id: r\r\nContent-Length: 5\r\n\r\nhello"
    async with client(it) as wire:
        await wire.drip(sent, 0)
        await wire.over()
    dripped = origin.got
    origin.forget()

    await exchange(it, sent)

    assert origin.got == dripped


async def test_pipelined_requests_are_answered_in_order(it: World, origin: Origin) -> None:
    async def script(wire: Spoken) -> None:
        message = await wire.request()
        said = message.start.split()[1] + message.body
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))

    origin.script = script
    wire = await exchange(
        it,
        b"GET /1 HTTP/1.1\r\n" + HOST + b"\r\n\r\nPOST /2 HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n+b"
        b"PUT /3 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n+c\r\n0\r\n\r\n"
        b"GET /4 HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n" + NEXT,
    )  # fmt: skip

    bodies, rest = [], bytes(wire.got)
    while rest:
        answer = read_answer(rest)
        bodies.append(answer.body)
        rest = rest[answer.size :]
    assert bodies == [b"/1", b"/2+b", b"/3+c", b"/4"]


async def test_an_old_client_that_asks_to_keep_the_connection_keeps_it(it: World, origin: Origin) -> None:
    async with client(it) as wire:
        for number in (1, 2):
            wire.send(b"GET /a HTTP/1.0\r\n" + HOST + b"Connection: Keep-Alive\r\n\r\n")
            await wire.seen(b"\r\n\r\nok" if number == 1 else b"\r\n\r\nokHTTP/1.1 ")
        await wire.until(lambda: wire.got.count(b"\r\n\r\nok") == 2)
        answer = read_answer(bytes(wire.got))

        assert [value.lower() for value in answer.values("Connection")] == [b"keep-alive"]
        assert not wire.ended


@pytest.mark.parametrize("wish", [b"", b"Connection: close\r\n"])
async def test_an_old_client_is_closed_after_its_answer(it: World, origin: Origin, wish: bytes) -> None:
    wire = await exchange(it, b"GET /a HTTP/1.0\r\n" + HOST + wish + b"\r\n")

    assert read_answer(bytes(wire.got)).body == b"ok"
    assert wire.ended == "fin"


# Interim answers.


async def test_expect_is_the_origins_to_answer(it: World, origin: Origin) -> None:
    async def script(wire: Spoken) -> None:
        await wire.head()
        wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await wire.request()
        wire.send(OK)

    origin.script = script
    async with client(it) as wire:
        wire.send(POST + CLOSE + b"Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n")
        await wire.seen(b"100 Continue\r\n\r\n")
        interim = bytes(wire.got)
        wire.send(b"hello")
        await wire.over()

    assert interim == b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    assert read_answer(bytes(wire.got[len(interim) :])).body == b"ok"
    message = only_request(origin)
    assert (message.body, message.values("Expect")) == (b"hello", [b"100-Continue"])


async def test_a_body_is_never_asked_for_by_dockscale_itself(it: World, origin: Origin) -> None:
    origin.script = on_head(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno")

    wire = await exchange(it, POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")

    answer = read_answer(bytes(wire.got))
    assert (answer.status, answer.body, answer.size) == (401, b"no", len(wire.got))
    assert wire.got.startswith(b"HTTP/1.1 401 ")
    assert b"100" not in wire.got.partition(b"X-")[0]


async def test_interim_answers_are_not_for_old_clients(it: World, origin: Origin) -> None:
    origin.script = replies(b"HTTP/1.1 103 Early Hints\r\n\r\n", OK)

    wire = await exchange(it, b"GET /a HTTP/1.0\r\n" + HOST + b"\r\n")

    assert b"103" not in wire.got.partition(b"\r\n")[0]
    assert read_answer(bytes(wire.got)).body == b"ok"


async def test_an_early_answer_passes_while_the_body_is_still_coming(it: World, origin: Origin) -> None:
    origin.script = on_head(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    async with client(it) as wire:
        wire.send(POST + b"Content-Length: 5000000\r\n\r\n" + b"a" * 1000)
        await wire.seen(b"\r\n\r\nno")
        wire.send(b"a" * 100_000)
        await wire.over()

    assert read_answer(bytes(wire.got)).size == len(wire.got)


async def test_an_early_answer_can_be_read_by_a_client_that_reads_last(it: World, origin: Origin) -> None:
    origin.script = on_head(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", then=Spoken.close)
    async with client(it) as wire:
        wire.transport.pause_reading()
        wire.send(POST + b"Content-Length: 5000000\r\n\r\n" + b"a" * 200_000)
        await until(lambda: it.app().pool.in_flight == 0 and origin.got)
        wire.transport.resume_reading()
        await wire.over()

    assert read_answer(bytes(wire.got)).body == b"no"


async def test_an_upgrade_becomes_a_tunnel(it: World, origin: Origin) -> None:
    async def script(wire: Spoken) -> None:
        await wire.request()
        wire.send(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
        await wire.seen(b"bytes")
        wire.send(b"+bytes")
        await wire.until(lambda: wire.ended or wire.lost)
        raise ConnectionError

    origin.script = script
    async with client(it) as wire:
        wire.send(GET + b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        await wire.seen(b"\r\n\r\nhello")
        wire.send(b"\0bytes")
        await wire.seen(b"hello+bytes")

    [sent] = [each.got for each in origin.wires if each.got]
    message = read_request(bytes(sent))
    assert (message.values("Upgrade"), message.values("Connection")) == ([b"echo"], [b"Upgrade"])
    assert sent[message.size :] == b"\0bytes"


# Answers.

LENGTH_5 = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
IN_CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

ANSWERS: dict[str, tuple[bytes, bool, dict[str, Any]]] = {
    "a length": (LENGTH_5 + b"hello", False, {"body": b"hello", "framing": "length"}),
    "no bytes": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", False, {"body": b"", "framing": "length"}),
    "chunks": (IN_CHUNKS + b"3;x\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", False, {"body": b"hello", "framing": "chunked"}),
    "trailers": (IN_CHUNKS + b"0\r\nX-A: \xff\r\n\r\n", False, {"trailers": ((b"X-A", b"\xff"),)}),
    "until the end": (b"HTTP/1.1 200 OK\r\n\r\nhello", True, {"body": b"hello", "framing": "chunked"}),
    "until the end, HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", True, {"body": b"hello", "framing": "chunked"}),
    "a reason": (b"HTTP/1.1 299 It's \xe9\r\nContent-Length: 0\r\n\r\n", False, {"start": b"HTTP/1.1 299 It's \xe9"}),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", False, {"status": 200}),
    "fields in order": (
        b"HTTP/1.1 200 OK\r\nx-B: \xe9\r\nSet-Cookie: a\r\nX-a:1 \r\nset-cookie: b\r\nContent-Length: 0\r\n\r\n", False,
        {"fields": ((b"x-B", b"\xe9"), (b"Set-Cookie", b"a"), (b"X-a", b"1"), (b"set-cookie", b"b"))},
    ),
    "no hop-by-hop fields": (
        (b"HTTP/1.1 200 OK\r\nConnection: X-A\r\nX-A: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nProxy-Authenticate: x\r\n"
         b"X-B: 2\r\nContent-Length: 0\r\n\r\n"), False, {"fields": ((b"X-B", b"2"),)},
    ),
    "interim ones first": (b"HTTP/1.1 103 Hints\r\nX-A: 1\r\n\r\n" + OK, False, {"body": b"ok"}),
    "bytes after it": (LENGTH_5 + b"helloHTTP/1.1 200 OK\r\n\r\n", False, {"body": b"hello"}),
    "204": (b"HTTP/1.1 204 No\r\n\r\n", False, {"status": 204, "framing": "none"}),
    "304 with a length": (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", False, {"status": 304, "framing": "none"}),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", True, {"body": b"ok"}),
}  # fmt: skip

BAD_ANSWERS: dict[str, bytes] = {
    "no HTTP": b"hello\r\n\r\n",
    "another protocol": b"HTTP/2 200\r\nContent-Length: 0\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "a status that is a word": b"HTTP/1.1 OK OK\r\nContent-Length: 0\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "an empty line first": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "NUL in the reason": b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "a length with a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "an empty length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok",
    "two Transfer-Encodings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "bare LF everywhere": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare LF in a value": b"HTTP/1.1 200 OK\r\nX-A: 1\nX-B: 2\r\nContent-Length: 0\r\n\r\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nX-A: 1\r2\r\nContent-Length: 0\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nX-A: \0\r\nContent-Length: 0\r\n\r\n",
    "a control byte": b"HTTP/1.1 200 OK\r\nX-A: \x1b\r\nContent-Length: 0\r\n\r\n",
    "space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    "a line without a colon": b"HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 0\r\n\r\n",
    "an empty name": b"HTTP/1.1 200 OK\r\n: 1\r\nContent-Length: 0\r\n\r\n",
    "a large head": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 66000 + b"\r\nContent-Length: 0\r\n\r\n",
    "a head without an end": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 66000,
    "101 that nobody asked for": b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
    "a broken interim answer": b"HTTP/1.1 103 Hints\r\nX-A\r\n\r\n" + OK,
}  # fmt: skip

BROKEN_OFF: dict[str, bytes] = {
    "fewer bytes than its length": LENGTH_5 + b"hell",
    "no bytes of its length": LENGTH_5,
    "no chunk": IN_CHUNKS,
    "no last chunk": IN_CHUNKS + b"5\r\nhello\r\n",
    "half a chunk": IN_CHUNKS + b"5\r\nhel",
    "half an end": IN_CHUNKS + b"5\r\nhello\r\n0\r\n",
    "a bad chunk size": IN_CHUNKS + b"5\r\nhello\r\nx\r\n0\r\n\r\n",
    "a chunk size with 0x": IN_CHUNKS + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk with a bare LF": IN_CHUNKS + b"5\nhello\r\n0\r\n\r\n",
    "a chunk that is too long": IN_CHUNKS + b"5\r\nhello!\r\n0\r\n\r\n",
    "a broken trailer": IN_CHUNKS + b"5\r\nhello\r\n0\r\nX-A\r\n\r\n",
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_pass_as_they_are(it: World, origin: Origin, name: str) -> None:
    sent, closes, seen = ANSWERS[name]
    origin.script = replies(sent, then=Spoken.close if closes else None)

    wire = await exchange(it, GET + CLOSE + b"\r\n")

    answer = read_answer(bytes(wire.got), ended=True)
    assert answer.size == len(wire.got)
    own = answer.without(*REWRITTEN, "X-Dockscale-Instance", "Server-Timing")
    assert seen == {name: own if name == "fields" else getattr(answer, name) for name in seen}
    assert len(answer.values("X-Dockscale-Instance")) == len(answer.values("Server-Timing")) == 1


async def test_a_head_answer_keeps_its_length_and_has_no_body(it: World, origin: Origin) -> None:
    origin.script = replies(LENGTH_5)
    wire = await exchange(it, b"HEAD /1 HTTP/1.1\r\n" + HOST + b"\r\nHEAD /2 HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")

    first = read_answer(bytes(wire.got), "HEAD")
    second = read_answer(bytes(wire.got[first.size :]), "HEAD")
    assert first.size + second.size == len(wire.got)
    assert first.values("Content-Length") == second.values("Content-Length") == [b"5"]


async def test_an_answer_without_a_length_lasts_until_the_end_for_an_old_client(it: World, origin: Origin) -> None:
    origin.script = replies(b"HTTP/1.1 200 OK\r\n\r\nhello", then=Spoken.close)

    wire = await exchange(it, b"GET /a HTTP/1.0\r\n" + HOST + b"Connection: keep-alive\r\n\r\n")

    answer = read_answer(bytes(wire.got), ended=True)
    assert (answer.body, answer.framing) == (b"hello", "end")
    assert [value.lower() for value in answer.values("Connection")] in ([], [b"close"])


async def test_an_old_client_gets_no_chunks(it: World, origin: Origin) -> None:
    origin.script = replies(IN_CHUNKS + b"5\r\nhello\r\n0\r\n\r\n")

    wire = await exchange(it, b"GET /a HTTP/1.0\r\n" + HOST + b"\r\n")

    answer = read_answer(bytes(wire.got), ended=True)
    assert (answer.body, answer.framing) == (b"hello", "end")


@pytest.mark.parametrize("name", BAD_ANSWERS)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_an_answer_that_can_be_read_in_two_ways_is_a_bad_gateway(
    it: World, origin: Origin, method: bytes, name: str
) -> None:
    origin.script = replies(BAD_ANSWERS[name])

    wire = await exchange(it, method + b" /a HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n")

    assert error_in(wire) == (502, "bad_answer")
    assert only_request(origin).start.startswith(method)


@pytest.mark.parametrize("name", BROKEN_OFF)
@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
async def test_an_answer_that_breaks_off_never_looks_whole(
    it: World, origin: Origin, version: bytes, end: str, name: str
) -> None:
    async def script(wire: Spoken) -> None:
        await wire.request()
        wire.send(BROKEN_OFF[name])
        if end == "reset":
            await wait_for_head(client_wire)
            wire.reset()
        else:
            wire.close()
        raise ConnectionError

    origin.script = script
    async with client(it) as client_wire:
        client_wire.send(b"GET /a HTTP/" + version + b"\r\n" + HOST + CLOSE + b"\r\n")
        await client_wire.over()

    if version == b"1.0" and b"chunked" in BROKEN_OFF[name]:
        # Nothing but a reset can tell this client that there should have been more.
        assert client_wire.ended == "reset"
    elif not client_wire.got.startswith(b"HTTP/1.1 502 "):
        with pytest.raises(Broken):
            read_answer(bytes(client_wire.got), ended=True)
    assert only_request(origin)


async def wait_for_head(wire: Wire) -> None:
    await wire.until(lambda: b"\r\n\r\n" in wire.got or wire.ended)


async def test_a_connection_with_bytes_after_an_answer_is_not_used_again(it: World, origin: Origin) -> None:
    origin.script = replies(LENGTH_5 + b"hello" + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    first = await exchange(it, GET + CLOSE + b"\r\n")
    origin.script = replies(OK)

    second = await exchange(it, GET + CLOSE + b"\r\n")

    assert read_answer(bytes(first.got)).body == b"hello"
    assert read_answer(bytes(second.got)).body == b"ok"


async def test_bytes_on_an_idle_connection_answer_nothing(it: World, origin: Origin) -> None:
    await exchange(it, GET + CLOSE + b"\r\n")
    for wire in origin.wires:
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    await until(lambda: all(wire.ended or wire.lost for wire in origin.wires), "such connections are closed")

    second = await exchange(it, GET + CLOSE + b"\r\n")

    assert read_answer(bytes(second.got)).body == b"ok"
