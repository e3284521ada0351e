"""The npm client of RPC, under node: a program of its own whose steps are read as values.

Needs the fixture `node_ready`.
"""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent.parent / "hub" / "node"
NODE = HERE / "node_modules" / ".node"
BOUND_S = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one step; `error` is empty where it went well. Bytes are shown as `{"bytes": how many}`."""

    value: Any = None
    error: str = ""


class NodeFailed(Exception):
    """The program ended, or a step went wrong that all others need; carries what it wrote."""


async def visit(url: str, service: str, *steps: str, **config: str) -> dict[str, Step]:
    """Connect, get a service of images/rpc, and do these steps of client.mjs's `STEPS`.

    Raises TimeoutError after 30 s.
    """
    program = await _start(url, config, "visit", service, *steps)
    try:
        async with asyncio.timeout(BOUND_S):
            out, err = await program.communicate()
    finally:
        await _end(program)
    done = dict(_parsed(line) for line in out.splitlines())
    if not done:
        raise NodeFailed(err.decode())
    return done


@asynccontextmanager
async def serving(url: str, **config: str) -> AsyncIterator[str]:
    """Register client.mjs's service 'js' for as long as the context lasts; its full id is given.

    Raises NodeFailed where it could not be registered, TimeoutError after 30 s.
    """
    program = await _start(url, config, "serve")
    assert program.stdout is not None
    try:
        async with asyncio.timeout(BOUND_S):
            while line := await program.stdout.readline():
                name, step = _parsed(line)
                if step.error:
                    raise NodeFailed(step.error)
                if name == "register":
                    break
            else:
                raise NodeFailed("it ended before its service was registered")
        yield step.value["id"]
    finally:
        await _end(program)


async def _start(url: str, config: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    settings = json.dumps({"server_url": url, **config})
    pipe = subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        NODE, HERE / "client.mjs", settings, *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )


async def _end(program: asyncio.subprocess.Process) -> None:
    if program.returncode is None:
        program.kill()
    await program.communicate()  # closes its pipes, too


def _parsed(line: bytes) -> tuple[str, Step]:
    told = json.loads(line)
    return told.pop("step"), Step(**told)
