"""Random messages, whole and mangled, in random pieces. What passes is judged by readers that share nothing with it.

`tests.support.http1` reads what was sent by the letter of the RFC; h11 reads again whatever the origin got.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise

import h11
import pytest
import pytest_asyncio
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.support.http1 import Broken, Fields, Incomplete, Message, read_answer, read_request, read_requests
from tests.support.origin import Origin, Script, Spoken, Wire, client, idle, staged
from tests.support.world import World, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

GRACE_S = 0.03
"""How long a client waits for more before it ends a request that it has sent only a part of."""

TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
TEXT = bytes(byte for byte in range(0x21, 0x100) if byte != 0x7F)
TARGET = bytes(byte for byte in TEXT if byte not in b"#.%")  # neither a fragment, nor a path that climbs
REWRITTEN = ("TE", "Content-Length", "Transfer-Encoding", "Connection", "X-Dockscale-Instance", "Server-Timing")
HIGH_TO_LETTERS = bytes(byte if byte < 0x80 else ord("z") for byte in range(256))
HOST = b"Host: web.localhost\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[tuple[World, Origin]]:
    async with staged() as it:
        yield it


# Valid messages.


def of(alphabet: bytes, most: int, least: int = 0) -> st.SearchStrategy[bytes]:
    table = bytes(alphabet[byte % len(alphabet)] for byte in range(256))
    return st.binary(min_size=least, max_size=most).map(lambda drawn: drawn.translate(table))


@st.composite
def fields(draw: st.DrawFn, most: int = 4) -> bytes:
    """Field lines with names that mean nothing."""
    lines = b""
    for _ in range(draw(st.integers(0, most))):
        name = b"X-F" + draw(of(TOKEN, 4))
        words = draw(st.lists(of(TEXT, 5, 1), max_size=3))
        blank = draw(st.sampled_from([b" ", b"\t", b" \t "]))
        around = draw(st.sampled_from([(b" ", b""), (b"", b""), (b"\t ", b" \t")]))
        lines += name + b":" + around[0] + blank.join(words) + around[1] + b"\r\n"
    return lines


bodies = st.one_of(st.binary(max_size=80), st.sampled_from([b"0\r\n\r\n", b"GET /x HTTP/1.1\r\n" + HOST + b"\r\n"]))


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    coded = b""
    for data in draw(st.lists(bodies.filter(bool), max_size=4)):
        size = draw(st.sampled_from([b"%x", b"%X", b"000%x"])) % len(data)
        extension = draw(st.sampled_from([b"", b"", b";a", b';a=b;c="d \xe9"', b";"]))
        coded += size + extension + b"\r\n" + data + b"\r\n"
    last = draw(st.sampled_from([b"0", b"0000", b"0;last"]))
    return coded + last + b"\r\n" + draw(fields(2)) + b"\r\n"


@st.composite
def body_with_framing(draw: st.DrawFn, kinds: str = "none length chunked") -> bytes:
    """The framing field, the empty line and the body."""
    match draw(st.sampled_from(kinds.split())):
        case "length":
            body = draw(bodies)
            return b"Content-Length: %d\r\n\r\n" % len(body) + body
        case "chunked":
            return b"Transfer-Encoding: chunked\r\n\r\n" + draw(chunked())
        case _:
            return b"\r\n"


@st.composite
def requests(draw: st.DrawFn, most: int = 4) -> list[bytes]:
    """Several requests for one connection, each with a number in X-Marker."""
    return [
        draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "M-SEARCH", "get"])).encode()
        + b" /" + draw(of(TARGET, 8)) + b" HTTP/1.1\r\n" + draw(fields(2)) + HOST
        + b"X-Marker: %d\r\nX-Request-Id: r%d\r\n" % (number, number) + draw(fields(2)) + draw(body_with_framing())
        for number in range(draw(st.integers(1, most)))
    ]  # fmt: skip


cuts = st.lists(st.integers(0, 2000), max_size=12)


def pieces(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(place % (len(data) + 1) for place in at)})
    return [data[begin:end] for begin, end in pairwise(places)]


# Mangled messages.

INSERTED = [
    b"\r", b"\n", b"\0", b" ", b"\t", b":", b";", b"\r\n", b"\r\n\r\n", b"\n\n", b"\x0b", b"\x0c", b"\x7f", b"\x85",
    b"0",
    b"0\r\n\r\n", b"\r\n0\r\n\r\n", b",", b"+", b"0x", b"\r\n ", b"\r\n\t",
]  # fmt: skip
LINES = [
    b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"Content-Length: 3, 3\r\n", b"Content-Length: +7\r\n",
    b"content-length:\r\n", b"Content-Length : 9\r\n", b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding: chunked, chunked\r\n",
    b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding: \x0bchunked\r\n", b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding:\r\n chunked\r\n", b"Transfer-Encoding\r\n", b"TE: trailers\r\n", HOST, b"Host: other\r\n",
    b"Connection: close\r\n", b"Connection: content-length, transfer-encoding, host\r\n", b" folded\r\n",
    b"Expect: 100-continue\r\n", b"\r\n", b"5\r\n", b"5\r\nhello\r\n", b"0\r\n", b"0\r\n\r\n", b"-1\r\n",
    b"ffffffffffffffff\r\n",
    b"GET /y HTTP/1.1\r\n", b"GET /y HTTP/1.1\r\n" + HOST + b"X-Marker: y\r\n\r\n", b"HTTP/1.1 200 OK\r\n",
]  # fmt: skip

DEEDS = ["flip", "insert", "insert", "drop", "line", "line", "line", "double", "cut", "digit"]


@st.composite
def mangled(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Take a message, or several, and do one to three things to it that nobody should."""
    data = draw(source)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        line = data.rfind(b"\r\n", 0, at + 1) + 2 if b"\r\n" in data[: at + 1] else 0
        end = data.find(b"\r\n", line) + 2 or len(data)
        match draw(
            st.sampled_from(["flip", "insert", "insert", "drop", "line", "line", "line", "double", "cut", "digit"])
        ):
            case "flip":
                data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
            case "insert":
                data = data[:at] + draw(st.sampled_from(INSERTED)) + data[at:]
            case "drop":
                data = data[:at] + data[at + draw(st.integers(1, 3)) :]
            case "line":
                data = data[:line] + draw(st.sampled_from(LINES)) + data[line:]
            case "double":
                data = data[:end] + data[line:end] + data[end:]
            case "digit":
                place = next((i for i in range(at, len(data)) if data[i : i + 1].isdigit()), 0)
                data = data[:place] + b"%d" % draw(st.integers(0, 9)) + data[place + 1 :]
            case _:
                data = data[:at]
    assume(data)
    return data


# The other side, and what is asked of it.


async def numbered(wire: Spoken) -> None:
    """Answer a request with its number in the order of arrival."""
    await wire.request()
    number = b"%d" % (len(wire.origin.requests) - 1)
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(number), number))


def answers_in(got: bytes, *, ended: bool) -> tuple[list[Message], bytes]:
    """All whole answers in order, and what is left."""
    found: list[Message] = []
    while got:
        try:
            found.append(read_answer(got, ended=ended))
        except Incomplete:
            break
        got = got[found[-1].size :]
    return found, got


async def send(wire: Wire, parts: list[bytes]) -> None:
    for part in parts:
        if wire.lost:
            return
        wire.send(part)
        await asyncio.sleep(0)  # so that each part is read before the next is sent


def judge_by_h11(raw: bytes) -> None:
    """Have h11 agree that these bytes are one request and nothing more. It takes no high bytes in targets."""
    line, _, rest = raw.partition(b"\r\n")
    server = h11.Connection(h11.SERVER)
    server.receive_data(line.translate(HIGH_TO_LETTERS) + b"\r\n" + rest)
    events: list[object] = []
    while not events or type(events[-1]) is not h11.EndOfMessage:
        events.append(server.next_event())
        assert events[-1] is not h11.NEED_DATA
    assert isinstance(events[0], h11.Request)
    assert server.trailing_data == (b"", False)
    ours = read_request(raw)
    assert b"".join(event.data for event in events if isinstance(event, h11.Data)) == ours.body
    assert [value for _, value in events[0].headers.raw_items()] == [value for _, value in ours.fields]


@dataclass
class Seen:
    """What a client's bytes led to."""

    answers: list[Message]
    upstream: list[bytes]
    closed: bool


async def play(stage: tuple[World, Origin], parts: list[bytes], expected: int, *, ends: bool, grace: float) -> Seen:
    """Send parts, wait for that many answers, and for the end if it `ends`; else end it after so many seconds."""
    it, origin = stage
    origin.forget()
    origin.script = numbered
    async with client(it) as wire:
        await send(wire, parts)
        await wire.until(
            lambda: wire.ended or len(answers_in(bytes(wire.got), ended=False)[0]) >= expected, f"{expected} answers"
        )
        if not ends:
            try:
                async with asyncio.timeout(grace):
                    await wire.over()
            except TimeoutError:
                wire.finish()
        await wire.over()
    await idle(it)
    await until(lambda: all(each.ended or each.lost for each in origin.wires if each.unread), "what was begun is cut")
    found, rest = answers_in(bytes(wire.got), ended=True)
    assert rest == b"", "no half answer"
    assert origin.faults == []
    for each in origin.wires:
        if each.unread:
            with pytest.raises(Incomplete):
                read_request(each.unread)
    for raw in origin.requests:
        judge_by_h11(raw)
    return Seen(found, list(origin.requests), wire.ended == "fin")


def head_of(raw: bytes) -> bytes:
    return raw[: raw.index(b"\r\n\r\n") + 4]


def own(message: Message) -> Fields:
    return tuple(pair for pair in message.without(*REWRITTEN) if not pair[0].lower().startswith(b"x-forwarded-"))


def sorted_out(message: Message) -> tuple[bytes, Fields, str, bytes, Fields]:
    """What must arrive as it was sent. The request's id is the one field whose place is not the client's to choose."""
    named = tuple(pair for pair in own(message) if pair[0].lower() != b"x-request-id")
    return message.start, named, message.framing, message.body, message.trailers


@settings(max_examples=150, deadline=None)
@given(sent=requests(), at=cuts)
async def test_requests_arrive_the_same_in_whatever_pieces_they_come(
    stage: tuple[World, Origin], sent: list[bytes], at: list[int]
) -> None:
    data = b"".join(sent)

    whole = await play(stage, [data], len(sent), ends=False, grace=0.0)
    cut = await play(stage, pieces(data, at), len(sent), ends=False, grace=0.0)

    for seen in (whole, cut):
        assert [answer.body for answer in seen.answers] == [b"%d" % number for number in range(len(sent))]
        arrived = [read_request(raw) for raw in seen.upstream]
        assert [sorted_out(message) for message in arrived] == [sorted_out(read_request(raw)) for raw in sent]
        for message in arrived:
            assert message.values("X-Request-Id") == [b"r" + message.values("X-Marker")[0]]
    for one, other in zip(whole.upstream, cut.upstream, strict=True):
        # Where chunks are cut is nobody's business; all other bytes are.
        assert head_of(one) == head_of(other)
        assert b"\r\nTransfer-Encoding:" in one or one == other


@settings(max_examples=250, deadline=None)
@given(data=mangled(requests(3).map(b"".join)), at=cuts)
@example(
    data=b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /y HTTP/1.1\r\n\r\n",
    at=[],
)
@example(data=b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nConnection: content-length\r\n\r\nGET ", at=[])
async def test_mangled_requests_never_make_two_of_one_or_one_of_two(
    stage: tuple[World, Origin], data: bytes, at: list[int]
) -> None:
    framed, fault = read_requests(data)
    ends = (fault is not None and not isinstance(fault, Incomplete)) or (bool(framed) and framed[-1].ends_connection)

    seen = await play(stage, pieces(data, at), len(framed), ends=ends, grace=GRACE_S if fault else 0.0)

    served = [number for number, answer in enumerate(seen.answers) if answer.status == 200]
    assert [int(seen.answers[number].body) for number in served] == list(range(len(seen.upstream)))
    assert len(served) == len(seen.upstream)
    assert served == [] or served[-1] < len(framed)
    for number, raw in zip(served, seen.upstream, strict=True):
        arrived, sent = read_request(raw), framed[number]
        assert arrived.start[:-1] == sent.start[:-1]  # all but the x of HTTP/1.x
        assert (arrived.body, arrived.values("X-Marker")) == (sent.body, sent.values("X-Marker"))
    if len(seen.answers) < len(framed):
        assert seen.answers[-1].status >= 400
    if fault is not None and not isinstance(fault, Incomplete):
        assert seen.answers[-1].status >= 400
        assert len(seen.answers) <= len(framed) + 1


# Answers.


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    status = draw(st.sampled_from([b"200 OK", b"404 Not \xe9", b"500 ", b"204 No Content", b"304 Not Modified"]))
    interim = draw(st.sampled_from([b"", b"", b"HTTP/1.1 103 Early Hints\r\nX-I: 1\r\n\r\n"]))
    framed = (
        b"Content-Length: 0\r\n\r\n" if status.startswith(b"304") else draw(body_with_framing("length chunked end"))
    )
    if status.startswith(b"204"):
        framed = b"\r\n"
    elif framed == b"\r\n":
        framed += draw(bodies)
    return interim + b"HTTP/1.1 " + status + b"\r\n" + draw(fields()) + framed


def answering(parts: list[bytes]) -> Script:
    async def script(wire: Spoken) -> None:
        await wire.request()
        for part in parts:
            wire.send(part)
            await asyncio.sleep(0)
        wire.close()
        raise ConnectionError

    return script


async def answer_through(stage: tuple[World, Origin], data: bytes, at: list[int], method: str) -> Message | None:
    """What a client sees of an answer after which the origin closes: None if it cannot take it for a whole one."""
    it, origin = stage
    origin.forget()
    origin.script = answering(pieces(data, at))
    async with client(it) as wire:
        wire.send(method.encode() + b" /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        await wire.over()
    await idle(it)
    try:
        answer = read_answer(bytes(wire.got), method, ended=True)
    except Broken:
        return None
    assert answer.size == len(wire.got)
    assert answer.framing != "end", "an answer whose end cannot be told from a broken connection"
    return answer


def shown(message: Message) -> tuple[bytes, Fields, bytes, Fields]:
    passing = tuple(pair for pair in message.trailers if pair[0].lower().startswith(b"x-"))  # others may not come last
    return message.start[9:].rstrip(), own(message), message.body, passing


@settings(max_examples=150, deadline=None)
@given(data=answers(), at=cuts, method=st.sampled_from(["GET", "POST", "HEAD"]))
async def test_answers_arrive_as_they_were_sent_in_whatever_pieces_they_come(
    stage: tuple[World, Origin], data: bytes, at: list[int], method: str
) -> None:
    sent = data
    if method == "HEAD":
        sent = data[: read_answer(data, "HEAD").size]

    seen = await answer_through(stage, sent, at, method)

    assert seen is not None
    assert shown(seen) == shown(read_answer(sent, method, ended=True))


@settings(max_examples=250, deadline=None)
@given(data=mangled(answers()), at=cuts, method=st.sampled_from(["GET", "POST"]))
async def test_a_broken_answer_never_ends_well(
    stage: tuple[World, Origin], data: bytes, at: list[int], method: str
) -> None:
    try:
        sent = read_answer(data, method, ended=True)
    except Broken:
        sent = None
    # RFC 9112 section 6.1 leaves open what becomes of chunks in HTTP/1.0.
    assume(sent is None or not (sent.start.startswith(b"HTTP/1.0") and sent.framing == "chunked"))

    seen = await answer_through(stage, data, at, method)

    if seen is not None and seen.status == 502:
        assert json.loads(seen.body)["error"] in ("bad_answer", "instance_died")
    elif seen is not None:
        assert sent is not None
        assert shown(seen) == shown(sent)
