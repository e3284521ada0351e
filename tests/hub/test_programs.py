"""Programs that are installed by their source, over the memory engine: what a program does is said by each test."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dockscale import programs
from dockscale.core.spec import APP_ID, INSTALLED, SpecError
from dockscale.engine.memory import Program
from dockscale.programs import ProgramFailed
from dockscale.runtimes import Runtimes
from tests.support.backend import backend
from tests.support.worker import Works, client, connect, rpc_world, work
from tests.support.world import World, until

SOURCE = "api.export({ hello: () => 'world' })"
HELLO: dict[str, Any] = {"name": "Hello, you!", "type": "window", "source": SOURCE}
BASE = "python:3.12-slim"


class Builder:
    """Says what an image runs that is made, and keeps the files of those that are programs."""

    def __init__(self, works: Works) -> None:
        self.works: Works | None = works
        self.programs: list[Mapping[str, bytes]] = []

    def __call__(self, files: Mapping[str, bytes]) -> Program:
        if "app/app.json" not in files:
            return Program(backend)  # a runtime
        self.programs.append(files)
        if self.works is None:
            return Program(backend, exits="main.js:1: SyntaxError: Unexpected end of input")
        return Program(backend, connects=self.works)


@asynccontextmanager
async def building(works: Works = work) -> AsyncIterator[tuple[World, Builder]]:
    async with rpc_world() as it:
        it.engine.add_image(BASE, Program(backend), ports=())
        builder = Builder(works)
        it.engine.makes = builder
        yield it, builder


def apps(it: World) -> list[str]:
    """Ids of the apps besides the one that is always there."""
    return [app["app_id"] for app in it.dockscale.control.list() if app["app_id"] != "bot"]


def registers(*names: str, then: str = "") -> Works:
    """A program that registers services one after the other, and `then` one more after a moment."""

    async def run(env: Mapping[str, str]) -> None:
        api = await connect(env)
        try:
            for name in names:
                await api.register_service({"id": name, "hello": lambda: "world"})
            if then:
                await asyncio.sleep(0.1)
                await api.register_service({"id": then, "hello": lambda: "world"})
            await asyncio.Event().wait()
        finally:
            await api.disconnect()

    return run


async def test_a_program_is_tried_and_then_sleeps_until_it_is_called() -> None:
    async with building() as (it, builder):
        told: list[str] = []

        info = await it.dockscale.control.install(HELLO, tell=lambda _, sentence: told.append(sentence))
        tried = it.engine.starts

        assert (info["id"], info["type"], info["runtime"]) == ("hello-you", "window", "javascript")
        assert info["image"].startswith("dockscale-runtime-javascript:")
        assert (info["port"], info["startup_config"]["wait_for_service"]) == (0, "default")
        assert builder.programs[0]["app/main.js"] == SOURCE.encode()
        assert tried == 1
        assert it.states("hello-you") == {}
        assert [sentence.partition(" ")[0] for sentence in told] == ["making", "trying", "making", "hello-you"]
        await until(lambda: not it.dockscale.rpc.hub.clients("public"), "the trial is gone")
        async with client(it) as api:
            service = await api.get_service("default@hello-you")
            assert await service.echo(1) == 1
        assert it.states("hello-you") == {"ready": 1}


async def test_nobody_can_ask_for_a_program_while_it_is_tried() -> None:
    goes_on = asyncio.Event()

    async def hesitates(env: Mapping[str, str]) -> None:
        await goes_on.wait()
        await work(env)

    async with building(hesitates) as (it, _):
        installing = asyncio.ensure_future(it.dockscale.control.install(HELLO))
        await until(lambda: it.engine.starts)

        listed = apps(it)
        goes_on.set()
        await installing

        assert listed == []
        assert apps(it) == ["hello-you"]


async def test_what_is_installed_already_is_left_as_it_is() -> None:
    async with building() as (it, builder):
        first = await it.dockscale.control.install(HELLO)
        before = await it.engine.find_image("dockscale/hello-you:latest")

        again = await it.dockscale.control.install({**dict(reversed(HELLO.items()))}, overwrite=True)
        both = await asyncio.gather(*(it.dockscale.control.install(HELLO) for _ in range(2)))

        assert [first, *both] == [again] * 3
        assert await it.engine.find_image("dockscale/hello-you:latest") == before
        assert len(builder.programs) == 1


async def test_a_manifest_as_it_is_told_can_be_installed_with_its_source() -> None:
    async with building() as (it, builder):
        told = await it.dockscale.control.install(HELLO)

        again = await it.dockscale.control.install({**told, "source": SOURCE + ";"}, overwrite=True)

        assert again == told | {"source_hash": again["source_hash"]}
        assert len(builder.programs) == 2


async def test_two_installations_of_one_name_at_once_are_one_app() -> None:
    async with building() as (it, builder):
        other = HELLO | {"source": SOURCE + ";"}

        same = await asyncio.gather(*(it.dockscale.control.install(HELLO) for _ in range(2)))
        refused = await asyncio.gather(
            it.dockscale.control.install(other), it.dockscale.control.install(other), return_exceptions=True
        )

        assert same[0] == same[1]
        assert len(builder.programs) == 1
        assert ["already exists" in str(each) for each in refused] == [True, True]


async def test_a_new_version_takes_over_once_it_is_proved_to_work() -> None:
    async with building() as (it, builder):
        await it.dockscale.control.install(HELLO)
        await it.dockscale.control.start("hello-you")
        [old] = it.app("hello-you").pool.instances

        await it.dockscale.control.install(HELLO | {"source": SOURCE + "  "}, overwrite=True)

        await until(lambda: old not in it.app("hello-you").pool.instances and it.ready("hello-you") == 1)
        assert len(builder.programs) == 2


async def test_a_program_that_fails_leaves_nothing_and_tells_what_it_wrote() -> None:
    async with building() as (it, builder):
        builder.works = None

        with pytest.raises(ProgramFailed, match=r"hello-you does not start: .*SyntaxError: Unexpected end of input"):
            await it.dockscale.control.install(HELLO)

        assert apps(it) == []
        assert (await it.engine.list()).containers == ()
        assert it.engine.unnamed == []
        assert not it.dockscale.registry.trials


async def test_a_setup_that_never_ends_is_not_waited_for_once_the_time_is_over() -> None:
    async def hangs(env: Mapping[str, str]) -> None:
        api = await connect(env)
        try:
            await api.register_service({"id": "default", "setup": asyncio.Event().wait})
        finally:
            await api.disconnect()

    async with building(hangs) as (it, _):
        async with asyncio.timeout(20):  # and not `shutdown_config.drain_timeout`
            with pytest.raises(ProgramFailed, match="did not register a service"):
                await it.dockscale.control.install(HELLO | {"startup_config": {"timeout": 0.5}})


async def test_what_an_installation_left_that_was_cut_short_is_removed_by_the_next_one() -> None:
    async with building() as (it, _):
        await it.engine.make("", {"app/app.json": b""}, labels={INSTALLED: "x", APP_ID: "other"}, args={})

        await it.dockscale.control.install(HELLO)

        assert [image for image in it.engine.unnamed if image.labels[APP_ID] == "other"] == []


async def test_a_new_version_that_fails_leaves_the_one_before() -> None:
    async with building() as (it, builder):
        before = await it.dockscale.control.install(HELLO)
        image = await it.engine.find_image("dockscale/hello-you:latest")
        builder.works = None

        with pytest.raises(ProgramFailed):
            await it.dockscale.control.install(HELLO | {"source": "api.export({"}, overwrite=True)

        assert await it.engine.find_image("dockscale/hello-you:latest") == image
        assert (await it.dockscale.control.start("hello-you"))["state"] == "ready"
        assert it.dockscale.control.explain("hello-you")["spec"]["name"] == before["name"]


async def test_a_program_that_ends_before_it_registers_is_not_waited_for() -> None:
    async with building() as (it, builder):
        builder.works = None

        async with asyncio.timeout(20):  # and not `startup_config.timeout`
            with pytest.raises(ProgramFailed, match="exited"):
                await it.dockscale.control.install(HELLO | {"startup_config": {"timeout": 600}})


@pytest.mark.parametrize(
    ("works", "given", "found"),
    [
        (registers("fastapi-service"), None, "fastapi-service"),
        (registers("a", "default", "b"), None, "default"),
        (registers("a", then="late"), None, "late"),
        (registers("a", "b", "default"), "a", "a"),
    ],
)
async def test_the_service_that_makes_it_ready_is_found_out(
    works: Works, given: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "SETTLED_S", 1.0)  # far more than lies between two services
    startup = {"startup_config": {"wait_for_service": given}} if given else {}
    async with building(works) as (it, _):
        info = await it.dockscale.control.install(HELLO | startup)

        assert info["startup_config"]["wait_for_service"] == found
        await it.dockscale.control.start("hello-you")


async def test_an_app_that_was_edited_is_no_more_what_was_installed() -> None:
    async with building() as (it, builder):
        await it.dockscale.control.install(HELLO)

        edited = await it.dockscale.control.edit("hello-you", {"autoscaling": {"max_instances": 2}})

        assert (edited["autoscaling"]["max_instances"], edited["runtime"], edited["source_hash"]) == (
            2,
            "javascript",
            "",
        )
        again = await it.dockscale.control.install(HELLO, overwrite=True)
        assert again["autoscaling"]["max_instances"] == 10
        assert len(builder.programs) == 2


@pytest.mark.parametrize("fixed", ["type", "runtime", "source", "files", "env", "requirements"])
async def test_what_a_programs_image_was_made_by_cannot_be_edited(fixed: str) -> None:
    async with building() as (it, _):
        before = await it.dockscale.control.install(HELLO)

        with pytest.raises(SpecError, match=f"{fixed} cannot be changed; install the app anew"):
            await it.dockscale.control.edit("hello-you", {fixed: "python"})

        assert await it.dockscale.control.install(HELLO) == before


async def test_a_program_is_removed_with_all_that_it_was_made_of() -> None:
    async with building() as (it, _):
        await it.dockscale.control.install(HELLO)
        await it.dockscale.control.start("hello-you")

        await it.dockscale.control.uninstall("hello-you")

        assert apps(it) == []
        await until(lambda: not it.dockscale.rpc.hub.clients("public"))
        assert it.engine.unnamed == []


async def test_what_is_wrong_with_a_manifest_is_told_before_anything_is_made() -> None:
    async with building() as (it, builder):
        for wrong, said in (
            ({"autoscaling": {"max_instance": 2}}, "autoscaling.max_instance is unknown; did you mean"),
            ({"name": "!!!"}, "nothing of the name '!!!' can be one"),
            ({"name": ""}, "there is no name"),
            ({"type": "windows"}, "did you mean window"),
            ({"image": "plain"}, "two ways to say what runs"),
            ({"env": {"HYPHA_TOKEN": "x"}}, "HYPHA_TOKEN"),
        ):
            with pytest.raises(SpecError, match=said):
                await it.dockscale.control.install(HELLO | wrong)
        assert builder.programs == []
        with pytest.raises(SpecError, match="source or image is missing"):
            await it.dockscale.control.install({"name": "x"})


async def test_a_manifest_without_its_program_can_be_checked() -> None:
    async with building() as (it, _):
        manifest = {field: value for field, value in HELLO.items() if field != "source"}

        await it.dockscale.control.validate(manifest | {"env": {"A": "1"}})

        with pytest.raises(SpecError, match="min_instances"):
            await it.dockscale.control.validate(manifest | {"autoscaling": {"min_instances": -1}})


async def test_an_asgi_program_speaks_rpc_though_an_image_of_that_type_does_not() -> None:
    async with building() as (it, _):
        info = await it.dockscale.control.install({"name": "Api", "type": "asgi", "source": "app = None\n"})

        assert (info["runtime"], info["port"]) == ("python", 0)
        assert it.app("api").spec.speaks_rpc


async def test_a_runtime_is_made_once_and_has_a_name_of_its_own_for_each_base() -> None:
    async with building() as (it, _):
        runtimes = Runtimes(it.engine, BASE, "")

        made = await asyncio.gather(*(runtimes.image("javascript") for _ in range(3)))

        assert len({image.id for image in made}) == 1
        assert made[0].name == runtimes.name_of("javascript") != Runtimes(it.engine, "other", "").name_of("javascript")


async def test_a_runtime_without_a_base_says_how_to_name_one() -> None:
    async with building() as (it, _):
        with pytest.raises(Exception, match="set DOCKSCALE_BASE_IMAGE"):
            await Runtimes(it.engine, "nowhere:1", "").image("javascript")
