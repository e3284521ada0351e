"""A client's WebSocket: whatever it sends, it gets a clear end at worst, and nobody else notices."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from dockscale.hub import socket as module
from tests.support.bare import Bare, bare, books, socket
from tests.support.world import World, until, world


@asynccontextmanager
async def calm(**more: Any) -> AsyncIterator[tuple[World, Bare]]:
    """A world in which one client goes on to call, and of which nothing is left in the end."""
    async with world(**more) as it:
        async with bare(it, client_id="calm") as other:
            yield it, other
            assert await other.manage("echo", "still here") == "still here"
        await until(lambda: not books(it), "the books are empty")


def raw(client: Bare) -> asyncio.Transport:
    return client.socket.transport


async def test_a_hello_is_answered_by_who_the_client_is() -> None:
    async with calm() as (it, _), bare(it) as client:
        assert client.info["workspace"] == "public"
        assert re.fullmatch(r"[0-9a-f]{32}", client.info["client_id"])
        assert client.info["public_base_url"] == it.base


@pytest.mark.parametrize(
    "first",
    [b"binary", "no json", "[]", "5", '"text"', "[" * 100_000, '{"a":' * 100_000, msgpack.packb({})],
    ids=["binary", "no json", "list", "number", "text", "deep list", "deep map", "msgpack"],
)
async def test_a_first_message_that_is_no_hello_ends_the_connection(first: str | bytes) -> None:
    async with calm() as (it, _), socket(it) as client:
        await client.socket.send(first)

        assert await client.closed() == 1007


@pytest.mark.parametrize(
    "said",
    [
        {"client_id": 5},
        {"client_id": "a/b"},
        {"client_id": "a b"},
        {"client_id": "*"},
        {"client_id": "a:b"},
        {"client_id": "a@b"},
        {"client_id": "x" * 201},
        {"client_id": "\ud800"},
        {"client_id": "nul\0"},
        {"client_id": "web__lb"},
        {"client_id": "web__lb_random"},
        {"workspace": "*"},
        {"workspace": "a/b"},
        {"workspace": ["public"]},
        {"workspace": "\ud800"},
        {"token": "garbage"},
        {"token": "\ud800"},
        {"token": {"a": 1}},
        {"reconnection_token": 7},
    ],
    ids=repr,
)
async def test_a_wrong_hello_is_refused_with_an_error(said: dict[str, Any]) -> None:
    async with calm() as (it, _), socket(it) as client:
        answer = await client.hello(**said)

        assert answer["type"] == "error"
        assert answer["message"]
        assert await client.closed() == 1008


async def test_a_second_hello_of_who_was_refused_is_not_heard() -> None:
    async with calm() as (it, _), socket(it) as client:
        await client.socket.send(json.dumps({"client_id": "a/b"}))
        await client.socket.send(json.dumps({"client_id": "fine"}))

        assert json.loads(await client.socket.recv())["type"] == "error"
        assert await client.closed() == 1008
        assert set(it.dockscale.rpc.hub.clients("public")) == {"calm"}


async def test_who_says_no_hello_is_told_to_come_again_and_gets_no_error_that_would_be_final(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HELLO_S", 0.05)
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    async with calm() as (it, _), socket(it) as client:
        assert await client.closed() == 1013


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\x85\xa4type",
        b"\xdf\xff\xff\xff\xff\xa4type\xa1x",
        b"\x81\xa4type\xdb\xff\xff\xff\xff",
        msgpack.packb({"type": "method", "to": 5}),
        msgpack.packb({"type": "method", "session": {}}),
        msgpack.packb({"type": ["method"]}),
        msgpack.packb({"type": "method", "to": "x"}) + b"\x82\xa4args",
        msgpack.packb({"type": "method", "to": "x"}) + b"\x91\x01",
        msgpack.packb({"type": "method", "to": "calm"}) + msgpack.packb({"ctx": {"user": {"id": "root"}}}),
        msgpack.packb({"type": "method", "to": "calm"}) + msgpack.packb({"from": "*/manager"}),
        b"\x83\xa4type\xa1x\xa2to\xa4calm\xa1d" + b"\x91" * 1100 + b"\x90",
    ],
    ids=[
        "nothing", "no msgpack", "cut off", "a map that is too long", "text that is too long", "to is a number",
        "session is a map", "type is a list", "body cut off", "body is a list", "body with ctx", "body with from",
        "too deep",
    ],
)  # fmt: skip
async def test_a_frame_that_lies_ends_only_the_connection_of_who_sent_it(frame: bytes) -> None:
    async with calm() as (it, _), bare(it) as client:
        await client.socket.send(frame)

        assert await client.closed() == 1007


async def test_text_that_is_no_json_ends_the_connection_and_unknown_text_is_not_minded() -> None:
    async with calm() as (it, _), bare(it) as client:
        await client.socket.send(json.dumps({"type": "what?"}))
        await client.socket.send(json.dumps({"type": "ping"}))
        assert json.loads(await client.socket.recv()) == {"type": "pong"}

        await client.socket.send("{")

        assert await client.closed() == 1007


async def test_fragments_are_put_together_and_empty_ones_cost_nothing() -> None:
    async with calm() as (it, _), bare(it) as client:
        whole = msgpack.packb(
            {"type": "method", "to": client.manager, "method": "services.default.echo", "session": "s"}
        )
        whole += msgpack.packb({"args": ["joined"]})

        await client.socket.send([whole[:1], *[b""] * 5_000, whole[1:9], whole[9:]])

        assert await client.answer("s") == "joined"


async def test_a_message_over_the_limit_ends_with_1009() -> None:
    async with calm() as (it, _), bare(it) as client:
        await client.socket.send(b"x" * (2**20 + 1))

        assert await client.closed() == 1009


async def test_fragments_over_the_limit_together_end_with_1009() -> None:
    async with calm() as (it, _), bare(it) as client:
        await client.socket.send([b"x" * 2**18] * 5)

        assert await client.closed() == 1009


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\x01x",
        b"\xf2\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
        b"\x80\x80\0\0\0\0",
        b"\x88\x82\0\0\0\0\0\0",
        b"\x09\x80\0\0\0\0",
        b"\x89\xfe\x01\x00\0\0\0\0" + b"x" * 256,
    ],
    ids=["not masked", "reserved bits", "opcode", "continues nothing", "close code 0", "ping in parts", "long ping"],
)
async def test_what_breaks_the_websocket_protocol_ends_with_1002(data: bytes) -> None:
    async with calm() as (it, _), bare(it) as client:
        raw(client).write(data)

        assert await client.closed() == 1002


async def test_a_ping_is_answered_and_a_close_is_answered_with_its_code() -> None:
    async with calm() as (it, _), bare(it) as client:
        await (await client.socket.ping())

        await client.socket.close(4321, "I am off")

        assert client.socket.close_code == 4321


async def test_what_was_sent_before_a_close_is_still_delivered() -> None:
    async with calm() as (it, other), bare(it) as client:
        message = msgpack.packb({"type": "note", "to": other.full_id})
        many = Frame(Opcode.BINARY, message).serialize(mask=True) * 500
        raw(client).write(many + Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))

        for _ in range(500):
            assert (await other.receive())["type"] == "note"


async def test_a_flood_of_tiny_messages_leaves_others_their_turn() -> None:
    async with calm() as (it, other), bare(it, client_id="flood") as client:
        flood = Frame(Opcode.BINARY, msgpack.packb({"type": "x", "to": "nobody"})).serialize(mask=True) * 20_000
        raw(client).write(flood)
        socket_of = it.dockscale.rpc.hub.clients("public")["flood"].link
        await until(lambda: socket_of._todo or socket_of._unread)  # type: ignore[attr-defined]  # of a Socket

        for number in range(5):
            assert await other.manage("echo", number) == number

        assert await client.manage("echo", "heard in the end") == "heard in the end"


async def test_a_flood_of_pings_leaves_others_their_turn() -> None:
    async with calm() as (it, other), bare(it) as client:
        raw(client).write(Frame(Opcode.PING, b"").serialize(mask=True) * 50_000)

        assert await other.manage("echo", 1) == 1
        assert await client.manage("echo", "heard in the end") == "heard in the end"


async def test_who_reads_nothing_is_not_read_from_and_cut_off_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING_BYTES", 2**20)
    monkeypatch.setattr(module, "STALLED_S", 0.1)
    async with calm() as (it, _), bare(it, client_id="deaf") as client:
        raw(client).pause_reading()
        link = it.dockscale.rpc.hub.clients("public")["deaf"].link
        message = msgpack.packb(
            {"type": "method", "to": client.manager, "method": "services.default.echo", "session": "s"}
        )
        message += msgpack.packb({"args": [b"x" * 250_000]})
        raw(client).write(Frame(Opcode.BINARY, message).serialize(mask=True) * 200)

        most = 0
        while it.dockscale.rpc.hub.count == 2:
            most = max(most, link.transport.get_write_buffer_size())  # type: ignore[attr-defined]  # of a Socket
            await asyncio.sleep(0.001)

        assert 2**20 < most < 2**21


async def test_who_sends_to_one_that_reads_nothing_waits_until_that_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING_BYTES", 2**20)
    monkeypatch.setattr(module, "STALLED_S", 0.1)
    async with calm() as (it, _), bare(it, client_id="deaf") as deaf, bare(it, client_id="talks") as talks:
        raw(deaf).pause_reading()
        hub = it.dockscale.rpc.hub
        link = hub.clients("public")["deaf"].link
        for _ in range(100):
            await talks.send({"type": "note", "to": "deaf"}, {"data": b"x" * 250_000})
            assert link.transport.get_write_buffer_size() < 2**21  # type: ignore[attr-defined]  # of a Socket

        await until(lambda: "deaf" not in hub.clients("public"))

        assert await talks.manage("echo", "free again") == "free again"


async def test_events_for_one_that_reads_nothing_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING_BYTES", 2**18)
    monkeypatch.setattr(module, "MOST_KEPT_BYTES", 2**20)
    async with calm() as (it, _), bare(it, client_id="deaf") as deaf, bare(it) as busy:
        await deaf.manage("subscribe", ["service_updated", "service_added"])
        raw(deaf).pause_reading()
        hub = it.dockscale.rpc.hub
        sent = 0
        while "deaf" in hub.clients("public"):
            await busy.register("svc", docs="x" * 100_000)
            sent += 100_000

            assert sent < 2**26


async def test_a_client_that_takes_slowly_is_not_taken_for_a_stalled_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING_BYTES", 2**18)
    async with calm() as (it, _), bare(it) as client:
        for number in range(40):
            await client.ask(client.manager, "services.default.echo", [b"x" * 100_000], f"s{number}")
            if number % 8 == 0:
                raw(client).pause_reading()
                await asyncio.sleep(0)
                raw(client).resume_reading()

        for number in range(40):
            assert len(await client.answer(f"s{number}")) == 100_000


async def test_an_id_whose_holder_lives_is_refused() -> None:
    async with calm() as (it, _), bare(it, client_id="me") as holder, socket(it) as second:
        answer = await second.hello(client_id="me")

        assert answer == {"type": "error", "message": "the client id me is connected already in workspace public"}
        assert await holder.manage("echo", 1) == 1


async def test_two_that_want_the_id_of_a_living_holder_are_both_refused() -> None:
    async with calm() as (it, _), bare(it, client_id="me") as holder, socket(it) as second, socket(it) as third:
        answers = await asyncio.gather(second.hello(client_id="me"), third.hello(client_id="me"))

        assert [each["type"] for each in answers] == ["error", "error"]
        assert await holder.manage("echo", 1) == 1


async def test_of_two_that_want_the_id_of_a_dead_holder_one_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALIVE_S", 0.1)
    async with calm() as (it, _), bare(it, client_id="me") as dead, socket(it) as second, socket(it) as third:
        raw(dead).pause_reading()

        answers = await asyncio.gather(second.hello(client_id="me"), third.hello(client_id="me"))

        assert sorted(each["type"] for each in answers) == ["connection_info", "error"]
        raw(dead).abort()


async def test_a_client_that_vanishes_while_its_id_is_disputed_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALIVE_S", 0.1)
    async with calm() as (it, _), bare(it, client_id="me") as dead:
        raw(dead).pause_reading()
        async with socket(it) as second:
            await second.socket.send(json.dumps({"client_id": "me"}))
            await until(lambda: any(each._tasks for each in it.dockscale.rpc.door.sockets))
            raw(second).abort()
        raw(dead).abort()


async def test_a_silent_client_is_asked_and_given_up_when_it_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.02)
    monkeypatch.setattr(module, "PING_AFTER_S", 0.05)
    monkeypatch.setattr(module, "DEAD_AFTER_S", 0.5)
    async with calm() as (it, _), bare(it, client_id="dead") as dead:
        raw(dead).pause_reading()

        await until(lambda: "dead" not in it.dockscale.rpc.hub.clients("public"))

        raw(dead).abort()


async def test_a_connection_that_breaks_with_parts_and_calls_open_leaves_nothing() -> None:
    async with calm() as (it, _), bare(it, client_id="gone") as client, bare(it, client_id="mute") as mute:
        await mute.register("svc")
        await client.call(client.manager, "services.built-in.message_cache.create", "k")
        for number in range(20):
            await client.ask(client.manager, "services.default.get_service", ["mute:svc"], f"s{number}")
        peer = it.dockscale.rpc.manager._peer
        await until(lambda: len(peer.sessions) == 20)

        raw(client).abort()

        await until(lambda: not peer.sessions and not peer.working and len(peer.parts) == 0)


HEADERS = st.dictionaries(
    st.sampled_from(["type", "to", "method", "session", "parent", "from", "ws", "ctx", "x"]),
    st.sampled_from(
        ["method", "ping", "refresh_token", "*", "calm", "public/calm", "MANAGER", "services.default.echo",
         "services.default.get_service", "services.default.register_service", "services.default.subscribe",
         "services.default.list_services", "services.default.ping", "services.default.generate_token",
         "services.built-in.message_cache.create", "services.built-in.message_cache.set", "services.calm.x",
         "services.built-in.message_cache.append", "services.built-in.message_cache.process",
         "services.built-in.get_service", "services", "services.", "s.resolve", "s.reject", "s.heartbeat", "", "s"]
    ),
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5)
    | st.sampled_from(["calm", "public/calm", "~", "k", "default", "*"]) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
BODIES = VALUES | st.fixed_dictionaries(
    {"args": st.lists(VALUES, max_size=4) | VALUES}, optional={"with_kwargs": VALUES, "t": VALUES, "promise": VALUES}
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(HEADERS, BODIES), min_size=10, max_size=40), st.binary(max_size=60))
def test_whatever_is_sent_dockscale_goes_on(messages: list[tuple[dict[str, str], object]], noise: bytes) -> None:
    async def send() -> None:
        async with calm() as (it, other):
            for header, body in messages:
                async with bare(it) as client:
                    chosen = {"type": "method", "to": client.manager} | header
                    chosen = {name: client.manager if value == "MANAGER" else value for name, value in chosen.items()}
                    await client.send(chosen, body)
                    await client.socket.send(json.dumps({"type": "ping"}))
                    raw(client).write(noise)
                    assert await other.manage("echo", 1) == 1
                    raw(client).abort()  # the noise may have begun a frame, and a goodbye would be taken for its rest

    asyncio.run(send())
