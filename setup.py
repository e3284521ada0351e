"""Packs the runtimes' recipes, and compiles what every request passes through if DOCKSCALE_COMPILE=1 asks for it.

All else is in pyproject.toml.
"""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HOT = (
    "core/load", "core/balance", "core/pool", "core/routes", "core/policy", "core/app",
    "proxy/wire", "proxy/fields", "proxy/peer", "proxy/tls", "proxy/listener", "proxy/upstream", "proxy/tunnel",
    "proxy/replies", "proxy/exchange", "proxy/local", "proxy/entry",
    "hub/frames", "hub/wire", "hub/clients", "hub/services", "hub/hub", "hub/calls",
)  # fmt: skip
"""What every request and every call passes through. The same files run uncompiled, at about half the speed."""


RECIPES = ("constraints.txt", "images/base/bytecode.py", "images/runtime-*/**/*")
"""What dockscale/runtimes.py makes images of, with their paths in the repository."""


class BuildWithRecipes(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return  # then they are where they are
        for path in (path for pattern in RECIPES for path in Path().glob(pattern) if path.is_file()):
            if "__pycache__" not in path.parts:
                packed = Path(self.build_lib, "dockscale/recipes", path)
                packed.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, packed)


def extensions() -> list[object]:
    if os.environ.get("DOCKSCALE_COMPILE") != "1":
        return []
    from mypyc.build import mypycify  # noqa: PLC0415  # needed only here

    files = [f"dockscale/{module}.py" for module in HOT]
    return list(mypycify(["--ignore-missing-imports", *files], opt_level="2", debug_level="0"))


if __name__ == "__main__":
    setup(ext_modules=extensions(), cmdclass={"build_py": BuildWithRecipes})
