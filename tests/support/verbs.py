"""Verbs of the command line as users run them, against a dockscale in this process."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dockscale import cli
from tests.support.world import BOUND_S, World


async def run(*arguments: str) -> int:
    """Run one verb while the server in this process goes on."""
    return await asyncio.to_thread(cli.main, arguments)


@asynccontextmanager
async def started(it: World, *arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one verb as a user does, with pipes for its output; ends it if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dockscale.cli", *arguments,
        env=os.environ | {"DOCKSCALE_ADMIN_PORT": str(it.dockscale.admin_port)} | environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(BOUND_S):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_with(part: str, stream: asyncio.StreamReader | None) -> str:
    """Read up to a line that holds `part`."""
    assert stream is not None
    while line := (await stream.readline()).decode():
        if part in line:
            return line.rstrip("\n")
    raise AssertionError(f"it has ended without {part!r}")
