"""What `micropip` is to pages: packages of the image are taken as they are, others are installed by pip."""

import asyncio
import importlib
import importlib.metadata
import os
import sys

from pip._vendor.packaging.requirements import InvalidRequirement, Requirement
from pip._vendor.packaging.utils import canonicalize_name

BASE = "/tmp/packages"  # noqa: S108  # the one place of an image where its user may write
FOLDER = f"{BASE}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
HERE = {"micropip", "pyodide-http", "pyodide-py", *sys.stdlib_module_names}


async def install(requirements, *, deps=True, index_urls=None, pre=False, **_):
    """Install what the image has not. Other options of micropip's make no difference here.

    Raises RuntimeError with what pip wrote.
    """
    wanted = [requirements] if isinstance(requirements, str) else list(requirements)
    missing = [each for each in wanted if not satisfied(each)]
    if not missing:
        return
    urls = [index_urls] if isinstance(index_urls, str) else index_urls or []
    options = [
        *([] if deps else ["--no-deps"]),
        *(["--pre"] if pre else []),
        *(f"--extra-index-url={url}" for url in urls),
    ]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--user", "--no-cache-dir", "--disable-pip-version-check"]
    environment = os.environ | {"PYTHONUSERBASE": BASE, "HOME": BASE}
    done = await asyncio.create_subprocess_exec(
        *pip,
        *options,
        "--",
        *missing,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    written, _ = await done.communicate()
    if done.returncode:
        raise RuntimeError(f"{', '.join(missing)} could not be installed: {written.decode().strip()}")
    importlib.invalidate_caches()


def satisfied(text, extra=""):
    """Tell whether the image has what this requirement asks for, extras included."""
    try:
        asked = Requirement(text)
    except InvalidRequirement:
        return False  # pip knows what it is, or says that it is nothing
    if asked.marker is not None and not asked.marker.evaluate({"extra": extra}):
        return True
    if canonicalize_name(asked.name) in HERE:
        return True
    if asked.url:
        return False
    try:
        found = importlib.metadata.distribution(asked.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    if not asked.specifier.contains(found.version, prereleases=True):
        return False
    return all(satisfied(needed, each) for each in asked.extras for needed in found.requires or () if "extra" in needed)
