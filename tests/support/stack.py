"""The stack as a user starts it: `make run`, `make stop`, at the documented ports."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

from tests.support.process import ROOT


def environment() -> dict[str, str]:
    """Give this process's environment without settings of dockscale."""
    return {name: value for name, value in os.environ.items() if not name.startswith("DOCKSCALE_")}


def make(target: str, folder: Path = ROOT) -> str:
    done = subprocess.run(
        ["make", target], cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"make {target}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextmanager
def running(folder: Path = ROOT) -> Iterator[str]:
    """Run the stack from a folder, and give what `make run` printed."""
    printed = make("run", folder)
    try:
        yield printed
    finally:
        make("stop", folder)


def names(client: docker.DockerClient, label: str, all_states: bool = False) -> list[str]:
    return sorted(str(box.name) for box in client.containers.list(all=all_states, filters={"label": label}))
