"""An engine with faults: a unix socket in front of the real one, which does as it is told in a test."""

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

REAL = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
T = TypeVar("T")


class Faulty:
    """One connection carries one request. Faults hold for requests that come afterwards.

    Patterns are searched for in request lines, as in `POST /v1.41/containers/create?name=web HTTP/1.1`.
    """

    def __init__(self, path: str) -> None:
        self.url = f"unix://{path}"
        self.delay_s = 0.0
        """Seconds until a request goes on to the engine."""
        self.refused: dict[str, str] = {}
        """Pattern → message of a 500; the engine does not get to see the request."""
        self.cut: dict[str, int] = {}
        """Pattern → bytes of the engine's answer after which the connection is cut; it has done as asked by then."""
        self.answering = asyncio.Event()
        """While this is not set, requests are taken and not answered."""
        self.answering.set()
        self._path = path
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], bytes] = {}

    async def open(self) -> None:
        """Take connections."""
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        """Refuse connections, and end all that there are."""
        assert self._server is not None
        self._server.close()
        os.unlink(self._path)
        await asyncio.sleep(0)  # what was taken last is known then, too
        await self.hang_up("")

    async def hang_up(self, pattern: str) -> None:
        """Cut the open connections whose request fits."""
        fitting = [task for task, line in self._open.items() if re.search(pattern.encode(), line)]
        for task in fitting:
            task.cancel()
        await asyncio.gather(*fitting, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = b""
        try:
            # To be cancelled is how a connection is cut here, and asyncio's own callback cannot bear it.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                head = await reader.readuntil(b"\r\n\r\n")
                line, _, fields = head.partition(b"\r\n")
                self._open[task] = line
                await self._answer(line, re.sub(rb"(?mi)^connection:.*\r\n", b"", fields), reader, client)
        finally:
            del self._open[task]
            client.close()
            with suppress(OSError):
                await client.wait_closed()

    async def _answer(
        self, line: bytes, fields: bytes, reader: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        await self.answering.wait()
        await asyncio.sleep(self.delay_s)
        refusal = _fitting(self.refused, line)
        if refusal is not None:
            body = b'{"message": "%s"}' % refusal.encode()
            client.write(b"HTTP/1.1 500 Faulty\r\nContent-Type: application/json\r\nConnection: close\r\n")
            client.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            await client.drain()
            return
        from_engine, engine = await asyncio.open_unix_connection(REAL)
        engine.write(line + b"\r\nConnection: close\r\n" + fields)
        asking = asyncio.create_task(_pump(reader, engine, None))
        try:
            await _pump(from_engine, client, _fitting(self.cut, line))
        finally:
            engine.close()
            asking.cancel()
            await asyncio.gather(asking, engine.wait_closed(), return_exceptions=True)


def _fitting(faults: dict[str, T], line: bytes) -> T | None:
    return next((fault for pattern, fault in faults.items() if re.search(pattern.encode(), line)), None)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, most: int | None) -> None:
    """Pass bytes on until there are no more, or `most` have gone through."""
    while most != 0 and (piece := await source.read(65536 if most is None else most)):
        sink.write(piece)
        await sink.drain()
        most = None if most is None else most - len(piece)


@asynccontextmanager
async def faulty() -> AsyncIterator[Faulty]:
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        it = Faulty(f"{folder}/engine.sock")
        await it.open()
        try:
            yield it
        finally:
            await it.close()
