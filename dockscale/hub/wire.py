"""What travels: frames, which are a msgpack header and a body that is passed on as it is, and values with a meaning."""

import struct
from collections.abc import Iterator
from typing import Any

import msgpack

MOST_BYTES = 2**20
"""Bytes of a frame that are taken from a client. Clients send larger messages in parts of `PART_BYTES`."""
PART_BYTES = 2**18
WHOLE_BYTES = PART_BYTES + 1024
"""Up to this size a message is sent whole; above twice of it, clients drop it without a word."""
_HEADER_FIRST = 4096
"""Bytes in which nearly every header ends."""
_SMALL_BYTES = 512
_NUMBERS = ((b"\xa1t\xcb", ">d"), (b"\xa1t\xca", ">f"), (b"\xa1t\xcd", ">H"), (b"\xa1t\xcc", ">B"))
"""An entry `t` that is a double, a float, or a whole number above 127, and how it is read."""
_FEW = 0x8F
"""How the largest map begins that tells its size in its first byte."""
_TEXTS = ("type", "to", "method", "session", "parent")
_OF_HEADER = frozenset({*_TEXTS, "from", "ws", "user", "ctx"})
"""What clients believe wherever in a frame it is. So it must not be in a body, which is not read on its way."""
LEAST_BEAT_S, MOST_BEAT_S = 0.1, 3600.0
"""Between these is every pace of heartbeats, whatever a caller asks for."""

Value = Any
"""What msgpack carries: None, bool, numbers, text, bytes, lists and maps."""


class Malformed(ValueError):
    """A frame that cannot be read. The message says why."""


class Message:
    """One message. `header` says whereto and what for; `body` is the untouched rest of the frame."""

    __slots__ = ("body", "header", "vouched")

    def __init__(self, header: dict[str, Value], body: bytes = b"") -> None:
        self.header = header
        self.body = body
        self.vouched = b""
        """What dockscale says of the sender, as packed by `vouch`."""

    @property
    def method(self) -> str:
        method: str = self.header.get("method") or ""
        return method

    @property
    def session(self) -> str:
        """Where an answer is wanted; empty if none is."""
        session: str = self.header.get("session") or ""
        return session

    def frame(self) -> bytes:
        packed: bytes = msgpack.packb(self.header)
        if self.vouched:
            if packed[0] > _FEW - 2:
                return msgpack.packb(self.header | unpack(b"\x82" + self.vouched)) + self.body
            return bytes((packed[0] + 2,)) + packed[1:] + self.vouched + self.body
        return packed + self.body

    def read_body(self) -> dict[str, Value]:
        """Unpack the body: `args`, `with_kwargs`, `promise`, `t`.

        Raises:
            Malformed: it is no map.
        """
        return _map(unpack(self.body), "the body") if self.body else {}

    def arguments(self) -> tuple[list[Value], dict[str, Value]]:
        """Unpack what a call gives to its function: by position, and by name.

        Raises:
            Malformed: the body is no map, or the arguments are no list and no map of names.
        """
        call = self.read_body()
        args, named = call.get("args") or [], {}
        if not isinstance(args, list):
            raise Malformed("the arguments are no list")
        if call.get("with_kwargs"):
            if not args:
                raise Malformed("the arguments by name are missing")
            named = _map(args.pop(), "the arguments by name")
            if not all(isinstance(name, str) for name in named):
                raise Malformed("the name of an argument is no text")
        return args, named

    def check_body(self) -> None:
        """See that the body is a map, and says nothing that only the header may say.

        Raises:
            Malformed: it is not so.
        """
        if not self.body:
            return
        if len(self.body) <= _SMALL_BYTES:  # to unpack it whole costs less than to look at its names alone
            names = self.read_body()
            if not _OF_HEADER.isdisjoint(names):
                raise Malformed(f"{min(_OF_HEADER & names.keys())!r} belongs into the header")
            return
        unpacker = msgpack.Unpacker(max_buffer_size=len(self.body) + 1)
        unpacker.feed(self.body)
        try:
            for _ in range(unpacker.read_map_header()):
                name = unpacker.unpack()
                if isinstance(name, str) and name in _OF_HEADER:
                    raise Malformed(f"{name!r} belongs into the header")
                unpacker.skip()
        except Malformed:
            raise
        except Exception as error:  # see `_first`
            raise Malformed(f"the body is no msgpack map: {error or type(error).__name__}") from None

    def __repr__(self) -> str:
        header = self.header
        what = header.get("method") or header.get("type")
        return f"<Message {header.get('from')} → {header.get('to')} {what} +{len(self.body)}>"


def read(frame: bytes) -> Message:
    """Read a frame's header.

    Raises:
        Malformed: it does not begin with a whole map, or what is in it is of the wrong kind.
    """
    header, size = _first(frame)
    for name in _TEXTS:
        value = header.get(name)
        if value is not None and not isinstance(value, str):
            raise Malformed(f"{name!r} in the header is no text")
    if not header.get("type"):
        raise Malformed("the header has no type")
    return Message(header, frame[size:])


def _first(frame: bytes) -> tuple[dict[str, Value], int]:
    """The first map of a frame, and its size in bytes."""
    begun = frame[:_HEADER_FIRST]
    while True:
        unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=len(frame) + 1)
        unpacker.feed(begun)
        try:
            return _map(unpacker.unpack(), "the header"), unpacker.tell()
        except msgpack.OutOfData:
            if len(begun) == len(frame):
                raise Malformed("the frame ends within its header") from None
            begun = frame
        except Malformed:
            raise
        except Exception as error:  # msgpack raises ValueError, its own kinds, and UnicodeDecodeError
            raise Malformed(f"the header is no msgpack: {error or type(error).__name__}") from None


def vouch(workspace: str, user: dict[str, Value]) -> bytes:
    """Pack what receivers believe of a sender (`ws` and `user`), once for all its messages."""
    packed: bytes = msgpack.packb({"ws": workspace, "user": user})
    return packed[1:]


def unpack(data: bytes) -> Value:
    """Unpack one value.

    Raises:
        Malformed: it is none.
    """
    try:
        return msgpack.unpackb(data, strict_map_key=False)
    except Exception as error:  # see `_first`
        raise Malformed(f"the body is no msgpack: {error or type(error).__name__}") from None


def _map(value: Value, what: str) -> dict[str, Value]:
    if not isinstance(value, dict):
        raise Malformed(f"{what} is no map")
    return value


def pack(value: Value) -> bytes:
    """Pack one value."""
    packed: bytes = msgpack.packb(value)
    return packed


def body(args: list[Value], **more: Value) -> bytes:
    """Pack the body of a call or an answer.

    Raises:
        TypeError: something in it cannot be sent.
    """
    packed: bytes = msgpack.packb({"args": args, **more})
    return packed


def promised_every(message: Message) -> float:
    """Seconds between two heartbeats that a caller asks for; 0 if its call does not say.

    It is the last entry of the body in the short form of a promise, and read there: to unpack a body for it would cost
    more than to pass it on.
    """
    tail = message.body[-11:]
    for form, reads in _NUMBERS:
        size = struct.calcsize(reads)
        if tail[-size - len(form) :][: len(form)] == form:
            return beat_s(struct.unpack(reads, tail[-size:])[0])
    return beat_s(tail[-1]) if tail[-3:-1] == b"\xa1t" and tail[-1] < 0x80 else 0.0


def beat_s(asked: Value) -> float:
    """A pace of heartbeats that can be kept; 0 if none was asked for."""
    if not isinstance(asked, int | float) or not asked > 0:
        return 0.0
    return min(max(float(asked), LEAST_BEAT_S), MOST_BEAT_S) if asked < MOST_BEAT_S else MOST_BEAT_S


def error_value(text: str) -> dict[str, Value]:
    return {"_rtype": "error", "_rvalue": text, "_rtrace": ""}


def method_value(
    target: str, method: str, name: str, doc: str, server: str, *, schema: Value = None
) -> dict[str, Value]:
    """A function as a value: who gets it can call it at `target`."""
    value = {
        "_rtype": "method",
        "_rserver": server,
        "_rtarget": target,
        "_rmethod": method,
        "_rpromise": "*",
        "_rname": name,
        "_rdoc": doc,
        "_rasync": True,
    }
    return value if schema is None else value | {"_rschema": schema}


def maps_in(value: Value) -> Iterator[dict[str, Value]]:
    """Every map in a value, the outer ones first."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            yield each
            todo += each.values()
        elif isinstance(each, list):
            todo += each


def retarget(value: Value, workspace: str, old: str = "", new: str = "") -> None:
    """Make every target in a value absolute, and send what is aimed at `old` to `new` instead."""
    for each in maps_in(value):
        target = each.get("_rtarget")
        if isinstance(target, str):
            absolute = target if "/" in target else f"{workspace}/{target}"
            each["_rtarget"] = new if old and absolute == old else absolute
