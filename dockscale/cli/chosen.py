"""The settings of this process, or in a sentence for each what is wrong with them."""

from typing import Any

from pydantic import ValidationError

from dockscale.cli import Misused
from dockscale.config import Settings


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
            told.append(f"DOCKSCALE_{name} = {each['input']!r}: {each['msg'].removeprefix('Value error, ')}")
        raise Misused("\ndockscale: ".join(told)) from None
