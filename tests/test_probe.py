"""Does it answer? Asked of real sockets on loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from dockscale import probe
from tests.test_limits import no_file_left

HOST = "127.0.0.1"


@asynccontextmanager
async def listening(status: list[int], port: int = 0) -> AsyncIterator[int]:
    """Serve `/healthz` with the last status in the list; the port is given."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(status=status[-1], headers={"Location": "/nowhere"})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as once:
        once.bind((HOST, 0))
        port: int = once.getsockname()[1]
        return port


async def test_a_port_that_nobody_listens_on_does_not_accept(closed_port: int) -> None:
    assert not await probe.accepts(HOST, closed_port)
    assert not await probe.is_healthy(HOST, closed_port, "/healthz")


async def test_it_waits_for_a_port_that_opens_later(closed_port: int) -> None:
    waiting = asyncio.create_task(probe.until_ready(HOST, closed_port, None))
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    async with listening([200], closed_port):
        async with asyncio.timeout(5):
            await waiting

    assert done == set()


async def test_it_waits_for_a_health_path_that_is_well_later() -> None:
    status = [503]
    async with listening(status) as port:
        waiting = asyncio.create_task(probe.until_ready(HOST, port, "/healthz"))
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        status.append(200)
        async with asyncio.timeout(5):
            await waiting

    assert done == set()


@pytest.mark.parametrize(
    ("status", "well"), [(200, True), (204, True), (302, True), (400, False), (404, False), (500, False)]
)
async def test_two_and_three_hundreds_are_healthy(status: int, well: bool) -> None:
    async with listening([status]) as port:
        assert await probe.is_healthy(HOST, port, "/healthz") is well


async def test_what_speaks_no_http_is_not_healthy() -> None:
    async def mumble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"mumble\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(mumble, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]

        assert await probe.accepts(HOST, port)
        assert not await probe.is_healthy(HOST, port, "/healthz")


async def test_what_accepts_and_says_nothing_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "ANSWER_S", 0.05)
    with socket.create_server((HOST, 0)) as silent:
        assert not await probe.is_healthy(HOST, silent.getsockname()[1], "/healthz")


async def test_without_a_file_to_ask_with_there_is_no_answer_and_no_error() -> None:
    with no_file_left():
        assert not await probe.accepts(HOST, 9)
