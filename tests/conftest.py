"""The real engine for those tests that need one: made ready where that is possible, and left as it was found."""

import asyncio
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
import uvloop

from tests.support.real import Real, sweep

ROOT = Path(__file__).parent.parent
_why_not: list[str] = []


if os.environ.get("DOCKSCALE_TEST_LOOP") == "uvloop":

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def engine_ready() -> Iterator[None]:
    """Install and start an engine where none answers, and build the images that tests start."""
    for script in ("engine.sh", "test-images.sh"):
        done = subprocess.run([ROOT / "scripts" / script], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            _why_not.append(f"scripts/{script}: {done.stderr.strip() or done.stdout.strip()}")
            pytest.skip(f"no container engine to test with: {_why_not[-1]}")
    yield
    # What was being made when its dockscale ended may have come into being after its own test's clean-up.
    client = docker.from_env()
    sweep(client, "org.dockscale.test")
    client.close()


@pytest.fixture
def real(engine_ready: None) -> Iterator[Real]:
    """The real engine, seen by the docker SDK. All that carries this test's label is removed in the end."""
    it = Real(docker.from_env(), f"org.dockscale.test={uuid.uuid4().hex[:12]}")
    try:
        yield it
    finally:
        it.clean()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for why in _why_not[:1]:
        terminalreporter.section("NO CONTAINER ENGINE: half of the tests did not run", sep="!", red=True)
        terminalreporter.line(why)
