"""An app that is installed, called, looked at, edited and uninstalled by the unmodified client, on a real daemon."""

from typing import Any

import pytest

from dockscale.engine.docker import DockerEngine
from tests.support.real import Real, in_thread
from tests.support.worker import client
from tests.support.world import serving, until

pytestmark = pytest.mark.engine

RPC = "dockscale-rpc:test"


def images(real: Real) -> list[Any]:
    """Ids of all images that carry the test's label, those without a name included."""
    return [image.id for image in real.client.images.list(all=True, filters={"label": real.label})]


async def test_an_app_is_installed_called_edited_and_uninstalled_and_leaves_nothing(real: Real) -> None:
    app_id = real.named("greeter")
    async with (
        serving(DockerEngine(only=real.label), host="0.0.0.0", create_ahead=True) as it,
        client(it) as api,
    ):
        apps = await api.get_service("public/server-apps")
        manifest = {"name": 'The "greeter" of $HOME', "type": "rpc", "image": RPC, "autoscaling": {"max_instances": 2}}

        info = await apps.install(config=manifest, app_id=app_id)
        service = await api.get_service(f"default@{app_id}")
        first = await service.who()
        [running] = await apps.list_running()
        logs = await apps.get_logs(running["id"])
        edited = await apps.edit_app(app_id, autoscaling_config={"max_instances": 3}, manifest={"version": "2"})
        await until(lambda: first["client_id"].removesuffix("__rlb") not in it.app(app_id).pool.instances)
        second = await service.who()
        labelled = await in_thread(lambda: real.client.images.get(f"dockscale/{app_id}").labels)
        await apps.uninstall(app_id)

        assert (info["id"], info["image"], edited["name"], edited["version"]) == (app_id, RPC, manifest["name"], "2")
        assert running["client_id"] == first["client_id"] != second["client_id"]
        assert any("is registered" in item["content"] for item in logs["items"] if item["type"] == "log")
        assert any("no instance is ready" in item["content"] for item in logs["items"] if item["type"] == "scaling")
        assert labelled["dockscale.autoscaling.max_instances"] == "3"
        assert await apps.list_apps() == []
        await until(lambda: not real.containers(), "its containers are gone")
        assert await in_thread(lambda: images(real)) == []
        assert await in_thread(lambda: real.client.images.get(RPC).tags)
