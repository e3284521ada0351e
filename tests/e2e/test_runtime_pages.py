"""Whole pages as programs, in containers made on the runtime image, called by the unmodified clients."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dockscale.engine.docker import DockerEngine
from tests.support.real import Real, in_thread
from tests.support.runtimes import build_app, built
from tests.support.worker import client
from tests.support.world import World, appears, serving, until

pytestmark = pytest.mark.engine

SEED = Path(__file__).parent.parent / "seed" / "autoscaling.md"
HEAD = '<!doctype html>\n<html>\n<body>\n<script id="worker" type="javascript/worker">\n'
TAIL = """
</script>
<script>
const text = document.querySelector('#worker').textContent;
const blob = new Blob([text], { type: "text/javascript" });
const worker = new Worker(window.URL.createObjectURL(blob), { type: "module" });
worker.onerror = console.error;
worker.postMessage(Object.fromEntries(new URLSearchParams(window.location.search)));
</script>
</body>
</html>
"""
PYTHON = 'importScripts("https://cdn.example/pyodide.js");\nconst python = await loadPyodide();\n'

PAGE = """<html><body><div id="out"></div>
<!-- <script>throw new Error("this is a comment");</script> -->
<script type="module">
    import { connectToServer } from "https://cdn.example/hypha-rpc@0.20.54/dist/hypha-rpc-websocket.mjs";
    document.getElementById("out").innerHTML = `${early} is kept`;
    const api = await connectToServer({ server_url: window.location.origin });
    await api.export({
        told: () => [document.querySelector("#out").innerHTML, window === self, env.COLOUR, window.location.origin],
    });
</script>
<script>const early = "what ran before";</script>
</body></html>"""

SPEAKS_PYTHON = """
const found = await python.runPython(`
    import math
    items = [1, 2]
    no_json = object()
    math.floor(3.5)
`);
await python.loadPackage(["micropip", "fastapi"]);
await python.runPythonAsync("items.append(await __import__('asyncio').sleep(0.01, 3))");
const kept = [python.globals.get("items"), python.globals.get("no_json") === undefined];
await python.runPython(`
    import micropip, os
    from hypha_rpc import connect_to_server
    await micropip.install(["fastapi>0.100", "hypha-rpc"], keep_going=False)
    api = await connect_to_server(server_url="http://127.0.0.1:9527")
    await api.register_service({
        "id": "default",
        "told": lambda: ${JSON.stringify([found, kept]).replace("true", "True")},
        "die": lambda: os._exit(7),
    })
`);
"""

FAILING = {
    "a syntax error in a page": ("<html>\n<script>\nlet x = ;\n</script>", r"index\.html:3: SyntaxError: .* let x = ;"),
    "a page that throws": ("<html>\n\n<script>missing();</script>", r"index\.html:3: ReferenceError: missing is not"),
    "a page that does nothing": ("<html></html>", r"index\.html ended without registering a service"),
    "a syntax error in a worker": (HEAD + "\nlet x = ;" + TAIL, r"index\.html:6: SyntaxError: .* let x = ;"),
    "a worker that throws": (HEAD + "throw new Error('as told');" + TAIL, r"index\.html:5: Error: as told"),
    "a worker that rejects": (
        HEAD + "self.onmessage = async () => {\n  null.x;\n};" + TAIL,
        r"index\.html:6: TypeError: Cannot read .*null\.x;",
    ),
    "a syntax error in Python": (
        HEAD + PYTHON + "await python.runPython(`\n    def f(:\n        pass\n`);" + TAIL,
        r'File "index\.html", line 8 \|     def f\(: .* SyntaxError: invalid syntax',
    ),
    "a missing package": (
        HEAD + PYTHON + "await python.runPython(`\n    import nosuch\n`);" + TAIL,
        r'File "index\.html", line 8, in <module> \|     import nosuch \| ModuleNotFoundError: No module named',
    ),
    "a setup in Python that throws": (
        HEAD
        + PYTHON
        + """await python.runPython(`
    from hypha_rpc import connect_to_server
    def setup():
        raise ValueError("no model")
    api = await connect_to_server({"server_url": "ws://localhost:9527"})
    await api.register_service({"id": "default", "setup": setup})
`);"""
        + TAIL,
        r'File "index\.html", line 10, in setup \|     raise ValueError\("no model"\) \| ValueError: no model',
    ),
    "Python that ends": (
        HEAD + PYTHON + "await python.runPython(`\n    import os\n    os._exit(7)\n`);" + TAIL,
        r"Python ended by itself \(exit code 7\)",
    ),
}


@pytest.fixture(scope="module")
def runtime(engine_ready: None) -> str:
    return built("pages")


@asynccontextmanager
async def running(
    real: Real, runtime: str, page: str, *, service: str = "default", **more: Any
) -> AsyncIterator[tuple[World, Any]]:
    """A dockscale with the app `bot` made of this page, and a client."""
    labels = {"startup_config.wait_for_service": service}
    told = {"app_id": "bot", "type": "window", "env": {"COLOUR": "red"}}
    async with serving(DockerEngine(only=real.label), host="0.0.0.0") as it, client(it) as api:
        await in_thread(lambda: build_app(real, runtime, {"index.html": page}, told, labels=labels, **more))
        await appears(it, "bot")
        yield it, api


def of_the_seed(name: str) -> str:
    """A page that the seed's text gives, byte for byte."""
    found = re.search(rf'^{name} = """(.*?)"""', SEED.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


async def test_the_seeds_ai_model_server_loads_its_model_and_answers(real: Real, runtime: str) -> None:
    async with running(real, runtime, of_the_seed("ai_model_source")) as (_, api):
        service = await api.get_service("default@bot")

        stats = await service.get_model_stats()
        told = await service.predict("rain?")
        batch = await service.batch_predict(["one", "two"])

        assert stats["loaded"] is True
        assert told["prediction"] == "AI prediction for: rain?"
        assert (batch["batch_size"], batch["processed_by"]) == (2, stats["model_id"])


async def test_the_seeds_fastapi_app_answers_over_http(real: Real, runtime: str) -> None:
    page, wanted = of_the_seed("fastapi_app_source"), ["fastapi==0.104.1", "uvicorn"]
    async with running(real, runtime, page, service="fastapi-service", requirements=wanted) as (it, _):
        url = f"{it.base}/public/apps/bot"

        async with it.session.get(f"{url}/api/status") as answer:
            status = await answer.json()
        async with it.session.post(f"{url}/api/process", json={"data": "x"}) as answer:
            processed = await answer.json()
        async with it.session.get(f"{url}/") as answer:
            home = await answer.text()

        assert (status["status"], status["requests_processed"]) == ("healthy", 1)
        assert processed["processed_by"] == status["instance_id"]
        assert processed["input"] == {"data": "x"}
        assert status["instance_id"] in home


async def test_a_page_runs_its_scripts_and_has_what_pages_use(real: Real, runtime: str) -> None:
    async with running(real, runtime, PAGE) as (it, api):
        told = await (await api.get_service("default@bot")).told()

        assert told[:3] == ["what ran before is kept", True, "red"]
        assert told[3].endswith(f":{it.dockscale.main_port}")


async def test_pieces_of_python_share_one_namespace_and_give_their_values(real: Real, runtime: str) -> None:
    async with running(real, runtime, HEAD + PYTHON + SPEAKS_PYTHON + TAIL) as (_, api):
        assert await (await api.get_service("default@bot")).told() == [3, [[1, 2, 3], True]]


async def test_an_instance_whose_python_dies_ends(real: Real, runtime: str) -> None:
    async with running(real, runtime, HEAD + PYTHON + SPEAKS_PYTHON + TAIL) as (it, api):
        service = await api.get_service("default@bot")

        with pytest.raises(Exception, match=r"ConnectionError: the instance bot-1-.* left"):
            await service.die()

        await until(lambda: it.app("bot").stats.deaths == 1)


@pytest.mark.parametrize("what", FAILING)
async def test_a_page_that_fails_says_why_and_where(real: Real, runtime: str, what: str) -> None:
    page, words = FAILING[what]
    async with running(real, runtime, page) as (_, api):
        with pytest.raises(Exception, match=f"its container is exited; it wrote: .*{words}"):
            await api.get_service("default@bot")


async def test_an_instance_ends_at_once_when_it_is_told_to(real: Real, runtime: str) -> None:
    async with running(real, runtime, HEAD + PYTHON + SPEAKS_PYTHON + TAIL) as (_, api):
        await api.get_service("default@bot")
    # Without a dockscale that would remove it.
    [box] = real.containers()

    await in_thread(lambda: box.kill("SIGTERM"))

    assert (await in_thread(lambda: box.wait(timeout=5)))["StatusCode"] == 0
