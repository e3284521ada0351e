"""The command line on a terminal: what fits, what is coloured, and what goes on by itself."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import pytest

from dockscale.engine.memory import Program
from tests.support.backend import backend
from tests.support.world import World, until, world

SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])")


@dataclass
class Terminal:
    """What a verb shows on a terminal, and what is typed there."""

    process: asyncio.subprocess.Process
    file: int
    shown: str = ""

    def type(self, keys: str) -> None:
        os.write(self.file, keys.encode())

    @property
    def text(self) -> str:
        """All that was shown so far, without colours and movements."""
        return SEQUENCE.sub("", self.shown)

    async def shows(self, part: str) -> None:
        await until(lambda: part in self.text, f"{part!r} is shown in {self.text!r}")

    def read(self) -> None:
        with suppress(OSError):  # the other side has closed
            self.shown += os.read(self.file, 65536).decode(errors="replace").replace("\r\n", "\n")

    async def end(self) -> int:
        code = await self.process.wait()
        await asyncio.sleep(0)
        self.read()
        return code


@asynccontextmanager
async def terminal(it: World, *arguments: str, width: int = 100, **environment: str) -> AsyncIterator[Terminal]:
    """Run one verb on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    inherited = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dockscale.cli", *arguments, stdin=theirs, stdout=theirs, stderr=theirs,
        env=inherited | {"DOCKSCALE_ADMIN_PORT": str(it.dockscale.admin_port), "TERM": "xterm"} | environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    os.set_blocking(ours, False)
    it_shows = Terminal(process, ours)
    loop = asyncio.get_running_loop()
    loop.add_reader(ours, it_shows.read)
    try:
        yield it_shows
    finally:
        loop.remove_reader(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)


@pytest.mark.parametrize("verb", [["ps"], ["apps"], ["report"]])
@pytest.mark.parametrize("width", [40, 80])
async def test_a_table_fits_the_terminal(verb: list[str], width: int) -> None:
    async with world() as it:
        await it.get()
        async with terminal(it, *verb, width=width) as shown:
            assert await shown.end() == 0

    rows = [line.rstrip() for line in shown.text.splitlines() if line.startswith(("APP", "web"))]
    assert len(rows) == 2
    assert max(map(len, rows)) <= width


async def test_colours_are_for_those_who_want_them() -> None:
    async with world() as it:
        await it.get()
        async with terminal(it, "ps") as coloured:
            await coloured.end()
        async with terminal(it, "ps", NO_COLOR="1") as plain:
            await plain.end()

    assert "\x1b[32mready" in coloured.shown
    assert not re.search(r"\x1b\[3[0-9]", plain.shown)
    assert coloured.text.split() == plain.text.split()


async def test_top_shows_what_happens_until_q_is_pressed() -> None:
    async with world() as it, terminal(it, "top", width=160) as shown:
        await shown.shows("nobody asks for it")
        await it.get()
        await shown.shows("1/10")
        await shown.shows("LAST DECISION")
        await shown.shows("╷")
        shown.type("q")
        code = await shown.end()

    assert code == 0
    assert "Traceback" not in shown.text


async def test_top_ends_with_ctrl_c() -> None:
    async with world() as it, terminal(it, "top", width=40) as shown:
        await shown.shows("web")
        shown.process.send_signal(signal.SIGINT)
        code = await shown.end()

    assert code == 0
    assert "Traceback" not in shown.text


async def test_top_outlasts_a_restart_of_dockscale() -> None:
    async with AsyncExitStack() as stack:
        async with world() as it:
            port = it.dockscale.admin_port
            shown = await stack.enter_async_context(terminal(it, "top", width=160))
            await shown.shows("nobody asks for it")
        await shown.shows("no dockscale answers at")
        it = await stack.enter_async_context(world(admin_port=port))
        await it.get()
        await shown.shows("1/10")
        shown.type("q")

        assert await shown.end() == 0


async def test_top_prints_once_where_there_is_no_terminal() -> None:
    async with world() as it:
        await it.get()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dockscale.cli", "top", stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"DOCKSCALE_ADMIN_PORT": str(it.dockscale.admin_port)},
        )  # fmt: skip
        out, _ = await process.communicate()

    head, row = out.decode().splitlines()
    assert process.returncode == 0
    assert head.split()[:5] == ["APP", "STATE", "LOAD", "DOWN", "UP"]
    assert row.startswith("web  ready")
    assert "\x1b" not in row


async def test_top_prints_once_where_no_cursor_can_be_moved() -> None:
    async with world() as it, terminal(it, "top", TERM="dumb") as dumb:
        assert await dumb.end() == 0

    assert "asleep" in dumb.text
    assert "\x1b" not in dumb.shown


async def test_who_waits_on_a_terminal_sees_for_what() -> None:
    gate = asyncio.Event()
    async with world(program=Program(backend, gate=gate)) as it, terminal(it, "wake", "web") as shown:
        await shown.shows("waiting for an instance of web")
        gate.set()
        code = await shown.end()

    assert code == 0
    assert "is ready" in shown.text
