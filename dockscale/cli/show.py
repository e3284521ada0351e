"""What is printed: nothing that others have written can move the cursor, and colours are for terminals alone."""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

NO_APPS = "no apps: label a container or an image with dockscale.enable=true"
_DANGEROUS = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, those that turn the direction of what is written, and halves of characters."""
_OF_USE = 24
"""Characters of a sentence that say something."""
STATE_STYLES = {"ready": "green", "starting": "yellow", "failing": "red", "invalid": "red", "asleep": "dim"}

Row = Sequence[str]


def safe(text: str, keep: str = "") -> str:
    """Text of others as it can be shown: escape sequences are spelt out. Characters of `keep` stay."""
    return _DANGEROUS.sub(lambda found: found[0] if found[0] in keep else _spelt(found[0]), text)


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode()


def say(text: str = "") -> None:
    """Print lines."""
    print(safe(text, "\n\t"))


def say_now(text: str) -> None:
    """Print a line that whoever reads must not wait for."""
    print(safe(text), flush=True)


def as_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON, which spells out all that is dangerous; without `indent`, as a line, at once."""
    print(json.dumps(value, indent=indent), flush=indent is None)


def has_colours() -> bool:
    """Tell whether colours may be printed (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def note(text: str) -> None:
    """Tell something beside the answer."""
    print(f"dockscale: {safe(text, chr(10))}", file=sys.stderr, flush=True)


def table(rows: Sequence[Row], drop: Sequence[str] = ()) -> None:
    """Print rows, the first of which is the head. A terminal that is too narrow does without columns, `drop` first.

    What is no terminal gets all of it, each row on one line.
    """
    rows = [[safe(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in _aligned(rows):
            print(line)
        return
    from rich.console import Console  # noqa: PLC0415  # a pipe need not wait for it

    console = Console()
    console.print(drawn(rows, drop, console.width))


def _aligned(rows: Sequence[Row]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def drawn(rows: Sequence[Row], drop: Sequence[str], width: int, cut: str = "") -> Any:
    """A rich table of safe rows. The first column is always there, and folded if it has to be.

    The column `cut` is shown as far as there is room, if that is enough to be of use.
    """
    from rich.cells import cell_len  # noqa: PLC0415  # as above
    from rich.table import Table  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415  # as above

    columns = {column[0]: column[1:] for column in zip(*rows, strict=True)}
    widths = {head: max(map(cell_len, (head, *cells))) for head, cells in columns.items()}
    if cut:
        widths[cut] = min(widths[cut], _OF_USE)
    for head in drop:
        if sum(widths[each] + 2 for each in columns) - 2 > width and head in columns:
            del columns[head]
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for head in columns:
        if head == cut:
            rest = width - sum(widths[each] + 2 for each in columns if each != cut)
            shown.add_column(Text(head), overflow="ellipsis", no_wrap=True, max_width=max(1, rest))
        else:
            shown.add_column(Text(head), overflow="fold")
    for cells in zip(*columns.values(), strict=True):
        shown.add_row(*(Text(cell, STATE_STYLES.get(cell, "")) for cell in cells))
    return shown


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Turn a wheel on a terminal while something takes its time."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415  # as above

    with Console(stderr=True).status(Text(safe(what))):
        yield


json_option = click.option("--json", "json_", is_flag=True, help="print what the API says")
