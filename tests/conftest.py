"""The real engine, node, a browser and prometheus for those tests that need them: made ready where that is possible."""

import asyncio
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import pytest
import uvloop

from tests.support.real import Real, sweep
from tests.support.world import World, world

ROOT = Path(__file__).parent.parent
_missing: dict[str, str] = {}
"""What could not be made ready → why."""


if os.environ.get("DOCKSCALE_TEST_LOOP") == "uvloop":

    def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
        return {"uvloop": uvloop.new_event_loop}


def make_ready(what: str, *scripts: str) -> None:
    """Run these scripts; where one fails, skip what needs them."""
    for script in scripts:
        done = subprocess.run([ROOT / "scripts" / script], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            _missing[what] = f"scripts/{script}: {done.stderr.strip() or done.stdout.strip()}"
            pytest.skip(f"no {what} to test with: {_missing[what]}")


LABELS: list[str] = []
"""Of all tests with a real engine: another run on it has its own."""


@pytest.fixture(scope="session")
def node_ready() -> None:
    """Install node where it is missing, and the npm client of RPC."""
    make_ready("node", "node.sh")


@pytest.fixture(scope="session")
def browser_ready() -> None:
    """Install Chromium where it is missing."""
    make_ready("browser", "chromium.sh")


@pytest.fixture(scope="session")
def prometheus_ready() -> None:
    """Get prometheus and promtool where they are missing."""
    make_ready("prometheus", "prometheus.sh")


@pytest.fixture(scope="session")
def engine_ready() -> Iterator[None]:
    """Install and start an engine where none answers, and build the images that tests start."""
    make_ready("container engine", "engine.sh", "test-images.sh")
    yield
    # What was being made when its dockscale ended may have come into being after its own test's clean-up.
    client = docker.from_env()
    for label in LABELS:
        sweep(client, label)
    client.close()


@contextmanager
def labelled() -> Iterator[Real]:
    """The real engine, seen by the docker SDK, with a label of its own. All that carries it is removed in the end."""
    it = Real(docker.from_env(), f"org.dockscale.test={uuid.uuid4().hex[:12]}")
    LABELS.append(it.label)
    try:
        yield it
    finally:
        it.clean()


@pytest.fixture
def real(engine_ready: None) -> Iterator[Real]:
    """The real engine for one test."""
    with labelled() as it:
        yield it


@pytest.fixture(scope="module")
def lasting_real(engine_ready: None) -> Iterator[Real]:
    """The real engine for all tests of a module together."""
    with labelled() as it:
        yield it


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a `.env` of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
async def web(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A dockscale with the app `web`, which verbs find."""
    async with world() as it:
        monkeypatch.setenv("DOCKSCALE_ADMIN_PORT", str(it.dockscale.admin_port))
        yield it


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for what, why in _missing.items():
        title = f"NO {what.upper()}: the tests that need it did not run"
        terminalreporter.section(title, sep="!", red=True)
        terminalreporter.line(why)
