"""Clients that lie about who they are, and clients that come back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dockscale.engine.memory import MemoryEngine
from tests.hub.test_manager import token
from tests.hub.test_socket import calm
from tests.support.bare import Failed, bare, socket
from tests.support.worker import client, rpc_world
from tests.support.world import World, serving, until, world


@pytest.mark.parametrize("to", ["calm", "public/calm"])
async def test_what_a_client_says_of_itself_is_replaced(to: str) -> None:
    async with calm() as (it, other), bare(it, client_id="liar") as liar:
        lies = {"from": "*/manager", "ws": "secret", "user": {"id": "root"}, "ctx": {"user": {"id": "root"}}}

        await liar.send({"type": "method", "to": to, "method": "services.svc.f", "session": "s", **lies}, {"args": []})

        got = await other.receive()
        assert (got["from"], got["to"], got["ws"]) == ("public/liar", "public/calm", "public")
        assert got["user"]["id"] == "anonymous"
        assert "ctx" not in got


@pytest.mark.parametrize("kind", ["client_disconnected", "force-exit", "peer_not_found", "service_removed"])
@pytest.mark.parametrize("to", ["*", "calm"])
async def test_nobody_else_sends_what_dockscale_says(kind: str, to: str) -> None:
    async with calm() as (it, other), bare(it) as liar:
        await other.manage("subscribe", [kind, "news"])

        await liar.send({"type": kind, "to": to, "data": {"id": "calm", "workspace": "public"}})
        await liar.send({"type": "news", "to": to})

        assert (await other.receive())["type"] == "news"


async def test_a_broadcast_reaches_only_subscribers_of_the_workspace_and_not_of_readers() -> None:
    async with (
        world(auth="token") as it,
        bare(it, token=token(it, "a")) as one,
        bare(it, token=token(it, "a")) as two,
        bare(it, token=token(it, "a", "r")) as reader,
        bare(it, token=token(it, "b")) as elsewhere,
    ):
        for each in (one, two, elsewhere):
            await each.manage("subscribe", ["news"])

        await reader.send({"type": "news", "to": "*", "n": 1})
        await reader.manage("echo", 0)
        await one.send({"type": "news", "to": "*", "n": 2})
        await one.manage("echo", 0)
        await elsewhere.manage("echo", 0)

        assert (await two.receive())["n"] == 2
        assert (one.heard, elsewhere.heard) == ([], [])


async def test_another_workspace_is_reached_only_by_who_has_a_call_open_there() -> None:
    async with (
        world(auth="token") as it,
        bare(it, token=token(it, "a"), client_id="one") as one,
        bare(it, token=token(it, "b"), client_id="two") as two,
    ):
        await one.register("svc", config={"visibility": "public"})
        for method in ("s.resolve", "x.callback", "", "services", "services.", "services.svc2.f"):
            with pytest.raises(Failed, match="PermissionError"):
                await two.call("a/one", method)
        await two.send({"type": "note", "to": "a/one"})

        await two.ask("a/one", "services.svc.f", [], "open")
        asked = await one.receive()
        await one.send({"type": "method", "to": asked["from"], "method": "open.resolve"}, {"args": [7]})

        assert (asked["method"], asked["ws"]) == ("services.svc.f", "b")
        assert await two.answer("open") == 7


async def test_who_goes_is_known_to_acquaintances_no_more() -> None:
    async with world(auth="token") as it, bare(it, token=token(it, "a"), client_id="one") as one:
        await one.register("svc", config={"visibility": "public"})
        await one.manage("subscribe", "client_disconnected")
        async with bare(it, token=token(it, "b"), client_id="two") as two:
            await two.ask("a/one", "services.svc.f", [], "s")
            await one.receive()

        assert (await one.receive())["data"] == {"id": "two", "workspace": "b"}
        assert one_of(it, "a", "one").acquainted == set()


def one_of(it: World, workspace: str, client_id: str) -> Any:
    return it.dockscale.rpc.hub.clients(workspace)[client_id]


async def test_answers_to_sessions_that_never_were_are_dropped() -> None:
    async with calm() as (it, _), bare(it) as one:
        for name in ("resolve", "reject", "heartbeat", "x"):
            await one.send({"type": "method", "to": one.manager, "method": f"never.{name}"}, {"args": [1]})
            await one.send({"type": "method", "to": "nobody", "method": f"never.{name}"}, {"args": [1]})

        assert await one.manage("echo", 1) == 1
        assert one.heard == []


async def test_who_is_not_there_is_told_to_those_who_want_an_answer() -> None:
    async with calm() as (it, _), bare(it) as one:
        for to in ("nobody", "public/nobody", "other/nobody", "*/nobody", ""):
            with pytest.raises(Failed, match="is not connected"):
                await one.call(to, "services.x.f")


async def test_ten_thousand_calls_that_nobody_answers_leave_nothing() -> None:
    async with calm() as (it, other), bare(it) as one, bare(it, client_id="mute") as mute:
        reading = asyncio.create_task(mute.closed())
        for number in range(10_000):
            await one.ask("mute", "services.svc.f", [number], f"s{number}")
            if number % 1_000 == 0:
                assert await other.manage("echo", number) == number
        assert await one.manage("echo", "on") == "on"

        await mute.socket.close()
        await reading


# Tokens, and coming back.


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "anonymous has no permission"),
        ({"token": "garbage"}, "no token of this server"),
        ({"reconnection_token": "garbage"}, "no token of this server"),
        ({"token": "{reader}", "workspace": "b"}, "no permission for the workspace b"),
        ({"token": "{bound}", "client_id": "other"}, "the token is for the client me, not for other"),
        ({"token": "{back}"}, "for coming back only"),
        ({"reconnection_token": "{reader}"}, "not for coming back"),
        ({"reconnection_token": "{back}", "client_id": "other"}, "the reconnection token is for the client a/known"),
        ({"reconnection_token": "{back}", "client_id": "known", "workspace": "b"}, "is for the client a/known"),
        ({"token": "{ended}"}, "the token has expired"),
    ],
)
async def test_a_token_that_does_not_fit_is_refused(
    said: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(auth="token") as it:
        tokens = it.dockscale.rpc.manager._tokens
        with monkeypatch.context() as past:
            past.setattr(tokens, "_clock", lambda: 1e9)
            ended = token(it, "a")
        known = {"ended": ended, "reader": token(it, "a", "r"), "bound": token(it, "a", client_id="me")}
        async with bare(it, token=token(it, "a"), client_id="known") as one:
            known["back"] = one.info["reconnection_token"]
        async with socket(it) as wrong:
            answer = await wrong.hello(**{name: value.format(**known) for name, value in said.items()})

            assert answer["type"] == "error"
            assert why in answer["message"]


async def test_who_comes_back_takes_the_place_of_its_own_old_connection_which_is_told_to_stay_away() -> None:
    async with calm() as (it, _), bare(it, client_id="me") as old, socket(it) as new:
        await new.hello(client_id="me", reconnection_token=old.info["reconnection_token"])

        assert (await old.receive())["reason"] == "another connection took its place"
        assert await old.closed() == 1008
        assert await new.manage("echo", 1) == 1


async def test_who_comes_back_may_leave_out_its_workspace() -> None:
    async with calm() as (it, _):
        async with bare(it, client_id="me", workspace="mine") as old:
            proof = old.info["reconnection_token"]

        async with bare(it, client_id="me", reconnection_token=proof) as new:
            assert new.full_id == "mine/me"


async def test_who_cannot_prove_that_it_comes_back_may_come_as_a_new_client() -> None:
    async with calm() as (it, _):
        async with bare(it, client_id="me", reconnection_token="of another secret") as one:
            assert one.full_id == "public/me"
        async with bare(it, client_id="me") as holder, socket(it) as thief:
            answer = await thief.hello(client_id="me", reconnection_token="of another secret")

            assert "connected already" in answer["message"]
            assert await holder.manage("echo", 1) == 1


async def test_a_new_reconnection_token_is_given_on_demand() -> None:
    async with calm() as (it, _), bare(it, client_id="me") as one:
        await one.socket.send('{"type": "refresh_token"}')
        fresh = (await one.socket.recv())[:30]

        assert str(fresh).startswith('{"type": "reconnection_token"')


@asynccontextmanager
async def a_worker(it: World) -> AsyncIterator[Any]:
    async with client(it, client_id="worker") as worker:
        await worker.register_service({"id": "svc", "f": lambda: 5})
        yield worker


async def test_a_real_client_whose_connection_broke_is_there_again_with_its_services() -> None:
    async with world() as it, a_worker(it), client(it) as api:
        first = one_of(it, "public", "worker")

        first.link.transport.abort()

        hub = it.dockscale.rpc.hub
        await until(lambda: "svc" in getattr(hub.clients("public").get("worker", first), "services", {}) and
                    hub.clients("public").get("worker", first) is not first)  # fmt: skip
        assert await (await api.get_service("worker:svc")).f() == 5


async def test_a_real_client_is_there_again_after_a_restart_with_the_same_secret() -> None:
    async with serving(MemoryEngine()) as it:
        port = it.dockscale.main_port
        connecting = a_worker(it)
        await connecting.__aenter__()
    async with serving(MemoryEngine(), port=port) as it:
        hub = it.dockscale.rpc.hub
        await until(lambda: len(hub.services) >= 2)

        async with client(it) as api:
            assert await (await api.get_service("worker:svc")).f() == 5
        await connecting.__aexit__(None, None, None)


async def test_an_instances_id_is_taken_only_with_its_token() -> None:
    async with rpc_world() as it, client(it) as api:
        await api.get_service("default@bot")
        [instance] = it.app("bot").pool
        async with socket(it) as thief:
            answer = await thief.hello(client_id=instance.client_id)

        assert "is an instance's" in answer["message"]
        assert it.ready("bot") == 1
