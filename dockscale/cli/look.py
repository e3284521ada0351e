"""Verbs that look: `ps`, `apps`, `explain` and `report`."""

from datetime import datetime
from typing import Any

import click

from dockscale.cli import FAILED, OK
from dockscale.cli.client import app_path, ask, ask_all
from dockscale.cli.follow import tell_each
from dockscale.cli.names import app_argument
from dockscale.cli.show import NO_APPS, as_json, json_option, safe, say, say_now, table


@click.command
@json_option
def ps(json_: bool) -> int:
    """List apps with state, ready instances of the most allowed, load, and URL; below, why an app was refused."""
    apps = ask_all("/api/apps")
    if json_:
        as_json(apps)
    elif not apps:
        say(NO_APPS)
    else:
        head = ("APP", "STATE", "READY", "LOAD", "TARGET", "IN FLIGHT", "WAITING", "URL")
        table([head, *map(_load, apps)], drop=("URL", "TARGET", "WAITING", "IN FLIGHT", "LOAD", "READY"))
        _tell_problems(apps)
    return OK


def _load(app: dict[str, Any]) -> tuple[str, ...]:
    if app["state"] == "invalid":
        return app["app_id"], "invalid", "-", "-", "-", "-", "-", "-"
    load = app["load"]
    ready = f"{app['instances_by_state']['ready']}/{app['bounds'][1]}"
    numbers = f"{round(load['per_instance'], 1):g}", f"{load['target']:g}", str(load["in_flight"]), str(load["waiting"])
    return app["app_id"], app["state"], ready, *numbers, app["urls"][0]


def _tell_problems(apps: list[dict[str, Any]]) -> None:
    for app in apps:
        for problem in app.get("problems", ()):
            say(f"{app['template']}: {problem}")


@click.command
@json_option
def apps(json_: bool) -> int:
    """List apps with what they are made of, and all the addresses where they answer."""
    told = ask_all("/api/apps")
    if json_:
        as_json(told)
    elif not told:
        say(NO_APPS)
    else:
        rows = [("APP", "STATE", "TEMPLATE", "WORKSPACE")]
        rows += [(app["app_id"], app["state"], app["template"], app.get("workspace", "-")) for app in told]
        table(rows, drop=("WORKSPACE", "TEMPLATE"))
        for url in (url for app in told for url in app.get("urls", ())):
            say(url)
        _tell_problems(told)
    return OK


@click.command
@app_argument
@json_option
@click.option("--last", type=int, default=10, show_default=True, metavar="N", help="decisions to show")
@click.option("--watch", is_flag=True, help="go on with each new decision, until Ctrl-C")
def explain(app: str, json_: bool, last: int, watch: bool) -> int:
    """Say why an app has the instances it has: its load, its instances, and the latest decisions with their reasons."""
    if watch:
        return _watch(app, last, json_)
    told = ask(app_path(app))
    if json_:
        as_json(told)
        return OK
    return _show(told, last)


def _show(app: dict[str, Any], last: int) -> int:
    say(f"{app['app_id']}: {app['state']}, from {app['template']}")
    if app["state"] == "invalid":
        say("\n".join(f"  {problem}" for problem in app["problems"]))
        return FAILED
    load, (low, high) = app["load"], app["bounds"]
    for url in app["urls"]:
        say(f"  {url}")
    say(f"  bounds     {low} to {high} instances")
    per_instance = round(load["per_instance"], 2)
    say(f"  load       {load['requests_per_minute']} requests in 60 s, {per_instance:g} per ready instance")
    say(f"  thresholds up above {load['scale_up_above']:g}, down below {load['scale_down_below']:g} per instance")
    say(f"  now        {load['in_flight']} in flight, {load['waiting']} waiting, idle for {load['idle_s']:g} s")
    for name, failure in (("failure", "failure"), ("rollout", "rollout_failure"), ("metric", "gauge_failure")):
        if app[failure]:
            say(f"  {name:<10} {app[failure]}")
    say("instances" if app["instances"] else "instances: none")
    for each in app["instances"]:
        load_text = f"{each['requests_per_minute']} requests/min, {each['in_flight']} in flight"
        why = f"  ({each['why']})" if each["why"] else ""
        say(f"  {each['name']}  {each['state']}  {each['address'] or '-'}  {load_text}  for {each['age_s']:g} s{why}")
    say("decisions, newest first")
    for each in app["decisions"][:last]:
        say(f"  {each['ago_s']:>7.1f} s ago  {each['reason']:<8}  {each['explanation']}")
    return OK


def _watch(app: str, last: int, json_: bool) -> int:
    """Show an app and then each decision as it comes, until the app is removed or Ctrl-C is pressed."""
    newest = ""

    def tell(event: str, told: Any) -> None:
        nonlocal newest
        if event == "open" and not json_:
            # Asked only now that the stream is open, so no decision falls between the two.
            newest = _show_now(app, last)
        elif event == "decision" and told["at"] > newest:
            newest = told["at"]
            as_json(told, indent=None) if json_ else say_now(_line(told))

    tell_each(f"{app_path(app)}/events", tell, lambda _: f"the app {app} was removed")
    return OK


def _show_now(app: str, last: int) -> str:
    """Show an app and return when the latest decision was made."""
    told = ask(app_path(app))
    _show(told, last)
    return max((str(each["at"]) for each in told.get("decisions", ())), default="")


def _line(decision: dict[str, Any]) -> str:
    at = datetime.fromisoformat(decision["at"]).astimezone()
    return safe(f"  {at:%H:%M:%S}  {decision['reason']:<8}  {decision['explanation']}")


@click.command
@json_option
def report(json_: bool) -> int:
    """Say what scaling has saved since dockscale started, in instance-hours."""
    told = ask("/api/report")
    if json_:
        as_json(told)
    elif not told["apps"]:
        say(NO_APPS)
    else:
        rows: list[tuple[str, ...]] = [("APP", "USED", "ALWAYS ONE", "ALWAYS MAX", "SAVED", "WAKES", "WAITED")]
        rows += [_saved(each["app_id"], each) for each in (*told["apps"], {"app_id": "all", **told["total"]})]
        table(rows, drop=("ALWAYS ONE", "WAITED", "WAKES", "ALWAYS MAX"))
        say("Instance-hours since dockscale started; SAVED is against always having max_instances.")
    return OK


def _saved(name: str, usage: dict[str, Any]) -> tuple[str, ...]:
    most = usage["always_max_h"]
    share = f"{100 * (1 - usage['used_h'] / most):.0f} %" if most else "-"
    hours = (f"{usage[field]:.2f} h" for field in ("used_h", "always_one_h", "always_max_h"))
    return name, *hours, share, str(usage["wakes"]), f"{usage['waited_s']:.1f} s"
