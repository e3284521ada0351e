"""Which files the tests run on: those of the source, or the compiled ones if these were asked for."""

import importlib
import os
import runpy
from pathlib import Path

import pytest

SETUP = Path(__file__).parent.parent / "setup.py"


HOT: tuple[str, ...] = runpy.run_path(str(SETUP))["HOT"]


@pytest.mark.parametrize("module", HOT)
def test_the_path_of_a_request_runs_as_it_was_asked_for(module: str) -> None:
    file = importlib.import_module("dockscale." + module.replace("/", ".")).__file__

    assert file is not None
    assert file.endswith(".so" if os.environ.get("DOCKSCALE_COMPILED") == "1" else ".py")
