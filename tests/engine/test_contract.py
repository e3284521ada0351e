"""One suite for every engine: what the rest of dockscale relies on."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import pytest

from dockscale import probe
from dockscale.core.catalog import Container
from dockscale.engine import Engine, EngineError, Event, NotFound
from dockscale.engine.docker import DockerEngine
from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.real import PROBE, Real
from tests.support.world import ENABLED, until


class Hands(Protocol):
    """What a person does to an engine by other means."""

    engine: Engine

    def create(self, name: str, labels: Mapping[str, str], exits: bool = False, **more: Any) -> str: ...
    def build(self, name: str, labels: Mapping[str, str]) -> None: ...
    def environment(self, container_id: str) -> Mapping[str, str]: ...
    def base(self) -> str: ...
    def named(self, name: str) -> str: ...


@dataclass
class MemoryHands:
    engine: MemoryEngine

    def create(self, name: str, labels: Mapping[str, str], exits: bool = False, **more: Any) -> str:
        image = "exits" if exits else "plain"
        self.engine.add_image(image, Program(backend, exits="probe: leaving with code 3" if exits else None))
        return self.engine.add_container(name, image, labels, **more).id

    def build(self, name: str, labels: Mapping[str, str]) -> None:
        self.engine.add_image(name, Program(backend), labels)

    def environment(self, container_id: str) -> Mapping[str, str]:
        return self.engine.environment(container_id)

    def base(self) -> str:
        self.engine.makes = lambda _: Program(backend)
        self.engine.add_image("base", Program(backend))
        return "base"

    def named(self, name: str) -> str:
        return name


@dataclass
class DockerHands:
    engine: DockerEngine
    real: Real

    def create(self, name: str, labels: Mapping[str, str], exits: bool = False, **more: Any) -> str:
        environment = {"EXIT_AT_ONCE": "3"} if exits else more.get("env", {})
        return str(self.real.create(name, labels, environment=environment, mem_limit=more.get("memory", 0)).id)

    def build(self, name: str, labels: Mapping[str, str]) -> None:
        self.real.build(name, labels)

    def environment(self, container_id: str) -> Mapping[str, str]:
        seen = self.real.client.containers.get(container_id).exec_run("env").output
        assert isinstance(seen, bytes)
        return dict(line.partition("=")[::2] for line in seen.decode().splitlines())

    def base(self) -> str:
        return PROBE

    def named(self, name: str) -> str:
        return self.real.named(name)


@pytest.fixture(params=["memory", pytest.param("docker", marks=pytest.mark.engine)])
async def hands(request: pytest.FixtureRequest) -> AsyncIterator[Hands]:
    it: Any
    if request.param == "memory":
        it = MemoryHands(MemoryEngine())
    else:
        real = request.getfixturevalue("real")
        it = DockerHands(DockerEngine(only=real.label), real)
    yield it
    await it.engine.close()


async def found(hands: Hands, container_id: str) -> Container | None:
    listing = await hands.engine.list()
    return next((each for each in listing.containers if each.id == container_id), None)


async def test_a_labelled_container_is_listed_before_it_runs(hands: Hands) -> None:
    made = hands.create("app", ENABLED | {"dockscale.app_id": "shop"})

    listed = await found(hands, made)

    assert listed is not None
    assert (listed.state, listed.ports, dict(listed.addresses)) == ("created", (8000,), {})
    assert listed.labels["dockscale.app_id"] == "shop"
    assert listed.name.startswith("app")
    assert not listed.managed
    assert not listed.auto_remove


async def test_a_labelled_image_is_listed(hands: Hands) -> None:
    hands.build("shop", ENABLED | {"dockscale.app_id": "shop"})

    [image] = (await hands.engine.list()).images

    assert image.name.startswith("shop")
    assert image.labels["dockscale.app_id"] == "shop"
    assert image.ports == (8000,)


async def test_a_started_container_runs_and_answers_at_its_address(hands: Hands) -> None:
    made = hands.create("app", ENABLED)

    await hands.engine.start(made)
    await hands.engine.start(made)

    seen = await hands.engine.inspect(made)
    assert seen.runs
    [address] = seen.addresses.values()
    async with asyncio.timeout(10):
        await probe.until_ready(address, 8000, "/")
    assert await found(hands, made) == seen


async def test_a_copy_is_created_with_labels_on_top_and_without_composes(hands: Hands) -> None:
    compose = {"com.docker.compose.project": "shop", "com.docker.compose.service": "web"}
    made = hands.create("app", ENABLED | compose | {"dockscale.port": "8000"})
    template = await hands.engine.inspect(made)

    copy_id = await hands.engine.clone(template, template.name + "-1", {"dockscale.managed": "true"}, {})

    copy = await hands.engine.inspect(copy_id)
    assert copy.name == template.name + "-1"
    assert copy.state == "created"
    assert copy.managed
    assert copy.labels["dockscale.port"] == "8000"
    assert not any(copy.labels.get(label) for label in compose)
    assert copy.image_id == template.image_id


async def test_a_memory_limit_is_seen_and_copied_and_images_have_none(hands: Hands) -> None:
    bounded = await hands.engine.inspect(hands.create("bounded", ENABLED, memory=64 * 2**20))
    free = await hands.engine.inspect(hands.create("free", ENABLED))
    hands.build("shop", ENABLED)
    [image] = (await hands.engine.list()).images

    copy_id = await hands.engine.clone(bounded, bounded.name + "-1", {"dockscale.managed": "true"}, {})

    assert (bounded.memory, free.memory, image.memory) == (64 * 2**20, 0, 0)
    assert (await hands.engine.inspect(copy_id)).memory == 64 * 2**20


async def test_an_image_can_be_made_into_a_container(hands: Hands) -> None:
    hands.build("shop", ENABLED)
    [image] = (await hands.engine.list()).images

    copy_id = await hands.engine.clone(image, image.name.partition(":")[0] + "-1", {"dockscale.managed": "true"}, {})
    await hands.engine.start(copy_id)

    copy = await hands.engine.inspect(copy_id)
    assert copy.runs
    assert copy.managed
    assert copy.image_id == image.id


async def test_an_image_is_made_of_another_with_more_labels_whatever_is_in_them(hands: Hands) -> None:
    base = await hands.engine.find_image(hands.base())
    said = {"dockscale.name": "a 'b' \"c\" $d \\n \\ é = `e`", "dockscale.type": "", "two words": "x"}

    await hands.engine.build(base, hands.named("shop"), ENABLED | said)

    made = await hands.engine.find_image(hands.named("shop"))
    [listed] = (await hands.engine.list()).images
    assert (listed.id, listed.name.partition(":")[0]) == (made.id, hands.named("shop"))
    assert listed.labels.items() >= (ENABLED | said).items()
    assert (made.labels, made.ports) == (listed.labels, base.ports)


async def test_an_image_that_is_made_anew_takes_the_name_from_the_one_before(hands: Hands) -> None:
    base = await hands.engine.find_image(hands.base())
    await hands.engine.build(base, hands.named("shop"), ENABLED | {"dockscale.name": "one", "dockscale.version": "1"})
    first = await hands.engine.find_image(hands.named("shop"))

    await hands.engine.build(first, hands.named("shop"), {"dockscale.name": "two"})

    [listed] = (await hands.engine.list()).images
    assert listed.id != first.id
    assert (listed.labels["dockscale.name"], listed.labels["dockscale.version"]) == ("two", "1")


async def test_an_image_that_gets_a_name_takes_it_from_the_one_before(hands: Hands) -> None:
    base, name = hands.base(), f"{hands.named('shop')}:latest"
    first = await hands.engine.make(f"FROM {base}\nCOPY a /a\n", {"a": b"1"}, labels=ENABLED, args={})
    second = await hands.engine.make(f"FROM {base}\nCOPY a /a\n", {"a": b"2"}, labels=ENABLED, args={})

    await hands.engine.tag(first, name)
    await hands.engine.tag(second, name)

    [listed] = (await hands.engine.list()).images
    assert (listed.id, listed.name) == (second.id, name)


async def test_an_image_that_lost_its_name_is_not_listed_and_leaves_what_it_was_made_from(hands: Hands) -> None:
    base = await hands.engine.find_image(hands.base())
    await hands.engine.build(base, hands.named("shop"), ENABLED)

    await hands.engine.untag(hands.named("shop"))
    await hands.engine.untag(hands.named("shop"))
    await hands.engine.prune(["dockscale.enable=true"])

    assert (await hands.engine.list()).images == ()
    assert await hands.engine.find_image(base.name) == base
    with pytest.raises(NotFound):
        await hands.engine.find_image(hands.named("shop"))


async def test_an_image_without_a_name_stays_until_nothing_is_made_from_it(hands: Hands) -> None:
    base = await hands.engine.find_image(hands.base())
    await hands.engine.build(base, hands.named("shop"), ENABLED)
    image = await hands.engine.find_image(hands.named("shop"))
    copy_id = await hands.engine.clone(image, hands.named("shop") + "-1", {"dockscale.managed": "true"}, {})
    await hands.engine.start(copy_id)

    await hands.engine.untag(hands.named("shop"))
    await hands.engine.prune(["dockscale.enable=true"])
    await hands.engine.stop(copy_id, 1.0)
    await hands.engine.start(copy_id)
    assert (await hands.engine.inspect(copy_id)).runs
    await hands.engine.remove(copy_id)
    await hands.engine.prune(["dockscale.enable=true"])

    with pytest.raises(NotFound):
        await hands.engine.find_image(image.id)


async def test_images_without_a_name_may_be_removed_by_several_at_the_same_time(hands: Hands) -> None:
    base = await hands.engine.find_image(hands.base())
    await hands.engine.build(base, hands.named("shop"), ENABLED)
    image = await hands.engine.find_image(hands.named("shop"))
    copy_id = await hands.engine.clone(image, hands.named("shop") + "-1", {"dockscale.managed": "true"}, {})
    await hands.engine.untag(hands.named("shop"))
    await hands.engine.remove(copy_id)

    await asyncio.gather(*(hands.engine.prune(["dockscale.enable=true"]) for _ in range(10)))

    with pytest.raises(NotFound):
        await hands.engine.find_image(image.id)


async def test_an_image_without_a_name_is_made_of_files_and_is_not_listed(hands: Hands) -> None:
    recipe = f"FROM {hands.base()}\nCOPY here /there\n"
    labels = ENABLED | {"dockscale.name": hands.named("shop")}

    made = await hands.engine.make(recipe, {"here/a.txt": b"a"}, labels=labels, args={})
    listed = (await hands.engine.list()).images
    found = await hands.engine.find_image(made.id)
    await hands.engine.prune([f"dockscale.name={hands.named('shop')}"])

    assert listed == ()
    assert found == made
    assert made.labels.items() >= labels.items()
    with pytest.raises(NotFound):
        await hands.engine.find_image(made.id)


async def test_an_image_that_is_made_of_files_can_have_a_name(hands: Hands) -> None:
    name = f"{hands.named('shop')}:one"

    recipe, labels = f"FROM {hands.base()}\nCOPY a /a\n", ENABLED | {"dockscale.name": name}

    made = await hands.engine.make(recipe, {"a": b""}, name=name, labels=labels, args={})
    found = await hands.engine.find_image(name)
    await hands.engine.untag(name)

    assert found == made
    assert (made.name, made.labels["dockscale.enable"]) == (name, "true")


@pytest.mark.parametrize("kind", ["container", "image"])
async def test_a_copy_finds_in_its_environment_what_it_was_given_above_what_its_template_has(
    hands: Hands, kind: str
) -> None:
    made = await hands.engine.inspect(hands.create("app", ENABLED, env={"COLOUR": "red", "SIZE": "9"}))
    hands.build("shop", ENABLED)
    [image] = (await hands.engine.list()).images
    template = made if kind == "container" else image

    copy_id = await hands.engine.clone(template, made.name + "-1", {}, {"COLOUR": "blue", "TOKEN": "a=b c"})
    await hands.engine.start(copy_id)

    seen = hands.environment(copy_id)
    assert (seen["COLOUR"], seen["TOKEN"]) == ("blue", "a=b c")
    assert seen.get("SIZE") == ("9" if kind == "container" else None)


async def test_the_gateway_is_an_address_of_the_engines_machine(hands: Hands) -> None:
    gateway = await hands.engine.gateway()

    with socket.socket() as on_this_machine:
        on_this_machine.bind((gateway, 0))


async def test_a_stopped_container_stays_and_a_removed_one_is_gone(hands: Hands) -> None:
    made = hands.create("app", ENABLED)
    await hands.engine.start(made)

    await hands.engine.stop(made, 1.0)
    stopped = await hands.engine.inspect(made)
    await hands.engine.remove(made)
    await hands.engine.remove(made)

    assert stopped.state == "exited"
    assert dict(stopped.addresses) == {}
    assert await found(hands, made) is None


async def test_a_running_container_can_be_removed(hands: Hands) -> None:
    made = hands.create("app", ENABLED)
    await hands.engine.start(made)

    await hands.engine.remove(made)

    assert await found(hands, made) is None


async def answers(host: str) -> bool:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as session:
        try:
            async with session.get(f"http://{host}:8000/") as answer:
                return answer.status == 200
        except TimeoutError:
            return False


async def test_a_paused_container_takes_connections_and_answers_once_it_is_unpaused(hands: Hands) -> None:
    made = hands.create("app", ENABLED)
    await hands.engine.start(made)
    [host] = (await hands.engine.inspect(made)).addresses.values()
    await probe.until_ready(host, 8000, "/")

    await hands.engine.pause(made)
    await hands.engine.pause(made)
    paused = await hands.engine.inspect(made)
    while_paused = await probe.accepts(host, 8000), await answers(host)
    await hands.engine.unpause(made)
    await hands.engine.unpause(made)

    assert paused.state == "paused"
    assert list(paused.addresses.values()) == [host]
    assert while_paused == (True, False)
    assert (await hands.engine.inspect(made)).runs
    assert await answers(host)


async def test_what_was_unpaused_is_listed_as_running_before_the_engine_has_written_it_down(hands: Hands) -> None:
    made = hands.create("app", ENABLED)
    await hands.engine.start(made)
    listening = asyncio.create_task(_until_broken(hands.engine.events()))

    for _ in range(8):
        await hands.engine.pause(made)
        await hands.engine.unpause(made)
        assert (await hands.engine.inspect(made)).state == "running"

    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def _until_broken(events: AsyncIterator[Event]) -> None:
    async for _ in events:
        pass


async def test_what_does_not_run_cannot_be_paused_or_unpaused(hands: Hands) -> None:
    made = hands.create("app", ENABLED)

    for verb in (hands.engine.pause(made), hands.engine.unpause(made)):
        with pytest.raises(EngineError, match=r"not (running|paused)"):
            await verb
    for verb in (hands.engine.pause("f" * 64), hands.engine.unpause("f" * 64)):
        with pytest.raises(NotFound):
            await verb


async def test_a_paused_container_can_be_stopped_and_removed(hands: Hands) -> None:
    made, other = hands.create("app", ENABLED), hands.create("other", ENABLED)
    for container_id in (made, other):
        await hands.engine.start(container_id)
        await hands.engine.pause(container_id)

    await hands.engine.stop(made, 1.0)
    await hands.engine.remove(other)

    assert (await hands.engine.inspect(made)).state == "exited"
    assert await found(hands, other) is None


async def test_a_program_that_ends_leaves_its_last_lines(hands: Hands) -> None:
    made = hands.create("app", ENABLED, exits=True)

    await hands.engine.start(made)

    for _ in range(200):
        if (await hands.engine.inspect(made)).state == "exited":
            break
        await asyncio.sleep(0.02)
    assert (await hands.engine.inspect(made)).state == "exited"
    assert (await hands.engine.logs(made, 5))[-1] == "probe: leaving with code 3"
    followed = [line async for line in hands.engine.follow(made, 1)]
    assert followed == ["probe: leaving with code 3"]


async def test_what_is_not_there_is_not_found(hands: Hands) -> None:
    nobody = "f" * 64
    for verb in (hands.engine.inspect(nobody), hands.engine.start(nobody), hands.engine.stop(nobody, 1.0)):
        with pytest.raises(NotFound):
            await verb
    with pytest.raises(NotFound):
        await hands.engine.logs(nobody, 5)
    with pytest.raises(NotFound):
        [line async for line in hands.engine.follow(nobody, 5)]


async def test_whoever_is_told_of_a_pause_finds_it_in_the_listing(hands: Hands) -> None:
    made = hands.create("app", ENABLED)
    await hands.engine.start(made)
    listed: list[str] = []

    async def listen() -> None:
        async for _ in hands.engine.events():
            container = await found(hands, made)
            listed.append(container.state if container else "")

    listening = asyncio.create_task(listen())
    await until(lambda: listed[-1:] == ["running"], "it is seen to run")
    for _ in range(8):
        await hands.engine.pause(made)
        await until(lambda: listed[-1:] == ["paused"], "it is seen to be paused")
        await hands.engine.unpause(made)
        await until(lambda: listed[-1:] == ["running"], "it is seen to run on")

    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_events_begin_with_resync_and_tell_of_every_change(hands: Hands) -> None:
    told: list[Event] = []

    async def listen() -> None:
        async for event in hands.engine.events():
            told.append(event)

    listening = asyncio.create_task(listen())
    await until(lambda: told[:1] == [Event.RESYNC])
    made = hands.create("app", ENABLED)
    await until(lambda: len(told) > 1, "created")
    before = len(told)
    await hands.engine.start(made)
    await until(lambda: len(told) > before, "started")
    before = len(told)
    await hands.engine.pause(made)
    await until(lambda: len(told) > before, "paused")
    before = len(told)
    await hands.engine.unpause(made)
    await until(lambda: len(told) > before, "unpaused")
    before = len(told)
    await hands.engine.stop(made, 1.0)
    await until(lambda: len(told) > before, "stopped")
    before = len(told)
    await hands.engine.remove(made)
    await until(lambda: len(told) > before, "removed")

    assert set(told[1:]) == {Event.CHANGED, Event.ENDED}
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
