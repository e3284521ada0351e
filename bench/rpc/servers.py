"""The two servers and who is connected to them: how each is started, its worker, its caller.

- hypha: `python -m hypha.server` in a virtual environment of its own (scripts/hypha-venv.sh), with Redis and SQLite in
  its process and its temporary folder, no object storage and no apps. It gets uvloop and httptools, which it takes if
  they are there. Its limits of 200 messages per second and client and of 100 HTTP requests per second and address are
  lifted by its own settings, since they would be all that is measured.
- dockscale: `dockscale serve` with its default settings, as bench/peers.py starts it. It sees no container.

Worker and caller connect to both as `http://127.0.0.1:port` and anonymously. Hypha puts each of them into a workspace
of its own, dockscale both into one; so services are public, and called by their full ids.
"""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hypha_rpc import connect_to_server

from bench import peers
from bench.load import LoadFailed
from bench.peers import Command, Place, Proxy
from bench.rpc.worker import ECHO, WEB
from tests.support.process import free_port

ROOT = Path(__file__).parent.parent.parent
HYPHA_PYTHON = ROOT / "build" / "hypha" / "bin" / "python"
HOST = "127.0.0.1"
READINESS = "/health/readiness"
_NO_LIMIT = str(10**9)
_LIMITS = ("HYPHA_WS_MSG_RATE_LIMIT", "HYPHA_WS_MSG_BURST_LIMIT", "HYPHA_HTTP_RATE_LIMIT", "HYPHA_HTTP_BURST_LIMIT")
_PATIENCE_S = 60.0


def hypha(place: Place) -> Command:
    argv = (str(HYPHA_PYTHON), "-m", "hypha.server", "--host", HOST, "--port", str(place.port))
    return Command(argv, {"TMPDIR": str(place.folder), **dict.fromkeys(_LIMITS, _NO_LIMIT)})


SERVERS: dict[str, Callable[[Place], Command]] = {"hypha": hypha, "dockscale": peers.dockscale}


def hypha_version() -> str:
    asked = [str(HYPHA_PYTHON), "-c", "from importlib.metadata import version; print(version('hypha'))"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True, slots=True)
class Served:
    """A running server and what the worker registered on it."""

    server: Proxy
    worker: str
    """Its full client id, `workspace/client`."""

    @property
    def web_path(self) -> str:
        """Where the worker's ASGI app answers."""
        workspace, client = self.worker.split("/")
        return f"/{workspace}/apps/{client}:{WEB}/12"

    @property
    def echo_path(self) -> str:
        """Where one GET is one call of the worker's echo."""
        workspace, client = self.worker.split("/")
        return f"/{workspace}/services/{client}:{ECHO}/echo?value=12"


@asynccontextmanager
async def served(name: str, folder: Path, core: int) -> AsyncIterator[Served]:
    """Run a server on one core, and its worker on this process's."""
    with _running(name, folder, core) as server:
        async with _worker(url_of(server)) as worker:
            yield Served(server, worker)


@contextmanager
def _running(name: str, folder: Path, core: int) -> Iterator[Proxy]:
    here = folder / f"{name}-{uuid.uuid4().hex[:6]}"
    here.mkdir()
    place = Place(here, free_port(), (HOST, 0), only=f"org.dockscale.bench={here.name}")
    ready = partial(peers.answers, path=READINESS, host=HOST)
    with peers.started(name, SERVERS[name](place), place, core, ready) as server:
        yield server


def url_of(server: Proxy) -> str:
    host, port = server.address
    return f"http://{host}:{port}"


@asynccontextmanager
async def _worker(url: str) -> AsyncIterator[str]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.rpc.worker", url, cwd=ROOT, stdin=pipe, stdout=pipe, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            line = await process.stdout.readline()
        if not line:
            raise LoadFailed("the worker ended before it had registered its services")
        yield line.decode().strip()
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def calling(served: Served) -> AsyncIterator[Any]:
    """Connect a client of its own, and fetch the worker's echo service."""
    api = await connect_to_server({"server_url": url_of(served.server)})
    try:
        yield await api.get_service(f"{served.worker}:{ECHO}")
    finally:
        await api.disconnect()
