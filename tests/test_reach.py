"""Where instances reach dockscale, as they see it themselves."""

import errno
import os

import pytest

from dockscale import reach
from dockscale.engine import EngineError
from dockscale.engine.docker import DockerEngine
from dockscale.engine.memory import MemoryEngine
from tests.support.real import Real, in_thread
from tests.support.world import serving

ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).status)"


class Elsewhere(MemoryEngine):
    """An engine on a machine to which there is no way."""

    async def gateway(self) -> str:
        return "255.255.255.255"


async def test_an_address_that_was_chosen_is_the_one() -> None:
    assert await reach.main_url(MemoryEngine(), "http://dockscale:9527", 80) == "http://dockscale:9527"


async def test_the_address_is_that_on_the_way_to_the_engines_network() -> None:
    assert await reach.main_url(MemoryEngine(), "", 9527) == "http://127.0.0.1:9527"


async def test_where_there_is_no_way_it_says_what_to_set() -> None:
    with pytest.raises(EngineError, match="set DOCKSCALE_RPC_URL"):
        await reach.main_url(Elsewhere(), "", 9527)


async def test_a_port_that_instances_need_and_cannot_have_is_named_with_its_setting() -> None:
    async def taken(address: str, port: int) -> int:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

    with pytest.raises(EngineError, match=r"cannot listen on 127\.0\.0\.1:9529 .*set DOCKSCALE_RPC_PORT"):
        await reach.Inside(MemoryEngine(), taken, 9529).url()


@pytest.mark.engine
@pytest.mark.parametrize("told", [True, False], ids=["named in a setting", "its template's"])
@pytest.mark.parametrize("kind", ["default", "own"])
async def test_a_container_reaches_dockscale_under_the_address_that_was_found(
    real: Real, kind: str, told: bool
) -> None:
    own = real.client.networks.create(real.named("net"), labels=real.labels)
    network = str(own.name) if kind == "own" else "bridge"
    setting = network if told else ""
    engine = DockerEngine(only=real.label, network=setting)
    async with serving(engine, host="0.0.0.0", network=setting) as it:
        url = await reach.main_url(engine, "", it.dockscale.main_port)

        asks = real.create(
            "asks",
            {"dockscale.enable": "false"},
            entrypoint=["python3", "-c", ASK, f"{url}/health/liveness"],
            network=network,
        )
        await in_thread(asks.start)
        await in_thread(asks.wait)

        assert asks.logs().decode().strip() == "200"
