"""Both ends of dockscale as bare TCP: a client that sends any bytes, and an origin that keeps and answers any."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from tests.support.http1 import Incomplete, Message, read_request
from tests.support.world import World, until, world

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BOUND_S = 4.0

_LABELS = {
    "lazy": "false",  # an instance is there although no request was sent, so nothing is kept open to its own program
    "autoscaling.enabled": "false",
}


class Wire(asyncio.Protocol):
    """One end of a TCP connection. `got` is all that came; `ended` how the other side ended: "", "fin" or "reset"."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.got = bytearray()
        self.ended = ""
        self.lost = False
        self._moved = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.got += data
        self._moved.set()

    def eof_received(self) -> bool:
        self.ended = "fin"
        self._moved.set()
        return True  # what was sent before may still be answered

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if error is not None:
            self.ended = "reset"
        self._moved.set()

    def send(self, data: bytes) -> None:
        if not self.lost:
            self.transport.write(data)

    async def drip(self, data: bytes, pause: float, size: int = 1) -> None:
        """Send piece by piece, each after a pause, until all is sent or the other side has ended."""
        for at in range(0, len(data), size):
            if self.ended or self.lost:
                return
            self.send(data[at : at + size])
            await asyncio.sleep(pause)

    def finish(self) -> None:
        """End the sending side alone."""
        self.transport.write_eof()

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        """End with RST, and take back what has not been sent yet."""
        it = self.transport.get_extra_info("socket")
        if it is not None and not self.lost:
            it.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait until a condition holds; it is asked after all that happens on this connection."""
        try:
            async with asyncio.timeout(BOUND_S):
                while not condition():
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            story = f"ended={self.ended!r}, got={bytes(self.got[-300:])!r}"
            raise AssertionError(f"not so after {BOUND_S:g} s: {what or condition} ({story})") from None

    async def seen(self, part: bytes) -> None:
        """Wait until the other side has sent `part`."""
        await self.until(lambda: part in self.got, f"{part!r} is seen")

    async def over(self) -> bytes:
        """Wait until the other side has ended, and return all that came."""
        await self.until(lambda: self.ended or self.lost, "the connection is ended")
        return bytes(self.got)


class Spoken(Wire):
    """A connection as the origin has it: `head` and `request` wait for the next request, which scripts answer."""

    def __init__(self, origin: "Origin") -> None:
        super().__init__()
        self.origin = origin
        self._read = 0
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.origin.wires.append(self)
        self.task = asyncio.create_task(self._serve(), name="origin")

    def forget(self) -> None:
        """Forget what was read, as far as it was answered."""
        del self.got[: self._read]
        self._read = 0

    async def head(self) -> None:
        """Wait until the head of a request has come."""
        await self._available(lambda: b"\r\n\r\n" in self.unread)

    async def request(self) -> Message:
        """Wait until the next request is whole."""
        message: list[Message] = []

        def is_whole() -> bool:
            try:
                message.append(read_request(self.unread))
            except Incomplete:
                return False
            return True

        await self._available(is_whole)
        self.origin.requests.append(bytes(self.got[self._read : self._read + message[0].size]))
        self._read += message[0].size
        return message[0]

    @property
    def unread(self) -> bytes:
        """What came after the last whole request."""
        return bytes(self.got[self._read :])

    async def _available(self, condition: Callable[[], object]) -> None:
        while not condition():
            if self.ended or self.lost:
                raise ConnectionError
            self._moved.clear()
            await self._moved.wait()

    async def _serve(self) -> None:
        try:
            while not self.lost:
                await self.head()
                await self.origin.script(self)
        except ConnectionError:
            self.close()
        except Exception as error:
            self.origin.faults.append(error)
            self.transport.abort()


Script = Callable[[Spoken], Awaitable[None]]


def replies(*parts: bytes, pause: float = 0.0, then: Callable[[Spoken], None] | None = None) -> Script:
    """Read each request whole, send the parts as the answer, then do `then` (close, reset, finish)."""

    async def script(wire: Spoken) -> None:
        await wire.request()
        for part in parts:
            wire.send(part)
            await asyncio.sleep(pause)
        if then is not None:
            then(wire)
            await wire.until(lambda: wire.lost or wire.ended)
            raise ConnectionError

    return script


def on_head(*parts: bytes, then: Callable[[Spoken], None] | None = None) -> Script:
    """Send the parts as soon as a request's head is there, then do `then`, and wait for the end."""

    async def script(wire: Spoken) -> None:
        await wire.head()
        for part in parts:
            wire.send(part)
            await asyncio.sleep(0)
        if then is not None:
            then(wire)
        await wire.until(lambda: wire.lost or wire.ended)
        raise ConnectionError

    return script


class Origin:
    """What dockscale takes for an instance. `script` answers each request; `faults` is what it could not read."""

    def __init__(self) -> None:
        self.wires: list[Spoken] = []
        self.requests: list[bytes] = []
        """Those that were whole, as they were sent, in the order in which they were."""
        self.faults: list[Exception] = []
        self.script: Script = replies(OK)
        self.address = ("", 0)

    @property
    def got(self) -> bytes:
        """All bytes that came, connection by connection."""
        return b"".join(bytes(wire.got) for wire in self.wires)

    def forget(self) -> None:
        """Begin a new test: what came before is forgotten, and requests are answered with `OK` again."""
        self.wires = [wire for wire in self.wires if not wire.lost and not wire.ended]
        for wire in self.wires:
            wire.forget()
        self.requests.clear()
        self.faults.clear()
        self.script = replies(OK)

    async def close(self) -> None:
        for wire in self.wires:
            if wire.task is not None:
                wire.task.cancel()
                await asyncio.gather(wire.task, return_exceptions=True)
            wire.transport.abort()


@asynccontextmanager
async def staged(labels: dict[str, str] | None = None, **settings: Any) -> AsyncIterator[tuple[World, Origin]]:
    """Run dockscale with an app `web` whose one instance is an `Origin`."""
    async with world(_LABELS | (labels or {}), **settings) as it:
        await until(lambda: it.ready() == 1, "the instance is ready")
        [instance] = it.app().pool
        origin = Origin()
        # On the address that the engine knows; the port is not compared.
        server = await asyncio.get_running_loop().create_server(lambda: Spoken(origin), instance.address[0], 0)
        origin.address = server.sockets[0].getsockname()[:2]
        instance.address = origin.address
        try:
            yield it, origin
        finally:
            await origin.close()
            server.close()
            await server.wait_closed()


@asynccontextmanager
async def client(it: World, *, buffer: int = 0) -> AsyncIterator[Wire]:
    """Connect to the main port. `buffer`: bytes that this end's kernel takes before anybody reads them."""
    with_options = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with_options.setblocking(False)
    if buffer:
        with_options.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(with_options, ("127.0.0.1", it.dockscale.main_port))
    with_options.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    name = "127.0.0.1" if it.trust else None
    _, wire = await loop.create_connection(Wire, sock=with_options, ssl=it.trust, server_hostname=name)
    try:
        yield wire
    finally:
        wire.transport.abort()


async def exchange(it: World, sent: bytes) -> Wire:
    """Send bytes and wait until dockscale has ended the connection."""
    async with client(it) as wire:
        wire.send(sent)
        await wire.over()
    return wire


async def idle(it: World) -> None:
    """Wait until no request has a place or waits for one."""
    await until(lambda: it.app().pool.in_flight == 0 and it.app().pool.waiting == 0, "every place is given back")
