"""What people do to apps on the command line: wake, scale, restart, follow. Seen as they see it."""

import asyncio
import json
import os
import signal
import sys

import pytest

from dockscale.cli.show import safe
from dockscale.engine.memory import Program
from tests.support.backend import backend
from tests.support.verbs import line_with, run, started
from tests.support.world import ENABLED, World, prefixed, until, world

pytestmark = pytest.mark.usefixtures("elsewhere")

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m[bold]loud[/bold]\u202egnp"
SPELT = r"\x1b]0;owned\x07\x1b[2J\x9b31m[bold]loud[/bold]\u202egnp"


async def test_an_app_is_woken_scaled_drained_restarted_and_put_to_sleep(
    web: World, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    codes = [await run("wake", "web")]
    [name] = web.app().pool.instances
    codes.append(await run("scale", "web", "3", "--wait"))
    three = web.ready()
    codes.append(await run("drain", "web", name, "--wait"))
    gone = name not in web.app().pool.instances
    await until(lambda: web.ready() == 3)
    before = set(web.app().pool.instances)
    codes.append(await run("restart", "web", "--wait"))
    after = set(web.app().pool.instances)
    codes.append(await run("sleep", "web", "--wait"))

    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("web: ")]
    assert (codes, three, gone) == ([0] * 5, 3, True)
    assert (before.isdisjoint(after), web.states()) == (True, {})
    assert told == [
        f"web: {name} is ready",
        told[1],
        f"web: {name} is gone",
        "web: 3 instances replaced",
        "web: 3 instances gone",
    ]


async def test_a_container_that_has_begun_anew_as_a_spare_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world() as it:
        monkeypatch.setenv("DOCKSCALE_ADMIN_PORT", str(it.dockscale.admin_port))
        spare = prefixed({"app_id": "box", "autoscaling.standby_instances": "1", "autoscaling.max_instances": "1"})
        await it.engine.start(it.engine.add_container("box", "web", ENABLED | spare).id)
        await until(lambda: "box" in it.dockscale.registry.apps and it.ready("box") == 1)

        slept = await run("sleep", "box", "--wait", "--timeout", "5")
        await until(lambda: it.states("box") == {"standby": 1})
        woken = await run("wake", "box")
        drained = await run("drain", "box", "box", "--wait", "--timeout", "5")

    assert (slept, woken, drained) == (0, 0, 0), capsys.readouterr().err


async def test_each_of_them_answers_at_once_and_as_json_if_asked_to(web: World) -> None:
    await web.get()
    told = []
    for verb in (["wake", "web"], ["scale", "web", "1"], ["restart", "web"], ["sleep", "web"]):
        async with started(web, *verb, "--json") as process:
            out, _ = await process.communicate()
        told.append(json.loads(out))

    assert told[0]["state"] == "ready"
    assert told[1]["decision"]["reason"] == "by_hand"
    assert told[2]["app_id"] == "web"
    assert {each["state"] for each in told[3]} == {"draining"}


async def test_the_only_instance_need_not_be_named_and_of_several_one_must_be(
    web: World, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = await run("drain", "web")
    await web.get()
    one = await run("drain", "web")
    await run("scale", "web", "2", "--wait")
    several = await run("drain", "web")

    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dockscale: ")]
    assert (nothing, one, several) == (1, 0, 1)
    assert errors[0] == "dockscale: web has 0 instances, there is nothing to drain"
    assert errors[1].startswith("dockscale: web has 2 instances, say which: web-")


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        (["scale", "web", "11"], "web may have 10 at most (dockscale.autoscaling.max_instances), not 11"),
        (["scale", "wob", "1"], "no valid app is called 'wob'; did you mean web?"),
        (["restart", "wob"], "no app is called 'wob'; did you mean web?"),
        (["logs", "a/../b"], "no valid app is called 'a/../b'; `dockscale ps` lists them all"),
    ],
)
async def test_what_cannot_be_done_is_told_with_what_could(
    verb: list[str], told: str, web: World, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    code = await run(*verb)

    assert (code, capsys.readouterr().err) == (1, f"dockscale: {told}\n")


async def test_who_waits_in_vain_is_told_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world(program=Program(backend, exits="no such module: shop")) as it:
        monkeypatch.setenv("DOCKSCALE_ADMIN_PORT", str(it.dockscale.admin_port))

        code = await run("scale", "web", "1", "--wait", "--timeout", "0.5")

    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dockscale: ")]
    assert code == 1
    assert told[-1].startswith("dockscale: waited 0.5 s for 1 of web to be ready: ")
    assert "no such module: shop" in told[-1]


async def test_apps_are_listed_with_what_they_are_made_of_and_all_their_addresses(
    web: World, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    assert await run("apps") == 0

    head, app, *urls = capsys.readouterr().out.splitlines()
    assert head.split() == ["APP", "STATE", "TEMPLATE", "WORKSPACE"]
    assert app.split() == ["web", "asleep", "image", "web", "public"]
    assert urls == web.dockscale.control.list()[0]["urls"]


async def test_logs_are_printed_with_the_names_of_who_wrote_them(
    web: World, capsys: pytest.CaptureFixture[str]
) -> None:
    _, body = await web.get()
    name = body["instance"]
    web.engine.write(web.app().pool.instances[name].container_id, "one", "two", "three")
    capsys.readouterr()

    assert await run("logs", "web", "--type", "log", "--tail", "2") == 0

    assert capsys.readouterr().out == f"{name}  two\n{name}  three\n"


async def test_followed_logs_go_on_with_new_instances_and_a_new_dockscale_until_ctrl_c(web: World) -> None:
    async with started(web, "logs", "web", "-f") as process:
        await line_with("nobody asks for it", process.stdout)
        _, body = await web.get()
        await line_with("1 request waits", process.stdout)
        web.engine.write(web.app().pool.instances[body["instance"]].container_id, "hello")
        line = await line_with("hello", process.stdout)
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()

    assert line == f"{body['instance']}  hello"
    assert (process.returncode, err) == (0, b"")


async def test_the_followed_logs_of_one_instance_end_with_it(web: World) -> None:
    _, body = await web.get()
    name = body["instance"]
    web.engine.write(web.app().pool.instances[name].container_id, "hello")
    async with started(web, "logs", "web", "-f", "--instance", name, "--json") as process:
        line = json.loads(await line_with("hello", process.stdout))
        web.dockscale.control.stop("web")
        gone = await line_with("gone", process.stderr)
        await process.wait()

    assert line == {"type": "log", "instance": name, "content": "hello"}
    assert (process.returncode, gone) == (0, f"dockscale: {name} is gone")


async def test_the_steps_of_an_install_are_told_as_they_happen_beside_the_answer(
    web: World, capsys: pytest.CaptureFixture[str]
) -> None:
    web.engine.add_image("plain", Program(backend))
    async with started(web, "install", "--image", "plain", "--name", "My Shop", "--json") as process:
        step = await line_with("making the image", process.stderr)
        out, _ = await process.communicate()

    assert process.returncode == 0
    assert step.startswith("dockscale: making the image dockscale/my-shop")
    assert json.loads(out)["id"] == "my-shop"


async def test_nothing_that_others_wrote_can_move_the_cursor(web: World, capsys: pytest.CaptureFixture[str]) -> None:
    _, body = await web.get()
    instance = web.app().pool.instances[body["instance"]]
    web.engine.write(instance.container_id, HOSTILE)
    web.app().failure = HOSTILE
    capsys.readouterr()

    for verb in (["logs", "web"], ["explain", "web"], ["ps"], ["apps"], ["explain", HOSTILE]):
        await run(*verb)
    out, err = capsys.readouterr()
    shown = out + err

    assert shown.count(SPELT) == 3
    assert not any(character in shown for character in "\x1b\x07\x9b\u202e")


def test_text_is_left_as_it_is_but_for_what_moves_the_cursor_or_turns_the_line() -> None:
    assert safe("Grüße → 日本 [bold]") == "Grüße → 日本 [bold]"
    assert safe("a\tb\nc\r\x7f") == r"a\tb\nc\r\x7f"
    assert safe("a\tb\nc", "\n\t") == "a\tb\nc"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("explain w", ["web"]),
        ("scale x", []),
        ("sc", ["scale"]),
        ("logs web --instance ", ["web-1"]),
        ("token --permission r", ["read", "read_write"]),
    ],
)
async def test_the_shell_completes_verbs_apps_and_instances(words: str, expected: list[str], web: World) -> None:
    await web.get()
    [name] = web.app().pool.instances
    told = ["dockscale", *words.split(" ")]
    typed = {"COMP_WORDS": " ".join(told), "COMP_CWORD": str(len(told) - 1), "_DOCKSCALE_COMPLETE": "bash_complete"}
    async with started(web, **typed) as process:
        out, err = await process.communicate()

    completed = [line.partition(",")[2] for line in out.decode().splitlines() if line]
    assert (completed, err) == ([name if each == "web-1" else each for each in expected], b"")


async def test_who_only_asks_waits_for_no_import_that_takes_long(web: World) -> None:
    code = "import sys; from dockscale import cli; cli.main(['ps']); print(*sys.modules)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"DOCKSCALE_ADMIN_PORT": str(web.dockscale.admin_port)},
    )  # fmt: skip
    out, _ = await process.communicate()

    slow = {"aiohttp", "asyncio", "docker", "importlib.metadata", "pydantic", "requests", "rich"}
    assert slow & set(out.decode().splitlines()[-1].split()) == set()
