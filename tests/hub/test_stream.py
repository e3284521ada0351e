"""Clients without a WebSocket: one stream down, one request for each message up."""

import asyncio
import io
from typing import Any

import msgpack
import pytest

from dockscale.hub.services import parse_id
from dockscale.hub.tokens import User
from tests.support.origin import client as wire_client
from tests.support.worker import client, rpc_world
from tests.support.world import World, until, world

SVC = parse_id("svc", "public")


def by_http(it: World, **config: Any) -> Any:
    return client(it, server_url=it.base, transport="http", **config)


async def test_the_real_client_calls_and_is_called_back() -> None:
    async with rpc_world() as it, by_http(it) as api:
        service = await api.get_service("default@bot")

        assert await service.echo("by http") == "by http"
        assert await service.size(b"x" * 1_000_000) == 1_000_000
        assert len(await service.big(1_000_000)) == 1_000_000
        assert await service.call(lambda number: number * 10, 3) == [0, 10, 20]
        assert [number async for number in await service.acount(3)] == [0, 1, 2]
        with pytest.raises(Exception, match="as asked"):
            await service.fail("as asked")


async def test_a_client_offers_services_over_a_stream_and_nothing_is_left_of_it() -> None:
    async with world() as it:
        async with by_http(it, client_id="worker") as worker, client(it) as api:
            await worker.register_service({"id": "svc", "add": lambda a, b: a + b})
            service = await api.get_service("svc")
            assert await service.add(1, 2) == 3

        await until(lambda: it.dockscale.rpc.hub.count == 0)
        assert len(it.dockscale.rpc.hub.services) == 0


async def test_a_client_whose_stream_breaks_comes_back_with_its_services() -> None:
    async with world() as it, by_http(it, client_id="worker") as worker, client(it) as api:
        await worker.register_service({"id": "svc", "add": lambda a, b: a + b})
        hub = it.dockscale.rpc.hub
        before = hub.clients("public")["worker"]
        before.link.close(1001, "of the test")

        await until(lambda: hub.peers.get("public/worker") not in (None, before) and any(hub.services.meant(SVC)))

        assert await (await api.get_service("svc")).add(1, 2) == 3


async def test_what_is_no_use_of_a_stream_is_refused() -> None:
    frame = msgpack.packb({"type": "ping"})
    async with world() as it, it.session.get(it.base + "/rpc?client_id=a&workspace=public") as stream:
        first = await stream.content.readexactly(int.from_bytes(await stream.content.readexactly(4)))
        assert msgpack.unpackb(first)["type"] == "connection_info"
        statuses = []
        for query, data in (
            ("client_id=a&workspace=public", frame),
            ("client_id=b&workspace=public", frame),
            ("client_id=a&workspace=other", frame),
            ("client_id=a&workspace=public", b"\xff no msgpack"),
            ("client_id=a&workspace=public", io.BytesIO(b"x" * 1_100_000)),
        ):
            async with it.session.post(f"{it.base}/rpc?{query}", data=data) as answer:
                statuses.append(answer.status)
        async with it.session.put(it.base + "/rpc") as answer:
            statuses.append(answer.status)
        async with it.session.get(it.base + "/rpc?client_id=a&workspace=public") as answer:
            statuses.append(answer.status)
        headers = {"Authorization": "Bearer nonsense"}
        async with it.session.get(it.base + "/rpc?client_id=c", headers=headers) as answer:
            statuses.append(answer.status)
        pong = await stream.content.readexactly(int.from_bytes(await stream.content.readexactly(4)))

    assert statuses == [200, 400, 400, 400, 413, 405, 409, 403]
    assert msgpack.unpackb(pong) == {"type": "pong"}


async def test_nobody_speaks_for_a_client_without_its_token() -> None:
    async with world(auth="token") as it:
        tokens = it.dockscale.rpc.hub._tokens
        mine, other = (tokens.issue(User(name, {"team": "rw"}, current_workspace="team")) for name in ("me", "other"))
        headers = {"Authorization": f"Bearer {mine}"}
        async with it.session.get(it.base + "/rpc?client_id=a", headers=headers):
            statuses = []
            for token in (mine, other):
                async with it.session.post(
                    it.base + "/rpc?client_id=a&workspace=team",
                    data=msgpack.packb({"type": "refresh_token"}),
                    headers={"Authorization": f"Bearer {token}"},
                ) as answer:
                    statuses.append(answer.status)

    assert statuses == [200, 400]


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with world() as it, wire_client(it) as wire:
        wire.transport.pause_reading()
        wire.send(b"GET /rpc?client_id=a HTTP/1.1\r\nHost: here\r\n\r\n")
        hub = it.dockscale.rpc.hub
        await until(lambda: "public/a" in hub.peers)
        for _ in range(100):
            if (peer := hub.clients("public").get("a")) is not None:
                peer.link.send(b"x" * 1_000_000)
            await asyncio.sleep(0)

        await until(lambda: hub.count == 0)


async def test_open_streams_do_not_hold_up_the_end() -> None:
    async with world(shutdown_timeout=60.0) as it:
        stream = await it.session.get(it.base + "/rpc?client_id=a")

    stream.close()
    assert it.dockscale.rpc.hub.count == 0
