"""HTTP/1.1 messages read from whole byte strings, by the letter of RFC 9112. Shares nothing with the proxy."""

import re
from dataclasses import dataclass

Fields = tuple[tuple[bytes, bytes], ...]

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_FIELD = re.compile(rb"(" + _TOKEN + rb"):(" + _TEXT + rb")")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!\"\x24-\x7e\x80-\xff]+) HTTP/1\.([01])")
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9][0-9])(?: " + _TEXT + rb")?")
_LENGTH = re.compile(rb"[0-9]{1,19}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;" + _TEXT + rb")?")


class Broken(Exception):
    """The bytes are no message, whatever may follow."""


class Incomplete(Broken):
    """More bytes could make it one."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `size` is how many bytes it took; `framing` is "length", "chunked", "end" or "none"."""

    start: bytes
    fields: Fields
    body: bytes
    trailers: Fields
    framing: str
    size: int

    def values(self, name: str) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name.lower().encode()]

    def without(self, *names: str) -> Fields:
        out = {name.lower().encode() for name in names}
        return tuple((key, value) for key, value in self.fields if key.lower() not in out)

    @property
    def status(self) -> int:
        return int(self.start[9:12])

    @property
    def ends_connection(self) -> bool:
        options = {option.strip().lower() for value in self.values("Connection") for option in value.split(b",")}
        is_old = self.start.endswith(b"HTTP/1.0") or self.start.startswith(b"HTTP/1.0")
        return b"close" in options or (is_old and b"keep-alive" not in options)


def read_request(data: bytes) -> Message:
    """Read the request that `data` begins with.

    Raises:
        Incomplete: there is only a part of it.
        Broken: it is to be refused.
    """
    begin = 0
    while data.startswith(b"\r\n", begin):
        begin += 2
    start, fields, at = _head(data, begin)
    line = _REQUEST_LINE.fullmatch(start)
    if line is None or line[1] == b"CONNECT":
        raise Broken(f"request line {start!r}")
    message = Message(start, fields, b"", (), "none", at)
    hosts = message.values("Host")
    if len(hosts) > 1 or (not hosts and line[3] == b"1"):
        raise Broken(f"{len(hosts)} Host fields")
    if [value.lower() for value in message.values("Expect")] not in ([], [b"100-continue"]):
        raise Broken("Expect")
    if message.values("Transfer-Encoding") and line[3] == b"0":
        raise Broken("Transfer-Encoding in HTTP/1.0")
    return _with_body(message, data, until_end=False)


def read_requests(data: bytes) -> tuple[list[Message], Broken | None]:
    """Read all requests of one connection, up to the first that is none; and why that one is none."""
    found: list[Message] = []
    while data:
        try:
            found.append(read_request(data))
        except Broken as fault:
            return found, fault
        data = data[found[-1].size :]
        if found[-1].ends_connection:
            break
    return found, None


def read_answer(data: bytes, method: str = "GET", *, ended: bool = False) -> Message:
    """Read the final answer that `data` begins with, after its interim ones. `ended`: nothing follows `data`.

    Raises:
        Incomplete: there is only a part of it.
        Broken: it is no answer.
    """
    start, fields, at = _head(data, 0)
    line = _STATUS_LINE.fullmatch(start)
    if line is None or line[1] == b"101":
        raise Broken(f"status line {start!r}")
    if line[1].startswith(b"1"):
        rest = read_answer(data[at:], method, ended=ended)
        return Message(rest.start, rest.fields, rest.body, rest.trailers, rest.framing, at + rest.size)
    message = Message(start, fields, b"", (), "none", at)
    if method == "HEAD" or line[1] in (b"204", b"304"):
        _framing(message)
        return message
    return _with_body(message, data, until_end=True, ended=ended)


def _head(data: bytes, begin: int) -> tuple[bytes, Fields, int]:
    end = data.find(b"\r\n\r\n", begin)
    if end == -1:
        raise Incomplete("the head has no end")
    start, *lines = data[begin:end].split(b"\r\n")
    return start, _fields(lines), end + 4


def _fields(lines: list[bytes]) -> Fields:
    found = []
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise Broken(f"field line {line!r}")
        found.append((field[1], field[2].strip(b" \t")))
    return tuple(found)


def _framing(message: Message) -> int | None:
    """How long the body is; -1: in chunks; None: not said."""
    lengths, codings = message.values("Content-Length"), message.values("Transfer-Encoding")
    if lengths and codings:
        raise Broken("Content-Length and Transfer-Encoding")
    if codings:
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise Broken(f"Transfer-Encoding {codings}")
        return -1
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Broken(f"Content-Length {lengths}")
    return int(lengths[0])


def _with_body(message: Message, data: bytes, *, until_end: bool, ended: bool = False) -> Message:
    length, at = _framing(message), message.size
    if length == -1:
        return _chunked(message, data)
    if length is None:
        if not until_end:
            return message
        if not ended:
            raise Incomplete("the body lasts until the connection ends")
        return Message(message.start, message.fields, data[at:], (), "end", len(data))
    if len(data) < at + length:
        raise Incomplete("the body is shorter than Content-Length")
    return Message(message.start, message.fields, data[at : at + length], (), "length", at + length)


def _chunked(message: Message, data: bytes) -> Message:
    body, at = bytearray(), message.size
    while True:
        size, at = _chunk_size(data, at)
        if size == 0:
            break
        if len(data) < at + size + 2:
            raise Incomplete("within a chunk")
        if data[at + size : at + size + 2] != b"\r\n":
            raise Broken("a chunk's data does not end where it should")
        body += data[at : at + size]
        at += size + 2
    lines = []
    while True:
        line, at = _line(data, at)
        if not line:
            break
        lines.append(line)
    return Message(message.start, message.fields, bytes(body), _fields(lines), "chunked", at)


def _chunk_size(data: bytes, at: int) -> tuple[int, int]:
    line, at = _line(data, at)
    size = _CHUNK.fullmatch(line)
    if size is None or len(line) > 1024:
        raise Broken(f"chunk size {line[:40]!r}")
    return int(size[1], 16), at


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\r\n", at)
    if end == -1:
        raise Incomplete("within a line of the chunked coding")
    return data[at:end], end + 2
