"""HTTP/1.1 and WebSocket frames as bytes: one meaning or none, however they are cut, and whatever was read before."""

from collections.abc import Iterator
from ipaddress import ip_network
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dockscale.proxy import fields, wire
from dockscale.proxy.tunnel import Frames, close_frame
from dockscale.proxy.wire import (
    CHUNKED,
    MAX_CHUNK_LINE,
    MAX_FIELDS,
    MAX_TRAILERS,
    UNTIL_CLOSE,
    AnswerHead,
    Chunked,
    Counted,
    Malformed,
    RequestHead,
    UntilClose,
    body_of,
    check_begun,
    chunk,
    last_chunk,
    parse_answer,
    parse_request,
)

HOST = b"\r\nHost: web.localhost"
GET = b"GET / HTTP/1.1" + HOST
POST = b"POST / HTTP/1.1" + HOST
OK = b"HTTP/1.1 200 OK"


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    forget()
    yield
    forget()


def forget() -> None:
    for memory in (wire._LINES, wire._HOSTS, wire._STATUS_LINES):
        memory.clear()


def understood(head: RequestHead) -> tuple[object, ...]:
    return (
        head.method, head.target, head.minor, head.fields, head.keep_alive, head.host, head.length, head.says_length,
        head.options, head.upgrade, head.request_id, head.te,
    )  # fmt: skip


def answer_understood(head: AnswerHead) -> tuple[object, ...]:
    return (
        head.status, head.reason, head.fields, head.keep_alive, head.length, head.told, head.options, head.upgrade
    )  # fmt: skip


def read(head: bytes) -> tuple[object, ...]:
    """All that is understood of a request's head, or how it is refused."""
    try:
        return understood(parse_request(head))
    except Malformed as error:
        return error.status, error.word, str(error)


def read_as_answer(head: bytes) -> tuple[object, ...]:
    try:
        return answer_understood(parse_answer(head, b"GET"))
    except Malformed as error:
        return error.status, error.word, str(error)


# Requests.


@pytest.mark.parametrize(
    ("head", "status", "word"),
    [
        (b"", 400, "bad_request"),
        (b"GET /", 400, "bad_request"),
        (b"GET  / HTTP/1.1" + HOST, 400, "bad_request"),
        (b"GET / HTTP/1.1 " + HOST, 400, "bad_request"),
        (b"G\xe9T / HTTP/1.1" + HOST, 400, "bad_request"),
        (b"GET /\x7f HTTP/1.1" + HOST, 400, "bad_request"),
        (b"GET /#a HTTP/1.1" + HOST, 400, "bad_request"),
        (b"GET a HTTP/1.1" + HOST, 400, "bad_request"),
        (b"GET * HTTP/1.1" + HOST, 400, "bad_request"),
        (b"GET http:///a HTTP/1.1" + HOST, 400, "bad_request"),
        (b"GET ftp://a/ HTTP/1.1" + HOST, 400, "bad_request"),
        (b"CONNECT a:1 HTTP/1.1" + HOST, 501, "not_implemented"),
        (b"GET / HTTP/1.2" + HOST, 505, "version_not_supported"),
        (b"PRI * HTTP/2.0", 505, "version_not_supported"),
        (b"GET / http/1.1" + HOST, 400, "bad_request"),
        (b"GET / HTTP/1.1", 400, "bad_request"),
        (GET + HOST, 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost:", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a b", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a/b", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: u@a", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a:b", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: [::1", 400, "bad_request"),
        (GET + b"\r\n", 400, "bad_request"),
        (GET + b"\r\nX-A", 400, "bad_request"),
        (GET + b"\r\nX-A : 1", 400, "bad_request"),
        (GET + b"\r\n X-A: 1", 400, "bad_request"),
        (GET + b"\r\nX-A: \x00", 400, "bad_request"),
        (GET + b"\r\nX-A: a\rb", 400, "bad_request"),
        (GET + b"\r\nX-A: a\nb", 400, "bad_request"),
        (GET + b"\r\nX-A: 1" * MAX_FIELDS, 431, "headers_too_large"),
        (GET + b"\r\nExpect: a-miracle", 417, "expectation_failed"),
        (POST + b"\r\nContent-Length: 1\r\nContent-Length: 1", 400, "bad_request"),
        (POST + b"\r\nContent-Length: 1, 1", 400, "bad_request"),
        (POST + b"\r\nContent-Length: -1", 400, "bad_request"),
        (POST + b"\r\nContent-Length: 1_0", 400, "bad_request"),
        (POST + b"\r\nContent-Length: " + b"1" * 20, 400, "bad_request"),
        (POST + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", 400, "bad_request"),
        (POST + b"\r\nTransfer-Encoding: gzip", 400, "bad_request"),
        (POST + b"\r\nTransfer-Encoding: chunked, gzip", 400, "bad_request"),
        (POST + b"\r\nTransfer-Encoding: chunked, chunked", 400, "bad_request"),
        (POST + b"\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400, "bad_request"),
        (POST + b"\r\nTransfer-Encoding: gzip, chunked", 501, "not_implemented"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked", 400, "bad_request"),
    ],
)
def test_a_request_with_no_one_meaning_is_refused_each_time(head: bytes, status: int, word: str) -> None:
    for _ in range(2):
        with pytest.raises(Malformed) as refused:
            parse_request(head)
        assert (refused.value.status, refused.value.word) == (status, word)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (
            GET,
            {"method": b"GET", "target": b"/", "minor": 1, "keep_alive": True, "host": b"web.localhost", "length": 0},
        ),
        (b"GET / HTTP/1.0", {"minor": 0, "keep_alive": False, "host": b""}),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive", {"keep_alive": True}),
        (GET + b"\r\nConnection: keep-alive, Close", {"keep_alive": False}),
        (GET + b"\r\nConnection: a\r\nConnection: B ,c", {"options": {b"a", b"b", b"c"}, "keep_alive": True}),
        (POST + b"\r\nContent-Length: 007", {"length": 7, "says_length": True}),
        (POST + b"\r\nContent-Length: 0", {"length": 0, "says_length": True}),
        (POST + b"\r\ntransfer-encoding:\tChunked ", {"length": CHUNKED, "says_length": False}),
        (b"GET http://A.b:1/x?y HTTP/1.1" + HOST, {"host": b"A.b:1", "target": b"/x?y"}),
        (b"GET https://a?y HTTP/1.1" + HOST, {"host": b"a", "target": b"/?y"}),
        (b"OPTIONS * HTTP/1.1" + HOST, {"target": b"*", "host": b"web.localhost"}),
        (b"GET / HTTP/1.1\r\nHost: [::1]:80", {"host": b"[::1]:80"}),
        (GET + b"\r\nConnection: Upgrade\r\nUpgrade: websocket", {"upgrade": b"websocket"}),
        (GET + b"\r\nUpgrade: websocket", {"upgrade": b""}),
        (GET + b"\r\nConnection: upgrade\r\nUpgrade: H2C", {"upgrade": b""}),
        (POST + b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1", {"upgrade": b""}),
        (GET + b"\r\nTE: gzip, Trailers", {"te": True}),
        (GET + b"\r\nTE: gzip", {"te": False}),
        (GET + b"\r\nExpect: 100-Continue\r\nX-Request-Id: a", {"request_id": b"a"}),
        (GET + b"\r\nX-A: 1" * (MAX_FIELDS - 1), {"length": 0}),
    ],
)
def test_a_request_is_understood_the_same_each_time(head: bytes, expected: dict[str, object]) -> None:
    for _ in range(2):
        request = parse_request(head)
        assert {name: getattr(request, name) for name in expected} == expected


def test_the_target_names_the_host_for_those_who_read_on() -> None:
    request = parse_request(b"GET http://one/ HTTP/1.1\r\nX-A: 1\r\nhost: two\r\nX-B:\t2 ")

    assert request.fields == [
        (b"host", b"one", b"Host: one"), (b"x-a", b"1", b"X-A: 1"), (b"x-b", b"2", b"X-B: 2")
    ]  # fmt: skip
    assert (request.first(b"x-b"), request.first(b"x-c")) == (b"2", b"")


def test_the_begin_of_a_head_is_refused_as_soon_as_it_can_never_be_right() -> None:
    for right in (b"", b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nHost"):
        check_begun(right)
    for wrong in (b" ", b"\x16\x03\x01", b"\n", b"GET / HTTP/1.1\nHost"):
        with pytest.raises(Malformed):
            check_begun(wrong)


# Answers.


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/2 200 OK",
        b"HTTP/1.2 200 OK",
        b"http/1.1 200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 99 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\rK",
        OK + b"\r\n",
        OK + b"\r\nX-A",
        OK + b"\r\nX-A : 1",
        OK + b"\r\n folded: 1",
        OK + b"\r\nContent-Length: 1\r\nContent-Length: 1",
        OK + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        OK + b"\r\nTransfer-Encoding: gzip, chunked",
        OK + b"\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 204 No Content\r\nContent-Length: x",
    ],
)
def test_an_answer_with_no_one_meaning_is_refused_each_time(head: bytes) -> None:
    for _ in range(2):
        with pytest.raises(Malformed):
            parse_answer(head, b"GET")


@pytest.mark.parametrize(
    ("head", "method", "expected"),
    [
        (OK, b"GET", {"status": 200, "reason": b"OK", "keep_alive": True, "length": UNTIL_CLOSE, "told": None}),
        (b"HTTP/1.1 404", b"GET", {"status": 404, "reason": b""}),
        (b"HTTP/1.1 404 ", b"GET", {"status": 404, "reason": b""}),
        (b"HTTP/1.0 200 OK", b"GET", {"keep_alive": False}),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5", b"GET", {"keep_alive": True, "length": 5}),
        (OK + b"\r\nConnection: Close", b"GET", {"keep_alive": False}),
        (OK + b"\r\nContent-Length: 5", b"GET", {"length": 5, "told": 5}),
        (OK + b"\r\nContent-Length: 5", b"HEAD", {"length": 0, "told": 5}),
        (OK + b"\r\nTransfer-Encoding: Chunked", b"GET", {"length": CHUNKED, "told": None}),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5", b"GET", {"length": 0, "told": 5}),
        (b"HTTP/1.1 204 No Content", b"GET", {"length": 0}),
        (b"HTTP/1.1 103 Early Hints", b"GET", {"length": 0}),
        (b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x", b"GET", {"upgrade": b"x", "length": 0}),
    ],
)
def test_an_answer_is_understood_the_same_each_time(head: bytes, method: bytes, expected: dict[str, object]) -> None:
    for _ in range(2):
        answer = parse_answer(head, method)
        assert {name: getattr(answer, name) for name in expected} == expected


# What was read before.

NAMES = [b"Host", b"host", b"X-A", b"x-a", b"Connection", b"Content-Length", b"Transfer-Encoding", b"Cookie", b"TE",
         b"Expect", b"Upgrade", b"X-A ", b" X-A", b"", b"X\rA"]  # fmt: skip
VALUES = [b"", b"a", b"A", b"0", b"5", b"close", b"keep-alive, X-A", b"chunked", b"100-continue", b"websocket", b"\x00",
          b"a b", b"\xe9", b"trailers"]  # fmt: skip
BLANKS = [b"", b" ", b"\t", b"  "]
STARTS = [b"GET / HTTP/1.1", b"POST /a HTTP/1.0", b"GET http://x/ HTTP/1.1", OK, b"HTTP/1.0 204", b"HTTP/1.1 2 x"]

lines = st.builds(
    lambda name, colon, before, value, after: name + colon + before + value + after,
    st.sampled_from(NAMES), st.sampled_from([b":", b":", b":", b""]), st.sampled_from(BLANKS),
    st.sampled_from(VALUES), st.sampled_from(BLANKS),
)  # fmt: skip
heads = st.builds(lambda start, lines: b"\r\n".join([start, *lines]), st.sampled_from(STARTS), st.lists(lines))


@settings(max_examples=50)
@given(st.lists(heads, min_size=1, max_size=6))
@example([GET + b"\r\n" + line for line in (b"x-a: a", b"X-A: a", b"x-a: A", b"x-a:a", b"x-a: a ", b" x-a: a")])
def test_what_was_read_before_never_changes_what_is_understood(heads: list[bytes]) -> None:
    fresh = []
    for head in heads:
        forget()
        fresh.append((read(head), read_as_answer(head)))
    forget()

    first = [(read(head), read_as_answer(head)) for head in heads]
    again = [(read(head), read_as_answer(head)) for head in reversed(heads)]

    assert first == fresh
    assert again == fresh[::-1]


def test_one_reader_cannot_change_what_the_next_one_reads() -> None:
    head = GET + b"\r\nConnection: X-A\r\nX-A: 1"
    before = read(head)
    request = parse_request(head)

    request.fields.clear()
    request.options = frozenset({b"other"})

    assert read(head) == before


def test_what_is_remembered_is_bounded() -> None:
    for number in range(5000):
        parse_request(b"GET / HTTP/1.1\r\nHost: h%d\r\nX-A: %d" % (number, number))
        parse_answer(b"HTTP/1.1 200 r%d\r\nX-B: %d" % (number, number), b"GET")
        assert len(wire._LINES) <= wire._LINES_KEPT
    long = b"x" * 10_000
    parse_request(GET + b"\r\nX-Long: " + long)
    parse_answer(b"HTTP/1.1 200 " + long, b"GET")

    assert max(len(wire._HOSTS), len(wire._STATUS_LINES)) <= wire._HOSTS_KEPT
    assert max(map(len, [*wire._LINES, *wire._STATUS_LINES])) <= wire._LINE_KEPT_BYTES
    assert understood(parse_request(GET + b"\r\nX-A: 4999"))[3] == [
        (b"host", b"web.localhost", b"Host: web.localhost"), (b"x-a", b"4999", b"X-A: 4999")
    ]  # fmt: skip


@pytest.mark.parametrize("name", [b"Authorization", b"AUTHORIZATION", b"Cookie", b"cookie", b"Proxy-Authorization"])
def test_no_secret_of_a_client_is_remembered(name: bytes) -> None:
    parse_request(GET + b"\r\n" + name + b": s3cret\r\nX-A: 1")
    Chunked().feed(b"0\r\n" + name + b": s3cret\r\n\r\n")

    assert b"X-A: 1" in wire._LINES
    assert not any(b"s3cret" in part for line, field in wire._LINES.items() for part in (line, *field))


def test_no_cookie_of_an_instance_is_remembered() -> None:
    parse_answer(OK + b"\r\nSet-Cookie: s3cret\r\nX-A: 1", b"GET")

    assert b"X-A: 1" in wire._LINES
    assert not any(b"s3cret" in line for line in wire._LINES)


# Bodies.

Taken = tuple[bytes, bytes, list[tuple[bytes, bytes, bytes]], bool]


def take(body: Counted | UntilClose | Chunked, pieces: list[bytes]) -> Taken | None:
    """Feed the pieces; return the body, what came after it, its trailers and whether it is whole. None: it broke."""
    taken = rest = b""
    try:
        for piece in pieces:
            if body.done:
                rest += piece
            else:
                part, more = body.feed(piece)
                taken, rest = taken + part, rest + more
    except Malformed:
        return None
    return taken, rest, body.trailers, body.done


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[begin:end] for begin, end in pairwise(ends)]


places = st.lists(st.integers(0, 10_000), max_size=20)
parts = st.lists(st.one_of(st.binary(min_size=1, max_size=40), st.just(b"0\r\n\r\n"), st.just(b"\r\n")), max_size=5)
rests = st.one_of(st.just(b""), st.binary(max_size=20), st.sampled_from([b"\r\n", b"GET / HTTP/1.1\r\n\r\n"]))
TRAILERS = [b"X-T: 1", b"x-u:\t2 ", b"Content-Length: 5", b"Host: x", b"Authorization: x"]


@st.composite
def coded(draw: st.DrawFn) -> tuple[bytes, bytes, list[bytes]]:
    """A chunked body, what it means, and the names of its trailers that may pass."""
    data, meant = b"", draw(parts)
    for part in meant:
        size = draw(st.sampled_from([b"%x", b"%X", b"000%x"])) % len(part)
        data += size + draw(st.sampled_from([b"", b";a", b';a="b;c"'])) + b"\r\n" + part + b"\r\n"
    trailers = draw(st.lists(st.sampled_from(TRAILERS), max_size=3))
    data += draw(st.sampled_from([b"0", b"000", b"0;x"])) + b"\r\n"
    data += b"".join(line + b"\r\n" for line in trailers) + b"\r\n"
    names = [line.partition(b":")[0].lower() for line in trailers]
    return data, b"".join(meant), [name for name in names if name.startswith(b"x-")]


@given(coded(), rests, places)
def test_a_chunked_body_is_the_same_however_it_is_cut(
    given: tuple[bytes, bytes, list[bytes]], rest: bytes, places: list[int]
) -> None:
    data, meant, trailers = given
    for pieces in ([data + rest], cut(data + rest, places), [bytes([byte]) for byte in data + rest]):
        taken = take(Chunked(), pieces)
        assert taken is not None
        assert (taken[0], taken[1], [name for name, _, _ in taken[2]], taken[3]) == (meant, rest, trailers, True)


@given(
    coded(), st.integers(0, 500), st.sampled_from([b"", b"\r", b"\n", b"\0", b"0", b"f", b" ", b";", b"\r\n"]), places
)
def test_a_broken_chunked_body_is_broken_however_it_is_cut(
    given: tuple[bytes, bytes, list[bytes]], at: int, put: bytes, places: list[int]
) -> None:
    data = given[0]
    at %= len(data)
    data = data[:at] + put + data[at + (not put) :]

    whole = take(Chunked(), [data])

    assert take(Chunked(), cut(data, places)) == whole
    assert take(Chunked(), [bytes([byte]) for byte in data]) == whole


@given(st.binary(max_size=60), st.integers(0, 80), places)
def test_a_counted_body_ends_where_it_says_however_it_is_cut(data: bytes, length: int, places: list[int]) -> None:
    taken = take(Counted(length), cut(data, places))

    assert taken == (data[:length], data[length:], [], len(data) >= length)


@given(parts, places)
def test_what_is_framed_as_chunks_is_read_as_it_was(parts: list[bytes], places: list[int]) -> None:
    trailers = [(b"x-t", b"1", b"X-T: 1")]

    data = b"".join(map(chunk, parts)) + last_chunk(trailers)

    assert take(Chunked(), cut(data, places)) == (b"".join(parts), b"", trailers, True)
    assert last_chunk([]) == b"0\r\n\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n", b"x\r\n", b" 1\r\n", b"1 \r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"1_0\r\n", b"\xb2\r\n", b"1\n",
        b"1\ra\r\n", b"1" * 17 + b"\r\n", b"1;a\x00\r\n", b"1\r\nab\r\n", b"2\r\na\r\n\r\n", b"1\r\na\n", b"0\r\n\n",
        b"0\r\nX\r\n\r\n", b"0\r\nX : 1\r\n\r\n", b"0\r\n X: 1\r\n\r\n", b"0\r\nX: \x00\r\n\r\n",
        b"1;" + b"a" * MAX_CHUNK_LINE, b"1;" + b"a" * MAX_CHUNK_LINE + b"\r\n", b"0\r\nX: " + b"a" * MAX_TRAILERS,
        b"0\r\nX: " + b"a" * MAX_TRAILERS + b"\r\n\r\n", b"0\r\n" + b"X: 1\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    ],
)  # fmt: skip
def test_chunks_that_are_not_by_the_letter_are_refused(data: bytes) -> None:
    assert take(Chunked(), [data]) is None
    assert take(Chunked(), [bytes([byte]) for byte in data]) is None


def test_the_end_of_a_connection_ends_only_what_has_no_other_end() -> None:
    half, whole, endless = Counted(2), Counted(1), UntilClose()
    for body in (half, whole, endless):
        body.feed(b"a")

    assert [body.end() for body in (half, whole, endless, Counted(0), Chunked())] == [False, True, True, True, False]


def test_each_framing_has_what_takes_it() -> None:
    assert [type(body_of(length)) for length in (0, 5, CHUNKED, UNTIL_CLOSE)] == [Counted, Counted, Chunked, UntilClose]


# WebSocket frames.

SIZES = [0, 1, 5, 125, 126, 127, 300, 65535, 65536]


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    size = draw(st.sampled_from(SIZES))
    form = draw(st.sampled_from([form for form, most in ((7, 125), (16, 65535), (64, 2**63)) if size <= most]))
    masked = draw(st.booleans())
    first = draw(st.sampled_from([0x81, 0x82, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8A, 0xC1]))
    shown = {7: size, 16: 126, 64: 127}[form] | (0x80 if masked else 0)
    extended = b"" if form == 7 else size.to_bytes(form // 8)
    filler = draw(st.sampled_from([b"\x00", b"\xff", b"\x81", b"\x7e"]))
    return bytes([first, shown]) + extended + (b"\x7f\xff\x00\x81" if masked else b"") + filler * size


@given(st.lists(frames(), max_size=5), places, st.booleans())
def test_where_a_frame_of_ones_own_may_stand_is_known_however_frames_are_cut(
    frames: list[bytes], places: list[int], at_heads: bool
) -> None:
    data, ends = b"".join(frames), {0}
    for frame in frames:
        ends.add(max(ends) + len(frame))
    near = [end + step for end in ends for step in range(12)] if at_heads else []
    reader, seen = Frames(), 0
    assert reader.between

    for piece in cut(data, [*places, *near]):
        assert reader.feed(piece) == (piece, b""), "frames pass as they are"
        seen += len(piece)
        assert reader.between is (seen in ends)


def test_a_close_frame_says_its_code_and_is_one_frame() -> None:
    reader = Frames()
    reader.feed(close_frame(1012))

    assert close_frame(1012) == b"\x88\x02\x03\xf4"
    assert reader.between


# Fields.


@pytest.mark.parametrize(
    ("lines", "token"),
    [
        (b"", ""),
        (b"\r\nCookie: dockscale-web=abc", "abc"),
        (b"\r\ncookie: a=1; dockscale-web=abc; b=2", "abc"),
        (b"\r\nCookie: a=1;dockscale-web=abc", "abc"),
        (b"\r\nCookie: a=1\r\nCookie: dockscale-web=abc", "abc"),
        (b"\r\nCookie: dockscale-web=one; dockscale-web=two", "one"),
        (b"\r\nCookie: xdockscale-web=abc; dockscale-web2=abc", ""),
        (b"\r\nCookie: dockscale-web", ""),
        (b"\r\nCookie: dockscale-web=", ""),
        (b"\r\nCookie: dockscale-web=a=b", "a=b"),
        (b"\r\nCookie: dockscale-web=\xe9", "\xe9"),
        (b"\r\nX-Cookie: dockscale-web=abc", ""),
    ],
)
def test_a_cookie_is_found_by_its_whole_name(lines: bytes, token: str) -> None:
    assert fields.cookie(parse_request(GET + lines), b"dockscale-web") == token


@pytest.mark.parametrize(("prefix", "path"), [("", b"/"), ("/public/apps/web", b"/public/apps/web/")])
def test_a_cookie_is_for_the_apps_own_addresses(prefix: str, path: bytes) -> None:
    line = fields.set_cookie(b"dockscale-web", "abc", prefix)

    assert line == b"Set-Cookie: dockscale-web=abc; Path=" + path + b"; HttpOnly; SameSite=Lax\r\n"


def sent_on(head: bytes, *trusted: str, prefix: bytes = b"") -> list[bytes]:
    networks = [ip_network(each) for each in trusted]
    written = fields.request_head(parse_request(head), b"/p", prefix, b"id", b"10.0.0.1", b"http", networks)
    assert written.endswith(b"\r\n\r\n")
    return written[:-4].split(b"\r\n")


def test_what_goes_on_is_read_again_as_the_same_request() -> None:
    head = POST + b"\r\nX-A: 1\r\nContent-Length: 5\r\nConnection: X-B, Host, close\r\nX-B: 2\r\nX-a:3"

    lines = sent_on(head)

    assert lines == [
        b"POST /p HTTP/1.1", b"Host: web.localhost", b"X-A: 1", b"X-a: 3", b"Content-Length: 5",
        b"X-Forwarded-For: 10.0.0.1", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: web.localhost",
        b"X-Request-Id: id",
    ]  # fmt: skip
    assert parse_request(b"\r\n".join(lines)).length == 5


@pytest.mark.parametrize(("trusted", "believed"), [("10.0.0.0/8", True), ("10.0.0.1/32", True), ("11.0.0.0/8", False)])
def test_only_a_trusted_address_is_believed(trusted: str, believed: bool) -> None:
    told = b"\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Prefix: /a\r\nX-Forwarded-Proto: https"

    lines = sent_on(GET + told, trusted, prefix=b"/b")

    assert (b"X-Forwarded-For: 1.2.3.4, 10.0.0.1" in lines) is believed
    assert (b"X-Forwarded-Prefix: /a/b" in lines) is believed
    assert (b"X-Forwarded-Proto: https" in lines) is believed
    assert sum(line.startswith(b"X-Forwarded-For:") for line in lines) == 1


def answered(head: bytes, minor: int = 1, *, keep_alive: bool = True, extra: bytes = b"") -> list[bytes]:
    written = fields.answer_head(parse_answer(head, b"GET"), minor=minor, keep_alive=keep_alive, extra=extra)
    assert written.endswith(b"\r\n\r\n")
    return written[:-4].split(b"\r\n")


def test_an_answers_framing_is_written_for_the_client_at_hand() -> None:
    length, chunks = OK + b"\r\nContent-Length: 5", OK + b"\r\nTransfer-Encoding: chunked"

    assert answered(length) == [OK, b"Content-Length: 5"]
    assert answered(length, 0) == [OK, b"Content-Length: 5", b"Connection: keep-alive"]
    assert answered(chunks) == answered(OK) == [OK, b"Transfer-Encoding: chunked"]
    assert answered(chunks, 0, keep_alive=False) == [OK, b"Connection: close"]
    assert answered(OK + b"\r\nX-A: 1\r\nConnection: X-A\r\nContent-Length: 0", extra=b"X-B: 2\r\n") == [
        OK, b"Content-Length: 0", b"X-B: 2"
    ]  # fmt: skip
