"""One end of an HTTP/1.1 connection, and a body on its way from one to another. Callbacks alone: no task, no queue."""

import asyncio
import select
from collections.abc import Callable
from math import inf
from typing import cast

import structlog

from dockscale.proxy.wire import Body, Malformed, chunk, last_chunk

log = structlog.get_logger()

HELD_AT = 2**17
"""Bytes that may have come and not been taken; then the sender is held back."""
_WHOLE_WRITE = 2**14
"""Chunks up to this size are copied together with their frame, larger ones are not."""


class Peer:
    """The other side of a connection: what came from it, whether it can take more, until when it may be silent.

    An `asyncio.Protocol` in all but its base class, which would keep mypyc from compiling the access to attributes.
    """

    __slots__ = (
        "_held", "connected", "deadline", "error", "feeder", "full", "loop", "lost", "patience", "patrol", "pipe",
        "transport", "unread",
    )  # fmt: skip
    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, patrol: "Patrol", patience: float) -> None:
        self.loop = loop
        self.unread = b""
        self.connected = False
        """It has a transport, or had one."""
        self.lost = False
        self.error: Exception | None = None
        """Why nothing more can be expected of it."""
        self.pipe: Pipe | None = None
        """Where what comes goes, while that is not `unread`."""
        self.feeder: Pipe | None = None
        """What writes here, and stops while this is `full`."""
        self.full = False
        self.deadline = inf
        """When `expired` is called, on the loop's clock."""
        self.patience = patience
        """Seconds that it may send or take nothing where it should."""
        self.patrol = patrol
        self._held = False

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.connected = True
        self.patrol.peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.patrol.peers.discard(self)
        self.lost = True
        if self.pipe is not None:
            self.pipe.source_lost(exc)

    def eof_received(self) -> bool:
        return False  # who has ended one side has gone

    def pause_writing(self) -> None:
        self.full = True
        self.touch()
        if self.feeder is not None:
            self.feeder.source.hold()

    def resume_writing(self) -> None:
        self.full = False
        self.touch()
        if self.feeder is not None:
            self.feeder.source.release()

    @property
    def protocol(self) -> asyncio.Protocol:
        """Itself, as transports want it."""
        return cast("asyncio.Protocol", self)

    # What whoever talks to it does.

    def touch(self) -> None:
        """Start its patience anew."""
        self.deadline = self.loop.time() + self.patience

    def write(self, data: bytes) -> None:
        """Send what belongs to a body."""
        self.transport.write(data)

    def written(self) -> None:
        """A part of a body was written to it."""

    def hold(self) -> None:
        """Read nothing more from it for now."""
        if not self._held and not self.transport.is_closing():
            self._held = True
            if not self.full:
                self.deadline = inf
            self.transport.pause_reading()

    def release(self) -> None:
        """Read on."""
        if self._held:
            self._held = False
            if self.pipe is not None:
                self.touch()
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def expired(self) -> None:
        """It was silent for too long."""
        raise NotImplementedError


class Pipe:
    """A body on its way from `source` to `sink`, at the pace of the slower one (so that memory is bounded).

    `ended` is called once: with None at the end of the body, else with what went wrong. After `stop` it is not called.
    """

    __slots__ = ("_chunked", "_ended", "_limit", "body", "moved", "sink", "source")

    def __init__(
        self,
        source: Peer,
        sink: Peer,
        body: Body,
        ended: Callable[[Exception | None], None],
        *,
        chunked: bool,
        limit: int = 0,
    ) -> None:
        self.source = source
        self.sink = sink
        self.moved = 0
        """Bytes of the body that went on."""
        self.body = body
        self._ended = ended
        self._chunked = chunked
        self._limit = limit

    @property
    def done(self) -> bool:
        return self.body.done

    def start(self) -> None:
        source = self.source
        source.pipe = self
        self.sink.feeder = self
        source.touch()
        begun, source.unread = source.unread, b""
        if self.body.done:
            self._finish(begun)
        elif begun:
            self.feed(begun)
        if self.source.pipe is self:  # it has not ended yet
            if source.lost or source.error is not None:
                self.source_lost(source.error)
            elif self.sink.full:
                source.hold()
            else:
                source.release()

    def feed(self, data: bytes) -> None:
        """Pass on what came."""
        try:
            part, rest = self.body.feed(data)
        except Malformed as error:
            self.stop(error)
            return
        self.source.touch()
        if part:
            self.moved += len(part)
            if self._limit and self.moved > self._limit:
                self.stop(Malformed(f"the body is larger than {self._limit} bytes", 413, "body_too_large"))
                return
            self._write(part)
        if self.body.done:
            self._finish(rest)

    def source_lost(self, error: Exception | None) -> None:
        """The connection that the body comes from has ended, which may be the end of the body."""
        if error is None and self.body.end():
            self._finish(b"")
        else:
            self.stop(error or ConnectionResetError("the connection closed before the body was whole"))

    def stop(self, error: Exception | None = None) -> None:
        """Pass on nothing more. What comes is kept `unread` again."""
        if self._detach() and error is not None:
            self._ended(error)

    def _write(self, part: bytes) -> None:
        write = self.sink.write
        if not self._chunked:
            write(part)
        elif len(part) <= _WHOLE_WRITE:
            write(chunk(part))
        else:
            write(b"%x\r\n" % len(part))
            write(part)
            write(b"\r\n")
        self.sink.written()

    def _finish(self, rest: bytes) -> None:
        if self._chunked:
            self.sink.write(last_chunk(self.body.trailers))
        self.source.unread = rest
        if self._detach():
            self._ended(None)

    def _detach(self) -> bool:
        if self.source.pipe is not self:
            return False
        self.source.pipe = None
        if not self.source.full:
            self.source.deadline = inf
        self.source.release()
        if self.sink.feeder is self:
            self.sink.feeder = None
        return True


def has_ended(transport: asyncio.Transport) -> bool:
    """Tell whether the other side has ended, which nobody is told while it is not read from."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


class Patrol:
    """Looks at every connection now and then: one timer in place of one for each request."""

    def __init__(self, loop: asyncio.AbstractEventLoop, every_s: float) -> None:
        self.peers: set[Peer] = set()
        self._loop = loop
        self._every_s = every_s
        self._timer = loop.call_later(every_s, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._every_s, self._look)
        now = self._loop.time()
        for peer in [peer for peer in self.peers if peer.deadline <= now]:
            if peer.deadline > now:
                continue  # something that expired before has moved it on
            try:
                peer.expired()
            except Exception:
                log.exception("time_out_failed")
                peer.transport.abort()

    def close(self) -> None:
        self._timer.cancel()
