"""HTTP/1.1 to instances: connections that are kept and used again, and the ways that fails."""

import asyncio
import errno
import select
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Protocol

from dockscale.core.pool import Instance, State
from dockscale.proxy.peer import Patrol, Peer
from dockscale.proxy.wire import MAX_ANSWER_HEAD, AnswerHead, Malformed, parse_answer

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""Methods that may be sent twice (RFC 9110 section 9.2.2)."""
KEPT_S = 4.0
"""Kept connections are closed before the usual servers' 5 s are over."""
KEPT_FOR_UNSAFE_S = 1.0
"""What must not be sent twice goes only over connections that rested for less, as no usual server closes those."""
_OWN_SHORTAGE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
KEPT_MOST = 256
"""Kept connections to one instance."""


class UpstreamError(Exception):
    """An instance did not do its part."""


class NotSent(UpstreamError):
    """No connection could be made: the instance has seen nothing of the request."""


class NoAnswer(UpstreamError):
    """The connection ended before the answer began."""


class BadAnswer(UpstreamError):
    """The answer is not HTTP, or cannot be passed on."""


class TooSlow(UpstreamError):
    """The answer did not begin, or go on, in time."""


class OutOfFiles(UpstreamError):
    """This machine has no file descriptor, or no port, left for a connection: not the instance's fault."""


class Asker(Protocol):
    """Whoever waits for an answer on a connection."""

    def heard(self) -> None:
        """More of an answer's head has come: see `Connection.take_answer`."""

    def failed(self, error: Exception) -> None:
        """There will be no (more of an) answer."""


class Connection(Peer):
    """A connection to an instance, for one request at a time. It rests while it has no `asker`."""

    __slots__ = ("_upstream", "asker", "instance", "rests_since")

    def __init__(self, upstream: "Upstream", instance: Instance) -> None:
        super().__init__(upstream.loop, upstream.patrol, upstream.response_timeout or inf)
        self.instance = instance
        self.asker: Asker | None = None
        self.rests_since = 0.0
        self._upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.instance.on_loss.add(self._instance_lost)

    def connection_lost(self, exc: Exception | None) -> None:
        self.instance.on_loss.discard(self._instance_lost)
        self._upstream.forget(self)
        super().connection_lost(exc)
        if self.asker is not None:
            self.asker.heard()  # it may be the end of what has come so far, or of all hope

    def data_received(self, data: bytes) -> None:
        if self.pipe is not None:
            self.pipe.feed(data)
        elif self.asker is None:  # nobody has asked it anything
            self.transport.abort()
        else:
            self.unread = self.unread + data if self.unread else data
            self.asker.heard()

    def written(self) -> None:
        if not self.full:
            self.touch()

    def expired(self) -> None:
        if self.asker is None:
            self.transport.close()
        else:
            self.fail(TooSlow("the instance did not answer in time"))

    def _instance_lost(self) -> None:
        if self.asker is None:
            self.transport.abort()
        else:
            self.fail(NoAnswer("the instance died"))

    def fail(self, error: Exception) -> None:
        """Tell whoever waits for it that there is nothing more to expect."""
        self.error = self.error or error
        if self.pipe is not None:
            self.pipe.stop(error)
        elif self.asker is not None:
            self.asker.failed(error)

    def body_ended(self, error: Exception | None) -> None:
        """The request's body is all on its way to it, or never will be."""
        if error is not None:
            self.fail(error)

    def take_answer(self, method: bytes) -> AnswerHead | None:
        """Return the head of the next answer, which may be an interim one (1xx), or None while it is not whole.

        Raises:
            UpstreamError: there will be none.
        """
        head, whole, rest = self.unread.partition(b"\r\n\r\n")
        if len(head.rstrip(b"\r\n")) > MAX_ANSWER_HEAD:  # less what may belong to its end
            raise BadAnswer("the head of the answer is too large")
        if not whole:
            self._check_begun(head)
            return None
        self.unread = rest
        try:
            return parse_answer(head, method)
        except Malformed as error:
            raise BadAnswer(f"the instance's answer is not valid HTTP: {error}") from None

    def _check_begun(self, begun: bytes) -> None:
        if not b"HTTP/1.".startswith(begun[:7]) or begun.count(b"\n") != begun.count(b"\r\n"):
            raise BadAnswer("the instance's answer is not HTTP")
        if self.lost and begun:
            raise BadAnswer("the instance closed the connection in the head of its answer")
        if self.lost:
            raise NoAnswer("the instance closed the connection before it answered")


class Upstream:
    """The connections to all instances."""

    def __init__(self, patrol: Patrol, connect_timeout: float, response_timeout: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.patrol = patrol
        self.response_timeout = response_timeout
        self._connect_timeout = connect_timeout
        self._kept: dict[Instance, deque[Connection]] = {}

    def kept(self, instance: Instance, *, safe: bool) -> Connection | None:
        """Return a kept connection, the one that rested least. `safe`: the request may be sent twice.

        What must not be sent twice gets only one that rested for a moment, and of which nothing is known to have come.
        """
        kept = self._kept.get(instance)
        while kept:
            connection = kept.pop()
            if connection.transport.is_closing():
                continue
            if safe or (self.loop.time() - connection.rests_since < KEPT_FOR_UNSAFE_S and _is_silent(connection)):
                return connection
            connection.transport.close()
        return None

    async def connect(self, instance: Instance) -> Connection:
        """Make a new connection.

        Raises:
            NotSent: within the time there was none.
            OutOfFiles
        """
        host, port = instance.address
        if instance.lost:
            raise NotSent("the instance died")
        try:
            async with asyncio.timeout(self._connect_timeout) as bound:
                with _interrupted(bound, instance):
                    connection = Connection(self, instance)
                    await self.loop.create_connection(lambda: connection.protocol, host, port)
        except TimeoutError:
            raise NotSent("the instance died" if instance.lost else "no connection to the instance in time") from None
        except OSError as error:
            if error.errno in _OWN_SHORTAGE:
                raise OutOfFiles(f"dockscale can open no more connections: {error.strerror}") from error
            raise NotSent(f"no connection to the instance: {error.strerror or error}") from error
        return connection

    def keep(self, connection: Connection) -> None:
        """Take back a connection whose answer was whole; it is kept if it can be used again."""
        connection.asker = None
        kept = self._kept.get(connection.instance, ())
        if (
            connection.lost
            or connection.unread
            or connection.full
            or connection.error is not None
            or connection.instance.state is not State.READY
            or len(kept) >= KEPT_MOST
        ):
            connection.transport.close()
            return
        connection.rests_since = now = self.loop.time()
        connection.deadline = now + KEPT_S
        self._kept.setdefault(connection.instance, deque()).append(connection)

    def forget(self, connection: Connection) -> None:
        """A connection is closed."""
        kept = self._kept.get(connection.instance)
        if kept is not None:
            if connection in kept:
                kept.remove(connection)
            if not kept:
                del self._kept[connection.instance]

    def close(self) -> None:
        """Close all kept connections."""
        for kept in self._kept.values():
            for connection in kept:
                connection.transport.close()


def _is_silent(connection: Connection) -> bool:
    """Tell whether nothing has come that the loop has not told yet, such as the other side's end."""
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)
    return not poll.poll(0)


@contextmanager
def _interrupted(bound: asyncio.Timeout, instance: Instance) -> Iterator[None]:
    """End a time-out at once when the instance is lost: packets to a dead container are answered by nobody."""

    def interrupt() -> None:
        if not bound.expired():
            bound.reschedule(0.0)

    instance.on_loss.add(interrupt)
    try:
        yield
    finally:
        instance.on_loss.discard(interrupt)
