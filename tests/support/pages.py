"""Pages of the documentation as programs: their fenced blocks, and how one of each kind is run."""

import ast
import asyncio
import inspect
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

from hypha_rpc import connect_to_server

from tests.support.process import ROOT
from tests.support.stack import environment

_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
_FILE = re.compile(r"(?:#|//) ([\w/-]*[\w-]+(?:\.\w+)?)\n")
_FOLLOWS = re.compile(r"^(?=\S*dockscale (?:top|logs .*-f|explain .*--watch)|curl -sN|make logs)", re.M)
BLOCK_BOUND_S = 120.0
SHELL = """
set -eo pipefail
follow() { { timeout --signal INT 3 "$@" || true; } | grep .; }
"""
"""What follows without an end is followed for 3 s, and has to say something."""
HTTP_ERRORS_COUNT = 'curl() { command curl --fail-with-body "$@"; }\n'
"""Where a page does not show what is printed."""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    code: str

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def saved_as(self) -> str | None:
        """The file that its first line names in a comment."""
        named = _FILE.match(self.code)
        return named[1] if named and self.language not in ("sh", "console") else None

    @property
    def known(self) -> bool:
        """Whether there is a way to run it. A block without a language is a picture."""
        return self.language in ("", "sh", "console", "python") or self.saved_as is not None


def blocks(page: Path) -> list[Block]:
    """Find all blocks. None has a form that would hide it."""
    text = page.read_text()
    fences = re.findall(r"^ *(?:```|~~~)", text, re.M)
    assert len(fences) == 2 * len(_FENCE.findall(text)), f"{page}: a block is indented, or says more than its language"
    return [Block(page, text[: it.start()].count("\n") + 1, it["language"], it["code"]) for it in _FENCE.finditer(text)]


def run(block: Block, folder: Path) -> None:
    """Do in a folder what a reader of this block does: save the file, or run what it says."""
    match block.language:
        case "sh":
            _bash(block.where, HTTP_ERRORS_COUNT + _FOLLOWS.sub("follow ", block.code), folder)
        case "console":
            for command, shown in _dialogue(block.code):
                printed = _bash(block.where, command, folder)
                assert re.fullmatch(_pattern(shown), _plain(printed)), f"{block.where}: {command}\nprinted {printed}"
        case _ if block.saved_as:
            (folder / block.saved_as).parent.mkdir(exist_ok=True)
            (folder / block.saved_as).write_text(block.code)
        case "python":
            asyncio.run(_connected(block))


def _bash(where: str, code: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", SHELL + code],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BLOCK_BOUND_S,
        check=False,
    )
    assert done.returncode == 0, f"{where} ended with {done.returncode}:\n{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _dialogue(code: str) -> list[tuple[str, str]]:
    """Take a block apart: each command after `$ `, with what is shown below it."""
    _, *parts = re.split(r"^\$ ", code, flags=re.M)
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


def _plain(text: str) -> str:
    """Leave out what a terminal does not show: how wide columns are, and that lines of HTTP end with CR."""
    return re.sub(r" +", " ", text.replace("\r", "")).strip()


def _pattern(shown: str) -> str:
    """Make a pattern of what a page shows: `…` is anything in its line, or on a line of its own any lines.

    Where nothing is shown, anything may be printed.
    """
    lines = [
        ".*" if line == "…" else "[^\n]*".join(map(re.escape, line.split("…"))) for line in _plain(shown).split("\n")
    ]
    return "(?s)" + ("\n".join(lines) if shown.strip() else ".*")


async def _connected(block: Block) -> None:
    """Run a fragment of Python that uses a client `api`."""
    async with connect_to_server({"server_url": "ws://localhost:9527"}) as api:
        await run_code(block.code, block.where, {"api": api})


async def run_code(code: str, title: str, names: dict[str, Any]) -> None:
    """Run Python that may `await` at its top, with these names, to which it adds its own."""
    compiled = compile(code, title, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = FunctionType(compiled, names)()
    if inspect.isawaitable(outcome):
        await outcome
