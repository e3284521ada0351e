"""Services over HTTP: listed, described and called; and the client for pages."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import pytest

from dockscale.hub.tokens import User
from tests.support.worker import client, rpc_world
from tests.support.world import World, until, world

MSGPACK = "application/msgpack"


class Closed:
    """Whether a generator was closed."""

    def __init__(self) -> None:
        self.is_set = False


def service(closed: Closed | None = None, **config: Any) -> dict[str, Any]:
    def fail(kind: str) -> None:
        raise {"key": KeyError, "value": ValueError, "permission": PermissionError, "own": RuntimeError}[kind](
            "as asked"
        )

    async def endless() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            if closed is not None:
                closed.is_set = True

    def breaks() -> Iterator[int]:
        yield 1
        raise ValueError("as asked")

    return {
        "id": "svc", "config": {"visibility": "public", **config}, "echo": lambda *args, **named: [list(args), named],
        "same": lambda value: value, "nested": {"add": lambda a, b: a + b}, "fail": fail, "endless": endless,
        "breaks": breaks, "who": lambda: "me",
    }  # fmt: skip


@asynccontextmanager
async def served(**config: Any) -> AsyncIterator[tuple[World, str]]:
    """A client that offers `service`, and the address of that."""
    async with world() as it, client(it, client_id="me") as api:
        await api.register_service(service(**config))
        yield it, it.base + "/public/services/svc"


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("a=5&b=-2.5", {"a": 5, "b": -2.5}),
        ("a=007&b=&c=x%20y", {"a": "007", "b": "", "c": "x y"}),
        ("a=true&b=null", {"a": True, "b": None}),
        (f"a={10**30}&_mode=random", {"a": str(10**30)}),
        ("a=[1]&b={", {"a": "[1]", "b": "{"}),
    ],
)
async def test_the_query_of_a_get_is_named_arguments(query: str, named: dict[str, Any]) -> None:
    async with served() as (it, base), it.session.get(f"{base}/echo?{query}") as answer:
        assert await answer.json() == [[], named]


@pytest.mark.parametrize(
    ("sent", "args", "named"),
    [({"a": [1]}, [], {"a": [1]}), ([1, {"b": 2}], [1, {"b": 2}], {}), ("x", ["x"], {}), (None, [None], {})],
)
async def test_the_body_of_a_post_is_arguments(sent: Any, args: list[Any], named: dict[str, Any]) -> None:
    async with served() as (it, base):
        async with it.session.post(f"{base}/echo", data=json.dumps(sent)) as answer:
            by_json = await answer.json()
        headers = {"Content-Type": MSGPACK}
        async with it.session.post(f"{base}/echo", data=msgpack.packb(sent), headers=headers) as answer:
            by_msgpack = msgpack.unpackb(await answer.read())

    assert by_json == by_msgpack == [args, named]
    assert answer.content_type == MSGPACK


async def test_what_json_has_not_comes_as_text_or_in_msgpack() -> None:
    async with served() as (it, base):
        sent = msgpack.packb([{"data": b"\x00"}])
        as_json = {"Content-Type": MSGPACK, "Accept": "application/json"}
        async with it.session.post(f"{base}/same", data=sent, headers=as_json) as answer:
            shown = await answer.json()
        async with it.session.post(f"{base}/same", data=msgpack.packb([b"\x00"]), headers=as_json) as answer:
            raw = await answer.read()
        async with it.session.get(f"{base}/nested.add?a=1&b=2", headers={"Accept": MSGPACK}) as answer:
            added = msgpack.unpackb(await answer.read())
        async with it.session.get(f"{base}/nested/add?a=1&b=2") as answer:
            by_path = await answer.json()

    assert shown == {"data": "AA=="}
    assert (raw, added, by_path) == (b"\x00", 3, 3)


@pytest.mark.parametrize(
    ("path", "status", "word", "message"),
    [
        ("/fail?kind=key", 404, "not_found", "as asked"),
        ("/fail?kind=value", 400, "bad_call", "as asked"),
        ("/fail?kind=permission", 403, "not_permitted", "as asked"),
        ("/fail?kind=own", 500, "call_failed", "as asked"),
        ("/fail?nonsense=1", 400, "bad_call", "nonsense"),
        ("/nowhere", 500, "call_failed", "nowhere"),
        ("x/who", 404, "not_found", "Service not found"),
        ("@nowhere/who", 404, "not_found", "Service not found"),
        (":x:y/who", 400, "bad_call", "no service id"),
        ("/who?_mode=best", 200, "", ""),
    ],
)
async def test_errors_are_told_by_status(path: str, status: int, word: str, message: str) -> None:
    async with served() as (it, base), it.session.get(base + path) as answer:
        told = await answer.json()

    assert answer.status == status
    if word:
        assert told["error"] == word
        assert message in told["message"]
        assert "Traceback" not in told["message"]
        assert told["request_id"]


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'{"value": %d}' % 10**30, b"\xff"])
async def test_a_body_that_cannot_be_arguments_is_refused(body: bytes) -> None:
    async with served() as (it, base), it.session.post(f"{base}/same", data=body) as answer:
        told = await answer.json()

    assert (answer.status, told["error"]) == (400, "bad_call")


async def test_services_are_listed_and_described() -> None:
    async with served() as (it, base):
        async with it.session.get(it.base + "/public/services/") as answer:
            listed = [each["id"] for each in await answer.json()]
        async with it.session.get(base) as answer:
            info = await answer.json()
        async with it.session.delete(base + "/who") as refused:
            pass

    assert "public/me:svc" in listed
    assert info["id"] == "public/me:svc"
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, POST, OPTIONS")


async def test_a_page_of_another_origin_may_call() -> None:
    async with served() as (it, base):
        async with it.session.get(f"{base}/nowhere") as answer:
            pass
        async with it.session.options(f"{base}/who", headers={"Access-Control-Request-Method": "POST"}) as asked:
            pass

    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert (asked.status, asked.headers["Access-Control-Allow-Methods"]) == (204, "POST")


async def test_what_is_protected_needs_a_token() -> None:
    async with world(auth="token") as it:
        tokens = it.dockscale.rpc.manager._tokens
        mine = tokens.issue(User("me", {"team": "rw"}, current_workspace="team"))
        other = tokens.issue(User("other", {"other": "rw"}, current_workspace="other"))
        async with client(it, token=mine) as api:
            await api.register_service(service(visibility="protected"))
            statuses = []
            for token in (mine, other, "nonsense", ""):
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                async with it.session.get(it.base + "/team/services/svc/who", headers=headers) as answer:
                    statuses.append(answer.status)

    assert statuses == [200, 404, 401, 404]


async def test_a_generator_streams_as_server_sent_events() -> None:
    async with rpc_world() as it, it.session.get(it.base + "/public/services/default@bot/count?n=2") as answer:
        text = await answer.text()

    assert text == "data: 0\n\ndata: 1\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("forged", [
    {"_rtarget": "*/{manager}", "_rmethod": "services.default.generate_token"},
    {"_rtarget": "public/other", "_rmethod": "abc.def"},
    {"_rtarget": "public/w", "_rmethod": "services.default.f"},
    {"_rtarget": "public/w", "_rmethod": "abc.def", "_rclose_method": "services.default.f"},
])  # fmt: skip
async def test_a_forged_generator_makes_dockscale_call_nobody(forged: dict[str, str]) -> None:
    async with world() as it, client(it, client_id="w") as worker, client(it, client_id="other"):
        manager = it.dockscale.rpc.hub.manager_id
        value = {"_rtype": "generator"} | {key: text.format(manager=manager) for key, text in forged.items()}
        await worker.register_service({"id": "svc", "config": {"visibility": "public"}, "f": lambda: value})

        async with it.session.get(it.base + "/public/services/w:svc/f") as answer:
            text = await answer.text()

    assert answer.status == 500
    assert "not its own" in text


async def test_a_generator_that_fails_says_so_in_an_event() -> None:
    async with served() as (it, base), it.session.get(f"{base}/breaks") as answer:
        text = await answer.text()

    assert text.startswith("data: 1\n\nevent: error\ndata: ")
    assert "as asked" in text


async def test_a_generator_is_closed_when_its_client_goes() -> None:
    closed = Closed()
    async with served(closed=closed) as (it, base):
        async with it.session.get(f"{base}/endless") as answer:
            await answer.content.readany()

        await until(lambda: closed.is_set)


async def test_a_call_of_a_sleeping_app_starts_it_and_nothing_is_left() -> None:
    async with rpc_world() as it:
        address = it.base + "/public/services/default@bot"
        async with it.session.get(f"{address}/echo?value=5") as by_get:
            got = await by_get.json()
        async with it.session.post(f"{address}/echo", json={"value": [1, {"b": 2}]}) as by_post:
            posted = await by_post.json()
        async with it.session.get(f"{address}/who?_mode=best") as refused:
            pass

        assert (got, posted, refused.status) == (5, [1, {"b": 2}], 400)
        assert (it.app("bot").pool.in_flight, it.dockscale.rpc.calls.open) == (0, {})


async def test_an_app_whose_start_failed_says_when_to_come_again() -> None:
    async def fails(env: Any) -> None:
        await asyncio.Event().wait()

    async with rpc_world({"startup_config.timeout": "1"}, runs=fails) as it:
        told = []
        for _ in range(2):
            async with it.session.get(it.base + "/public/services/default@bot/who") as answer:
                told.append((answer.status, (await answer.json())["error"], "Retry-After" in answer.headers))

    assert told == [(502, "start_failed", False), (503, "app_failing", True)]


async def test_the_client_for_pages_is_served_as_a_module() -> None:
    async with world() as it:
        async with it.session.get(it.base + "/assets/hypha-rpc-websocket.mjs") as answer:
            text = await answer.text()
        async with it.session.post(it.base + "/assets/hypha-rpc-websocket.mjs") as refused:
            pass

    assert (answer.status, answer.content_type, refused.status) == (200, "text/javascript", 405)
    assert "as connectToServer" in text
