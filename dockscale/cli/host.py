"""Verbs about this host and what can be set: `labels`, `settings`, `token` and `doctor`."""

import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast

import click

from dockscale import doctor as checks
from dockscale import reference
from dockscale.cli import FAILED, OK, Failed, Misused
from dockscale.cli.chosen import chosen, misspelt
from dockscale.cli.client import Unanswered, ask
from dockscale.cli.show import as_json, json_option, say
from dockscale.core.spec import seconds
from dockscale.hub.kept import CannotKeep, read_secret
from dockscale.hub.tokens import LIFE_S, PERMISSIONS, Tokens, User

markdown_option = click.option("--markdown", is_flag=True, help="print the page of the documentation")


@click.command
@markdown_option
@json_option
def labels(markdown: bool, json_: bool) -> int:
    """List every label with its default."""
    intro = "Labels of a container or an image. Durations take `30`, `30s`, `5m`, `1h`. Printed by `dockscale labels`."
    return _print("Labels", intro, reference.labels, markdown, json_)


@click.command
@markdown_option
@json_option
def settings(markdown: bool, json_: bool) -> int:
    """List every setting of the process with its default."""
    intro = "Environment variables (or a line in `.env`) of the process. Printed by `dockscale settings`."
    return _print("Settings", intro, reference.settings, markdown, json_)


def _print(title: str, intro: str, read: Callable[[], list[reference.Row]], markdown: bool, json_: bool) -> int:
    rows = read()
    if json_:
        as_json([{"name": name, "default": default, "meaning": meaning} for name, default, meaning in rows])
    else:
        say(reference.markdown(title, intro, rows) if markdown else reference.plain(rows))
    return OK


class _Life(click.ParamType[float]):
    """A token's time in seconds: days as `30d`, else as labels have it."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        days = str(value).removesuffix("d")
        try:
            return int(days) * 86400.0 if days != value else cast("float", seconds(value))
        except ValueError:
            self.fail(f"{value!r} is no time; write 30s, 5m, 1h or 30d", param, ctx)


@click.command
@click.option("--workspace", default="public", metavar="W", help="where it holds (default public; '*': all)")
@click.option("--permission", type=click.Choice([*PERMISSIONS]), default="read_write", show_default=True)
@click.option("--expires-in", type=_Life(), default=LIFE_S, metavar="TIME", help="how long, as 30d (default 1h)")
@click.option("--client-id", default="", metavar="ID", help="the only client that may use it (default any)")
@json_option
def token(workspace: str, permission: str, expires_in: float, client_id: str, json_: bool) -> int:
    """Print a token for a client over RPC, signed with the secret of this host."""
    settings_ = chosen()
    user = User(
        f"token-{secrets.token_hex(4)}", {workspace: PERMISSIONS[permission]},
        current_workspace=workspace.replace("*", ""), client_id=client_id,
    )  # fmt: skip
    try:
        issued = Tokens(read_secret(settings_), time.time, settings_.auth).issue(user, expires_in)
    except CannotKeep as error:
        raise Failed(str(error)) from None
    except ValueError as error:
        raise Misused(str(error)) from None
    as_json({"token": issued}) if json_ else say(issued)
    return OK


@click.command
@json_option
def doctor(json_: bool) -> int:
    """Check engine, networks, ports, labels and the clock of this host, and say what to do."""
    try:
        told, why_not = ask("/")["dockscale"], ""
        server = {name: told[name] for name in ("engine_up", "apps", "instances", "invalid")}
    except Unanswered as error:
        server, why_not = None, str(error)
    except TypeError:
        server, why_not = None, "what answers on the admin port is no dockscale"
    findings = [*checks.examine(chosen(), server, why_not)]
    findings += [checks.Finding(False, each, "correct its name, and start dockscale anew") for each in misspelt()]
    if json_:
        as_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            advice = f"\n     → {finding.advice}" if finding.advice else ""
            say(f"{'ok  ' if finding.good else 'BAD '} {finding.text}{advice}")
    return OK if all(finding.good for finding in findings) else FAILED
