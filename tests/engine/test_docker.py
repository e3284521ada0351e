"""What is Docker's alone: what a copy has and has not, and life without a daemon."""

import asyncio
import socket
import time

import pytest
from docker.types import IPAMConfig, IPAMPool

from dockscale.engine import EngineAway, EngineError, Event
from dockscale.engine.docker import DockerEngine
from tests.support.faulty import faulty
from tests.support.real import PROBE, Real, in_thread
from tests.support.world import ENABLED, until


@pytest.mark.engine
async def test_a_copy_has_the_templates_settings_but_nothing_that_two_cannot_share(real: Real) -> None:
    network = real.client.networks.create(real.named("net"), labels=real.labels)
    made = real.create(
        "app",
        environment={"COLOUR": "red"},
        command=["python3", "/app/app.py"],
        user="1234:1234",
        working_dir="/tmp",  # noqa: S108  # a path in the container
        mem_limit="64m",
        nano_cpus=500_000_000,
        volumes={"/etc/hostname": {"bind": "/shared", "mode": "ro"}},
        ports={"8000/tcp": ("127.0.0.1", 0)},
        hostname="fixed",
        restart_policy={"Name": "always"},
        healthcheck={"test": ["CMD", "true"], "interval": 10**9},
        stop_signal="SIGINT",
        network=network.name,
        cap_drop=["NET_RAW"],
    )
    other = real.client.networks.create(real.named("other"), labels=real.labels)
    other.connect(made)
    engine = DockerEngine(only=real.label)
    template = await engine.inspect(str(made.id))

    copy_id = await engine.clone(template, real.named("app-1"), {"dockscale.managed": "true"}, {})
    await engine.close()

    shown = real.client.api.inspect_container(copy_id)
    config, host = shown["Config"], shown["HostConfig"]
    assert "COLOUR=red" in config["Env"]
    assert config["Cmd"] == ["python3", "/app/app.py"]
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("1234:1234", "/tmp", "SIGINT")  # noqa: S108  # likewise
    assert config["Healthcheck"]["Test"] == ["CMD", "true"]
    assert (host["Memory"], host["NanoCpus"], host["CapDrop"]) == (64 * 2**20, 500_000_000, ["NET_RAW"])
    assert host["Binds"] == ["/etc/hostname:/shared:ro"]
    assert set(shown["NetworkSettings"]["Networks"]) == {network.name, other.name}
    assert config["Hostname"] != "fixed"
    assert not host["PortBindings"]
    assert host["RestartPolicy"]["Name"] in ("", "no")


@pytest.mark.engine
async def test_a_network_without_a_gateway_says_so(real: Real) -> None:
    engine = DockerEngine(network="none")

    with pytest.raises(EngineError, match="the network none has no gateway"):
        await engine.gateway()

    await engine.close()


@pytest.mark.engine
async def test_a_network_whose_gateway_docker_does_not_tell_has_the_first_address_of_its_subnet(real: Real) -> None:
    chosen = IPAMConfig(pool_configs=[IPAMPool(subnet="10.211.77.0/24")])
    network = real.client.networks.create(real.named("net"), labels=real.labels, ipam=chosen)
    engine = DockerEngine(network=str(network.name))

    gateway = await engine.gateway()
    await engine.close()

    assert gateway == "10.211.77.1"
    with socket.socket() as on_this_machine:
        on_this_machine.bind((gateway, 0))


@pytest.mark.engine
async def test_what_lacks_the_label_in_only_is_not_seen(real: Real) -> None:
    real.create("app")
    engine = DockerEngine(only="org.dockscale.test=another")

    listing = await engine.list()
    await engine.close()

    assert listing.containers == ()
    assert listing.images == ()


@pytest.mark.engine
async def test_a_container_with_rm_is_known_as_such(real: Real) -> None:
    made = real.create("app", auto_remove=True)
    engine = DockerEngine(only=real.label)

    seen = await engine.inspect(str(made.id))
    await engine.close()

    assert seen.auto_remove


@pytest.mark.engine
async def test_other_containers_do_not_wake_anyone(real: Real) -> None:
    told: list[Event] = []
    engine = DockerEngine(only=real.label)

    async def listen() -> None:
        async for event in engine.events():
            told.append(event)

    listening = asyncio.create_task(listen())
    await until(lambda: told)
    real.create("fence", ENABLED)
    await until(lambda: len(told) > 1)
    told.clear()
    plain = real.client.containers.create(PROBE, labels=real.labels)
    plain.remove()
    real.create("app", ENABLED)
    await until(lambda: told)

    assert told == [Event.CHANGED]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await engine.close()


@pytest.mark.engine
async def test_a_container_taken_off_its_network_is_told_of(real: Real) -> None:
    network = real.client.networks.create(real.named("net"), labels=real.labels)
    told: list[Event] = []
    engine = DockerEngine(only=real.label)

    async def listen() -> None:
        async for event in engine.events():
            told.append(event)

    listening = asyncio.create_task(listen())
    await until(lambda: told)
    made = real.create("app", network=network.name)
    made.start()
    await until(lambda: len(told) >= 3, "its creation and its start are told")
    before = await engine.inspect(str(made.id))
    so_far = len(told)
    network.disconnect(made)
    await until(lambda: len(told) > so_far, "something is told")

    assert before.addresses.keys() == {network.name}
    assert not (await engine.inspect(str(made.id))).addresses
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await engine.close()


async def test_an_engine_that_is_not_there_is_away_and_asked_again() -> None:
    engine = DockerEngine("unix:///nowhere/docker.sock")
    events = engine.events()

    with pytest.raises(EngineAway):
        await engine.list()
    assert [await anext(events), await anext(events)] == [Event.AWAY, Event.AWAY]
    await engine.close()


async def test_an_engine_that_does_not_answer_is_away_and_said_to_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockscale.engine.docker._CALL_TIMEOUT_S", 0.05)
    async with faulty() as silent:
        silent.answering.clear()
        engine = DockerEngine(silent.url)

        with pytest.raises(EngineAway, match="did not answer in time"):
            await engine.list()
        await engine.close()


@pytest.mark.engine
async def test_an_image_that_a_newer_build_replaced_is_no_app_any_more(real: Real) -> None:
    real.build("shop", {"dockscale.version": "1"})
    real.build("shop", {"dockscale.version": "2"})
    engine = DockerEngine(only=real.label)

    [image] = (await engine.list()).images
    await engine.close()

    assert image.labels["dockscale.version"] == "2"


@pytest.mark.engine
async def test_a_recipe_that_fails_tells_what_its_step_wrote_and_leaves_no_container(real: Real) -> None:
    engine = DockerEngine(only=real.label)
    recipe = f"FROM {PROBE}\nARG WORD\nLABEL {real.label}\nRUN echo $WORD; echo worse >&2; exit 7\n"

    with pytest.raises(EngineError, match=r"(?s)bad.*worse.*code: 7"):
        await engine.make(recipe, {}, labels={}, args={"WORD": "bad"})
    await engine.close()

    assert real.client.containers.list(all=True, filters={"label": real.label}) == []


@pytest.mark.engine
async def test_a_container_that_was_running_before_says_since_when(real: Real) -> None:
    box = await in_thread(lambda: real.create("app"))
    before = time.time()
    await in_thread(box.start)
    engine = DockerEngine(only=real.label)

    [seen] = (await engine.list()).containers
    await engine.close()

    assert seen.created < before <= seen.started <= time.time()


@pytest.mark.engine
async def test_an_end_that_an_older_listing_cannot_know_is_not_forgotten_by_it(real: Real) -> None:
    images, box = r"GET \S+/images/json", real.create("app")
    async with faulty() as faults:
        engine = DockerEngine(faults.url, only=real.label)
        ended = asyncio.Event()
        following = asyncio.create_task(tell_end(engine, ended))
        await engine.list()
        faults.slow[images] = 2.0
        before_its_start = asyncio.create_task(engine.list())
        await until(lambda: faults.asked(images), "containers are listed, images are not yet")
        await in_thread(box.start)
        faults.slow[images] = 4.0
        while_it_runs = asyncio.create_task(engine.list())
        await until(lambda: sum(b"/images/json" in line for line in faults._open.values()) == 2, "so has the other")
        await in_thread(box.kill)
        await ended.wait()

        states = [(await listing).containers[0].state for listing in (before_its_start, while_it_runs)]
        following.cancel()
        await engine.close()

    assert states == ["created", "exited"]


@pytest.mark.engine
async def test_a_progress_bar_is_one_line_however_it_is_read(real: Real) -> None:
    box = real.create("app", entrypoint=["printf", r"loading 50 %%\rloading 100 %%\nready\r\n"])
    await in_thread(box.start)
    await in_thread(box.wait)
    engine = DockerEngine(only=real.label)

    read = await engine.logs(str(box.id), 10)
    followed = [line async for line in engine.follow(str(box.id), 10)]
    await engine.close()

    assert read == tuple(followed) == ("loading 50 %\rloading 100 %", "ready")


async def tell_end(engine: DockerEngine, ended: asyncio.Event) -> None:
    async for event in engine.events():
        if event is Event.ENDED:
            ended.set()
