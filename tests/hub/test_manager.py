"""The manager's functions, with all that clients may give them."""

import asyncio
from typing import Any

import pytest

from dockscale.hub import local, manager, parts
from dockscale.hub.clients import MOST_SERVICES
from dockscale.hub.tokens import User
from tests.hub.test_socket import calm
from tests.support.bare import Bare, Failed, bare, socket
from tests.support.worker import client
from tests.support.world import World, until, world


def token(it: World, workspace: str, permission: str = "rw", **more: Any) -> str:
    user = User("somebody", {workspace: permission}, current_workspace=workspace, **more)
    issued: str = it.dockscale.rpc.manager._tokens.issue(user)
    return issued


@pytest.mark.parametrize(
    ("function", "args"),
    [
        ("get_service", [5]),
        ("get_service", [["a"]]),
        ("get_service", ["calm:x", 5]),
        ("get_service", ["calm:x", {"timeout": "soon"}]),
        ("get_service", ["calm:x", {"timeout": float("nan")}]),
        ("get_service", ["calm:x", {"timeout": float("inf")}]),
        ("get_service", ["calm:x", {"timeout": -1}]),
        ("get_service", []),
        ("register_service", [5]),
        ("register_service", [{}]),
        ("register_service", [{"id": 5}]),
        ("register_service", [{"id": "a:b:c"}]),
        ("register_service", [{"id": "calm:theirs"}]),
        ("register_service", [{"id": "other/mine"}]),
        ("register_service", [{"id": "a", "config": 5}]),
        ("register_service", [{"id": "a", "config": {"visibility": []}}]),
        ("register_service", [{"id": "a", "type": {}}]),
        ("register_service", [{"id": "a", "docs": "x" * 300_000}]),
        ("unregister_service", ["never"]),
        ("unregister_service", ["calm:built-in"]),
        ("list_services", [5]),
        ("list_services", [{"id": 5}]),
        ("ping", [5]),
        ("ping", ["nobody"]),
        ("ping", ["calm", float("nan")]),
        ("subscribe", [5]),
        ("subscribe", [[5]]),
        ("subscribe", ["x" * 300]),
        ("generate_token", [5]),
        ("generate_token", [{"permission": "all"}]),
        ("generate_token", [{"expires_in": float("nan")}]),
        ("generate_token", [{"expires_in": [1]}]),
        ("generate_token", [{"extra_scopes": "ws:x#a"}]),
        ("parse_token", [5]),
        ("parse_token", ["garbage"]),
        ("revoke_token", ["garbage"]),
        ("list_clients", [["x"]]),
        ("no_such_function", []),
    ],
)
async def test_what_makes_no_sense_is_refused_with_an_error(function: str, args: list[object]) -> None:
    async with calm() as (it, _), bare(it) as one:
        with pytest.raises(Failed, match=r"\w+: ."):
            await one.manage(function, *args)

        assert await one.manage("echo", 1) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"args": 5},
        {"args": "text"},
        {"args": {"a": 1}},
        {"args": [5], "with_kwargs": True},
        {"args": [[1]], "with_kwargs": True},
        {"args": [{1: 2}], "with_kwargs": True},
        {"args": [], "with_kwargs": True},
        {"args": [{"context": 1}], "with_kwargs": True},
        {"args": [1, 2, 3, 4]},
    ],
    ids=repr,
)
async def test_arguments_of_a_wrong_shape_are_refused(body: dict[str, object]) -> None:
    async with calm() as (it, _), bare(it) as one:
        await one.send({"type": "method", "to": one.manager, "method": "services.default.echo", "session": "s"}, body)

        with pytest.raises(Failed, match=r"Malformed: the arg|Malformed: the name|TypeError: "):
            await one.answer("s")


@pytest.mark.parametrize("t", ["soon", float("nan"), float("inf"), -1, 1e-300, {}, []], ids=repr)
@pytest.mark.parametrize("to", ["manager", "calm"])
async def test_a_pace_of_heartbeats_that_is_none_harms_nobody(t: object, to: str) -> None:
    async with calm() as (it, other), bare(it) as one:
        await one.send(
            {"type": "method", "to": one.manager, "method": "services.default.ping", "session": "s"},
            {"args": ["calm", 0.3], "t": t, "promise": {"interval": t} if to == "calm" else "*"},
        )

        with pytest.raises(Failed, match="CallTimeout"):
            await one.answer("s")
        assert len(one.heard) <= 4
        assert (await other.receive())["method"] == "services.built-in.ping"


async def test_calls_that_take_long_are_worked_on_up_to_a_number_and_then_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "MOST_ASKED", 5)
    async with calm() as (it, other), bare(it) as one:
        for number in range(5):
            await one.ask(one.manager, "services.default.ping", ["calm"], f"s{number}")
        for number in range(5):
            with pytest.raises(Failed, match="Busy: 5 calls of"):
                await one.call(one.manager, "services.default.ping", "calm", session=f"more{number}")

        for _ in range(5):
            asked = await other.receive()
            await other.send(
                {"type": "method", "to": asked["from"], "method": f"{asked['session']}.resolve"}, {"args": ["pong"]}
            )
        for number in range(5):
            assert await one.answer(f"s{number}") == "pong"


@pytest.mark.parametrize("args", [5, "x", {"a": 1}, [1, 2]], ids=repr)
async def test_an_answer_that_cannot_be_read_fails_the_call_and_no_more(args: object) -> None:
    async with calm() as (it, other), bare(it) as one:
        await one.ask(one.manager, "services.default.ping", ["calm"], "s")
        asked = await other.receive()

        await other.send(
            {"type": "method", "to": asked["from"], "method": f"{asked['session']}.resolve"}, {"args": args}
        )

        with pytest.raises(Failed, match="the answer cannot be read"):
            await one.answer("s")


async def test_an_answer_from_who_was_not_asked_is_not_heard() -> None:
    async with calm() as (it, other), bare(it) as one:
        await one.ask(one.manager, "services.default.ping", ["calm", 0.3], "s")
        asked = await other.receive()

        await one.send(
            {"type": "method", "to": asked["from"], "method": f"{asked['session']}.resolve"}, {"args": ["x"]}
        )

        with pytest.raises(Failed, match="CallTimeout"):
            await one.answer("s")


PART = "services.built-in.message_cache."


@pytest.mark.parametrize(
    ("what", "args"),
    [
        ("create", [5]),
        ("create", [["k"]]),
        ("set", ["k", 0, "text"]),
        ("set", ["k", -1, b"x"]),
        ("set", ["k", "0", b"x"]),
        ("set", ["never", 0, b"x"]),
        ("append", ["k", 5]),
        ("append", [{}, b"x"]),
        ("process", ["never"]),
        ("remove", ["never"]),
        ("process", ["k"]),
    ],
)
async def test_parts_that_are_none_are_refused(what: str, args: list[object]) -> None:
    async with calm() as (it, _), bare(it) as one:
        await one.call(one.manager, f"{PART}create", "k")

        with pytest.raises(Failed, match=r"Malformed|KeyError"):
            await one.call(one.manager, PART + what, *args)


async def test_parts_that_do_not_go_on_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PARTS_S", 0.02)
    async with calm() as (it, _), bare(it) as one:
        await one.call(one.manager, f"{PART}create", "k")

        await until(lambda: len(it.dockscale.rpc.manager._peer.parts) == 0)


async def test_services_of_one_client_are_bounded() -> None:
    async with calm() as (it, _), bare(it) as one:
        for number in range(MOST_SERVICES):
            await one.register(f"svc{number}")

        with pytest.raises(Failed, match="1000 services at most"):
            await one.register("more")
        await one.register("svc0")
        await one.manage("unregister_service", "svc1")
        await one.register("more")


async def test_events_of_one_client_are_bounded() -> None:
    async with calm() as (it, _), bare(it) as one:
        await one.manage("subscribe", [f"t{number}" for number in range(manager.MOST_TOPICS)])

        with pytest.raises(Failed, match="100 types of events"):
            await one.manage("subscribe", "more")


async def test_events_reach_only_who_subscribed() -> None:
    async with calm() as (it, _), bare(it) as one, bare(it) as deaf:
        await one.manage("subscribe", ["client_connected", "client_disconnected", "service_added", "service_removed"])
        async with bare(it, client_id="new") as new:
            await new.register("svc")
            await new.manage("unregister_service", "new:svc")
        await until(lambda: it.dockscale.rpc.hub.count == 3)
        await one.manage("unsubscribe", "client_connected")
        async with bare(it, client_id="later"):
            pass
        await until(lambda: it.dockscale.rpc.hub.count == 3)
        await one.manage("echo", 0)
        await deaf.manage("echo", 0)

        told = [(each["type"], each["data"]["id"]) for each in one.heard]
        assert told == [
            ("client_connected", "new"),
            ("service_added", "public/new:svc"),
            ("service_removed", "public/new:svc"),
            ("client_disconnected", "new"),
            ("client_disconnected", "later"),
        ]
        assert deaf.heard == []


async def test_all_forms_of_a_services_id_find_it() -> None:
    async with world() as it, client(it, client_id="worker") as worker, client(it) as api:
        await worker.register_service({"id": "svc", "who": lambda: "worker"})

        for text in ("svc", "*:svc", "worker:svc", "public/worker:svc", "public/*:svc", "public/svc", "svc@*"):
            assert await (await api.get_service(text)).who() == "worker"
        for text in ("~", "public/~"):
            assert await (await api.get_service(text)).echo(text) == text


async def test_several_services_are_chosen_from_by_mode() -> None:
    async with world() as it, client(it, client_id="a") as a, client(it, client_id="b") as b, client(it) as api:
        for each, load in ((a, 1), (b, 2)):
            await each.register_service({"id": "svc", "who": lambda load=load: load, "fails": lambda: 1 / 0})

        async def chosen(mode: str) -> str:
            return str((await api.get_service("svc", mode=mode)).id)

        assert await chosen("first") == await chosen("select:min:who") == await chosen("select:first_success:who")
        assert await chosen("last") == await chosen("select:max:who") == "public/b:svc"
        assert await chosen("random") in ("public/a:svc", "public/b:svc")
        assert await chosen("min_load") in ("public/a:svc", "public/b:svc")
        for mode, why in (
            ("exact", "Multiple services found"),
            ("select:min:fails", "with a number"),
            ("select:first_success:fails", "no service answered"),
            ("select:most:who", "is no selection"),
            ("what", "is no selection mode"),
        ):
            with pytest.raises(Exception, match=why):
                await chosen(mode)


async def test_a_selection_asks_in_the_callers_name() -> None:
    async with world() as it, client(it, client_id="a") as a, client(it, client_id="b") as b, client(it) as api:
        users = []

        def load(context: Any) -> int:
            users.append(context["user"]["id"])
            return 1

        for each in (a, b):
            await each.register_service({"id": "svc", "config": {"require_context": True}, "load": load})

        await api.get_service("svc", mode="select:min:load")

        assert users == ["anonymous", "anonymous"]


async def test_services_are_listed_by_what_is_asked() -> None:
    async with calm() as (it, _), bare(it, client_id="one") as one:
        await one.register("a", type="x", config={"visibility": "public"})
        await one.register("b", type="y")

        async def listed(*query: Any) -> list[str]:
            return sorted(each["id"] for each in await one.manage("list_services", *query))

        both = ["public/one:a", "public/one:b"]
        assert set(both) <= set(await listed())
        assert await listed("a") == await listed("one:a") == await listed("public/one:a") == both[:1]
        assert await listed("one:*") == await listed("public/one:*") == both
        assert await listed({"type": "y"}) == both[1:]
        assert await listed({"visibility": "public"}) == [*both[:1], "public/server-apps"]
        assert await listed({"id": "b", "type": "x"}) == []
        assert (await one.manage("get_service_info", "one:a"))["type"] == "x"


async def test_other_workspaces_see_what_is_public_and_call_what_is_unlisted_too() -> None:
    async with (
        world(auth="token") as it,
        bare(it, token=token(it, "a"), client_id="one") as one,
        bare(it, token=token(it, "b")) as two,
    ):
        for visibility in ("public", "unlisted", "protected"):
            await one.register(visibility, config={"visibility": visibility})

        assert [each["id"] for each in await two.manage("list_services", {"workspace": "a"})] == ["a/one:public"]
        for name in ("public", "unlisted"):
            await two.ask("a/one", f"services.{name}.f", [], "s")
            assert (await one.receive())["from"] == two.full_id
        with pytest.raises(Failed, match="PermissionError"):
            await two.call("a/one", "services.protected.f")
        with pytest.raises(Failed, match="Service not found"):
            await two.manage("get_service", "a/one:protected")
        with pytest.raises(Failed, match="PermissionError"):
            await two.manage("list_clients", "a")
        with pytest.raises(Failed, match="PermissionError"):
            await two.manage("ping", "a/one")


async def test_who_may_only_read_connects_and_calls_and_registers_nothing() -> None:
    async with (
        world(auth="token") as it,
        client(it, token=token(it, "a"), client_id="one") as one,
        client(it, token=token(it, "a", "r")) as reader,
    ):
        await one.register_service({"id": "svc", "f": lambda: 5})

        assert await (await reader.get_service("svc")).f() == 5
        with pytest.raises(Exception, match="may not register services"):
            await reader.register_service({"id": "mine"})
        with pytest.raises(Exception, match="only an admin"):
            await reader.generate_token()


async def test_a_token_gives_no_more_than_its_maker_has() -> None:
    async with world(auth="token") as it, bare(it, token=token(it, "a", "a")) as admin:
        with pytest.raises(Failed, match="only an admin of the workspace 'b'"):
            await admin.manage("generate_token", {"workspace": "b"})
        given = await admin.manage("generate_token", {"permission": "read", "client_id": "me"})
        async with socket(it) as wrong:
            refused = await wrong.hello(token=given, client_id="other")

        assert refused["message"] == "the token is for the client me, not for other"
        async with bare(it, token=given) as reader:
            assert reader.full_id == "a/me"
            with pytest.raises(Failed, match="PermissionError"):
                await reader.manage("revoke_token", given)


async def test_a_revoked_token_ends_its_connections_and_lets_nobody_come_back() -> None:
    async with world(auth="token") as it, bare(it, token=token(it, "a", "a")) as admin:
        given = await admin.manage("generate_token", {"permission": "read_write"})
        async with bare(it, token=given, client_id="me") as one, bare(it, token=given) as two, socket(it) as again:
            await admin.manage("revoke_token", given)

            assert (await one.receive())["type"] == "force-exit"
            assert [await one.closed(), await two.closed()] == [1008, 1008]
            back = await again.hello(client_id="me", reconnection_token=one.info["reconnection_token"], token=given)
            assert back == {"type": "error", "message": "the token was revoked"}
        assert await admin.manage("echo", 1) == 1


async def test_the_setup_of_a_default_service_runs_once_before_the_service_is_there() -> None:
    async with world() as it, client(it, client_id="worker") as worker:
        there_at: list[bool] = []
        hub = it.dockscale.rpc.hub

        def setup() -> None:
            there_at.append("default" in hub.clients("public")["worker"].services)

        await worker.export({"setup": setup, "f": lambda: 1})
        await worker.export({"setup": setup, "f": lambda: 2})

        assert there_at == [False]


async def test_a_default_service_whose_setup_fails_is_not_there() -> None:
    async with world() as it, client(it, client_id="worker") as worker:

        def setup() -> None:
            raise ValueError("out of cheese")

        with pytest.raises(Exception, match="out of cheese"):
            await worker.export({"setup": setup})

        assert "default" not in it.dockscale.rpc.hub.clients("public")["worker"].services


async def test_who_leaves_while_its_service_is_set_up_leaves_nothing() -> None:
    async with calm() as (it, _), bare(it) as one:
        info = {"id": "default", "service_schema": {"setup": {}}}
        await one.ask(one.manager, "services.default.register_service", [info], "s")
        assert (await one.receive())["method"] == "services.default.setup"


async def test_a_client_that_vanishes_fails_the_real_clients_pending_calls_at_once() -> None:
    async with world() as it, client(it) as api:
        gone: Bare
        async with bare(it, client_id="gone") as gone:
            await gone.register("svc")
            pending = asyncio.create_task(api.rpc.get_remote_service("public/gone:svc"))
            await gone.receive()

        with pytest.raises(Exception, match=r"disconnected|not connected"):
            await pending
