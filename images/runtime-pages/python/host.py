"""CPython in the place of Pyodide: runs what a page sends, in one namespace, and answers. One line of JSON each."""

# ruff: noqa: E402  # what happens before modules are loaded is what makes it boot fast
import gc

gc.disable()
import sys

sys.path.insert(0, "/runtime/python")
import ast
import asyncio
import inspect
import json
import linecache
import os
import socket
import textwrap
import traceback

import micropip

sys.path.insert(0, micropip.FOLDER)
import dockscale_client

gc.freeze()
gc.enable()

CHANNEL = 3
RESULT = "__result__"
MOST_VALUE_BYTES = 2**16
OTHERWISE = "<exec>"

with open("/app/app.json") as file:
    ENTRY = json.load(file)["entry"]
with open(ENTRY) as file:
    PAGE = file.read()


class Host:
    def __init__(self, send):
        self._send = send
        self._globals = {"__name__": "__main__", "__builtins__": __builtins__}
        self._tasks = set()

    def take(self, asked):
        """Begin what is asked for; what comes first is begun first."""
        task = asyncio.ensure_future(self._answer(asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, asked):
        told = {"id": asked["id"]}
        try:
            if "install" in asked:
                await micropip.install(asked["install"])
            else:
                told["value"] = plain(await self._run(asked["code"]))
        except Exception as error:
            told["error"] = described(error)
        self._send(told | {"globals": self._plain_globals()})

    async def _run(self, code):
        compiled = compile_as_placed(code)
        result = eval(compiled, self._globals)  # noqa: S307  # running the page's own code is what this is for
        if inspect.iscoroutine(result):
            await result
        return self._globals.pop(RESULT, None)

    def _plain_globals(self):
        values = {name: plain(value) for name, value in self._globals.items() if not name.startswith("_")}
        return {name: value for name, value in values.items() if value is not None}


def compile_as_placed(code):
    """Compile code so that its lines are the page's, and that the value of a last expression is kept."""
    at = PAGE.find(code)
    name = ENTRY if at >= 0 else OTHERWISE
    lines_before = PAGE.count("\n", 0, at) if at >= 0 else 0
    tree = ast.parse("\n" * lines_before + textwrap.dedent(code), name)
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = tree.body[-1]
        kept = ast.Assign([ast.Name(RESULT, ast.Store())], last.value)
        tree.body[-1] = ast.fix_missing_locations(ast.copy_location(kept, last))
    return compile(tree, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def plain(value):
    """The value if JSON can carry it, else None."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None
    return value if len(text) <= MOST_VALUE_BYTES else None


def described(error):
    """An error as Python tells it, but only with the frames of the page."""
    linecache.checkcache()
    told = traceback.TracebackException.from_exception(error)
    each = told
    while each is not None:
        own = [
            frame for frame in each.stack if frame.filename in (ENTRY, OTHERWISE) or frame.filename.startswith("/app/")
        ]
        each.stack = traceback.StackSummary.from_list(own)
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return "".join(told.format()).rstrip()


async def main():
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=CHANNEL), limit=2**26)

    def send(told):
        writer.write(json.dumps(told).encode() + b"\n")

    def uncaught(_, context):
        error = context.get("exception")
        send({"uncaught": described(error) if error else context["message"]})

    asyncio.get_running_loop().set_exception_handler(uncaught)
    dockscale_client.when_registered(lambda: send({"ready": True}))
    host = Host(send)
    while line := await reader.readline():
        host.take(json.loads(line))
    os._exit(0)  # the page is gone


asyncio.run(main())
