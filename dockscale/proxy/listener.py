"""The main port: accepts connections within bounds, reads their requests one after the other, cuts off slow clients."""

import asyncio
import errno
import resource
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Protocol, cast

import structlog

from dockscale.proxy.peer import HELD_AT, Patrol, Peer, Pipe, has_ended
from dockscale.proxy.tls import Tls
from dockscale.proxy.wire import Body, Malformed, RequestHead, body_of, check_begun, parse_request

log = structlog.get_logger()

BACKLOG = 1024
ACCEPT_AT_ONCE = 64
ACCEPT_AGAIN_S = 0.5
"""Pause after nothing could be accepted, as when the machine had no file descriptor left."""
FILES_KEPT_BACK = 64
"""File descriptors that clients leave to everything else."""
GONE_LOOK_S = 1.0
"""How often it is looked whether a client that is held back is still there."""
LINGER_S = 2.0
LINGER_BYTES = 2**20
"""What may still come from a client that has its answer, before its connection is closed (RFC 9112 section 9.6)."""
_NO_LINGER = struct.pack("ii", 1, 0)
# What accept(2) says of the connection that it was about to give, not of us.
_OF_ONE_CLIENT = (
    errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH,
    errno.EOPNOTSUPP, errno.ENONET,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may do: seconds, bytes, and connections. Each is the setting of that name."""

    keepalive_timeout: float
    header_timeout: float
    client_timeout: float
    max_header_bytes: int
    max_body_bytes: int
    max_connections: int


class Occupation(Protocol):
    """What a client's request is being answered by."""

    def abandon(self) -> None:
        """Its client has gone."""


class Client(Peer):
    """One client's connection: its requests, one after the other. Who answers sets `occupation`, and calls `next`."""

    __slots__ = (
        "_blank", "_buffered", "_left", "_limits", "_listener", "_reading", "_searched", "address", "answered", "body",
        "keep_alive", "lingers", "occupation", "raw", "request", "scheme", "upload",
    )  # fmt: skip

    def __init__(self, listener: "Listener", scheme: bytes) -> None:
        super().__init__(listener.loop, listener.patrol, listener.limits.client_timeout)
        self.scheme = scheme
        """`https` or `http`."""
        self.address = b""
        self.raw: asyncio.Transport | None = None
        """Its connection without TLS, which is there before the handshake is done and it is `connected`."""
        self.occupation: Occupation | None = None
        self.request: RequestHead | None = None
        """The request that is being answered."""
        self.body: Body | None = None
        """Its body, if it has one and `send_body` was not called."""
        self.upload: Pipe | None = None
        """Its body on the way, once `send_body` was called."""
        self.answered = False
        """The head of the final answer was written."""
        self.keep_alive = True
        """Another request may follow."""
        self.lingers = False
        self._listener = listener
        self._limits = listener.limits
        self._reading = False
        self._blank = 0
        """Empty lines that came before the head."""
        self._searched = 0
        """Bytes in which the end of the head is not."""
        self._buffered = 0
        self._left = 0

    # What the connection tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0].encode() if isinstance(peer, tuple) else b""
        self.deadline = self.loop.time() + self._limits.header_timeout
        if self.closing:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.gone(self)
        occupation, self.occupation = self.occupation, None
        if occupation is not None:
            occupation.abandon()
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        self._note_close()  # before that, what was written may still go out
        return super().eof_received()

    def data_received(self, data: bytes) -> None:
        if self.pipe is not None:
            self.pipe.feed(data)
            return
        if self.lingers:
            self._discard(data)
            return
        self.unread = self.unread + data if self.unread else data
        if self.request is None and not self.full:
            self._read()
        elif len(self.unread) > HELD_AT:
            self.hold()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._buffered = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.pipe is None:
            self.deadline = self._due()
            if self.request is None and not self.lingers:
                self.release()
                self._read()

    def hold(self) -> None:
        super().hold()
        if not self.full:
            self.deadline = self.loop.time() + GONE_LOOK_S

    def expired(self) -> None:
        if self.full or self.transport.is_closing():
            self._check_pace()
        elif self._held:
            self._check_presence()
        elif self.pipe is not None:
            self.pipe.stop(Malformed("the body did not come in time", 408, "too_slow"))
        elif self.unread:
            self._refuse(Malformed("the head of the request did not come in time", 408, "too_slow"))
        else:
            self._close()

    def _close(self) -> None:
        self._note_close()
        self.transport.close()

    def _note_close(self) -> None:
        """Allow what has not gone out yet its time."""
        self._buffered = self.transport.get_write_buffer_size()
        self.deadline = self.loop.time() + self._limits.client_timeout

    def _due(self) -> float:
        """When it will have been silent for too long, from now on."""
        now = self.loop.time()
        if self.lingers:
            return now + LINGER_S
        if self.transport.is_closing():
            return now + self._limits.client_timeout
        if self.request is None:
            return now + (self._limits.header_timeout if self.unread else self._limits.keepalive_timeout)
        return inf

    def _check_pace(self) -> None:
        """Cut off who has taken nothing of what waits to be sent."""
        left = self.transport.get_write_buffer_size()
        if left < self._buffered:
            self._buffered = left
            self.deadline = self.loop.time() + self._limits.client_timeout
        else:
            self.cut()

    def _check_presence(self) -> None:
        """Who is not read from cannot be heard to go: look."""
        if has_ended(self.transport):
            self.transport.abort()
        else:
            self.deadline = self.loop.time() + GONE_LOOK_S

    # How requests are read.

    @property
    def closing(self) -> bool:
        """dockscale ends: no request may follow."""
        return self._listener.closing

    @property
    def idle(self) -> bool:
        """Between two requests."""
        return self.request is None and not self.unread

    def _read(self) -> None:
        """Read requests and have them answered, as long as that needs no waiting."""
        if self._reading:
            return  # the loop below goes on as soon as whoever called is done
        self._reading = True
        try:
            while self.unread and self.request is None and not self.lingers and not self.full:
                if not self._has_head():
                    break
                self._listener.handle(self, self._take_request())
        except Malformed as error:
            self._refuse(error)
        finally:
            self._reading = False

    def _has_head(self) -> bool:
        """Tell whether a whole head is there; empty lines before it are passed over (RFC 9112 section 2.2)."""
        unread = self.unread
        while self._blank < 2 and unread.startswith(b"\r\n"):
            self._blank += 1
            self.unread = unread = unread[2:]
        if unread.find(b"\r\n\r\n", self._searched) >= 0:
            return True
        if not self._searched:  # the first of it has just come
            self.deadline = self.loop.time() + self._limits.header_timeout
        if unread != b"\r":
            check_begun(unread)
        self._check_size(len(unread.rstrip(b"\r\n")))  # less what may belong to its end
        self._searched = max(1, len(unread) - 3)
        return False

    def _take_request(self) -> RequestHead:
        head, _, rest = self.unread.partition(b"\r\n\r\n")
        if len(head) > self._limits.max_header_bytes:
            self._check_size(len(head))
        self.unread = rest
        self._searched = self._blank = 0
        self.deadline = inf
        self.request = request = parse_request(head)
        self.keep_alive = request.keep_alive and not self._listener.closing
        if request.length:
            self.body = body_of(request.length)
            limit = self._limits.max_body_bytes
            if limit and request.length > limit:
                raise Malformed(f"the body is larger than {limit} bytes", 413, "body_too_large")
        return request

    def _check_size(self, size: int) -> None:
        limit = self._limits.max_header_bytes
        if size <= limit:
            return
        if b"\r\n" not in self.unread[:limit]:
            raise Malformed(f"the request line is longer than {limit} bytes", 414, "target_too_long")
        raise Malformed(f"the head is larger than {limit} bytes", 431, "headers_too_large")

    def not_tls(self) -> None:
        """It came to a port for TLS and speaks none."""
        self._refuse(Malformed("this port takes TLS only: ask it for https://", 400, "tls_only"))

    def _refuse(self, error: Malformed) -> None:
        self.keep_alive = False
        self._listener.refuse(self, error)
        self.linger()

    # What whoever answers does.

    def send_body(self, sink: Peer, ended: Callable[[Exception | None], None], *, chunked: bool) -> None:
        """Let the request's body flow to `sink` from now on; see `Pipe` for `ended`."""
        assert self.body is not None
        body, self.body = self.body, None
        self.upload = Pipe(self, sink, body, ended, chunked=chunked, limit=self._limits.max_body_bytes)
        self.upload.start()

    def take_back_body(self) -> None:
        """Undo `send_body` of which nothing has moved, so that it can be done again."""
        if self.upload is not None:
            self.upload.stop()
            self.body, self.upload = self.upload.body, None

    def skip_body(self) -> bool:
        """Take what has come of a body that nobody wants, and tell whether that was all of it."""
        if self.upload is not None:
            return self.upload.done
        if self.body is None:
            return True
        if not self.body.done:
            try:
                _, self.unread = self.body.feed(self.unread)
            except Malformed:
                return False
        return self.body.done

    def next(self) -> None:
        """The answer is out: go on with the next request, or end."""
        self.occupation = None
        if self.upload is not None:
            self.upload.stop()
        if self.lingers:
            return
        if not self.skip_body():
            self.linger()
        elif not self.keep_alive or self.closing:
            self._close()
        else:
            self.request = self.body = self.upload = None
            self.answered = False
            if not self.full:
                self.deadline = self.loop.time() + self._limits.keepalive_timeout
            if self._held:
                self.release()
            if self.unread:
                self._read()

    def hand_over(self, protocol: asyncio.Protocol) -> None:
        """Give the connection to another protocol for good. It still counts, and is cut in the end, as a client's."""
        self.occupation = None
        self.deadline = inf
        unread, self.unread = self.unread, b""
        self.transport.set_protocol(cast("asyncio.Protocol", _Heir(self, protocol)))
        protocol.connection_made(self.transport)
        if self.full:
            protocol.pause_writing()
        self.release()
        if unread and not self.transport.is_closing():
            protocol.data_received(unread)

    def cut(self) -> None:
        """End the connection with a reset: where only its end tells the end of a body, a clean one would tell a lie."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.lost:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def linger(self, seconds: float = LINGER_S) -> None:
        """Close the sending side, and read on a little, so that a reset does not overtake the answer."""
        if self.transport.is_closing():
            return
        self.lingers = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.deadline = self.loop.time() + seconds
        self._left = LINGER_BYTES
        self._discard(self.unread)
        self.release()

    def _discard(self, data: bytes) -> None:
        self.unread = b""
        self._left -= len(data)
        if self._left < 0:
            self.transport.abort()


class _Heir:
    """The protocol that a connection was handed to, in all but that the client, too, is told of the end."""

    __slots__ = ("_client", "_protocol", "data_received", "eof_received", "pause_writing", "resume_writing")

    def __init__(self, client: Client, protocol: asyncio.Protocol) -> None:
        self._client = client
        self._protocol = protocol
        self.data_received = protocol.data_received
        self.eof_received = protocol.eof_received
        self.pause_writing = protocol.pause_writing
        self.resume_writing = protocol.resume_writing

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.connection_lost(exc)
        self._protocol.connection_lost(exc)


Handle = Callable[[Client, RequestHead], None]
Refuse = Callable[[Client, Malformed], None]


class Certificate(Protocol):
    """What a port shows its clients."""

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake."""


class Listener:
    """Listens on ports. `handle` answers a request, `refuse` what could not be read as one."""

    def __init__(self, handle: Handle, refuse: Refuse, patrol: Patrol, limits: Limits) -> None:
        self.handle = handle
        self.refuse = refuse
        self.patrol = patrol
        self.limits = limits
        self.clients: set[Client] = set()
        self.closing = False
        self.loop = asyncio.get_running_loop()
        self._sockets: list[tuple[socket.socket, Certificate | None]] = []
        self._accepting = False
        self._most = limits.max_connections or _most_connections()
        self._again: asyncio.TimerHandle | None = None
        self._full = False
        self._arriving: set[asyncio.Task[object]] = set()
        """Only so that they are not forgotten by the garbage collector."""
        self._empty = asyncio.Event()

    async def open(self, host: str, port: int, certificate: Certificate | None = None) -> int:
        """Listen, for TLS if there is a certificate, and return the port.

        Raises:
            OSError: the address is taken, or is none of this machine's.
        """
        found = await self.loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        opened: list[socket.socket] = []
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                opened.append(_listening(family, (address[0], port, *address[2:])))
                port = port or opened[0].getsockname()[1]
        except OSError:
            for listening in opened:
                listening.close()
            raise
        self._sockets += [(listening, certificate) for listening in opened]
        self._accept_again()
        return port

    async def close(self, timeout: float) -> None:
        """Accept nothing more, let what is being answered end, and cut off what has not after `timeout` seconds."""
        self.closing = True
        self._stop_accepting()
        self._close_sockets()
        for client in list(self.clients):
            _send_away(client)
        try:
            async with asyncio.timeout(timeout):
                while self.clients:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            log.warning("connections_cut", open=len(self.clients), after_s=timeout)
            for client in [client for client in self.clients if client.connected]:
                client.cut()
            await asyncio.sleep(0)

    def gone(self, client: Client) -> None:
        """A client has left: there is room for another."""
        self.clients.discard(client)
        self._empty.set()
        if self._full and len(self.clients) < 0.9 * self._most:
            self._full = False
        if not self._accepting and self._again is None and not self.closing:
            self._accept_again()

    def _accept_again(self) -> None:
        self._again = None
        self._accepting = True
        for listening, certificate in self._sockets:
            self.loop.add_reader(listening.fileno(), self._accept, listening, certificate)

    def _stop_accepting(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._accepting:
            self._accepting = False
            for listening, _ in self._sockets:
                self.loop.remove_reader(listening.fileno())

    def _accept(self, listening: socket.socket, certificate: Certificate | None) -> None:
        """Accept who knocks, within bounds: more wait in the kernel's line until there is room."""
        for _ in range(ACCEPT_AT_ONCE):
            if len(self.clients) >= self._most:
                self._stop_accepting()
                self._tell_full()
                return
            try:
                sock, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _OF_ONE_CLIENT:
                    continue
                self._pause(error)
                return
            sock.setblocking(False)
            client = Client(self, b"https" if certificate else b"http")
            self.clients.add(client)
            task = self.loop.create_task(self._connect(client, sock, certificate), name="accept")
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _connect(self, client: Client, sock: socket.socket, certificate: Certificate | None) -> None:
        protocol = client.protocol
        if certificate is not None:
            protocol = Tls(certificate.context, client, client.not_tls, self.limits.header_timeout).protocol
        try:
            client.raw, _ = await self.loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError as error:
            log.warning("accept_failed", error=str(error))
            self.gone(client)
        else:
            if self.closing:
                _send_away(client)

    def _tell_full(self) -> None:
        if not self._full:
            self._full = True
            log.warning("connections_full", open=len(self.clients), hint="others wait; DOCKSCALE_MAX_CONNECTIONS")

    def _pause(self, error: OSError) -> None:
        log.warning("accept_paused", error=error.strerror, open=len(self.clients), again_in_s=ACCEPT_AGAIN_S)
        self._stop_accepting()
        self._again = self.loop.call_later(ACCEPT_AGAIN_S, self._accept_again)

    def _close_sockets(self) -> None:
        for listening, _ in self._sockets:
            listening.close()
        self._sockets.clear()


def _send_away(client: Client) -> None:
    """End a connection that is idle, or in its handshake."""
    if client.connected:
        if client.idle:
            client.transport.close()
    elif client.raw is not None:
        client.raw.abort()


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # who vanished without a word is noticed some day
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _most_connections() -> int:
    """Every client's connection may need one to an instance."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, (files - FILES_KEPT_BACK) // 2)
