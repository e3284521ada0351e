"""WebSocket and other upgrades, as bytes both ways, until one side ends or the instance must go."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.http import StreamWriter

BUFFER = 2**16
GOODBYE_S = 1.0
SERVICE_RESTART = 1012
"""RFC 6455 close code (registered at IANA): the client may reconnect, and will reach another instance."""

Write = Callable[[bytes], Awaitable[None]]


class _Bytes:
    """Takes over an upgraded aiohttp connection: what arrives is kept in a bounded reader."""

    def __init__(self, protocol: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.reader = aiohttp.StreamReader(protocol, BUFFER, loop=loop)

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.reader.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self.reader.feed_eof()

    def set_exception(self, error: BaseException, *_: object) -> None:
        self.reader.set_exception(error)


class Frames:
    """Follows WebSocket frames through a stream, to know where one of our own may stand (RFC 6455 section 5.2)."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0

    @property
    def between(self) -> bool:
        """No frame has begun and not ended."""
        return not self._head and not self._left

    def feed(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._left:
                skipped = min(self._left, len(view))
                self._left -= skipped
                view = view[skipped:]
                continue
            self._head.append(view[0])
            view = view[1:]
            size = _frame_size(self._head)
            if size is not None:
                self._left = size
                self._head.clear()


def _frame_size(head: bytearray) -> int | None:
    """Bytes after the head (mask key included), or None while the head is not whole."""
    if len(head) < 2:
        return None
    size, extended = head[1] & 0x7F, {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
    if len(head) < 2 + extended:
        return None
    if extended:
        size = int.from_bytes(head[2:])
    return size + (4 if head[1] & 0x80 else 0)


def close_frame(code: int) -> bytes:
    """A server's close frame."""
    return b"\x88\x02" + code.to_bytes(2)


async def tunnel(
    request: web.BaseRequest,
    answer: web.StreamResponse,
    upstream: aiohttp.ClientResponse,
    goodbye: asyncio.Event,
) -> None:
    """Carry bytes until either side ends. When `goodbye` is set, a WebSocket is closed with 1012 (service restart)."""
    loop = asyncio.get_running_loop()
    connection = upstream.connection
    assert connection is not None, "a 101 keeps its connection"
    assert connection.protocol is not None
    protocol = connection.protocol
    client, instance = _Bytes(request.protocol, loop), _Bytes(protocol, loop)
    to_instance = StreamWriter(protocol, loop)
    frames = Frames()

    async def to_client(data: bytes) -> None:
        frames.feed(data)
        await answer.write(data)

    protocol.read_timeout = None  # an open socket may be silent for as long as it likes
    # Both take anything that is fed like aiohttp's own WebSocketReader; only the server's type says otherwise.
    protocol.set_parser(instance, instance)
    request.protocol.set_parser(client)  # type: ignore[arg-type]  # see above
    ends = [
        asyncio.create_task(_pump(client.reader, to_instance.write), name="tunnel up"),
        asyncio.create_task(_pump(instance.reader, to_client), name="tunnel down"),
        asyncio.create_task(goodbye.wait(), name="tunnel goodbye"),
    ]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        upstream.close()
    if goodbye.is_set() and frames.between and request.headers.get("Upgrade", "").lower() == "websocket":
        await answer.write(close_frame(SERVICE_RESTART))
        await _hear_out(client.reader)


async def _pump(reader: aiohttp.StreamReader, write: Write) -> None:
    try:
        while data := await reader.readany():
            await write(data)
    except (aiohttp.ClientError, ConnectionError):
        pass  # that side is gone, which ends the tunnel


async def _hear_out(reader: aiohttp.StreamReader) -> None:
    """Wait for the client's own close, so that a reset does not overtake ours."""
    try:
        async with asyncio.timeout(GOODBYE_S):
            while await reader.readany():
                pass
    except (TimeoutError, ConnectionError):
        pass
