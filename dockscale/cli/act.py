"""Verbs that change how many instances run: `wake`, `sleep`, `scale`, `drain` and `restart`."""

import math
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import click

from dockscale.cli import OK, Failed
from dockscale.cli.client import ANSWER_S, app_path, ask, ask_all
from dockscale.cli.names import app_argument, instance_argument
from dockscale.cli.show import as_json, json_option, say, waiting

LOOK_S = 0.2
"""Between two looks at what is waited for."""


class _Seconds(click.FloatRange):
    """How long somebody waits. A day is forever, and what is no number is not less."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return seconds


wait_option = click.option("--wait", is_flag=True, help="return when it is done")
timeout_option = click.option(
    "--timeout", type=_Seconds(0, 86400), default=60.0, show_default=True, metavar="SECONDS", help="wait no longer"
)


@click.command
@app_argument
@timeout_option
@json_option
def wake(app: str, timeout: float, json_: bool) -> int:
    """Start an app, unless it is awake, and wait until an instance is ready."""
    with waiting(f"waiting for an instance of {app}"):
        instance = ask(f"{app_path(app)}/wake?timeout={timeout:g}", "POST", silence_s=timeout + ANSWER_S)
    as_json(instance) if json_ else say(f"{app}: {instance['name']} is ready")
    return OK


@click.command
@app_argument
@wait_option
@timeout_option
@json_option
def sleep(app: str, wait: bool, timeout: float, json_: bool) -> int:
    """Let an app's instances finish what they have and go. It sleeps until somebody asks for it."""
    instances = ask_all(f"{app_path(app)}/sleep", "POST")
    leaving = _leaving({"instances": instances})
    if wait:
        _wait(app, f"{_count(leaving)} of {app} to finish", timeout, lambda told: not leaving & _leaving(told))
    as_json(instances) if json_ else say(f"{app}: {_count(leaving)} {'gone' if wait else 'finishing'}")
    return OK


@click.command
@app_argument
@click.argument("instances", type=int, metavar="N")
@wait_option
@timeout_option
@json_option
def scale(app: str, instances: int, wait: bool, timeout: float, json_: bool) -> int:
    """Have N instances now, within the app's minimum and maximum.

    Load may ask for more at any time, and for fewer once scale_down_cooldown has passed.
    """
    told = ask(f"{app_path(app)}/scale?instances={instances}", "POST")
    if wait:
        told = _wait(app, f"{instances} of {app} to be ready", timeout, lambda told: _is_settled(told, instances))
    as_json(told) if json_ else say(f"{app}: {told['decision']['explanation']}")
    return OK


def _is_settled(told: dict[str, Any], instances: int) -> bool:
    counts: dict[str, int] = told["instances_by_state"]
    return counts["ready"] >= instances and not counts["starting"] and not counts["draining"]


@click.command
@app_argument
@instance_argument
@wait_option
@timeout_option
@json_option
def drain(app: str, instance: str, wait: bool, timeout: float, json_: bool) -> int:
    """Let one instance finish what it has and go; another takes its place if the minimum asks for it.

    INSTANCE may be left out if there is only one.
    """
    name = instance or _only(app)
    told = ask(f"{app_path(app)}/drain?instance={quote(name, safe='')}", "POST")
    if wait:
        told = _wait(app, f"{name} to finish", timeout, lambda told: name not in _leaving(told))
    as_json(told) if json_ else say(f"{app}: {name} {'is gone' if wait else 'is finishing'}")
    return OK


def _only(app: str) -> str:
    names = sorted(_names(ask(app_path(app))))
    if len(names) != 1:
        listed = f"say which: {', '.join(names)}" if names else "there is nothing to drain"
        raise Failed(f"{app} has {len(names)} instances, {listed}")
    return names[0]


@click.command
@app_argument
@wait_option
@timeout_option
@json_option
def restart(app: str, wait: bool, timeout: float, json_: bool) -> int:
    """Replace an app's instances by new ones, which are ready before the old ones drain. No request is lost."""
    old = _names(ask(app_path(app)))
    told = ask(f"{app_path(app)}/restart", "POST")
    if wait:
        told = _wait(app, f"{_count(old)} of {app} to be replaced", timeout, lambda told: not old & _names(told))
    as_json(told) if json_ else say(f"{app}: {_count(old)} {'replaced' if wait else 'being replaced'}")
    return OK


def _wait(app: str, what: str, timeout: float, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Look at an app until it is as wanted, and return what it is then.

    Raises:
        Failed: it is not within `timeout` seconds.
    """
    ends = time.monotonic() + timeout
    with waiting(f"waiting for {what}"):
        while True:
            told = ask(app_path(app))
            if done(told):
                return told
            if time.monotonic() >= ends:
                why = next((told[each] for each in ("rollout_failure", "failure") if told.get(each)), "")
                raise Failed(f"waited {timeout:g} s for {what}" + (f": {why}" if why else "; it goes on"))
            time.sleep(LOOK_S)


def _names(told: dict[str, Any]) -> set[str]:
    return {each["name"] for each in told.get("instances", ())}


def _leaving(told: dict[str, Any]) -> set[str]:
    """Name those that still finish what they have. A labelled container may have begun anew under its name since."""
    return {each["name"] for each in told.get("instances", ()) if each["state"] == "draining"}


def _count(names: set[str]) -> str:
    return f"{len(names)} instance{'s' * (len(names) != 1)}"
