"""The admin port: what it says, and to whom."""

import pytest

from dockscale.engine.memory import MemoryEngine
from dockscale.server import CannotStart
from tests.support.world import serving, world

PATHS = ("/", "/api/apps", "/api/apps/web", "/metrics", "/nowhere")


async def test_it_says_what_control_says() -> None:
    async with world() as it:
        await it.get()
        it.tick()

        async with it.session.get(it.admin + "/api/apps") as answer:
            [short] = await answer.json()
        async with it.session.get(it.admin + "/api/apps/web") as answer:
            full = await answer.json()
        async with it.session.get(it.admin + "/") as answer:
            status = (await answer.json())["dockscale"]

        assert short.keys() == it.dockscale.control.list()[0].keys()
        assert full.keys() == it.dockscale.control.explain("web").keys()
        assert short["instances_by_state"] == {"starting": 0, "ready": 1, "draining": 0, "standby": 0}
        assert full["spec"] == it.dockscale.control.explain("web")["spec"]
        assert status == it.dockscale.control.status()


async def test_an_unknown_app_is_not_found_and_named() -> None:
    async with world() as it, it.session.get(it.admin + "/api/apps/shop") as answer:
        body = await answer.json()

        assert answer.status == 404
        assert body["error"] == "no_such_app"
        assert "'shop'" in body["message"]


async def test_it_changes_nothing() -> None:
    async with world() as it:
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            async with it.session.request(method, it.admin + "/api/apps/web") as answer:
                assert answer.status == 405

        assert it.states() == {}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "sent", ["", "secret", "Bearer ", "Bearer secre", "Bearer secret2", "Basic secret", "Bearer é"]
)
async def test_without_the_token_nothing_is_said(path: str, sent: str) -> None:
    async with (
        world(admin_token="secret") as it,
        it.session.get(it.admin + path, headers={"Authorization": sent} if sent else {}) as answer,
    ):
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "web" not in await answer.text()


async def test_with_the_token_everything_is() -> None:
    async with world(admin_token="secret", admin_host="0.0.0.0") as it:
        for path in PATHS[:-1]:
            async with it.session.get(it.admin + path, headers={"Authorization": "Bearer secret"}) as answer:
                assert (path, answer.status) == (path, 200)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
@pytest.mark.parametrize("token", [None, ""])
async def test_it_is_not_opened_to_others_without_a_token(host: str, token: str | None) -> None:
    with pytest.raises(CannotStart, match=f"DOCKSCALE_ADMIN_HOST={host} .*DOCKSCALE_ADMIN_TOKEN"):
        async with serving(MemoryEngine(), admin_host=host, admin_token=token):
            pass


async def test_the_apps_port_shows_nothing_of_it() -> None:
    async with world() as it:
        for path in ("/metrics", "/api/apps"):
            async with it.session.get(it.base + path) as answer:
                assert (path, answer.status) == (path, 404)
