"""Apps and instances as arguments, which the shell can complete."""

from collections.abc import Callable

import click

from dockscale.cli import Failed
from dockscale.cli.client import app_path, ask, ask_all

COMPLETE_S = 1.0
"""Whoever presses Tab waits no longer."""


def _apps(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    return _beginning(begun, lambda: [app["app_id"] for app in ask_all("/api/apps", silence_s=COMPLETE_S)])


def _instances(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    # Behind an option, click has not taken the arguments apart yet.
    app = context.params.get("app") or next(iter(context.args), "")
    return _beginning(begun, lambda: [each["name"] for each in ask(app_path(app), silence_s=COMPLETE_S)["instances"]])


def _beginning(begun: str, names: Callable[[], list[str]]) -> list[str]:
    """Names that the running server knows; none if it does not say."""
    try:
        known = names()
    except (Failed, TypeError):  # a shell has no place for what went wrong
        return []
    return [name for name in known if name.startswith(begun) and name.isprintable()]


app_argument = click.argument("app", metavar="APP", shell_complete=_apps)
instance_argument = click.argument("instance", metavar="[INSTANCE]", default="", shell_complete=_instances)
instance_option = click.option(
    "--instance", default="", metavar="NAME", help="only this one", shell_complete=_instances
)
