"""`dockscale serve` as a process of its own, as a user runs it."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).parent.parent.parent
BOUND_S = 20.0


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


class Server:
    """A dockscale that can be killed and started again with the same settings."""

    command: tuple[str, ...] = (sys.executable, "-m", "dockscale.cli")
    folder = ROOT

    def __init__(self, **settings: str) -> None:
        self.port, self.admin_port = int(settings.get("PORT") or free_port()), free_port()
        ports = {"PORT": str(self.port), "ADMIN_PORT": str(self.admin_port), "HOST": "127.0.0.1"}
        self._settings = {f"DOCKSCALE_{name}": value for name, value in (ports | settings).items()}
        self.process: subprocess.Popen[bytes] | None = None
        certificate = settings.get("TLS_CERTIFICATE")
        self.trust = ssl.create_default_context(cafile=certificate) if certificate else None
        """What a client of the main port needs, if that speaks TLS."""

    @property
    def base(self) -> str:
        return f"{'https' if self.trust else 'http'}://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    async def start(self, session: aiohttp.ClientSession) -> None:
        """Start, and wait until it is ready."""
        self.process = subprocess.Popen(
            [*self.command, "serve"], cwd=self.folder, env=os.environ | self._settings, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(BOUND_S):
            while await self._readiness(session) != 200:
                await asyncio.sleep(0.02)

    async def end(self, by: signal.Signals) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        assert self.process is not None
        self.process.send_signal(by)
        return await asyncio.to_thread(self.process.wait, BOUND_S)

    async def explain(self, session: aiohttp.ClientSession, app_id: str) -> dict[str, Any]:
        async with session.get(f"{self.admin}/api/apps/{app_id}") as answer:
            told: dict[str, Any] = await answer.json()
            return told

    async def _readiness(self, session: aiohttp.ClientSession) -> int:
        try:
            async with session.get(self.base + "/health/readiness", ssl=self.trust or True) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0


@asynccontextmanager
async def process(session: aiohttp.ClientSession, **settings: str) -> AsyncIterator[Server]:
    server = Server(**settings)
    try:
        await server.start(session)
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.process.kill()
            await asyncio.to_thread(server.process.wait)
