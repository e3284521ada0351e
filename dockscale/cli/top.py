"""`top`: load against its thresholds, instances and decisions, as they change."""

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from dockscale.cli import OK, Failed
from dockscale.cli.client import ask_all, lasting
from dockscale.cli.show import NO_APPS, as_json, drawn, json_option, safe, say, table

LOOK_S = 1.0
"""Load changes without an event; it is never older than this."""
SETTLE_S = 0.1
"""Events that come together are shown together."""
_HEAD = ("APP", "STATE", "LOAD", "DOWN", "UP", "INSTANCES", "IN FLIGHT", "WAITING", "LAST DECISION")
_DROP = ("DOWN", "UP", "LAST DECISION", "WAITING", "IN FLIGHT", "STATE")
_BAR = 10
"""Characters of the picture of a load."""


@click.command
@json_option
def top(json_: bool) -> int:
    """Show each app's load between its thresholds, instances, and last decision as they change, until q or Ctrl-C.

    Without a terminal that has a cursor it prints that once.
    """
    apps = ask_all("/api/apps")
    if json_:
        as_json(apps)
    elif not (sys.stdout.isatty() and sys.stdin.isatty()) or os.environ.get("TERM") == "dumb":
        table(_rows(apps)) if apps else say(NO_APPS)
    else:
        _live(apps)
    return OK


def _rows(apps: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [_HEAD, *map(_row, sorted(apps, key=_busy))]


def _busy(app: dict[str, Any]) -> tuple[bool, float, str]:
    """Those that requests wait for first, then those nearest to their upper threshold."""
    load = app.get("load")
    if load is None:
        return True, 0.0, app["app_id"]
    return not load["waiting"], -load["per_instance"] / load["scale_up_above"], app["app_id"]


def _row(app: dict[str, Any]) -> tuple[str, ...]:
    if app["state"] == "invalid":
        return app["app_id"], "invalid", *["-"] * 6, "; ".join(app["problems"])
    load = app["load"]
    lines = f"{load['scale_down_below']:g}", f"{load['scale_up_above']:g}"
    share, low = (load[each] / load["scale_up_above"] for each in ("per_instance", "scale_down_below"))
    picture = f"{_bar(share, low)} {round(load['per_instance'], 1):g}"
    decision = app["decision"]["explanation"] if app["decision"] else "-"
    counts = str(load["in_flight"]), str(load["waiting"])
    return app["app_id"], app["state"], picture, *lines, _instances(app), *counts, decision


def _bar(share: float, low: float) -> str:
    """A load as a share of its upper threshold, which is the end of the bar; `╷` is the lower one."""
    full = min(_BAR, round(share * _BAR))
    return "".join("▆" if at < full else "╷" if at == round(low * _BAR) else "·" for at in range(_BAR))


def _instances(app: dict[str, Any]) -> str:
    """How many there are of each state, and how many there may be."""
    counts = app["instances_by_state"]
    others = [f"{counts[state]} {state}" for state in ("starting", "draining", "standby") if counts[state]]
    return ", ".join([f"{counts['ready']}/{app['bounds'][1]}", *others])


def _live(apps: list[dict[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415  # only a terminal has to wait for it
    from rich.live import Live  # noqa: PLC0415  # likewise

    console = Console()
    with (
        _stirred_by_events() as stirred,
        _keys() as keys,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        trouble = ""
        with suppress(KeyboardInterrupt):
            while True:
                live.update(_picture(apps, trouble, console.width, console.height), refresh=True)
                if _quits(keys, stirred):
                    return
                try:
                    apps, trouble = ask_all("/api/apps"), ""
                except Failed as error:
                    trouble = str(error)


def _picture(apps: list[dict[str, Any]], trouble: str, width: int, height: int) -> Any:
    from rich.console import Group  # noqa: PLC0415  # as above
    from rich.text import Text  # noqa: PLC0415  # as above

    head = Text(safe(trouble), "red") if trouble else Text(f"{len(apps)} apps; q ends", "dim")
    rows = [tuple(safe(cell) for cell in row) for row in _rows(apps)]
    return Group(head, drawn(rows[: height - 1], _DROP, width, cut="LAST DECISION") if apps else Text(NO_APPS))


def _quits(keys: int, stirred: int) -> bool:
    """Wait until it is time for another look, and tell whether q was pressed instead."""
    ready, _, _ = select.select([keys, stirred], [], [], LOOK_S)
    if keys in ready:
        return os.read(keys, 64)[:1] in (b"q", b"Q", b"\x04", b"")
    if stirred in ready:
        select.select([keys], [], [], SETTLE_S)
        os.read(stirred, 4096)
    return False


@contextmanager
def _keys() -> Iterator[int]:
    """Have keys come one by one and unseen."""
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)


@contextmanager
def _stirred_by_events() -> Iterator[int]:
    """A file that can be read once something has happened to an app."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        with suppress(Failed):
            for _ in lasting("/api/events"):
                with suppress(BlockingIOError):  # it is stirred enough
                    os.write(writing, b".")

    threading.Thread(target=listen, daemon=True).start()
    yield reading  # both ends stay open: the thread ends with the process
