"""Clients that talk to each other through the hub."""

import pytest

from tests.support.worker import client
from tests.support.world import world


async def test_a_client_calls_a_service_of_another_one() -> None:
    async with world() as it, client(it, client_id="worker") as worker, client(it) as api:
        await worker.register_service({"id": "svc", "nested": {"add": lambda a, b=2: a + b}})

        service = await api.get_service("svc")

        assert await service.nested.add(1) == 3
        assert await service.nested.add(1, b=5) == 6
        assert service.id == "public/worker:svc"


@pytest.mark.parametrize("service_id", ["nope", "nope@app", "x:y:z", ""])
async def test_what_is_not_there_is_a_clear_error(service_id: str) -> None:
    async with world() as it, client(it) as api:
        with pytest.raises(Exception, match=r"Service not found|is no service id"):
            await api.get_service(service_id)


async def test_the_manager_answers_and_refuses_what_it_has_not() -> None:
    async with world() as it, client(it, client_id="me") as api:
        assert await api.echo("hi") == "hi"
        assert len(await api.echo(b"z" * 1_000_000)) == 1_000_000
        assert await api.ping("me") == "pong"
        assert [each["id"] for each in await api.list_clients()] == ["public/me"]
        with pytest.raises(Exception, match="not supported by dockscale"):
            await api.get_env("x")


async def test_nothing_is_left_of_a_client_that_has_gone() -> None:
    async with world() as it:
        async with client(it) as api:
            await api.register_service({"id": "svc"})
        hub = it.dockscale.rpc.hub

        assert (hub.count, len(hub.services)) == (0, 0)
