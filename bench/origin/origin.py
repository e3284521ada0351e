"""The instance behind the measured proxies. It does as little as it can, so that it is late to become the bottleneck.

GET /12 /20k /1m /1g answer that many bytes; POST /swallow reads its body (with Content-Length) and answers 12 bytes;
GET /ws becomes a WebSocket that echoes short messages. Answers lie ready in memory; one buffer takes what all
connections read; heads are not parsed further than needed. It trusts its clients, so it is no server for anything else.
"""

import asyncio
import base64
import gc
import hashlib
import os
import re
import signal
from typing import cast

import uvloop

PORT = 8000
SMALL = b"Hello, bench"
MIB = bytes(1 << 20)
GIB_IN_MIB = 1 << 10
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
ANSWERS = {
    path: HEAD % len(body) + body
    for path, body in ((b"/12", SMALL), (b"/20k", bytes(20_000)), (b"/1m", bytes(1_000_000)))
}
SWALLOWED = ANSWERS[b"/12"]
UPGRADE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n"
)
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
KEY = re.compile(rb"\r\nsec-websocket-key: *(\S+)", re.IGNORECASE)
CLOSE = 0x88
BUFFER = memoryview(bytearray(1 << 18))


class Origin(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self) -> None:
        self.take = self.take_heads
        self.rest = b""
        self.left = 0
        self.mib_to_send = 0
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self.take(nbytes)

    def take_heads(self, count: int) -> None:
        data = self.rest + bytes(BUFFER[:count])
        self.rest = b""
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self.rest = data
                return
            head, data = data[:end], data[end + 4 :]
            if head.startswith(b"POST"):
                self.swallow(head, len(data))
                return
            path = head[4 : head.index(b" ", 4)]
            if path == b"/ws":
                self.upgrade(head)
                return
            self.answer(path)

    def answer(self, path: bytes) -> None:
        if path == b"/1g":
            self.transport.write(HEAD % (GIB_IN_MIB << 20))
            self.mib_to_send = GIB_IN_MIB
            self.send_on()
        else:
            self.transport.write(ANSWERS.get(path) or b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    def send_on(self) -> None:
        while self.mib_to_send and not self.paused:
            self.mib_to_send -= 1
            self.transport.write(MIB)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.send_on()

    def swallow(self, head: bytes, here: int) -> None:
        length = LENGTH.search(head)
        if length is None:
            self.transport.write(b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\n\r\n")
            self.transport.close()
            return
        self.left = int(length[1])
        self.take = self.take_body
        self.take_body(here)

    def take_body(self, count: int) -> None:
        self.left -= count
        if self.left <= 0:  # nobody here sends a request before the last one is answered
            self.take = self.take_heads
            self.transport.write(SWALLOWED)

    def upgrade(self, head: bytes) -> None:
        key = KEY.search(head)
        accept = base64.b64encode(hashlib.sha1(key[1] + MAGIC).digest()) if key else b""  # noqa: S324  # the protocol's
        self.transport.write(UPGRADE % accept)
        self.take = self.take_frames

    def take_frames(self, count: int) -> None:
        data = self.rest + bytes(BUFFER[:count])
        at, answers = 0, b""
        while len(data) >= at + 6:
            length = data[at + 1] & 0x7F  # below 126: longer ones are not sent here
            start, end = at + 6, at + 6 + length
            if len(data) < end:
                break
            if data[at] == CLOSE:
                self.transport.close()
                return
            answers += data[at : at + 1] + bytes((length,)) + unmasked(data[start:end], data[at + 2 : start])
            at = end
        self.rest = data[at:]
        if answers:
            self.transport.write(answers)


def unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")).to_bytes(size, "little")


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Origin, "0.0.0.0", PORT, backlog=4096)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # a process with number 1 ignores it otherwise
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
