"""What `micropip` is to pages: packages of the image are taken as they are, others are installed by pip."""

import asyncio
import importlib
import os
import sys

BASE = "/tmp/packages"  # noqa: S108  # the one place of an image where its user may write
FOLDER = f"{BASE}/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
HERE = {"micropip", "pyodide-http", "pyodide-py", *sys.stdlib_module_names}
"""What Pyodide has as packages of their own, and is there or not needed here."""


async def install(requirements, *, deps=True, index_urls=None, pre=False, **_):
    """Install what the image has not. Other options of micropip's make no difference here.

    Raises RuntimeError with what pip wrote.
    """
    wanted = [requirements] if isinstance(requirements, str) else list(requirements)
    unknown = [each for each in wanted if each not in HERE]
    if not unknown:
        return
    from dockscale_installed import satisfied  # noqa: PLC0415  # to load it takes as long as all else

    missing = [each for each in unknown if not satisfied(each)]
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
