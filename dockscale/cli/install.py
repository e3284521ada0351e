"""Verbs that make and remove apps: `install` and `uninstall`."""

from pathlib import Path
from typing import Any

import click

from dockscale.cli import OK, Failed
from dockscale.cli.client import Unanswered, app_path, ask, stream
from dockscale.cli.names import app_argument
from dockscale.cli.show import as_json, json_option, note, say, waiting

INSTALL_S = 900.0
"""Within this an app is removed."""
_MOST_BYTES = 2**25
"""Of a source. dockscale takes no more, either."""
_TYPES = {".js": "window", ".mjs": "window", ".html": "window", ".htm": "window", ".py": "python"}
"""What a source is by its file's ending."""


class _Field(click.ParamType[tuple[str, str]]):
    """FIELD=VALUE, as a pair."""

    name = "FIELD=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        field, equals, content = str(value).partition("=")
        if not equals or not all(field.split(".")):
            self.fail(f"{value!r} is no FIELD=VALUE; write autoscaling.max_instances=3", param, ctx)
        return field, content


@click.command
@click.argument("file", required=False, default="", metavar="[FILE]", type=click.Path())
@click.option("--image", default="", metavar="NAME", help="an image instead of a source")
@click.option("--name", default="", help="the app's name, of which its id is made (default: the file's)")
@click.option("--type", "type_", default="", help="what the source is (default: by what it looks like)")
@click.option(
    "--set", "fields", multiple=True, type=_Field(), metavar="FIELD=VALUE",
    help="a field of the manifest, named as a label, as autoscaling.max_instances=3; again for more",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="replace the app that has this id")
@json_option
def install(
    file: str, image: str, name: str, type_: str, fields: list[tuple[str, str]], overwrite: bool, json_: bool
) -> int:
    """Make an app of a program's source (`-` reads it from standard input), or of an image."""
    manifest: dict[str, Any] = {"name": name, "type": type_, "image": image}
    if file:
        path = Path(file)
        manifest["source"] = _source(file)
        manifest["name"] = name or path.stem.strip("-")
        manifest["type"] = type_ or _TYPES.get(path.suffix.lower(), "")
    for field, value in fields:
        _put(manifest, field, value)
    app = _install({field: value for field, value in manifest.items() if value != ""}, overwrite)
    if json_:
        as_json(app)
        return OK
    say(f"{app['id']} is installed" + ("; it starts with its first call or request" if app["lazy"] else ""))
    for url in ask(app_path(app["id"]))["urls"]:
        say(f"  {url}")
    return OK


def _install(manifest: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Have it installed, telling each step, and return the manifest with all fields filled in.

    Raises:
        Unanswered: it was not, or the connection broke.
    """
    path = f"/api/apps{'?overwrite=true' if overwrite else ''}"
    with stream(path, "POST", manifest) as events, waiting("installing"):
        try:
            for event, told in events:
                if event == "step":
                    note(told["text"])
                elif event == "failed":
                    raise Unanswered(told["detail"])
                elif event == "installed":
                    app: dict[str, Any] = told
                    return app
        except (OSError, ValueError):  # cut off, maybe within an event
            pass
    raise Unanswered("the connection has ended; `dockscale ps` shows whether the app is there")


def _put(manifest: dict[str, Any], field: str, value: str) -> None:
    """Set a field of a section, or one at the top.

    Raises:
        Failed: what should be its section is a field that was set.
    """
    *sections, last = field.split(".")
    section = manifest
    for each in sections:
        section = section.setdefault(each, {})
        if not isinstance(section, dict):
            raise Failed(f"--set {field}: {each} has no fields, it is {section!r} already")
    section[last] = value


def _source(file: str) -> str:
    """Read a program.

    Raises:
        Failed: it cannot be read.
    """
    try:
        with click.open_file(file, "rb") as it:
            content: bytes = it.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise Failed(f"{file} is larger than {_MOST_BYTES // 2**20} MiB: a source is a program, and no more")
        return content.decode()
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failed(f"{file} cannot be read: it is no text in UTF-8") from None


@click.command
@app_argument
@json_option
def uninstall(app: str, json_: bool) -> int:
    """Remove an installed app; returns when its instances have finished what they have and nothing is left."""
    with waiting(f"waiting for the instances of {app} to finish"):
        ask(app_path(app), "DELETE", silence_s=INSTALL_S)
    as_json({"removed": app}) if json_ else say(f"{app} is removed")
    return OK
