"""The npm client: calls it makes, and calls it answers. The program is in tests/hub/node."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dockscale.hub.services import parse_id
from tests.support import node
from tests.support.node import Step
from tests.support.worker import client
from tests.support.world import World, until, world

pytestmark = pytest.mark.usefixtures("node_ready")

WORKER = Path(__file__).parent.parent.parent / "images" / "rpc" / "worker.py"


@asynccontextmanager
async def a_worker(it: World) -> AsyncIterator[None]:
    """The program of images/rpc, without its container."""
    environment = os.environ | {"HYPHA_SERVER_URL": it.base, "HYPHA_CLIENT_ID": "worker"}
    process = subprocess.Popen([sys.executable, WORKER], env=environment, stdout=subprocess.DEVNULL)
    try:
        wanted = parse_id("default", "public")
        await until(lambda: [*it.dockscale.rpc.hub.services.meant(wanted)], "the worker has registered")
        yield
    finally:
        process.kill()
        process.wait()


async def test_the_npm_client_calls_a_python_service() -> None:
    async with world() as it, a_worker(it):
        done = await node.visit(
            it.base, "default", "add", "echo", "slow", "call", "call_later", "count", "acount", "size", "big", "counter"
        )

    said = {"text": "ü", "number": 1.5, "nothing": None, "list": [1, True, "x"], "data": {"bytes": 3}}
    assert done.pop("connect").value["workspace"] == "public"
    assert done.pop("get_service").value["id"] == "public/worker:default"
    assert done == {
        "add": Step(5),
        "echo": Step(said),
        "slow": Step("late"),
        "call": Step([0, 10, 20]),
        "call_later": Step([0, 10, 20]),
        "count": Step([0, 1, 2, 3]),
        "acount": Step([0, 1, 2, 3]),
        "size": Step(1_000_000),
        "big": Step({"bytes": 1_000_000}),
        "counter": Step([1, 5, 5]),
    }


async def test_an_error_reaches_the_npm_client_with_its_text() -> None:
    async with world() as it, a_worker(it):
        done = await node.visit(it.base, "default", "fail", "add")

    assert done["fail"].error.startswith("RemoteError: as asked")
    assert done["add"] == Step(5)


async def test_the_npm_client_is_told_that_there_is_no_such_service() -> None:
    async with world() as it:
        done = await node.visit(it.base, "nope", "who")

    assert "Service not found" in done["get_service"].error


async def test_a_python_client_calls_a_service_of_the_npm_client() -> None:
    async with world() as it, node.serving(it.base, client_id="node") as service_id, client(it) as api:
        service = await api.get_service("js")

        assert service.id == service_id == "public/node:js"
        assert await service.who() == {"runtime": "node"}
        assert await service.echo({"data": b"xx"}) == {"data": b"xx"}
        assert await service.call(lambda number: number + 100, 2) == [100, 101]
        assert [number async for number in await service.count(3)] == [0, 1, 2]
        assert await service.size(b"x" * 1_000_000) == 1_000_000
        assert len(await service.big(1_000_000)) == 1_000_000
        with pytest.raises(Exception, match="as asked"):
            await service.fail("as asked")
