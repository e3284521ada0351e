"""`public/server-apps` as the unmodified client uses it, over the memory engine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dockscale.engine.memory import Program
from dockscale.hub.tokens import User
from tests.support.backend import backend
from tests.support.bare import bare
from tests.support.worker import client, rpc_world, work
from tests.support.world import World, appears, until

MODEL: dict[str, Any] = {
    "name": "Production AI Model Server",
    "type": "rpc",
    "version": "1.0.0",
    "image": "worker",
    "autoscaling": {"enabled": True, "min_instances": 1, "max_instances": 2, "target_requests_per_instance": 60},
    "startup_config": {"wait_for_service": "default", "stop_after_inactive": 3600},
}
APP_ID = "production-ai-model-server"


@asynccontextmanager
async def controlled(**settings: Any) -> AsyncIterator[tuple[World, Any, Any]]:
    """A world with images of which apps can be made; a client and its controller."""
    async with rpc_world(**settings) as it:
        it.engine.add_image("worker", Program(backend, connects=work), ports=())
        it.engine.add_image("plain", Program(backend))
        async with client(it) as api:
            yield it, api, await api.get_service("public/server-apps")


async def test_an_app_is_installed_though_who_wanted_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    async with controlled() as (it, _, __):
        begun, goes_on, build = asyncio.Event(), asyncio.Event(), it.engine.build

        async def slow(*args: Any) -> None:
            begun.set()
            await goes_on.wait()
            await build(*args)

        monkeypatch.setattr(it.engine, "build", slow)
        async with bare(it, client_id="one") as one:
            await one.ask(one.manager, "services.server-apps.install", [{"config": MODEL}], "s", with_kwargs=True)
            await begun.wait()
        await until(lambda: "one" not in it.dockscale.rpc.hub.clients("public"))
        goes_on.set()

        await appears(it, APP_ID)


async def test_an_installed_app_starts_when_it_is_called() -> None:
    async with controlled() as (_, api, apps):
        info = await apps.install(config=MODEL)

        assert (info["id"], info["workspace"], info["image"]) == (APP_ID, "public", "worker")
        assert (info["autoscaling"]["max_instances"], info["autoscaling"]["scale_down_threshold"]) == (2, 0.3)
        assert await apps.list_running() == []
        service = await api.get_service(f"default@{APP_ID}")
        assert await service.echo(3) == 3
        [running] = await apps.list_running()
        assert (running["app_id"], running["state"], running["in_flight"]) == (APP_ID, "ready", 0)
        assert running["load"] >= 1
        assert running["id"] == running["session_id"] == f"public/{running['client_id']}"
        assert running["service_id"] == f"{running['id']}:default@{APP_ID}"
        assert await service.who() == running["client_id"]
        assert (await apps.get_session_info(running["id"]))["started_at"] == running["started_at"]


async def test_a_source_can_be_the_name_of_an_image() -> None:
    async with controlled() as (_, _, apps):
        info = await apps.install(source="plain", manifest={"name": "Shop", "type": "docker"}, app_id="web-shop")

        assert (info["id"], info["type"], info["image"], info["port"]) == ("web-shop", "docker", "plain", 8000)
        with pytest.raises(Exception, match="two ways to say what runs"):
            await apps.install(source="api.export({})", config={"name": "Seed", "image": "plain"})


async def test_arguments_win_over_the_manifest() -> None:
    async with controlled() as (_, _, apps):
        info = await apps.install(manifest=MODEL, app_id="m", image="worker", version="2", stop_after_inactive=5)

        assert (info["id"], info["version"]) == ("m", "2")
        assert info["startup_config"]["stop_after_inactive"] == 5
        with pytest.raises(Exception, match="already exists"):
            await apps.install(manifest=MODEL, app_id="m")
        assert (await apps.install(manifest=MODEL, app_id="m", overwrite=True))["version"] == "1.0.0"


async def test_how_an_installation_goes_is_told_to_a_callback() -> None:
    told: list[dict[str, str]] = []
    async with controlled() as (_, _, apps):
        await apps.install(config=MODEL | {"tags": ["a"]}, progress_callback=told.append)

        await until(lambda: told and told[-1]["type"] == "success")
        assert told[0] == {"type": "warning", "message": "tags is accepted and not kept"}
        assert [each["type"] for each in told] == ["warning", "info", "success"]


async def test_a_callback_is_only_ever_called_at_the_caller_and_is_no_service() -> None:
    async with controlled() as (_, _, apps):
        for callback in ({"_rtype": "error", "_rmethod": "services.default.die"}, 3, {"a": 1}):
            with pytest.raises(Exception, match="must be a function of the caller"):
                await apps.install(config=MODEL, progress_callback=callback)


async def test_a_wrong_manifest_is_told_whole_and_can_be_checked_before() -> None:
    wrong = MODEL | {"autoscaling": {"max_instance": 2, "min_instances": -1}, "tags": ["a"]}
    async with controlled() as (_, _, apps):
        checked = await apps.validate_app_manifest(wrong)

        assert not checked["valid"]
        assert len(checked["errors"]) == 2
        assert checked["warnings"] == ["tags is accepted and not kept"]
        with pytest.raises(Exception, match=r"max_instance is unknown; did you mean .*min_instances = '-1'"):
            await apps.install(config=wrong)
        assert (await apps.validate_app_manifest(MODEL))["valid"]
        assert (await apps.validate_app_manifest({"name": "x", "type": "window"}))["valid"]
        [nowhere] = (await apps.validate_app_manifest(MODEL | {"image": "nowhere:1"}))["errors"]
        assert "not on this engine" in nowhere


async def test_an_app_is_started_and_stopped_by_hand() -> None:
    async with controlled() as (it, _, apps):
        await apps.install(config=MODEL)

        started = await apps.start(APP_ID, progress_callback=lambda _: None)
        again = await apps.start(APP_ID)
        await apps.stop(started["id"])

        assert (started["state"], again["id"]) == ("ready", started["id"])
        assert await apps.list_running() == []
        await until(lambda: it.states(APP_ID) == {})
        with pytest.raises(Exception, match="instance not found"):
            await apps.stop(started["id"])
        await apps.stop(started["id"], raise_exception=False)
        with pytest.raises(Exception, match="ready with its service 'default'"):
            await apps.start(APP_ID, wait_for_service="other")


async def test_logs_are_those_of_the_instance_and_of_its_scaling() -> None:
    async with controlled() as (it, _, apps):
        await apps.install(config=MODEL)
        session = (await apps.start(APP_ID))["id"]
        [container] = (await it.engine.list()).containers
        it.engine.write(container.id, "one", "two")

        whole = await apps.get_logs(session)
        part = await apps.get_logs(session, type="log", offset=1, limit=5)
        scaling = await apps.get_logs(session, type="scaling")

        assert whole["total"] == 2 + scaling["total"]
        assert [item["content"] for item in part["items"]] == ["two"]
        assert any("1 request waits" in item["content"] for item in scaling["items"])


async def test_an_app_is_edited_and_uninstalled() -> None:
    async with controlled() as (it, _, apps):
        await apps.install(config=MODEL)

        edited = await apps.edit_app(
            APP_ID, manifest={"version": "3"}, autoscaling_config={"max_instances": 5}, startup_config={"timeout": 30}
        )

        assert edited == await apps.get_app_info(APP_ID)
        assert (edited["version"], edited["name"], edited["startup_config"]["timeout"]) == ("3", MODEL["name"], 30)
        assert it.app(APP_ID).spec.bounds == (1, 5)
        assert {app["id"] for app in await apps.list_apps()} == {"bot", APP_ID}
        await apps.uninstall(APP_ID)
        assert [app["id"] for app in await apps.list_apps()] == ["bot"]
        for refused in (apps.edit_app("bot", manifest={"name": "Bot"}), apps.uninstall("bot")):
            with pytest.raises(Exception, match="ByHand: bot was not installed"):
                await refused


@pytest.mark.parametrize("name", ["list_workers", "read_file", "publish"])
async def test_what_needs_files_or_workers_is_clearly_not_supported(name: str) -> None:
    async with controlled() as (_, _, apps):
        with pytest.raises(Exception, match=f"{name} is not supported by dockscale"):
            await apps[name]("x")


async def test_arguments_that_would_change_something_elsewhere_are_refused_and_those_that_are_off_are_not() -> None:
    async with controlled() as (_, _, apps):
        with pytest.raises(Exception, match="worker_id is not supported"):
            await apps.install(config=MODEL, worker_id="a")
        with pytest.raises(Exception, match="disabled, singleton is not supported"):
            await apps.edit_app("bot", disabled=True, singleton=True)
        await apps.install(config=MODEL, stage=False, worker_id=None)


async def test_the_service_is_listed_in_the_workspace_public() -> None:
    async with controlled() as (_, api, apps):
        [listed] = await api.list_services({"workspace": "public", "type": "server-apps"})

        assert listed["id"] == apps.id == "public/server-apps"
        assert "install" not in listed


async def test_apps_of_another_workspace_are_as_if_they_were_not_there() -> None:
    async with controlled() as (it, _, apps):
        await apps.install(config=MODEL)
        session = (await apps.start(APP_ID))["id"]
        async with client(it, workspace="other") as neighbour:
            theirs = await neighbour.get_service("public/server-apps")

            assert await theirs.list_apps() == await theirs.list_running() == []
            for refused in (theirs.start(APP_ID), theirs.uninstall(APP_ID), theirs.get_app_info(APP_ID)):
                with pytest.raises(Exception, match="App not found"):
                    await refused
            for refused in (theirs.stop(session.partition("/")[2]), theirs.get_logs(session.partition("/")[2])):
                with pytest.raises(Exception, match="instance not found"):
                    await refused
            with pytest.raises(Exception, match="is taken; choose another"):
                await theirs.install(config=MODEL, overwrite=True)
            assert (await theirs.install(config=MODEL, app_id="own"))["workspace"] == "other"
        assert {app["id"] for app in await apps.list_apps()} == {"bot", APP_ID}


@pytest.mark.parametrize("workspace", ["public", "other"])
async def test_with_tokens_changes_need_the_permission_to_write_and_looks_the_one_to_read(workspace: str) -> None:
    async with rpc_world(auth="token") as it:
        it.engine.add_image("worker", Program(backend, connects=work), ports=())
        tokens = it.dockscale.rpc.hub._tokens
        reads = tokens.issue(User("reader", {workspace: "r"}, current_workspace=workspace))
        writes = tokens.issue(User("writer", {workspace: "rw"}, current_workspace=workspace))
        async with client(it, token=writes) as writer, client(it, token=reads) as reader:
            apps = await writer.get_service("public/server-apps")
            looks = await reader.get_service("public/server-apps")
            await apps.install(config=MODEL)
            session = (await apps.start(APP_ID))["id"]

            assert APP_ID in {app["id"] for app in await looks.list_apps()}
            assert [each["id"] for each in await looks.list_running()] == [session]
            changes = (looks.install(config=MODEL), looks.start(APP_ID), looks.stop(session), looks.uninstall(APP_ID))
            for refused in (*changes, apps.list_apps("third"), apps.install(config=MODEL, workspace="third")):
                with pytest.raises(Exception, match="no permission"):
                    await refused
