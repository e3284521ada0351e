"""TLS on one client's connection: what comes is opened, what goes is sealed, at once and with no buffer of its own.

The event loop's own TLS is not used. It holds data of which its transports do not tell, ends a connection only when the
other side agrees, and cannot close one direction: time-outs and the lingering close of `listener` need all three.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import structlog

from dockscale.proxy.peer import Peer

log = structlog.get_logger()

HANDSHAKE = 0x16
"""The first byte of a client's first record (RFC 8446 section 5.1)."""
RECORD_BYTES = 2**14
"""The most that one record carries, and what is sealed and opened at a time: buffers of OpenSSL never shrink."""
MOST_UNASKED_BYTES = 2**16
"""What TLS itself may have to say to a client that takes nothing, such as answers to ever new keys."""


class Tls:
    """Stands between a connection and a peer: the protocol of the one, the transport of the other.

    The peer is told of its connection when the handshake is done. It gets the connection as it is, and `not_tls` is
    called, if what comes is no handshake.
    """

    __slots__ = (
        "_from_client", "_full", "_heard", "_not_tls", "_peer", "_protocol", "_raw", "_said_end", "_shaken",
        "_timeout", "_timer", "_tls", "_to_client", "_unasked",
    )  # fmt: skip
    _raw: asyncio.Transport

    def __init__(self, context: ssl.SSLContext, peer: Peer, not_tls: Callable[[], None], timeout: float) -> None:
        self._from_client, self._to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._from_client, self._to_client, server_side=True)
        self._peer = peer
        self._not_tls = not_tls
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None
        self._protocol = peer.protocol
        self._heard = False
        self._shaken = False
        self._said_end = False
        self._full = False
        self._unasked = 0
        """Bytes that TLS itself had to say since the connection is full."""

    @property
    def protocol(self) -> asyncio.Protocol:
        """Itself, as the connection wants it."""
        return cast("asyncio.Protocol", self)

    # What the connection tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)
        self._timer = self._peer.loop.call_later(self._timeout, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._protocol.connection_lost(exc)

    def eof_received(self) -> bool:
        if self._shaken and not self._raw.is_closing():
            self._protocol.eof_received()
            self.close()
        return False

    def pause_writing(self) -> None:
        self._full = True
        if self._shaken:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._full = False
        self._unasked = 0
        if self._shaken:
            self._protocol.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._said_end:
            self._protocol.data_received(data)  # is only counted
            return
        if not self._heard:
            self._heard = True
            if data[0] != HANDSHAKE:
                self._step_aside()
                return
        try:
            opened, ended = self._open(data)
        except ssl.SSLError as error:
            self._break(error)
            return
        self._flush()
        if opened and not self._raw.is_closing():
            self._protocol.data_received(opened)
        if ended:
            self.eof_received()

    def _step_aside(self) -> None:
        self._stop_timer()
        self._raw.set_protocol(self._protocol)
        self._peer.connection_made(self._raw)
        self._not_tls()

    def _shake(self) -> None:
        self._tls.do_handshake()
        self._shaken = True
        self._stop_timer()
        self._peer.connection_made(cast("asyncio.Transport", self))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _open(self, data: bytes) -> tuple[bytes, bool]:
        """Open what has come, and tell whether the client has ended its side (RFC 8446 section 6.1)."""
        parts: list[bytes] = []
        for at in range(0, len(data), RECORD_BYTES):
            self._from_client.write(memoryview(data)[at : at + RECORD_BYTES])
            with suppress(ssl.SSLWantReadError):  # the rest of a record is still to come
                if not self._shaken:
                    self._shake()
                while self._from_client.pending or self._tls.pending():
                    part = self._tls.read(RECORD_BYTES)
                    if not part:
                        return b"".join(parts), True
                    parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts), False

    def _break(self, error: ssl.SSLError) -> None:
        """End what is no TLS any more, and tell the client why (RFC 8446 section 6.2)."""
        log.debug("tls_failed", client=self._raw.get_extra_info("peername"), error=error.reason)
        self._flush()
        self._raw.close()
        if self._shaken:
            self._protocol.eof_received()

    def _flush(self) -> None:
        """Send what TLS itself has to say. Who makes it talk without end and does not listen is cut off."""
        said = self._to_client.read()
        if not said:
            return
        if self._full:
            self._unasked += len(said)
            if self._unasked > MOST_UNASKED_BYTES:
                self.abort()
                return
        self._raw.write(said)

    # What the peer does, as with any transport.

    def write(self, data: bytes) -> None:
        if not data or self._said_end or self._raw.is_closing():
            return
        sealed: list[bytes] = []
        taken = 0
        while taken < len(data):  # `write` may take less than it is given
            taken += self._tls.write(memoryview(data)[taken : taken + RECORD_BYTES])
            sealed.append(self._to_client.read())
        self._raw.write(sealed[0] if len(sealed) == 1 else b"".join(sealed))

    def can_write_eof(self) -> bool:
        return self._raw.can_write_eof()

    def write_eof(self) -> None:
        """Close the sending side. What comes from now on is passed on as it is, for who only counts it."""
        self._say_end()
        self._raw.write_eof()

    def close(self) -> None:
        if not self._raw.is_closing():
            self._say_end()
            self._raw.close()

    def _say_end(self) -> None:
        """Say that the end is one, not a cut; the client's own word is not waited for (RFC 8446 section 6.1)."""
        if self._said_end:
            return
        self._said_end = True
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self._raw.write(self._to_client.read())

    def abort(self) -> None:
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def is_reading(self) -> bool:
        return self._raw.is_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("asyncio.Protocol", protocol)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._raw.get_extra_info(name, default)
