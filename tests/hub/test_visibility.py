"""Who may use an app where tokens are asked for, over HTTP and over RPC."""

from typing import Any

import pytest

from dockscale.hub.tokens import User
from tests.support.worker import client
from tests.support.world import World, world


def token(it: World, workspace: str) -> str:
    user = User("somebody", {workspace: "rw"}, current_workspace=workspace)
    text: str = it.dockscale.rpc.manager._tokens.issue(user)
    return text


@pytest.mark.parametrize(
    ("visibility", "nobody", "stranger"), [("public", 200, 200), ("unlisted", 200, 200), ("protected", 401, 403)]
)
async def test_over_http(visibility: str, nobody: int, stranger: int) -> None:
    async with world({"visibility": visibility}, auth="token") as it:

        async def status(**headers: str) -> int:
            return (await it.get(headers=headers))[0]

        assert await status() == nobody
        assert await status(Authorization=f"Bearer {token(it, 'other')}") == stranger
        assert await status(Authorization=f"Bearer {token(it, 'public')}") == 200
        if visibility == "protected":
            assert await status(Authorization="Bearer nonsense") == 401


@pytest.mark.parametrize(
    ("visibility", "nobody", "stranger"), [("public", 200, 200), ("unlisted", 200, 200), ("protected", 403, 403)]
)
async def test_over_http_as_a_service(visibility: str, nobody: int, stranger: int) -> None:
    async with world({"visibility": visibility}, auth="token") as it:

        async def status(**headers: str) -> int:
            url = it.base + "/public/services/any@web/get?path=/"
            async with it.session.get(url, headers=headers) as answer:
                return answer.status

        assert await status() == nobody
        assert await status(Authorization=f"Bearer {token(it, 'other')}") == stranger
        assert await status(Authorization=f"Bearer {token(it, 'public')}") == 200


@pytest.mark.parametrize(
    ("visibility", "nobody", "member"), [("public", 1, 1), ("unlisted", 0, 0), ("protected", 0, 1)]
)
async def test_in_the_list(visibility: str, nobody: int, member: int) -> None:
    async with world({"visibility": visibility}, auth="token") as it:

        async def listed(**headers: str) -> int:
            async with it.session.get(it.base + "/public/apps", headers=headers) as answer:
                return len(await answer.json())

        assert await listed() == nobody
        assert await listed(Authorization=f"Bearer {token(it, 'public')}") == member


async def test_over_rpc_what_is_protected_is_for_its_workspace() -> None:
    async with world({"visibility": "protected"}, auth="token") as it:

        async def ask(workspace: str) -> Any:
            async with client(it, token=token(it, workspace)) as api:
                web = await api.get_service("public/any@web")
                return await web.get("/")

        assert await ask("public")
        with pytest.raises(Exception, match="protected in the workspace public"):
            await ask("other")


async def test_whoever_comes_without_a_token_is_in_no_workspace_not_even_the_shared_one() -> None:
    async with world(auth="token") as it, client(it, token=token(it, "public")) as api:
        await api.register_service({"id": "svc", "hi": lambda: "hi"})

        async def call(**headers: str) -> int:
            async with it.session.get(it.base + "/public/services/svc/hi", headers=headers) as answer:
                return answer.status

        assert await call() == 404
        assert await call(Authorization=f"Bearer {token(it, 'public')}") == 200


async def test_where_no_tokens_are_asked_for_everything_is_open() -> None:
    async with world({"visibility": "protected"}) as it:
        assert (await it.get(headers={"Authorization": "Basic c29tZWJvZHk6ZWxzZQ=="}))[0] == 200
