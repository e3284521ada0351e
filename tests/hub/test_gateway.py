"""HTTP to services, and clients without a WebSocket."""

from tests.support.worker import client, rpc_world


async def test_an_asgi_service_of_an_app_answers_below_the_apps_address() -> None:
    async with (
        rpc_world() as it,
        it.session.post(it.base + "/public/apps/bot/some/path?x=1", data=b"d" * 700_000) as answer,
    ):
        text = await answer.text()

    assert answer.status == 200
    assert text.endswith("POST /some/path 700000!")


async def test_a_function_is_called_by_get_and_by_post() -> None:
    async with rpc_world() as it:
        address = it.base + "/public/services/default@bot"

        async with it.session.get(f"{address}/echo?value=5") as by_get:
            got = await by_get.json()
        async with it.session.post(f"{address}/echo", json={"value": [1, {"b": 2}]}) as by_post:
            posted = await by_post.json()

    assert (got, posted) == (5, [1, {"b": 2}])


async def test_a_generator_streams_as_server_sent_events() -> None:
    async with rpc_world() as it, it.session.get(it.base + "/public/services/default@bot/count?n=2") as answer:
        text = await answer.text()

    assert text == "data: 0\n\ndata: 1\n\ndata: [DONE]\n\n"


async def test_the_http_transport_calls_and_gets_large_answers() -> None:
    async with rpc_world() as it, client(it, server_url=it.base, transport="http") as api:
        service = await api.get_service("default@bot")

        assert await service.echo("by http") == "by http"
        assert len(await service.big(900_000)) == 900_000
