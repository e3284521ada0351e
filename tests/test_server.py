"""The whole process: how it starts, what it says about itself, and how it ends."""

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from dockscale.engine.memory import MemoryEngine
from dockscale.server import CannotStart, _told
from tests.support.world import serving, until, world

BOUND_S = 15.0


@dataclass
class Process:
    """A `dockscale serve` of its own, without an engine."""

    it: asyncio.subprocess.Process
    main: str
    admin: str

    async def end(self, how: signal.Signals) -> tuple[int, list[str]]:
        """Signal it and return its exit code and the events it still logged."""
        self.it.send_signal(how)
        async with asyncio.timeout(BOUND_S):
            _, rest = await self.it.communicate()
        assert self.it.returncode is not None
        return self.it.returncode, [json.loads(line)["event"] for line in rest.splitlines()]


async def serve(**settings: str) -> asyncio.subprocess.Process:
    environment = {f"DOCKSCALE_{name.upper()}": value for name, value in settings.items()}
    chosen = {
        "DOCKSCALE_ENGINE": "unix:///nowhere/docker.sock", "DOCKSCALE_LOG_FORMAT": "json",
        "DOCKSCALE_HOST": "127.0.0.1", "DOCKSCALE_PORT": "0", "DOCKSCALE_ADMIN_PORT": "0",
    } | environment  # fmt: skip
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dockscale.cli", "serve",
        env=os.environ | chosen, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


@asynccontextmanager
async def process(**settings: str) -> AsyncIterator[Process]:
    it = await serve(**settings)
    assert it.stderr is not None
    try:
        async with asyncio.timeout(BOUND_S):
            line = json.loads(await it.stderr.readline())
            while line["event"] != "serving":
                line = json.loads(await it.stderr.readline())
        yield Process(it, f"http://{line['main']}", f"http://{line['admin']}")
    finally:
        if it.returncode is None:
            it.kill()
            await it.communicate()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("setting", "name"), [("port", "DOCKSCALE_PORT"), ("admin_port", "DOCKSCALE_ADMIN_PORT")])
async def test_a_taken_port_is_named_with_the_setting_that_moves_it(setting: str, name: str, taken: int) -> None:
    with pytest.raises(CannotStart, match=rf"127\.0\.0\.1:{taken} .*set {name} to another port"):
        async with serving(MemoryEngine(), **{setting: taken}):
            pass


@pytest.mark.parametrize(("setting", "name"), [("host", "DOCKSCALE_HOST"), ("admin_host", "DOCKSCALE_ADMIN_HOST")])
async def test_an_address_of_another_machine_is_named_with_its_setting(setting: str, name: str) -> None:
    with pytest.raises(CannotStart, match=rf"192\.0\.2\.1:0 .*set {name} to an address of this machine"):
        async with serving(MemoryEngine(), admin_token="secret", **{setting: "192.0.2.1"}):
            pass


def test_a_port_that_needs_rights_is_told_with_the_right_that_it_needs() -> None:
    with pytest.raises(CannotStart, match="NET_BIND_SERVICE"), _told("0.0.0.0", 80, "DOCKSCALE_"):
        raise PermissionError(errno.EACCES, "Permission denied")


async def test_what_is_in_the_way_ends_the_command_with_one_line_and_1(taken: int) -> None:
    for setting, value, said in (
        ("port", str(taken), f"cannot listen on 127.0.0.1:{taken}"),
        ("admin_host", "0.0.0.0", "DOCKSCALE_ADMIN_HOST=0.0.0.0 opens the admin port"),
    ):
        it = await serve(**{setting: value})
        async with asyncio.timeout(BOUND_S):
            _, told = await it.communicate()

        assert it.returncode == 1
        assert told.decode().startswith(f"dockscale: {said}")
        assert len(told.splitlines()) == 1


async def test_without_an_engine_it_lives_but_is_not_ready() -> None:
    async with process() as it, aiohttp.ClientSession() as session:
        async with session.get(it.main + "/health/liveness") as answer:
            alive = answer.status
        async with session.get(it.main + "/health/readiness") as answer:
            ready, why = answer.status, await answer.text()
        async with session.get(it.admin + "/metrics") as answer:
            metrics = await answer.text()

    assert (alive, ready) == (200, 503)
    assert "engine has not answered" in why
    assert "dockscale_engine_up 0" in metrics


@pytest.mark.parametrize(("how", "event_loop"), [(signal.SIGTERM, "uvloop"), (signal.SIGINT, "asyncio")])
async def test_a_signal_ends_it_at_once_and_in_order(how: signal.Signals, event_loop: str) -> None:
    async with process(event_loop=event_loop) as it:
        code, events = await it.end(how)

    assert code == 0
    assert [event for event in events if event != "engine_away"] == ["stopping", "stopped"]


async def test_with_an_engine_it_is_ready() -> None:
    async with world() as it, it.session.get(it.base + "/health/readiness") as answer:
        assert answer.status == 200


async def test_what_is_in_flight_ends_well_when_it_stops() -> None:
    async with aiohttp.ClientSession() as session:
        async with world() as it:
            await it.get()
            request = session.get(it.base + "/slow?s=0.2", headers={"Host": "web.localhost"})
            slow = asyncio.ensure_future(request)
            await until(lambda: it.app().pool.in_flight == 1)
        answer = await slow

        assert answer.status == 200
        assert await answer.text() != ""


async def test_it_leaves_its_containers_to_the_next_one() -> None:
    async with world() as it:
        await it.get()
        [instance] = it.app().pool

    assert instance.state == "ready", "it was not told to go"
    assert instance.container_id in it.engine._boxes, "a copy that was told to go would have been removed"
