"""dockscale as it is installed elsewhere: a wheel made of the source distribution, in an environment of its own."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import aiohttp
import pytest

from dockscale.runtimes import RUNTIMES
from tests.support.process import ROOT, Server
from tests.support.real import Real, in_thread
from tests.support.runtimes import base_image, built
from tests.support.world import prefixed

pytestmark = pytest.mark.engine

SOURCES = (
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "constraints.txt",
    "dockscale",
    "images",
)
BUILD = "from setuptools import build_meta; build_meta.build_{what}('dist')"
NAMES = re.compile(r'"(?:/dashboard/|\./)([\w.]+)"')
WAITING = {"app_id": "web", "port": "8000", "startup_config.waiting_page": "true"}


def run(folder: Path, *command: str | Path, **settings: str) -> str:
    """Run a command elsewhere than in the repository, and return what it prints."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=folder, env=kept | settings, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def made(folder: Path, what: str) -> Path:
    """Have setuptools make a `wheel` or an `sdist` of a folder."""
    run(folder, sys.executable, "-c", BUILD.format(what=what))
    [found] = (folder / "dist").iterdir()
    return found


def inside(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as it:
        return set(it.namelist())


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A wheel made of the repository, and one made of its source distribution."""
    folder = tmp_path_factory.mktemp("made")
    for kind in ("wheel", "sdist"):
        for name in SOURCES:
            put = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            (folder / kind).mkdir(exist_ok=True)
            put(ROOT / name, folder / kind / name)
    shutil.unpack_archive(made(folder / "sdist", "sdist"), folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    return made(folder / "wheel", "wheel"), made(unpacked, "wheel")


@pytest.fixture(scope="module")
def installed(wheels: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment in which nothing but the wheel was asked for."""
    folder = tmp_path_factory.mktemp("elsewhere")
    run(folder, sys.executable, "-m", "venv", "env")
    commands = folder / "env" / "bin"
    run(folder, commands / "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheels[1])
    return commands


def test_the_source_distribution_makes_the_wheel_that_the_repository_makes(wheels: tuple[Path, Path]) -> None:
    of_repository, of_sources = map(inside, wheels)
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "dockscale").rglob("*.*") if path.suffix != ".pyc"}

    assert of_sources == of_repository
    assert package - of_sources == set()


async def test_what_is_installed_serves_its_pages_and_finds_its_recipes(
    installed: Path, real: Real, tmp_path: Path
) -> None:
    await in_thread(lambda: real.build("web", prefixed(WAITING), environment={"BOOT_DELAY": "2"}))
    server = Server(ONLY=real.label)
    server.command, server.folder = (str(installed / "dockscale"),), tmp_path
    async with aiohttp.ClientSession(headers={"Accept": "text/html"}) as session:
        try:
            await server.start(session)
            seen: set[str] = set()
            wanted = {"/"}
            while path := next(iter(wanted - seen), ""):
                seen.add(path)
                async with session.get(server.admin + path) as answer:
                    assert (path, answer.status) == (path, 200)
                    wanted |= {f"/dashboard/{name}" for name in NAMES.findall(await answer.text())}
            async with session.get(f"{server.base}/public/apps/web/") as answer:
                waiting = await answer.text()
            async with session.get(f"{server.admin}/api/openapi.json") as answer:
                described = await answer.json()
        finally:
            if server.process is not None:
                server.process.terminate()
                await in_thread(server.process.wait)

    assert len(seen) > 10
    assert "web is starting" in waiting
    assert described["info"]["version"] in run(tmp_path, installed / "dockscale", "--version")
    names = run(tmp_path, installed / "dockscale", "runtimes", DOCKSCALE_BASE_IMAGE=base_image())
    assert names.split() == [built(runtime) for runtime in RUNTIMES]
