"""The settings of this process, or in a sentence for each what is wrong with them."""

import difflib
import os
from typing import Any

from dotenv import dotenv_values
from pydantic import ValidationError

from dockscale.cli import Misused
from dockscale.config import Settings

PREFIX = "DOCKSCALE_"
_NEAR = 0.75
"""Share of a name that is right where it is a misspelt one; others may belong to somebody else."""


def chosen(**more: Any) -> Settings:
    """Read them.

    Raises:
        Misused: some cannot be followed.
    """
    try:
        return Settings(**more)
    except ValidationError as error:
        told = []
        for each in error.errors():
            name = "_".join(str(part) for part in each["loc"]).upper()
            told.append(f"{PREFIX}{name} = {each['input']!r}: {each['msg'].removeprefix('Value error, ')}")
        raise Misused("\ndockscale: ".join(told)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misused(f".env cannot be read: {error}") from None


def misspelt() -> list[str]:
    """Tell of each variable, and each line of `.env`, that is nearly a setting."""
    known = [name.upper() for name in Settings.model_fields]
    told = []
    for name in sorted({*os.environ, *dotenv_values(".env")}):
        setting = name.upper().removeprefix(PREFIX)
        if setting != name.upper() and setting not in known:
            near = difflib.get_close_matches(setting, known, n=1, cutoff=_NEAR)
            told += [f"{name} is no setting and is ignored; did you mean {PREFIX}{each}?" for each in near]
    return told
