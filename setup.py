"""Compiles the path of a request with mypyc if DOCKSCALE_COMPILE=1 asks for it. All else is in pyproject.toml."""

import os

from setuptools import setup

HOT = (
    "core/load", "core/balance", "core/pool", "core/routes", "core/policy", "core/app",
    "proxy/wire", "proxy/fields", "proxy/peer", "proxy/listener", "proxy/upstream", "proxy/tunnel", "proxy/replies",
    "proxy/exchange", "proxy/local", "proxy/entry",
    "hub/wire", "hub/clients", "hub/services", "hub/hub", "hub/calls",
)  # fmt: skip
"""What every request and every call passes through. The same files run uncompiled, at about half the speed."""


def extensions() -> list[object]:
    if os.environ.get("DOCKSCALE_COMPILE") != "1":
        return []
    from mypyc.build import mypycify  # noqa: PLC0415  # needed only here

    files = [f"dockscale/{module}.py" for module in HOT]
    return list(mypycify(["--ignore-missing-imports", *files], opt_level="2", debug_level="0"))


if __name__ == "__main__":
    setup(ext_modules=extensions())
