"""HTTP/1.1 as bytes: heads are read strictly and bodies taken apart, in one way or not at all. No I/O, no clock.

What two readers could understand differently is refused (RFC 9112 section 11.2): what goes on is written anew from what
was understood here, so that no doubt about where a message ends can be passed to the next reader.
"""

import re

Field = tuple[bytes, bytes, bytes]
"""A field's name in lower case, its value, and its line: name as sent, colon, space, value."""
Fields = list[Field]

CHUNKED = -1
UNTIL_CLOSE = -2
"""Kinds of body besides a length in bytes, which is 0 for none."""

MAX_FIELDS = 256
MAX_ANSWER_HEAD = 65536
MAX_CHUNK_LINE = 1024
MAX_TRAILERS = 8192

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([/?].*)?", re.IGNORECASE)
_LENGTH = re.compile(rb"[0-9]{1,19}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_IN_VALUES = bytes(byte for byte in range(256) if byte == 0x09 or (byte >= 0x20 and byte != 0x7F))
_IN_TARGETS = bytes(byte for byte in range(0x21, 256) if byte not in b"#\x7f")
_LINE_ENDS = b"\r\n"
_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"})
_VERSIONS = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}
_NO_OPTIONS: frozenset[bytes] = frozenset()

_MEANT = frozenset({
    b"content-length", b"transfer-encoding", b"host", b"connection", b"expect", b"upgrade", b"te", b"x-request-id",
})  # fmt: skip
"""Fields of which the meaning is needed here."""
FORWARDING = frozenset({
    b"forwarded", b"x-real-ip", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-prefix",
    b"x-forwarded-port", b"x-forwarded-server", b"x-forwarded-scheme", b"x-forwarded-ssl", b"x-forwarded-by",
    b"x-forwarded-uri", b"x-forwarded-method", b"x-forwarded-user", b"x-forwarded-client-cert",
    b"x-forwarded-tls-client-cert", b"x-forwarded-tls-client-cert-info",
})  # fmt: skip
"""Fields that apps believe to come from a proxy."""
_NOT_IN_TRAILERS = FORWARDING | _MEANT | {
    b"trailer", b"keep-alive", b"content-encoding", b"content-type", b"content-range", b"proxy-connection",
    b"proxy-authenticate", b"proxy-authorization", b"authorization", b"cookie", b"set-cookie",
}  # fmt: skip
"""Fields that must not come after the body they are about (RFC 9110 section 6.5.1)."""


class Malformed(Exception):
    """A message that is not understood in one way only, or is larger than may be."""

    def __init__(self, message: str, status: int = 400, word: str = "bad_request") -> None:
        super().__init__(message)
        self.status = status
        self.word = word


class RequestHead:
    """A request, less its body: `length` says how that is framed."""

    __slots__ = (
        "fields", "host", "keep_alive", "length", "method", "minor", "options", "request_id", "says_length", "target",
        "te", "upgrade",
    )  # fmt: skip

    def __init__(self, method: bytes, target: bytes, minor: int, fields: Fields) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        """The x of HTTP/1.x."""
        self.fields = fields
        self.keep_alive = minor == 1
        self.host = b""
        self.length = 0
        self.says_length = False
        """There is a Content-Length, which may be 0."""
        self.options = _NO_OPTIONS
        """What Connection names, in lower case."""
        self.upgrade = b""
        self.request_id = b""
        self.te = False
        """The client takes trailers (RFC 9110 section 10.1.4)."""

    def first(self, name: bytes) -> bytes:
        """The value of the first field of that (lower case) name; empty if there is none."""
        return next((value for lower, value, _ in self.fields if lower == name), b"")


class AnswerHead:
    """An answer, less its body: `length` says how that is framed."""

    __slots__ = ("fields", "keep_alive", "length", "options", "reason", "status", "told", "upgrade")

    def __init__(self, status: int, reason: bytes, minor: int, fields: Fields) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.keep_alive = minor == 1
        self.length = UNTIL_CLOSE
        self.told: int | None = None
        """What Content-Length said, also to HEAD."""
        self.options = _NO_OPTIONS
        self.upgrade = b""


# Lines and hosts that were seen before need not be read again: clients and instances repeat themselves.
_LINES: dict[bytes, Field] = {}
_LINES_KEPT = 2048
_LINE_KEPT_BYTES = 256
_NOT_KEPT = frozenset({b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"})
_STATUS_LINES: dict[bytes, tuple[int, bytes, int]] = {}
_HOSTS: set[bytes] = set()
_HOSTS_KEPT = 1024


def _read_line(line: bytes) -> Field:
    name, colon, value = line.partition(b":")
    if not _TOKEN.fullmatch(name):
        raise Malformed(f"{_shown(name)} is no field name")
    if not colon:
        raise Malformed(f"{_shown(line)} is no field: there is no colon")
    if value.translate(None, _IN_VALUES):
        raise Malformed(f"there is a control character in the field {_shown(name)}")
    lower, value = name.lower(), value.strip(b" \t")
    if b"_" in lower and lower.replace(b"_", b"-") in FORWARDING:
        lower = lower.replace(b"_", b"-")  # CGI's habits make one name of both
    field = (lower, value, b"%b: %b" % (name, value))
    if len(line) <= _LINE_KEPT_BYTES and lower not in _NOT_KEPT:
        if len(_LINES) >= _LINES_KEPT:
            _LINES.clear()
        _LINES[line] = field
    return field


def parse_request(head: bytes) -> RequestHead:
    """Read a request's head, given without the empty line that ends it.

    Raises:
        Malformed: with the status that the client gets (RFC 9112 sections 2.2, 3, 5 and 6).
    """
    lines = head.split(b"\r\n")
    line = lines[0]
    try:
        method, target, version = line.split(b" ")
    except ValueError:
        raise Malformed("the request line must be a method, a target and a version, with one space between") from None
    if method not in _METHODS and not _TOKEN.fullmatch(method):
        raise Malformed(f"{_shown(method)} is no method")
    if target.translate(None, _IN_TARGETS):
        raise Malformed("there is a control character or a # in the request target")
    if version not in _VERSIONS:
        raise _bad_version(version)
    fields, meant = _fields(lines)
    request = RequestHead(method, target, _VERSIONS[version], fields)
    hosts, lengths, codings = [], [], []
    for name, value, _ in meant:
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        else:
            _understand(request, name, value)
    if len(hosts) == 1 and hosts[0] in _HOSTS:
        request.host = hosts[0]
    else:
        request.host = _host(hosts, request.minor)
    if not target.startswith(b"/"):
        _read_target(request)
    if lengths or codings:
        request.length = _request_length(lengths, codings, request.minor)
        request.says_length = bool(lengths)
    if request.options or request.upgrade:
        _read_connection(request)
    return request


def _host(hosts: list[bytes], minor: int) -> bytes:
    """Judge the Host fields (RFC 9112 section 3.2)."""
    if not hosts:
        if minor:
            raise Malformed("the Host field is missing")
        return b""
    if len(hosts) > 1:
        raise Malformed("a request must have one Host field")
    if not _HOST.fullmatch(hosts[0]):
        raise Malformed(f"Host: {_shown(hosts[0])} is no host name")
    if len(_HOSTS) < _HOSTS_KEPT:
        _HOSTS.add(hosts[0])
    return hosts[0]


def _understand(request: RequestHead, name: bytes, value: bytes) -> None:
    if name == b"connection":
        request.options |= _options(value)
    elif name == b"upgrade":
        request.upgrade = b", ".join([request.upgrade, value]) if request.upgrade else value
    elif name == b"x-request-id":
        request.request_id = value
    elif name == b"te":
        request.te = request.te or b"trailers" in _options(value)
    elif value.lower() != b"100-continue":  # expect
        raise Malformed(f"Expect: {_shown(value)} cannot be met", 417, "expectation_failed")


def parse_answer(head: bytes, method: bytes) -> AnswerHead:
    """Read an answer's head, given without the empty line that ends it, to a request of that method.

    Raises:
        Malformed: what is wrong with it (RFC 9112 sections 4 and 6).
    """
    lines = head.split(b"\r\n")
    status, reason, minor = _STATUS_LINES.get(lines[0]) or _read_status_line(lines[0])
    fields, meant = _fields(lines)
    answer = AnswerHead(status, reason, minor, fields)
    lengths, codings = [], []
    for name, value, _ in meant:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"connection":
            answer.options |= _options(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"upgrade":
            answer.upgrade = value
    if answer.options:
        answer.keep_alive = b"close" not in answer.options and (minor == 1 or b"keep-alive" in answer.options)
    _read_answer_length(answer, lengths, codings, minor)
    if answer.status < 200 or answer.status in (204, 304) or method == b"HEAD":
        answer.length = 0
    return answer


def _read_status_line(line: bytes) -> tuple[int, bytes, int]:
    version, code, gap = line[:9], line[9:12], line[12:13]
    if version not in (b"HTTP/1.1 ", b"HTTP/1.0 ") or not code.isdigit() or code < b"100" or gap not in (b" ", b""):
        raise Malformed(f"{_shown(line)} is no status line")
    if line.translate(None, _IN_VALUES):
        raise Malformed("there is a control character in the status line")
    read = int(code), line[13:], 1 if version == b"HTTP/1.1 " else 0
    if len(line) <= _LINE_KEPT_BYTES and len(_STATUS_LINES) < _HOSTS_KEPT:
        _STATUS_LINES[line] = read
    return read


def _fields(lines: list[bytes]) -> tuple[Fields, Fields]:
    """Read all lines but the first. Those of `_MEANT` are also given apart."""
    if len(lines) > MAX_FIELDS + 1:
        raise Malformed(f"there are more than {MAX_FIELDS} fields", 431, "headers_too_large")
    fields: Fields = []
    meant: Fields = []
    known = _LINES.get
    for line in lines[1:]:
        field = known(line) or _read_line(line)
        fields.append(field)
        if field[0] in _MEANT:
            meant.append(field)
    return fields, meant


def _options(value: bytes) -> frozenset[bytes]:
    return frozenset(option.strip(b" \t") for option in value.lower().split(b","))


def _read_target(request: RequestHead) -> None:
    """Read a target that is no path (RFC 9112 section 3.2)."""
    target = request.target
    if request.method == b"CONNECT":
        raise Malformed("CONNECT is not supported", 501, "not_implemented")
    if target == b"*" and request.method == b"OPTIONS":
        return
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Malformed(f"the request target {_shown(target)} must be a path or an http URL")
    request.host, path = absolute[1], absolute[2] or b"/"
    if not _HOST.fullmatch(request.host):
        raise Malformed(f"the request target {_shown(target)} names no host")
    request.target = path if path.startswith(b"/") else b"/" + path
    request.fields = [
        (b"host", request.host, b"Host: " + request.host),
        *(each for each in request.fields if each[0] != b"host"),
    ]


def _read_connection(request: RequestHead) -> None:
    if b"close" in request.options:
        request.keep_alive = False
    elif b"keep-alive" in request.options:
        request.keep_alive = True
    if b"upgrade" not in request.options or not request.minor or request.length or b"h2c" in request.upgrade.lower():
        request.upgrade = b""  # HTTP/2 inside a tunnel would reach the instance past all rules


def _request_length(lengths: list[bytes], codings: list[bytes], minor: int) -> int:
    """How the body is framed (RFC 9112 section 6.3)."""
    if not codings:
        return _length(lengths) if lengths else 0
    if lengths:
        raise Malformed("a request must not have both Content-Length and Transfer-Encoding")
    if not minor:
        raise Malformed("Transfer-Encoding is not part of HTTP/1.0")
    given = [coding.strip(b" \t").lower() for coding in codings[0].split(b",")]
    if given == [b"chunked"] and len(codings) == 1:
        return CHUNKED
    if (
        len(codings) == 1
        and given[-1] == b"chunked"
        and b"chunked" not in given[:-1]
        and all(map(_TOKEN.fullmatch, given))
    ):
        raise Malformed(f"Transfer-Encoding: {_shown(codings[0])} is not supported", 501, "not_implemented")
    raise Malformed("Transfer-Encoding must end with chunked, and have it once")


def _length(lengths: list[bytes]) -> int:
    if len(lengths) > 1:
        raise Malformed("Content-Length is given more than once")
    if not _LENGTH.fullmatch(lengths[0]):
        raise Malformed(f"Content-Length: {_shown(lengths[0])} is no length")
    return int(lengths[0])


def _read_answer_length(answer: AnswerHead, lengths: list[bytes], codings: list[bytes], minor: int) -> None:
    if lengths:
        answer.length = answer.told = _length(lengths)
    if codings:
        if lengths or not minor or [coding.lower() for coding in codings] != [b"chunked"]:
            raise Malformed("the framing of the answer is ambiguous")
        answer.length = CHUNKED


def _bad_version(version: bytes) -> Malformed:
    if re.fullmatch(rb"HTTP/\d(\.\d)?", version):
        return Malformed(f"{version.decode()} is not spoken here", 505, "version_not_supported")
    return Malformed(f"{_shown(version)} is no version of HTTP")


def _shown(text: bytes) -> str:
    """Bytes of a stranger, short and harmless."""
    return repr(text[:64].decode("latin-1"))


def check_begun(head: bytes) -> None:
    """Refuse a head that is not whole yet and never can be right, rather than wait for the rest of it.

    Raises:
        Malformed
    """
    if head and not _TOKEN.match(head):
        raise Malformed("a request must begin with a method")
    if head.count(b"\n") != head.count(b"\r\n"):
        raise Malformed("lines must end with CR LF, and neither stands alone")


def chunk(part: bytes) -> bytes:
    """Frame a part of a body as one chunk; empty parts must not be framed, as they would end it."""
    return b"%x\r\n%b\r\n" % (len(part), part)


def last_chunk(trailers: Fields) -> bytes:
    """End a chunked body (RFC 9112 section 7.1.2)."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n%b\r\n\r\n" % b"\r\n".join([line for _, _, line in trailers])


class Counted:
    """Takes a body of known length."""

    __slots__ = ("_left", "trailers")

    def __init__(self, length: int) -> None:
        self.trailers: Fields = []
        self._left = length

    @property
    def done(self) -> bool:
        return not self._left

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what of `data` belongs to the body, and what comes after the body."""
        size = len(data)
        if size <= self._left:
            self._left -= size
            return data, b""
        part, rest = data[: self._left], data[self._left :]
        self._left = 0
        return part, rest

    def end(self) -> bool:
        """The connection has ended: tell whether the body has."""
        return not self._left


class UntilClose:
    """Takes a body that lasts as long as the connection."""

    __slots__ = ("done", "trailers")

    def __init__(self) -> None:
        self.trailers: Fields = []
        self.done = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""

    def end(self) -> bool:
        self.done = True
        return True


class Chunked:
    """Takes a chunked body apart (RFC 9112 section 7.1)."""

    __slots__ = ("_in_trailers", "_left", "_pending", "done", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers: Fields = []
        self._left = 0
        """Bytes until the end of the chunk, the line end after it included; 0 between chunks."""
        self._pending = b""
        """The beginning of something that is not whole yet."""
        self._in_trailers = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return what of `data` belongs to the body, unframed, and what comes after the body.

        Raises:
            Malformed: the body cannot be relied on from here on.
        """
        if self._pending:
            data, self._pending = self._pending + data, b""
        parts: list[bytes] = []
        at = 0
        while not self._in_trailers:
            if self._left:
                at = self._take(data, at, parts)
                if self._left:
                    break
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self._keep(data[at:], MAX_CHUNK_LINE)
                break
            self._left = self._chunk_size(data[at:line_end])
            at = line_end + 2
        rest = self._take_trailers(data[at:]) if self._in_trailers else b""
        return parts[0] if len(parts) == 1 else b"".join(parts), rest

    def end(self) -> bool:
        return self.done

    def _take(self, data: bytes, at: int, parts: list[bytes]) -> int:
        """Take what there is of a chunk and of its line end; return where that stops."""
        inside = self._left - 2
        if inside > 0:
            part = data[at : at + inside]
            if part:
                parts.append(part)
            at += len(part)
            self._left -= len(part)
        if self._left > 2:
            return at
        end = data[at : at + self._left]
        if end != _LINE_ENDS[2 - self._left :][: len(end)]:
            raise Malformed("a chunk is longer or shorter than it says")
        self._left -= len(end)
        return at + len(end)

    def _chunk_size(self, line: bytes) -> int:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None or len(line) > MAX_CHUNK_LINE:
            raise Malformed(f"{_shown(line)} is no chunk size")
        size = int(match[1], 16)
        if not size:
            self._in_trailers = True
            return 0
        return size + 2

    def _take_trailers(self, data: bytes) -> bytes:
        if data.startswith(b"\r\n"):
            self.done = True
            return data[2:]
        end = data.find(b"\r\n\r\n")
        if end > MAX_TRAILERS:
            raise Malformed("the trailers are too large")
        if end < 0:
            self._keep(data, MAX_TRAILERS)
            return b""
        fields, _ = _fields([b"", *data[:end].split(b"\r\n")])
        self.trailers = [each for each in fields if each[0] not in _NOT_IN_TRAILERS]
        self.done = True
        return data[end + 4 :]

    def _keep(self, begun: bytes, limit: int) -> None:
        if begun.count(b"\n") != begun.count(b"\r\n"):
            raise Malformed("lines must end with CR LF, and neither stands alone")
        if len(begun.rstrip(b"\r\n")) > limit:  # less what may belong to its end
            raise Malformed("a line between chunks is too long")
        self._pending = begun


Body = Counted | UntilClose | Chunked


def body_of(length: int) -> Body:
    """What takes a body of that framing."""
    if length == CHUNKED:
        return Chunked()
    return UntilClose() if length == UNTIL_CLOSE else Counted(length)
