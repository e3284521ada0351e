"""The command line: one function per verb. Each talks to a running server, or does an offline one-shot."""

import argparse
import asyncio
import itertools
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import requests
import uvloop
from pydantic import ValidationError

from dockscale import __version__, logs, reference
from dockscale.config import Settings
from dockscale.core.spec import seconds
from dockscale.doctor import examine
from dockscale.hub.kept import CannotKeep, read_secret
from dockscale.hub.tokens import LIFE_S, PERMISSIONS, Tokens, User

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
_TIMEOUT_S = 10.0
_SILENCE_S = 40.0
"""A stream says every 15 s that it is there; one that is silent for so long is not."""
INSTALL_S = 900.0
"""Within this an app is installed or removed."""
_TYPES = {".js": "window", ".mjs": "window", ".html": "window", ".htm": "window", ".py": "python"}
"""What a source is by its file's ending."""
_RETRY_S = (1.0, 2.0, 5.0)


class Unanswered(Exception):
    """The running server did not do what was asked. The message says what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 fine, 1 not, 2 wrong usage, 130 Ctrl-C."""
    parser = _parser()
    options, rest = parser.parse_known_args(argv)
    if rest and options.verb is not serve:
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        code: int = options.verb(options, rest)
        sys.stdout.flush()
    except (Unanswered, CannotKeep) as error:
        print(f"dockscale: {error}", file=sys.stderr)
        return FAILED
    except ValidationError as error:
        for each in error.errors():
            name = "_".join(str(part) for part in each["loc"]).upper()
            print(
                f"dockscale: DOCKSCALE_{name} = {each['input']!r}: {each['msg'].removeprefix('Value error, ')}",
                file=sys.stderr,
            )
        return USAGE
    except KeyboardInterrupt:
        print("dockscale: interrupted; what the server was asked to do goes on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has seen enough. Python flushes once more at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dockscale", description="Autoscaler and load balancer for labelled containers.")
    parser.add_argument("--version", action="version", version=f"dockscale {__version__}")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verb = verbs.add_parser(
        "serve", help="run the proxy and the scaler (`serve --help`: every setting)", add_help=False
    )
    verb.set_defaults(verb=serve)
    verb = verbs.add_parser("ps", help="list apps with their instances and load")
    verb.set_defaults(verb=ps)
    verb.add_argument("--json", action="store_true", help="print what the API says")
    verb = verbs.add_parser("report", help="say what scaling has saved since dockscale started")
    verb.set_defaults(verb=report)
    verb.add_argument("--json", action="store_true", help="print what the API says")
    verb = verbs.add_parser("explain", help="say why an app has the instances it has")
    verb.set_defaults(verb=explain)
    verb.add_argument("app", metavar="APP")
    verb.add_argument("--json", action="store_true", help="print what the API says")
    verb.add_argument("--last", type=int, default=10, metavar="N", help="decisions to show (default 10)")
    verb.add_argument("--watch", action="store_true", help="go on with each new decision, until Ctrl-C")
    for name, does, help_text in (
        ("labels", labels, "list every label with its default"),
        ("settings", settings, "list every setting of the process"),
    ):
        verb = verbs.add_parser(name, help=help_text)
        verb.set_defaults(verb=does)
        verb.add_argument("--markdown", action="store_true", help="print the page of the documentation")
    verb = verbs.add_parser("token", help="print a token for a client, signed with the secret of this host")
    verb.set_defaults(verb=token)
    verb.add_argument("--workspace", default="public", metavar="W", help="where it holds (default public; '*': all)")
    verb.add_argument("--permission", choices=PERMISSIONS, default="read_write", help="(default read_write)")
    verb.add_argument(
        "--expires-in", type=_life, default=LIFE_S, metavar="TIME", help="how long it holds, as 30d (default 1h)"
    )
    verb.add_argument("--client-id", default="", metavar="ID", help="the only client that may use it (default any)")
    verb = verbs.add_parser("install", help="make an app of a program's source, or of an image")
    verb.set_defaults(verb=install)
    verb.add_argument("file", nargs="?", metavar="FILE", help="the source; - reads it from standard input")
    verb.add_argument("--image", default="", metavar="NAME", help="an image instead of a source")
    verb.add_argument("--name", default="", help="the app's name, of which its id is made (default: the file's)")
    verb.add_argument("--type", default="", help="what the source is (default: by what it looks like)")
    verb.add_argument(
        "--set", action="append", default=[], type=_field, metavar="FIELD=VALUE",
        help="a field of the manifest, named as a label, as autoscaling.max_instances=3; again for more",
    )  # fmt: skip
    verb.add_argument("--overwrite", action="store_true", help="replace the app that has this id")
    verb.add_argument("--json", action="store_true", help="print the manifest that came of it")
    verb = verbs.add_parser("uninstall", help="remove an installed app, once its instances have finished")
    verb.set_defaults(verb=uninstall)
    verb.add_argument("app", metavar="APP")
    verb = verbs.add_parser("runtimes", help="make the images that programs run on, unless they are there")
    verb.set_defaults(verb=runtimes)
    verb = verbs.add_parser("doctor", help="check engine, ports and labels, and say what to do")
    verb.set_defaults(verb=doctor)
    verb.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


def serve(_: argparse.Namespace, rest: list[str]) -> int:
    """Run dockscale until it is told to stop."""
    chosen = Settings(_cli_parse_args=rest, _cli_prog_name="dockscale serve", _cli_kebab_case=True)
    logs.set_up(chosen.log_format, chosen.log_level)
    from dockscale.server import CannotStart  # noqa: PLC0415  # the other verbs need not wait for these imports
    from dockscale.server import serve as run  # noqa: PLC0415  # likewise

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if chosen.event_loop == "uvloop" else None) as runner:
            runner.run(run(chosen))
    except CannotStart as error:
        print(f"dockscale: {error}", file=sys.stderr)
        return FAILED
    return OK


def ps(options: argparse.Namespace, _: list[str]) -> int:
    """List the apps."""
    apps: list[dict[str, Any]] = _ask("/api/apps")
    if options.json:
        print(json.dumps(apps, indent=2))
        return OK
    if not apps:
        print("no apps: label a container or an image with dockscale.enable=true")
        return OK
    rows: list[tuple[str, ...]] = [("APP", "STATE", "READY", "LOAD", "TARGET", "IN FLIGHT", "WAITING", "URL")]
    rows += [_row(app) for app in apps]
    _print_table(rows)
    for app in apps:
        for problem in app.get("problems", ()):
            print(f"{app['template']}: {problem}")
    return OK


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def report(options: argparse.Namespace, _: list[str]) -> int:
    """Tell what scaling has saved."""
    told: dict[str, Any] = _ask("/api/report")
    if options.json:
        print(json.dumps(told, indent=2))
        return OK
    if not told["apps"]:
        print("no apps: label a container or an image with dockscale.enable=true")
        return OK
    rows: list[tuple[str, ...]] = [("APP", "USED", "ALWAYS ONE", "ALWAYS MAX", "SAVED", "WAKES", "WAITED")]
    rows += [_saved(each["app_id"], each) for each in (*told["apps"], {"app_id": "all", **told["total"]})]
    _print_table(rows)
    print("Instance-hours since dockscale started; SAVED is against always having max_instances.")
    return OK


def _saved(name: str, usage: dict[str, Any]) -> tuple[str, ...]:
    most = usage["always_max_h"]
    share = f"{100 * (1 - usage['used_h'] / most):.0f} %" if most else "-"
    hours = (f"{usage[field]:.2f} h" for field in ("used_h", "always_one_h", "always_max_h"))
    return name, *hours, share, str(usage["wakes"]), f"{usage['waited_s']:.1f} s"


def _row(app: dict[str, Any]) -> tuple[str, ...]:
    if app["state"] == "invalid":
        return app["app_id"], "invalid", "-", "-", "-", "-", "-", "-"
    load = app["load"]
    ready = f"{app['instances_by_state']['ready']}/{app['bounds'][1]}"
    numbers = f"{load['per_instance']:g}", f"{load['target']:g}", str(load["in_flight"]), str(load["waiting"])
    return app["app_id"], app["state"], ready, *numbers, app["urls"][0]


def explain(options: argparse.Namespace, _: list[str]) -> int:
    """Tell one app's story."""
    if options.watch:
        return _watch(options)
    app: dict[str, Any] = _ask(f"/api/apps/{options.app}")
    if options.json:
        print(json.dumps(app, indent=2))
        return OK
    return _show(app, options.last)


def _show(app: dict[str, Any], last: int) -> int:
    print(f"{app['app_id']}: {app['state']}, from {app['template']}")
    if app["state"] == "invalid":
        print("\n".join(f"  {problem}" for problem in app["problems"]))
        return FAILED
    load, (low, high) = app["load"], app["bounds"]
    print("".join(f"  {url}\n" for url in app["urls"]), end="")
    print(f"  bounds     {low} to {high} instances")
    print(f"  load       {load['requests_per_minute']} requests in 60 s, {load['per_instance']:g} per ready instance")
    print(f"  thresholds up above {load['scale_up_above']:g}, down below {load['scale_down_below']:g} per instance")
    print(f"  now        {load['in_flight']} in flight, {load['waiting']} waiting, idle for {load['idle_s']:g} s")
    for name, failure in (("failure", "failure"), ("rollout", "rollout_failure"), ("metric", "gauge_failure")):
        if app[failure]:
            print(f"  {name:<10} {app[failure]}")
    print("instances" if app["instances"] else "instances: none")
    for each in app["instances"]:
        load_text = f"{each['requests_per_minute']} requests/min, {each['in_flight']} in flight"
        why = f"  ({each['why']})" if each["why"] else ""
        print(f"  {each['name']}  {each['state']}  {each['address'] or '-'}  {load_text}  for {each['age_s']:g} s{why}")
    print("decisions, newest first")
    for each in app["decisions"][:last]:
        print(f"  {each['ago_s']:>7.1f} s ago  {each['reason']:<8}  {each['explanation']}")
    return OK


def _watch(options: argparse.Namespace) -> int:
    """Show an app and then each decision as it comes, until the app is removed or Ctrl-C is pressed."""
    path = f"/api/apps/{options.app}"
    with suppress(KeyboardInterrupt), _open(f"{path}/events") as stream:
        # Asked only now that the stream is open, so no decision falls between the two.
        newest = "" if options.json else _show_now(path, options.last)
        for event, told in _lasting(f"{path}/events", stream):
            if event == "decision" and told["at"] > newest:
                newest = told["at"]
                print(json.dumps(told) if options.json else _line(told), flush=True)
            elif event == "missed":
                _note(f"{told['count']} decisions were missed")
            elif event == "removed":
                _note(f"the app {options.app} was removed")
                break
    return OK


def _show_now(path: str, last: int) -> str:
    """Show an app and return when the latest decision was made."""
    app: dict[str, Any] = _ask(path)
    _show(app, last)
    sys.stdout.flush()
    return max((str(each["at"]) for each in app.get("decisions", ())), default="")


def _line(decision: dict[str, Any]) -> str:
    at = datetime.fromisoformat(decision["at"]).astimezone()
    return f"  {at:%H:%M:%S}  {decision['reason']:<8}  {decision['explanation']}"


def _lasting(path: str, stream: requests.Response) -> Iterator[tuple[str, Any]]:
    """Events of a stream, and of the one that is opened in its place whenever it ends."""
    while True:
        with suppress(requests.RequestException, ValueError):  # cut off, maybe within an event
            yield from _events(stream)
        _note("the connection has ended; connecting again")
        stream = _opened_again(path)
        _note("connected again")


def _opened_again(path: str) -> requests.Response:
    pauses = itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1]))
    while True:
        time.sleep(next(pauses))
        try:
            return _open(path)
        except Unanswered as error:
            _note(str(error))


def _note(what: str) -> None:
    print(f"dockscale: {what}", file=sys.stderr)


def _events(stream: requests.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    with stream:
        for line in stream.iter_lines():
            field, _, value = line.decode().partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def labels(options: argparse.Namespace, _: list[str]) -> int:
    """Print every label."""
    intro = "Labels of a container or an image. Durations take `30`, `30s`, `5m`, `1h`. Printed by `dockscale labels`."
    rows = reference.labels()
    print(reference.markdown("Labels", intro, rows) if options.markdown else reference.plain(rows))
    return OK


def settings(options: argparse.Namespace, _: list[str]) -> int:
    """Print every setting."""
    intro = "Environment variables (or a line in `.env`) of the process. Printed by `dockscale settings`."
    rows = reference.settings()
    print(reference.markdown("Settings", intro, rows) if options.markdown else reference.plain(rows))
    return OK


def _life(text: str) -> float:
    """Read a token's time in seconds: days as `30d`, else as labels have it."""
    days = text.removesuffix("d")
    try:
        return int(days) * 86400.0 if days != text else cast("float", seconds(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 30s, 5m, 1h or 30d") from None


def token(options: argparse.Namespace, _: list[str]) -> int:
    """Print a token."""
    chosen = Settings()
    user = User(
        f"token-{secrets.token_hex(4)}", {options.workspace: PERMISSIONS[options.permission]},
        current_workspace=options.workspace.replace("*", ""), client_id=options.client_id,
    )  # fmt: skip
    try:
        print(Tokens(read_secret(chosen), time.time, chosen.auth).issue(user, options.expires_in))
    except ValueError as error:
        print(f"dockscale: {error}", file=sys.stderr)
        return USAGE
    return OK


def _field(text: str) -> tuple[str, str]:
    field, equals, value = text.partition("=")
    if not equals or not all(field.split(".")):
        raise argparse.ArgumentTypeError(f"{text!r} is no FIELD=VALUE; write autoscaling.max_instances=3")
    return field, value


def install(options: argparse.Namespace, _: list[str]) -> int:
    """Install an app."""
    manifest: dict[str, Any] = {"name": options.name, "type": options.type, "image": options.image}
    if options.file:
        manifest["source"] = _source(options.file)
        path = Path(options.file)
        manifest["name"] = options.name or path.stem.strip("-")
        manifest["type"] = options.type or _TYPES.get(path.suffix.lower(), "")
    for field, value in options.set:
        _put(manifest, field, value)
    manifest = {field: value for field, value in manifest.items() if value != ""}
    overwrite = "?overwrite=true" if options.overwrite else ""
    app: dict[str, Any] = _told(_request("POST", f"/api/apps{overwrite}", INSTALL_S, json=manifest))
    if options.json:
        print(json.dumps(app, indent=2))
        return OK
    print(f"{app['id']} is installed" + ("; it starts with its first call or request" if app["lazy"] else ""))
    print("".join(f"  {url}\n" for url in _ask(f"/api/apps/{app['id']}")["urls"]), end="")
    return OK


def _put(manifest: dict[str, Any], field: str, value: str) -> None:
    """Set a field of a section, or one at the top.

    Raises:
        Unanswered: what should be its section is a field that was set.
    """
    *sections, last = field.split(".")
    section = manifest
    for each in sections:
        section = section.setdefault(each, {})
        if not isinstance(section, dict):
            raise Unanswered(f"--set {field}: {each} has no fields, it is {section!r} already")
    section[last] = value


def _source(file: str) -> str:
    """Read a program.

    Raises:
        Unanswered: it cannot be read.
    """
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise Unanswered(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unanswered(f"{file} cannot be read: it is no text in UTF-8") from None


def uninstall(options: argparse.Namespace, _: list[str]) -> int:
    """Remove an app."""
    answer = _request("DELETE", f"/api/apps/{quote(options.app, safe='')}", INSTALL_S)
    if answer.status_code != 204:
        _told(answer)
    print(f"{options.app} is removed")
    return OK


def runtimes(_: argparse.Namespace, __: list[str]) -> int:
    """Make the runtimes' images."""
    from dockscale.server import CannotStart, make_runtimes  # noqa: PLC0415  # as in `serve`

    async def make() -> None:
        async for name in make_runtimes(Settings()):
            print(name, flush=True)

    try:
        asyncio.run(make())
    except CannotStart as error:
        print(f"dockscale: {error}", file=sys.stderr)
        return FAILED
    return OK


def doctor(options: argparse.Namespace, _: list[str]) -> int:
    """Check this host."""
    try:
        server, why_not = _ask("/")["dockscale"], ""
    except Unanswered as error:
        server, why_not = None, str(error)
    except (KeyError, TypeError):
        server, why_not = None, "what answers on the admin port is no dockscale"
    findings = list(examine(Settings(), server, why_not))
    if options.json:
        print(json.dumps([{"good": f.good, "text": f.text, "advice": f.advice} for f in findings], indent=2))
    else:
        for finding in findings:
            print(
                f"{'ok  ' if finding.good else 'BAD '} {finding.text}"
                + (f"\n     → {finding.advice}" * bool(finding.advice))
            )
    return OK if all(finding.good for finding in findings) else FAILED


def _ask(path: str) -> Any:
    """Get what the running server says as JSON.

    Raises:
        Unanswered: it says nothing, or why not.
    """
    return _told(_request("GET", path, _TIMEOUT_S))


def _open(path: str) -> requests.Response:
    """Open a stream of events.

    Raises:
        Unanswered: there is none, or why not.
    """
    answer = _request("GET", path, _SILENCE_S, stream=True)
    if answer.headers.get("Content-Type") != "text/event-stream":
        with answer:
            _told(answer)
            raise _no_dockscale(answer)
    return answer


def _request(method: str, path: str, silence: float, **more: Any) -> requests.Response:
    chosen = Settings()
    host = f"[{chosen.admin_host}]" if ":" in chosen.admin_host else chosen.admin_host
    url = f"http://{host}:{chosen.admin_port}"
    token = chosen.admin_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    try:
        return requests.request(method, url + path, headers=headers, timeout=(_TIMEOUT_S, silence), **more)
    except requests.ReadTimeout:
        raise Unanswered(f"{url} did not answer within {silence:g} s") from None
    except requests.RequestException:
        raise Unanswered(f"no dockscale answers at {url}: start it (`make run` or `dockscale serve`)") from None


def _told(answer: requests.Response) -> Any:
    try:
        told = answer.json()
        if answer.status_code >= 400:
            raise Unanswered(told["message"])
    except (ValueError, KeyError, TypeError, requests.RequestException):
        raise _no_dockscale(answer) from None
    return told


def _no_dockscale(answer: requests.Response) -> Unanswered:
    at = answer.url.removesuffix(answer.request.path_url)
    return Unanswered(f"{at} is no dockscale: it answered {answer.status_code} and not as one")


if __name__ == "__main__":
    sys.exit(main())
