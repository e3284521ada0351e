"""Programs in JavaScript, in containers made on the runtime image, called by the unmodified clients."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dockscale.engine.docker import DockerEngine
from tests.support.real import Real, in_thread
from tests.support.runtimes import build_app, built
from tests.support.worker import client
from tests.support.world import World, appears, serving, until

pytestmark = pytest.mark.engine

SIMPLE = """
let requestCount = 0;
api.export({
    async setup() {
        console.log("Scalable app ready");
    },
    async processRequest(data) {
        requestCount++;
        // Simulate some processing work
        await new Promise(resolve => setTimeout(resolve, 10));
        return {
            processed: data,
            requestCount: requestCount,
            instanceId: Math.random().toString(36).substring(7)
        };
    }
});
"""

ALL_KINDS = """
let setups = 0;
await new Promise(resolve => setTimeout(resolve, 50));
api.export({
    setup() { setups++; },
    told: () => [setups, self === globalThis, env.COLOUR, process.env.COLOUR, env.HYPHA_APP_ID],
    double: async (callback, n) => (await callback(n)) * 2,
    *count(n) { for (let i = 0; i < n; i++) yield i; },
    size: (data) => data.length,
    first: (...ms) => Promise.race(ms.map(each => new Promise(resolve => setTimeout(resolve, each, each)))),
    fails(text) {
        throw new RangeError(text);
    },
    careless() {
        setTimeout(() => { throw new Error("nobody catches this"); });
        Promise.reject(new Error("nor this"));
    },
});
"""

FUNCTIONS = """
api.export({
    "process-data": async function(event) {
        return {
            status: 201,
            headers: {'Content-Type': 'application/json'},
            body: JSON.stringify({path: event.path, method: event.method, query: event.query_string})
        };
    },
    index: () => ({ body: "start here" }),
});
"""

FAILING = {
    "a syntax error": ("let a = 1;\nlet x = ;\n", r"main\.js:2: SyntaxError: Unexpected token ';' \|     let x = ;"),
    "a brace that is missing": ("api.export({\n  a() {\n});\n", r"main\.js:3: SyntaxError"),
    "throwing": ("\nthrow new TypeError('as told');", r"main\.js:2: TypeError: as told"),
    "an inner function that throws": (
        "function f() {\n  null.x;\n}\n\nf();",
        r"main\.js:2: TypeError: Cannot read .* \|     at f \(main\.js:2:8\) \|     at main\.js:5:1",
    ),
    "a rejection": (
        "(async () => {\n  await null;\n  throw new Error('late');\n})();\nawait new Promise(() => {});",
        r"main\.js:3: Error: late",
    ),
    "a setup that throws": (
        "api.export({\n  setup() {\n    throw new Error('no model');\n  }\n});",
        r"main\.js:3: Error: no model",
    ),
    "exporting nothing": (
        "await new Promise(resolve => setTimeout(resolve, 200));",
        r"main\.js ended without exporting anything: call api\.export\(\{\.\.\.\}\)",
    ),
    "waiting for nothing": ("await new Promise(() => {});", r"main\.js waits for what can never come"),
    "a module that is not there": ("\nawait import('nosuch');", r"main\.js:2: Error: there is no module 'nosuch'"),
}


@pytest.fixture(scope="module")
def runtime(engine_ready: None) -> str:
    return built("javascript")


@asynccontextmanager
async def running(real: Real, runtime: str, source: str, **manifest: Any) -> AsyncIterator[tuple[World, Any]]:
    """A dockscale with the app `bot` made of this source, and a client."""
    async with serving(DockerEngine(only=real.label), host="0.0.0.0") as it, client(it) as api:
        told = {"app_id": "bot", "type": "window", **manifest}
        await in_thread(lambda: build_app(real, runtime, {"main.js": source}, told))
        await appears(it, "bot")
        yield it, api


def logs(real: Real) -> str:
    return "".join(box.logs().decode() for box in real.containers())


@pytest.mark.parametrize("kind", ["window", "web-worker", "javascript"])
async def test_what_a_program_exports_is_called_as_the_apps_service(real: Real, runtime: str, kind: str) -> None:
    async with running(real, runtime, SIMPLE, type=kind) as (_, api):
        service = await api.get_service("default@bot")

        answers = await asyncio.gather(*(service.processRequest(f"request_{n}") for n in range(5)))

        assert [answer["processed"] for answer in answers] == [f"request_{n}" for n in range(5)]
        assert {answer["requestCount"] for answer in answers} <= set(range(1, 6))
        assert logs(real) == "Scalable app ready\n"


async def test_callbacks_generators_and_large_data_pass_and_setup_is_called_once(real: Real, runtime: str) -> None:
    async with running(real, runtime, ALL_KINDS, env={"COLOUR": "red"}) as (_, api):
        service = await api.get_service("default@bot")

        assert await service.told() == [1, True, "red", "red", "bot"]
        assert await service.double(lambda n: n + 1, 4) == 10
        assert [item async for item in await service.count(3)] == [0, 1, 2]
        assert await service.size(b"x" * 700_000) == 700_000
        assert await service.first(100, 20) == 20


async def test_errors_of_a_ready_program_are_told_and_do_not_end_it(real: Real, runtime: str) -> None:
    async with running(real, runtime, ALL_KINDS) as (it, api):
        service = await api.get_service("default@bot")

        with pytest.raises(Exception, match="RangeError: as asked"):
            await service.fails("as asked")
        await service.careless()

        assert (await service.told())[0] == 1
        assert it.app("bot").stats.deaths == 0
        written = logs(real)
        for line, error in ((12, "RangeError: as asked"), (15, "Error: nobody catches this"), (16, "Error: nor this")):
            assert f"main.js:{line}: {error}\n" in written


async def test_a_program_may_export_late_and_call_others_before(real: Real, runtime: str) -> None:
    source = """
        const apps = await (await api.getService("public/server-apps")).list_apps();
        setTimeout(() => api.export({ apps: () => apps.map(app => app.id) }), 700);
    """
    async with running(real, runtime, source) as (_, api):
        assert await (await api.get_service("default@bot")).apps() == ["bot"]


async def test_the_client_of_the_image_can_be_imported_by_any_of_its_names(real: Real, runtime: str) -> None:
    source = """
        const names = ["hypha-rpc", "ws://localhost:9527/assets/hypha-rpc-websocket.mjs"];
        const [own, other] = await Promise.all(names.map(name => import(name)));
        api.export({ same: () => own.RPC === other.RPC && own.connectToServer === other.connectToServer });
    """
    async with running(real, runtime, source) as (_, api):
        assert await (await api.get_service("default@bot")).same() is True


async def test_functions_answer_http_requests(real: Real, runtime: str) -> None:
    async with running(real, runtime, FUNCTIONS, type="functions") as (it, _):
        url = f"{it.base}/public/apps/bot"

        async with it.session.post(f"{url}/process-data?a=b") as answer:
            assert (answer.status, answer.content_type) == (201, "application/json")
            assert await answer.json() == {"path": "/process-data", "method": "POST", "query": "a=b"}
        async with it.session.get(f"{url}/") as answer:
            assert (answer.status, await answer.text()) == (200, "start here")


async def test_a_program_goes_on_with_a_restarted_dockscale(real: Real, runtime: str) -> None:
    async with running(real, runtime, SIMPLE) as (it, api):
        port = it.dockscale.main_port
        await (await api.get_service("default@bot")).processRequest("before")
    async with serving(DockerEngine(only=real.label), host="0.0.0.0", port=port) as it, client(it) as api:
        await appears(it, "bot")
        await until(lambda: it.ready("bot") == 1, "it has registered again")

        assert (await (await api.get_service("default@bot")).processRequest("after"))["requestCount"] == 2
        assert logs(real).count("Scalable app ready") == 1


@pytest.mark.parametrize("what", FAILING)
async def test_a_program_that_fails_says_why_and_where(real: Real, runtime: str, what: str) -> None:
    source, words = FAILING[what]
    async with running(real, runtime, source) as (_, api):
        with pytest.raises(Exception, match=f"its container is exited; it wrote: {words}"):
            await api.get_service("default@bot")


async def test_an_instance_ends_at_once_when_it_is_told_to(real: Real, runtime: str) -> None:
    async with running(real, runtime, SIMPLE) as (_, api):
        await api.get_service("default@bot")
    # Without a dockscale that would remove it.
    [box] = real.containers()

    await in_thread(lambda: box.kill("SIGTERM"))

    assert (await in_thread(lambda: box.wait(timeout=5)))["StatusCode"] == 0
