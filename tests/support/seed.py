"""The seed document's scripts and fragments, run as they are, and what the engine says of instances meanwhile."""

import asyncio
import os
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any

from tests.support.pages import run_code
from tests.support.real import Real, in_thread

DOCUMENT = Path(__file__).parent.parent / "seed" / "autoscaling.md"
_PART = re.compile(r"^#+ (?P<heading>[^\n]*)$|^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
_SAVED = re.compile(r"# save as (\S+)\n")
LOOK_S = 0.25
"""Between two looks at which containers run."""


def blocks() -> dict[str, str]:
    """Give every block of code, by the name that it is to be saved as or else by its heading."""
    found: dict[str, str] = {}
    heading = ""
    for part in _PART.finditer(DOCUMENT.read_text()):
        if part["heading"] is not None:
            heading = part["heading"]
            continue
        saved = _SAVED.match(part["code"])
        title = saved[1] if saved else heading
        assert part["language"] == "python", f"{title} is no Python"
        assert title not in found, f"{title} is there twice"
        found[title] = part["code"]
    return found


async def run_fragment(title: str, names: dict[str, Any]) -> None:
    """Run a block that is no whole program, with these names, to which it adds its own."""
    await run_code(blocks()[title], f"{DOCUMENT.name}: {title}", names)


class Witness:
    """Instances that run, by app, as the docker SDK sees them. `seen` has all that was seen, with its time."""

    def __init__(self, real: Real) -> None:
        self._real = real
        self.seen: list[tuple[float, Counter[str]]] = []

    async def watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> Counter[str]:
        asked = self._real.client.api.containers
        boxes = await in_thread(lambda: asked(filters={"label": self._real.label, "status": "running"}))
        running = Counter(str(box["Labels"].get("dockscale.instance-of")) for box in boxes)
        self.seen.append((time.monotonic(), running))
        return running

    def counts(self, app_id: str, since: float = 0.0) -> list[int]:
        """How many ran at each look from a time on."""
        return [running[app_id] for at, running in self.seen if at >= since]

    def fewest_since(self, app_id: str, reached: int) -> int:
        """How many ran at the least after so many did for the first time."""
        return min(dropwhile(lambda count: count < reached, self.counts(app_id)))


@dataclass(frozen=True)
class Ran:
    """A whole program that has ended."""

    status: int
    lines: list[tuple[float, str]]
    """What it printed, with the time of it."""
    errors: str
    before: Counter[str]
    """Instances that ran when it began, by app."""

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def told(self, pattern: str) -> list[tuple[float, int]]:
        """Find numbers among what it printed: those in the group of a pattern, with the time of each."""
        return [(at, int(match[1])) for at, line in self.lines if (match := re.search(pattern, line))]


async def run_program(title: str, folder: Path, witness: Witness) -> Ran:
    """Save a block in a folder by its name, byte for byte, and run that with this Python until it ends."""
    (folder / title).write_text(blocks()[title])
    before = await witness.look()
    pipe, environment = asyncio.subprocess.PIPE, os.environ | {"PYTHONUNBUFFERED": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, title, cwd=folder, env=environment, stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        errors = asyncio.ensure_future(process.stderr.read())
        lines = [(time.monotonic(), line.decode().rstrip("\n")) async for line in process.stdout]
        return Ran(await process.wait(), lines, (await errors).decode(), before)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
