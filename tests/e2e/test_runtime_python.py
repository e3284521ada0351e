"""Programs in Python on their runtime image, in real containers: each type, each way to connect, each failure."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from textwrap import dedent
from typing import Any

import pytest

from dockscale.engine.docker import DockerEngine
from tests.support.real import Real, in_thread
from tests.support.runtimes import build_app, built
from tests.support.worker import client
from tests.support.world import World, appears, serving, until

pytestmark = pytest.mark.engine


TYPES = {"python", "web-python", "asgi", "functions"}


@asynccontextmanager
async def program(
    real: Real, kind: str, source: str, *, requirements: tuple[str, ...] = (), **env: str
) -> AsyncIterator[tuple[World, Any]]:
    """A dockscale with one app `bot` that is this program, and a client."""
    manifest = {"app_id": "bot", "type": kind, "env": env}
    labels = {"startup_config.timeout": "20"}
    async with serving(DockerEngine(only=real.label), host="0.0.0.0") as it, client(it) as api:
        await in_thread(
            lambda: build_app(
                real, built("python"), {"main.py": dedent(source)}, manifest, labels=labels, requirements=requirements
            )
        )
        await appears(it, "bot")
        yield it, api


async def called(api: Any, *args: Any, function: str = "hello") -> Any:
    service = await api.get_service("default@bot")
    return await service[function](*args)


def told_to_end(real: Real) -> tuple[int, str]:
    """Tell the one container to end; its exit code, and what it wrote. No dockscale may be there to remove it."""
    [box] = real.containers()
    box.kill("SIGTERM")
    return box.wait(timeout=10)["StatusCode"], box.logs().decode()


CONNECTS = {
    "it awaits at its top": """
        from hypha_rpc import connect_to_server
        server = await connect_to_server({"server_url": "http://localhost:9527"})
        await server.register_service({"id": "default", "hello": lambda name: f"Hello {name}"})
    """,
    "it has a main that returns": """
        import asyncio
        from hypha_rpc import connect_to_server

        async def main():
            async with connect_to_server(server_url="ws://127.0.0.1:9527") as server:
                await server.register_service({"id": "default", "hello": lambda name: f"Hello {name}"})

        if __name__ == "__main__":
            asyncio.run(main())
    """,
    "it has a main that serves": """
        import asyncio, os
        from hypha_rpc import connect_to_server

        async def main():
            server = await connect_to_server({"server_url": os.environ["HYPHA_SERVER_URL"]})
            await server.register_service({"id": "default", "hello": lambda name: f"Hello {name}"})
            await server.serve()

        def start():
            asyncio.run(main())

        start()
    """,
    "it awaits at its top and has a main": """
        import asyncio
        from hypha_rpc import connect_to_server
        server = await connect_to_server()

        async def main():
            async def hello(name):
                await asyncio.sleep(0.01)
                return f"Hello {name}"
            await server.register_service({"id": "default", "hello": hello})

        if __name__ == "__main__":
            asyncio.run(main())
    """,
    "it begins a task at its top": """
        import asyncio
        from hypha_rpc import connect_to_server
        await asyncio.sleep(0)

        async def main():
            server = await connect_to_server()
            await asyncio.sleep(0.05)
            await server.register_service({"id": "default", "hello": lambda name: f"Hello {name}"})

        asyncio.create_task(main())
    """,
    "it waits for everything": """
        from hypha_rpc import connect_to_server_sync
        server = connect_to_server_sync({"server_url": "http://localhost:9527"})
        server.register_service({"id": "default", "hello": lambda name: f"Hello {name}"})
    """,
    "it works in a thread": """
        import threading, time
        from hypha_rpc.sync import connect_to_server

        def work():
            time.sleep(0.1)
            server = connect_to_server()
            server.register_service({"id": "default", "hello": lambda name: f"Hello {name}"})

        threading.Thread(target=work).start()
    """,
    "it exports a map": """
        from hypha_rpc import api
        api.export({"hello": lambda name: f"Hello {name}"})
    """,
    "it exports a map in its event loop": """
        import asyncio
        from hypha_rpc import api
        await asyncio.sleep(0)
        api.export({"hello": lambda name: f"Hello {name}"})
        await asyncio.Event().wait()
    """,
    "it exports a class": """
        from hypha_rpc import api

        class Greeter:
            def __init__(self):
                self.greeting = "Hello"

            async def hello(self, name):
                return f"{self.greeting} {name}"

        api.export(Greeter)
    """,
    "it exports a class in its main": """
        import asyncio
        from hypha_rpc import api

        class Greeter:
            def hello(self, name):
                return f"Hello {name}"

        async def main():
            api.export(Greeter, {"visibility": "public"})

        asyncio.run(main())
    """,
}


@pytest.mark.parametrize("source", CONNECTS.values(), ids=CONNECTS)
async def test_a_program_serves_in_whatever_way_it_connects(real: Real, source: str) -> None:
    async with program(real, "python", source) as (it, api):
        assert await called(api, "Ada") == "Hello Ada"
        [instance] = it.app("bot").pool.instances.values()
        assert (await api.get_service_info(f"{instance.client_id}:default"))["app_id"] == "bot"


@pytest.mark.parametrize("kind", ["web-python", "functions"])
async def test_what_a_program_exports_may_use_what_it_defines_later(real: Real, kind: str) -> None:
    source = """
        from hypha_rpc import api

        def setup():
            greeting()

        api.export({"setup": setup, "hello": lambda name: f"{greeting()} {name}"})

        def greeting():
            return "Hello"
    """
    async with program(real, kind, source) as (_, api):
        assert await called(api, "Ada") == "Hello Ada"


async def test_all_of_a_program_shares_one_connection(real: Real) -> None:
    source = """
        import asyncio, os
        from hypha_rpc import api, connect_to_server, get_remote_service

        async def who():
            return [
                (await connect_to_server({"server_url": "ws://localhost"})).config["client_id"],
                (await (await get_remote_service(f"http://localhost:9527/public/services/{me}:other")).tell()),
                (await (await api.get_service("other")).tell()),
                (await connect_to_server({"server_url": "ws://localhost", "client_id": "mine"})).config["client_id"],
            ]

        async with connect_to_server({"name": "first"}) as first:
            me = first.config["client_id"]
            await first.register_service({"id": "other", "tell": lambda: os.environ["COLOUR"]})
        await asyncio.gather(*(connect_to_server() for _ in range(5)))
        api.export({"who": who})
    """
    async with program(real, "python", source, COLOUR="red") as (it, api):
        told = await called(api, function="who")

        [instance] = it.app("bot").pool.instances.values()
        assert told == [instance.client_id, "red", "red", "mine"]


async def test_a_model_is_sent_as_one(real: Real) -> None:
    source = """
        from hypha_rpc import api
        from pydantic import BaseModel

        class Point(BaseModel):
            x: int

        api.export({"point": lambda: Point(x=3)})
    """
    async with program(real, "python", source) as (_, api):
        assert dict(await called(api, function="point"))["x"] == 3


ASGI = """
    import os
    from contextlib import asynccontextmanager

    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse
    from hypha_rpc import api

    @asynccontextmanager
    async def life(app):
        print("starting up", flush=True)
        yield {"ready": "yes"}
        print("shutting down", flush=True)

    app = FastAPI(lifespan=life)

    @app.get("/hello/{name}")
    async def hello(request: Request, name: str, loud: bool = False):
        return {"hello": name, "ready": request.state.ready, "loud": loud, "own": (await api.echo("echo"))}

    @app.post("/size")
    async def size(request: Request):
        return {"size": len(await request.body())}

    @app.get("/stream")
    def stream():
        return StreamingResponse((f"{n} " for n in range(3)), media_type="text/plain")

    @app.get("/fail")
    def fail():
        raise ValueError("as asked")

    if __name__ == "__main__":
        raise RuntimeError("it is loaded as a module")
"""


async def test_an_asgi_application_answers_under_its_path_and_ends_well(real: Real) -> None:
    async with program(real, "asgi", ASGI) as (it, _):
        base = f"{it.base}/public/apps/bot"
        async with it.session.get(f"{base}/hello/Ada?loud=1") as answer:
            assert await answer.json() == {"hello": "Ada", "ready": "yes", "loud": True, "own": "echo"}
        async with it.session.post(f"{base}/size", data=b"x" * 700_000) as answer:
            assert await answer.json() == {"size": 700_000}
        async with it.session.get(f"{base}/stream") as answer:
            assert await answer.text() == "0 1 2 "
        async with it.session.get(f"{base}/fail") as answer:
            assert answer.status == 500
        async with it.session.get(f"{base}/openapi.json") as answer:
            assert "/hello/{name}" in (await answer.json())["paths"]

    code, written = await in_thread(lambda: told_to_end(real))

    assert code == 0
    assert "starting up" in written
    assert "shutting down" in written
    assert written.count("ValueError: as asked") == 1
    assert "/runtime/" not in written


async def test_an_application_that_knows_no_lifespan_is_well_too(real: Real) -> None:
    source = """
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"well"})
    """
    async with program(real, "asgi", source) as (it, _), it.session.get(f"{it.base}/public/apps/bot/") as answer:
        assert await answer.text() == "well"


EVENT = """
    import json

    async def {name}(event):
        body = json.dumps({{"path": event["path"], "body": (event["body"] or b"").decode()}})
        return {{"status": 201, "headers": {{"Content-Type": "application/json"}}, "body": body}}

    def _helper(event):
        raise RuntimeError("not served")
"""
EXPORTED = """
    from hypha_rpc import api
    api.export({"process-data": hello, "nested": {"index": hello}})
"""


@pytest.mark.parametrize(
    ("source", "paths"),
    [(EVENT.format(name="hello"), ["hello"]), (EVENT.format(name="hello") + EXPORTED, ["process-data", "nested"])],
    ids=["public ones", "exported ones"],
)
async def test_functions_answer_requests(real: Real, source: str, paths: list[str]) -> None:
    async with program(real, "functions", source) as (it, _):
        for path in paths:
            async with it.session.post(f"{it.base}/public/apps/bot/{path}", data=b"x") as answer:
                assert (answer.status, await answer.json()) == (201, {"path": f"/{path}", "body": "x"})
        async with it.session.get(f"{it.base}/public/apps/bot/_helper") as answer:
            assert answer.status == 404


FAILURES = {
    "a syntax error": (
        "python",
        """
        x = 1
        def f(:
            pass
        """,
        ['  File "/app/main.py", line 3', "    def f(:", "SyntaxError: invalid syntax"],
    ),
    "an exception at its top": (
        "python",
        """
        import json
        def f():
            json.loads("{")
        f()
        """,
        ['  File "/app/main.py", line 5, in <module>', '  File "/app/main.py", line 4, in f', "JSONDecodeError"],
    ),
    "an exception in its main": (
        "python",
        """
        import asyncio
        from hypha_rpc import connect_to_server
        async def main():
            await connect_to_server()
            raise ValueError("in main")
        asyncio.run(main())
        """,
        ['  File "/app/main.py", line 7, in <module>', '  File "/app/main.py", line 6, in main', "ValueError: in main"],
    ),
    "an exception in a task": (
        "web-python",
        """
        import asyncio
        async def main():
            raise ValueError("in a task")
        await asyncio.sleep(0)
        asyncio.create_task(main())
        await asyncio.Event().wait()
        """,
        ['  File "/app/main.py", line 4, in main', "ValueError: in a task"],
    ),
    "an exception in a task that is kept": (
        "web-python",
        """
        import asyncio
        async def main():
            raise ValueError("in a task")
        await asyncio.sleep(0)
        kept = asyncio.create_task(main())
        """,
        ['  File "/app/main.py", line 4, in main', "ValueError: in a task"],
    ),
    "a missing module": (
        "python",
        "import not_there.at_all",
        [
            '  File "/app/main.py", line 1, in <module>',
            "ModuleNotFoundError: No module named 'not_there'",
            "Is it in a package? Add that to `requirements`.",
        ],
    ),
    "nothing registered": (
        "python",
        "print('done')",
        ["main.py ended without registering a service: call api.export"],
    ),
    "connected, and nothing registered": (
        "python",
        "from hypha_rpc import connect_to_server\nserver = await connect_to_server()",
        ["main.py ended without registering a service: call api.export"],
    ),
    "a setup that fails": (
        "python",
        """
        from hypha_rpc import api
        def load():
            raise ValueError("no model")
        async def setup():
            load()
        api.export({"setup": setup})
        """,
        ['  File "/app/main.py", line 6, in setup', '  File "/app/main.py", line 4, in load', "ValueError: no model"],
    ),
    "a setup that fails of a service registered by hand": (
        "python",
        """
        import asyncio
        from hypha_rpc import connect_to_server
        def setup():
            raise ValueError("no model")
        async def main():
            server = await connect_to_server()
            await server.register_service({"id": "default", "setup": setup})
        asyncio.run(main())
        """,
        ['  File "/app/main.py", line 5, in setup', "ValueError: no model"],
    ),
    "no application": ("asgi", "application = 1", ["main.py defines no `app`"]),
    "a start-up that fails": (
        "asgi",
        """
        from contextlib import asynccontextmanager
        from fastapi import FastAPI
        @asynccontextmanager
        async def life(app):
            raise ValueError("no database")
            yield
        app = FastAPI(lifespan=life)
        """,
        ['  File "/app/main.py", line 6, in life', "ValueError: no database"],
    ),
    "no functions": ("functions", "def _hidden(event): pass", ["main.py has no functions to serve"]),
}


@pytest.mark.parametrize(("kind", "source", "told"), FAILURES.values(), ids=FAILURES)
async def test_a_program_that_fails_says_where_in_its_own_lines(
    real: Real, kind: str, source: str, told: list[str]
) -> None:
    async with program(real, kind, source) as (it, api):
        with pytest.raises(Exception, match="StartFailed"):
            await api.get_service("default@bot")

        failure = it.app("bot").failure
        print(failure)
        assert [each for each in told if each not in failure] == []
        assert "/runtime/" not in failure
        assert "site-packages" not in failure


async def test_an_exception_in_a_task_leaves_a_program_that_serves(real: Real) -> None:
    source = """
        import asyncio
        from hypha_rpc import api

        async def fails():
            raise ValueError("by the way")

        async def begin():
            asyncio.create_task(fails())

        async def main():
            await api.export({"begin": begin})

        asyncio.run(main())
    """
    async with program(real, "python", source) as (it, api):
        await called(api, function="begin")
        await called(api, function="begin")

        [box] = real.containers()
        await until(lambda: b"ValueError: by the way" in box.logs())
        assert it.states("bot") == {"ready": 1}


async def test_a_program_outlives_dockscale_and_serves_the_next_one(real: Real) -> None:
    async with program(real, "web-python", CONNECTS["it exports a class"]) as (it, api):
        assert await called(api, "Ada") == "Hello Ada"
        port, running = it.dockscale.main_port, real.running()
    async with serving(DockerEngine(only=real.label), host="0.0.0.0", port=port) as it, client(it) as api:
        await appears(it, "bot")
        await until(lambda: it.ready("bot") == 1, "it is back")

        assert await called(api, "Ada") == "Hello Ada"
        assert real.running() == running


@pytest.mark.parametrize("own", [False, True], ids=["without a handler", "with its own handler"])
async def test_it_ends_at_once_when_it_is_told_to(real: Real, own: bool) -> None:
    handler = 'signal.signal(signal.SIGTERM, lambda *_: (print("told to end"), sys.exit(7)))'
    source = f"""
        import signal, sys
        from hypha_rpc.sync import connect_to_server
        {handler if own else ""}
        server = connect_to_server()
        server.register_service({{"id": "default", "hello": lambda name: f"Hello {{name}}"}})
    """
    async with program(real, "python", source) as (_, api):
        await called(api, "Ada")

    code, written = await in_thread(lambda: told_to_end(real))

    assert (code, "told to end" in written) == ((7, True) if own else (0, False))


async def test_requirements_are_installed_into_the_image(real: Real) -> None:
    source = """
        import sortedcontainers
        from hypha_rpc import api
        api.export({"where": lambda: sortedcontainers.__version__})
    """
    async with program(real, "python", source, requirements=("sortedcontainers==2.4.0",)) as (_, api):
        assert await called(api, function="where") == "2.4.0"


def test_the_image_has_all_that_its_packages_need_but_what_is_left_out(real: Real) -> None:
    run = real.client.containers.run

    told = run(built("python"), ["sh", "-c", "pip check 2>&1 || true"], remove=True, labels=real.labels).decode()

    assert {line.split()[3].strip(",") for line in told.splitlines() if "not installed" in line} == {"httpx", "numpy"}
    assert "has requirement" not in told
