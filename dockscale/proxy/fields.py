"""Which fields go on, in either direction, and which are added. Bytes in, bytes out; values stay as they are."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from dockscale.proxy.wire import CHUNKED, FORWARDING, AnswerHead, RequestHead

Networks = Sequence[IPv4Network | IPv6Network]

_HOP_BY_HOP = frozenset({
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te",
    b"transfer-encoding", b"upgrade",
})  # fmt: skip
"""Fields that concern one connection only (RFC 9110 section 7.6.1), besides those that Connection names."""
_WRITTEN_ANEW = _HOP_BY_HOP | {b"content-length", b"x-request-id"}
_FROM_STRANGERS = _WRITTEN_ANEW | FORWARDING
_FROM_TRUSTED = _WRITTEN_ANEW | {b"x-forwarded-for", b"x-forwarded-prefix"}
_FROM_INSTANCES = _HOP_BY_HOP | {b"content-length"}
_KEPT_WHATEVER = (
    frozenset({b"close", b"keep-alive", b"host", b"content-length", b"transfer-encoding", b""}) | FORWARDING
)
"""What Connection may name without effect on fields: its own options, and what a message cannot do without."""


def request_head(
    request: RequestHead,
    path: bytes,
    prefix: bytes,
    request_id: bytes,
    address: bytes,
    scheme: bytes,
    trusted: Networks,
) -> bytes:
    """Write the head that an instance gets: the client's fields, less those of the connection, plus where it came from.

    `path` is what is left of the target after `prefix` was stripped; `address` is the client's, `scheme` how it came.
    """
    believed = bool(trusted) and _is_in(address.decode(), trusted)
    left_out = _FROM_TRUSTED if believed else _FROM_STRANGERS
    named = request.options - _KEPT_WHATEVER
    if named:
        left_out |= named
    lines = [b"%b %b HTTP/1.1" % (request.method, path)]
    lines += [line for lower, _, line in request.fields if lower not in left_out]
    if not request.host:
        lines.append(b"Host: localhost")  # HTTP/1.0 knows requests without; the instance gets HTTP/1.1
    if request.says_length:
        lines.append(b"Content-Length: %d" % request.length)
    elif request.length == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked")
    if request.upgrade:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b" % request.upgrade)
    elif request.te:
        lines.append(b"TE: trailers\r\nConnection: TE")
    if believed:
        lines += _believed(request, prefix, address, scheme)
    else:
        host = request.host or b"localhost"
        told = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b"
        lines.append(told % (address, scheme, host))
        if prefix:
            lines.append(b"X-Forwarded-Prefix: %b" % prefix)
    lines.append(b"X-Request-Id: %b\r\n\r\n" % request_id)
    return b"\r\n".join(lines)


def _believed(request: RequestHead, prefix: bytes, address: bytes, scheme: bytes) -> list[bytes]:
    """Add to what a trusted proxy in front said."""
    sent: dict[bytes, list[bytes]] = {}
    for lower, value, _ in request.fields:
        if lower in FORWARDING:
            sent.setdefault(lower, []).append(value)
    lines = [b"X-Forwarded-For: %b" % b", ".join([*sent.get(b"x-forwarded-for", ()), address])]
    if b"x-forwarded-proto" not in sent:
        lines.append(b"X-Forwarded-Proto: %b" % scheme)
    if b"x-forwarded-host" not in sent:
        lines.append(b"X-Forwarded-Host: %b" % request.host)
    prefix = b"".join(sent.get(b"x-forwarded-prefix", ())) + prefix
    if prefix:
        lines.append(b"X-Forwarded-Prefix: %b" % prefix)
    return lines


def pairs(head: bytes) -> list[tuple[bytes, bytes]]:
    """The fields of a head that was written here, in order: names in lower case, and values."""
    split = [line.partition(b": ") for line in head.split(b"\r\n")[1:-2]]
    return [(name.lower(), value) for name, _, value in split]


def client_of(request: RequestHead, address: bytes, trusted: Networks) -> str:
    """The address of who asks: `address`, or whom trusted proxies name as theirs, the nearest of them first."""
    found = address.decode()
    said = [value for lower, value, _ in request.fields if lower == b"x-forwarded-for"]
    names = [name.strip() for name in b",".join(said).decode("latin-1").split(",") if name.strip()]
    while names and trusted and _is_in(found, trusted):
        found = names.pop()
    return found


def answer_head(answer: AnswerHead, *, minor: int, keep_alive: bool, extra: bytes) -> bytes:
    """Write the head that a client of HTTP/1.`minor` gets. `extra` is whole lines of dockscale's own."""
    left_out = _FROM_INSTANCES
    named = answer.options - _KEPT_WHATEVER
    if named:
        left_out |= named
    lines = [b"HTTP/1.1 %d %b" % (answer.status, answer.reason)]
    lines += [line for lower, _, line in answer.fields if lower not in left_out]
    if answer.status >= 200 and answer.status != 204:
        if answer.told is not None:
            lines.append(b"Content-Length: %d" % answer.told)
        elif is_chunked(answer, minor):
            lines.append(b"Transfer-Encoding: chunked")
    if answer.status == 101:
        lines.append(b"Connection: Upgrade\r\nUpgrade: %b" % answer.upgrade)
    elif not keep_alive:
        lines.append(b"Connection: close")
    elif not minor:
        lines.append(b"Connection: keep-alive")
    lines.append(extra + b"\r\n")
    return b"\r\n".join(lines)


def interim_head(answer: AnswerHead) -> bytes:
    """Write an interim answer (1xx), as it came."""
    left_out = _FROM_INSTANCES | answer.options
    lines = [line + b"\r\n" for lower, _, line in answer.fields if lower not in left_out]
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, answer.reason, b"".join(lines))


def is_chunked(answer: AnswerHead, minor: int) -> bool:
    """Tell whether the client gets the body in chunks: where its length is not known, if it understands them."""
    return answer.length < 0 and minor == 1


def cookie(request: RequestHead, name: bytes) -> str:
    """The value of the client's cookie of that name; empty if it sent none (RFC 6265 section 5.4)."""
    for lower, value, _ in request.fields:
        if lower == b"cookie":
            for pair in value.split(b";"):
                key, _, token = pair.strip(b" \t").partition(b"=")
                if key == name:
                    return token.decode("latin-1")
    return ""


def set_cookie(name: bytes, value: str, prefix: str) -> bytes:
    """A line that gives the client a cookie for as long as its session lasts, below `prefix` only."""
    path = prefix.encode("latin-1") + b"/"
    return b"Set-Cookie: %b=%b; Path=%b; HttpOnly; SameSite=Lax\r\n" % (name, value.encode(), path)


def _is_in(address: str, networks: Networks) -> bool:
    try:
        host = ip_address(address)
    except ValueError:
        return False
    return any(host in network for network in networks)
