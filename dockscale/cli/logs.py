"""`logs`: what an app's instances wrote, and what they write."""

import zlib
from typing import Any
from urllib.parse import urlencode

import click

from dockscale.cli import OK
from dockscale.cli.client import app_path, ask
from dockscale.cli.follow import tell_each
from dockscale.cli.names import app_argument, instance_option
from dockscale.cli.show import as_json, has_colours, json_option, safe

_COLOURS = ("cyan", "magenta", "blue", "green", "yellow", "bright_cyan", "bright_magenta", "bright_blue")


@click.command
@app_argument
@click.option("-f", "--follow", is_flag=True, help="go on with what they write, until Ctrl-C")
@instance_option
@click.option(
    "--type", "kind", type=click.Choice(["log", "scaling"]), help="only what instances wrote, or how it scaled"
)
@click.option("-n", "--tail", type=click.IntRange(0), metavar="N", help="the last N lines of each (with -f: 10)")
@json_option
def logs(app: str, follow: bool, instance: str, kind: str | None, tail: int | None, json_: bool) -> int:
    """Print what an app's instances wrote and how it was scaled, each line with the name of who wrote it."""
    if follow:
        again = _path(app, instance=instance, type=kind)
        path = _path(app, instance=instance, type=kind, tail=10 if tail is None else tail)
        tell = _tell_as_json if json_ else _tell
        tell_each(path, lambda event, told: tell(told) if event == "line" else None, _gone, again)
        return OK
    told = ask(_path(app, instance=instance, type=kind, tail=tail))
    if json_:
        as_json(told)
    else:
        for item in told["items"]:
            _tell(item)
    return OK


def _path(app: str, **query: object) -> str:
    return (
        f"{app_path(app)}/logs?{urlencode({name: value for name, value in query.items() if value not in ('', None)})}"
    )


def _gone(told: dict[str, Any]) -> str:
    return f"{told['instance'] or told['app_id']} is gone"


def _tell(item: dict[str, Any]) -> None:
    name = safe(item.get("instance") or item["type"])
    styled = click.style(name, _COLOURS[zlib.crc32(name.encode()) % len(_COLOURS)]) if has_colours() else name
    line = safe(item["content"], "\t")
    print(f"{styled}  {line}", flush=True)


def _tell_as_json(item: dict[str, Any]) -> None:
    as_json(item, indent=None)
