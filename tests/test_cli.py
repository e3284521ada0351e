"""The command line as its users see it: what is printed, and the exit code."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dockscale import __version__, cli
from dockscale.config import Settings
from dockscale.core.spec import LABELS
from dockscale.engine.memory import Program
from dockscale.hub.kept import open_kept
from dockscale.hub.tokens import Tokens
from tests.support.backend import backend
from tests.support.verbs import line_with, run, started
from tests.support.world import BOUND_S, ENABLED, World, prefixed, until, world

pytestmark = pytest.mark.usefixtures("elsewhere")

VERBS_THAT_ASK = [
    each.split()
    for each in (
        "ps", "apps", "top", "report", "explain web", "explain web --watch", "logs web", "wake web", "sleep web",
        "scale web 1", "drain web", "restart web",
    )
]  # fmt: skip


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Somebody who gives each request the same answer; their port."""

    class Somebody(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Somebody) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


async def test_ps_shows_each_app_in_a_row_and_what_is_wrong_below(
    web: World, capsys: pytest.CaptureFixture[str]
) -> None:
    web.engine.add_image("shop", Program(backend), ENABLED | prefixed({"prot": "1"}))
    await web.get()
    await web.settled()
    capsys.readouterr()

    code = await run("ps")

    head, shop, app, problem = capsys.readouterr().out.splitlines()
    assert code == 0
    assert head.split()[:4] == ["APP", "STATE", "READY", "LOAD"]
    assert shop.split()[:2] == ["shop", "invalid"]
    assert app.split()[:5] == ["web", "ready", "1/10", "1", "100"]
    assert app.split()[-1].startswith("http://")
    assert problem == "image shop: label dockscale.prot is unknown; did you mean dockscale.port?"


async def test_ps_without_apps_says_what_to_do(web: World, capsys: pytest.CaptureFixture[str]) -> None:
    web.engine.remove_image("web")
    await web.settled()
    capsys.readouterr()

    assert await run("ps") == 0
    assert "dockscale.enable=true" in capsys.readouterr().out


async def test_report_says_what_was_saved(web: World, capsys: pytest.CaptureFixture[str]) -> None:
    await web.get()
    web.clock.advance(3600.0)
    capsys.readouterr()

    assert await run("report") == 0

    head, app, total, note = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["APP", "USED"]
    assert app.split()[:7] == ["web", "1.00", "h", "1.00", "h", "10.00", "h"]
    assert app.split()[7:10] == ["90", "%", "1"]
    assert total.split()[0] == "all"
    assert "since dockscale started" in note
    assert await run("report", "--json") == 0


async def test_explain_tells_the_story_newest_first(web: World, capsys: pytest.CaptureFixture[str]) -> None:
    _, body = await web.get()
    web.tick()
    capsys.readouterr()

    code = await run("explain", "web")

    shown = capsys.readouterr().out
    assert code == 0
    assert shown.startswith("web: ready, from image web\n")
    assert "up above 90, down below 30 per instance" in shown
    assert body["instance"] in shown
    told = shown.partition("decisions, newest first\n")[2].splitlines()
    ages = [float(line.split()[0]) for line in told]
    assert ages == sorted(ages)
    assert any("1 request waits and no instance is ready" in line for line in told)


async def test_explain_shows_as_many_decisions_as_asked_for(web: World, capsys: pytest.CaptureFixture[str]) -> None:
    await web.get()
    web.tick()
    capsys.readouterr()

    await run("explain", "web", "--last", "1")

    assert len(capsys.readouterr().out.partition("newest first\n")[2].splitlines()) == 1


@pytest.mark.parametrize(("verb", "path"), [(["ps"], "/api/apps"), (["explain", "web"], "/api/apps/web")])
async def test_json_is_what_the_api_says(
    web: World, verb: list[str], path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    assert await run(*verb, "--json") == 0

    async with web.session.get(web.admin + path) as answer:
        said = await answer.json()
    printed = json.loads(capsys.readouterr().out)
    said, printed = (each if isinstance(each, dict) else each[0] for each in (said, printed))
    assert printed.keys() == said.keys()
    assert printed["urls"] == said["urls"]


async def test_explain_of_a_refused_app_fails_with_its_problems(web: World, capsys: pytest.CaptureFixture[str]) -> None:
    web.engine.add_image("shop", Program(backend), ENABLED | prefixed({"port": "http"}))
    await web.settled()
    capsys.readouterr()

    assert await run("explain", "shop") == 1
    assert "label dockscale.port = 'http'" in capsys.readouterr().out


@pytest.mark.parametrize(("more", "told"), [([], "no app"), (["--watch"], "no valid app")])
async def test_an_unknown_app_fails_and_says_where_to_look(
    more: list[str], told: str, web: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("explain", "shop", *more) == 1
    assert capsys.readouterr().err == f"dockscale: {told} is called 'shop'; `dockscale ps` lists them all\n"


async def test_the_token_of_the_environment_is_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world(admin_token="secret") as it:
        monkeypatch.setenv("DOCKSCALE_ADMIN_PORT", str(it.dockscale.admin_port))
        without = await run("ps")
        told = capsys.readouterr().err
        monkeypatch.setenv("DOCKSCALE_ADMIN_TOKEN", "secret")

        assert await run("ps") == 0

    assert without == 1
    assert "DOCKSCALE_ADMIN_TOKEN" in told


@pytest.mark.parametrize("verb", [["ps"], ["ps", "--json"], ["explain", "web"], ["explain", "web", "--watch"]])
def test_without_a_server_it_fails_and_says_how_to_start_one(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as held:  # bound but not listening: refused, and nobody else gets it
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        monkeypatch.setenv("DOCKSCALE_ADMIN_PORT", str(port))

        code = cli.main(verb)

    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert err.startswith(f"dockscale: no dockscale answers at http://127.0.0.1:{port}: start it")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("verb", VERBS_THAT_ASK, ids=" ".join)
@pytest.mark.parametrize("answer", [b"{}", b"[]", b"1", b"null", b'["a"]', b"[" * 100_000], ids=range(6))
def test_who_answers_as_no_dockscale_or_another_version_is_told_in_one_line(
    answer: bytes, verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(answer) as port:
        monkeypatch.setenv("DOCKSCALE_ADMIN_PORT", str(port))
        code = cli.main(verb)

    err = capsys.readouterr().err
    assert code in (0, 1)
    assert len(err.splitlines()) == code
    assert not code or err.startswith("dockscale: ")


@pytest.mark.parametrize(
    ("setting", "value"), [("HOST", "a b"), ("HOST", "a" * 64), ("TOKEN", "日本"), ("TOKEN", "a\r\nb: c")]
)
def test_what_can_be_no_host_and_no_token_is_told_with_its_setting(
    setting: str, value: str, web: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"DOCKSCALE_ADMIN_{setting}", value)

    assert cli.main(["ps"]) == 1
    err = capsys.readouterr().err
    assert f"DOCKSCALE_ADMIN_{setting}" in err
    assert len(err.splitlines()) == 1


async def test_a_name_that_is_no_text_is_no_apps(web: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("explain", os.fsdecode(b"\xff")) == 1
    assert capsys.readouterr().err.startswith("dockscale: no app is called '")


def test_labels_and_settings_list_all_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["labels"]) == 0
    labels = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert cli.main(["settings"]) == 0
    settings = [line.split()[0] for line in capsys.readouterr().out.splitlines()]

    assert labels == ["dockscale.enable", *LABELS]
    assert {"DOCKSCALE_PORT", "DOCKSCALE_ADMIN_TOKEN", "DOCKSCALE_ENGINE"} <= set(settings)


SECRET = "x" * 32


def test_a_printed_token_is_read_by_the_server_with_the_same_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKSCALE_TOKEN_SECRET", SECRET)
    told = "token --workspace lab --permission admin --expires-in 30d --client-id web-1"

    code = cli.main(told.split())

    user = Tokens(SECRET.encode(), time.time, "token").read(capsys.readouterr().out.strip())
    assert code == 0
    assert (user.workspaces, user.current_workspace, user.client_id) == ({"lab": "a"}, "lab", "web-1")
    assert user.expires_at is not None
    assert user.expires_at - time.time() == pytest.approx(30 * 86400, abs=60)


def test_a_token_is_printed_without_a_running_server_and_its_secret_is_kept_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKSCALE_DATA_DIR", str(tmp_path))

    code = cli.main(["token"])

    secret, _ = open_kept(Settings())
    user = Tokens(secret, time.time, "token").read(capsys.readouterr().out.strip())
    assert code == 0
    assert (user.workspaces, user.anonymous) == ({"public": "rw"}, False)


def test_a_token_for_every_workspace_names_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKSCALE_TOKEN_SECRET", SECRET)

    cli.main(["token", "--workspace", "*", "--permission", "read"])

    user = Tokens(SECRET.encode(), time.time, "token").read(capsys.readouterr().out.strip())
    assert (user.may("lab", "r"), user.may("lab", "rw"), user.current_workspace) == (True, False, "")


@pytest.mark.parametrize("wrong", [["--expires-in", "0"], ["--workspace", "a b"], ["--client-id", "a b"]])
def test_a_token_that_cannot_be_is_wrong_usage(
    wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKSCALE_TOKEN_SECRET", SECRET)

    code = cli.main(["token", *wrong])

    out, err = capsys.readouterr()
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_without_a_place_for_the_secret_there_is_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DOCKSCALE_DATA_DIR", str(tmp_path / "file" / "folder"))

    code = cli.main(["token"])

    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert "DOCKSCALE_DATA_DIR" in err


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        ["fly"],
        ["token", "--permission", "all"],
        ["token", "--expires-in", "soon"],
        ["ps", "web"],
        ["scale", "web"],
        ["scale", "web", "many"],
        ["logs", "web", "--type", "all"],
        ["explain"],
        ["explain", "web", "--last", "x"],
        ["wake", "web", "--timeout", "nan"],
        ["wake", "web", "--timeout", "1e400"],
        ["install", "a.js", "--set", "autoscaling.max_instances"],
        ["install", "a.js", "--set", "=3"],
        ["install", "a.js", "--set", "autoscaling.=3"],
    ],
)
def test_wrong_usage_ends_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(wrong)

    assert code == 2
    assert capsys.readouterr().err.startswith("Usage: dockscale")


def test_a_verb_that_is_misspelt_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explian", "web"]) == 2
    assert capsys.readouterr().err.endswith("no verb is called 'explian'; did you mean explain?\n")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["--version"])

    assert code == 0
    assert capsys.readouterr().out == f"dockscale {__version__}\n"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    verb = f"{sys.executable} -m dockscale.cli labels"
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = ["sh", "-c", f"({verb}; echo code $? >&2) | true"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=buffered)

    assert done.stderr == "code 0\n"


def test_ctrl_c_while_arguments_are_read_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.verbs, "make_context", interrupted)

    assert cli.main(["ps"]) == 130


@pytest.mark.parametrize("asked", [["labels"], ["--help"]])
def test_what_cannot_be_printed_is_told_in_one_line(asked: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "dockscale.cli", *asked], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert (done.returncode, done.stderr) == (1, "dockscale: [Errno 28] No space left on device\n")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-"])
def test_a_closed_file_is_no_error(closed: str) -> None:
    command = ["sh", "-c", f"{sys.executable} -m dockscale.cli labels {closed}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_for_the_closed_standard_error_is_not_put_into_the_answer() -> None:
    command = ["sh", "-c", f"DOCKSCALE_ADMIN_PORT=9 {sys.executable} -m dockscale.cli ps 2>&-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")


async def test_what_a_terminal_cannot_show_is_spelt_out(web: World) -> None:
    async with started(web, "top", PYTHONIOENCODING="ascii") as process:
        out, err = await process.communicate()

    assert (process.returncode, err) == (0, b"")
    assert b"\\u2577" in out


async def test_explain_goes_on_with_each_decision_as_it_comes_until_ctrl_c(web: World) -> None:
    async with started(web, "explain", "web", "--watch") as process:
        first = await line_with("web: ", process.stdout)
        shown = await line_with("nobody asks for it", process.stdout)
        await web.get()
        wake = await line_with("wake", process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert first == "web: asleep, from image web"
    assert "s ago" in shown
    assert re.fullmatch(r"  \d\d:\d\d:\d\d  wake {6}0 → 1 instances: 1 request waits and no instance is ready\.", wake)
    assert (process.returncode, err) == (0, b"")


async def test_watched_as_json_each_line_is_a_decision(web: World) -> None:
    async with started(web, "explain", "web", "--watch", "--json") as process:
        first = json.loads(await line_with("", process.stdout))
        await web.get()
        wake = json.loads(await line_with("wake", process.stdout))

    assert (first["app_id"], first["reason"], first["instances"]) == ("web", "asleep", 0)
    assert (wake["before"], wake["instances"], wake["load"]["waiting"]) == (0, 1, 1)


async def test_a_watch_ends_when_its_app_is_removed(web: World, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    verb = asyncio.create_task(run("explain", "web", "--watch", "--json"))
    await until(lambda: web.app().watchers)
    web.engine.remove_image("web")
    await web.settled()

    async with asyncio.timeout(BOUND_S):
        assert await verb == 0

    assert capsys.readouterr().err == "dockscale: the app web was removed\n"


async def test_a_watch_says_how_many_decisions_it_missed(web: World) -> None:
    async with started(web, "explain", "web", "--watch") as process:
        await line_with("nobody asks for it", process.stdout)
        for number in range(300):
            web.app().memory = replace(web.app().memory, gone=(f"web-{number} died",))
            web.tick()
        missed = await line_with("", process.stderr)
        first = await line_with("died", process.stdout)
        await line_with("web-299 died", process.stdout)

    assert missed == "dockscale: 44 decisions were missed"
    assert "web-44 died" in first


async def test_a_watch_outlasts_a_restart_of_dockscale() -> None:
    async with AsyncExitStack() as stack:
        async with world() as it:
            port = it.dockscale.admin_port
            process = await stack.enter_async_context(started(it, "explain", "web", "--watch"))
            await line_with("nobody asks for it", process.stdout)
        ended = await line_with("", process.stderr)
        away = await line_with("", process.stderr)
        it = await stack.enter_async_context(world(admin_port=port))
        again = await line_with("connected", process.stderr)
        await it.get()
        wake = await line_with("wake", process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert ended == "dockscale: the connection has ended; connecting again"
    assert away.startswith(f"dockscale: no dockscale answers at http://127.0.0.1:{port}")
    assert again == "dockscale: connected again"
    assert "0 → 1 instances" in wake
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        (None, (), "a.js cannot be read: No such file or directory"),
        (b"\xff\xfe\x00", (), "a.js cannot be read: it is no text in UTF-8"),
        (b"x", ("--set", "autoscaling=3", "--set", "autoscaling.max_instances=2"), "autoscaling has no fields"),
        (b"x", ("--set", "autoscaling.max_instance=2"), "did you mean autoscaling.max_instances?"),
        (b"x" * 2**25, (), "the manifest is larger than 32 MiB"),
        (b"x" * (2**25 + 1), (), "a.js is larger than 32 MiB"),
    ],
    ids=["no file", "no text", "field as section", "unknown field", "too large", "far too large"],
)
async def test_what_cannot_be_installed_is_told_in_one_sentence(
    content: bytes | None, more: tuple[str, ...], said: str, web: World, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if content is not None:
        await asyncio.to_thread((tmp_path / "a.js").write_bytes, content)

    code = await run("install", "a.js", *more)

    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert err.startswith("dockscale: ")
    assert said in err


async def test_ctrl_c_is_no_traceback() -> None:
    asked = asyncio.Event()

    async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read(-1)  # until the other side is gone
        writer.close()

    async with await asyncio.start_server(never_answers, "127.0.0.1", 0) as silent:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dockscale.cli", "uninstall", "web", stderr=asyncio.subprocess.PIPE,
            env=os.environ | {"DOCKSCALE_ADMIN_PORT": str(silent.sockets[0].getsockname()[1])},
        )  # fmt: skip
        await until(asked.is_set, "it has asked")
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert process.returncode == 130
    assert err.decode() == "dockscale: interrupted; what the server was asked to do goes on\n"
