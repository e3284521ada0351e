"""A program: main.py, run in such a way that it may await at its top, call `asyncio.run`, or do neither."""

import ast
import asyncio
import inspect
import sys
import threading
import types
import weakref

from dockscale_runtime import client
from dockscale_runtime.failures import fail, is_own, show

KEEPS_CONNECTED = tuple(f"/hypha_rpc/{name}.py" for name in ("rpc", "websocket_client", "http_client"))
"""Ends of the files whose tasks keep a connection, and register nothing."""
NOTHING_REGISTERED = (
    "main.py ended without registering a service: call api.export({...}), "
    "or connect_to_server() and register_service({...})"
)
LOOK_S = 0.01


class _RunBecomesAwait(ast.NodeTransformer):
    """Make `asyncio.run(x)` at the top of a program that awaits there `await x`: its event loop runs already."""

    def visit_Call(self, node):
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="asyncio"), attr="run"), args=[main]):
                return ast.copy_location(ast.Await(main), node)
        return node

    def _leave(self, node):
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = _leave  # noqa: N815  # the names are ast's


def compiled(source, path):
    """Compile a program; the code gives a coroutine if it awaits at its top.

    Raises:
        SyntaxError: it cannot be.
    """
    options = {"flags": ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, "dont_inherit": True}
    code = compile(source, path, "exec", **options)
    if not awaits(code):
        return code
    tree = ast.parse(source, path)
    return compile(ast.fix_missing_locations(_RunBecomesAwait().visit(tree)), path, "exec", **options)


def awaits(code):
    return bool(code.co_flags & inspect.CO_COROUTINE)


def load(path, name):
    """Run a program as the module `name`, and return that when its end is reached."""
    module = types.ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module
    sys.argv = [path]
    with open(path, "rb") as file:
        code = compiled(file.read(), path)
    if awaits(code):
        asyncio.get_event_loop().run_until_complete(eval(code, vars(module)))  # noqa: S307  # it is what we are for
    else:
        exec(code, vars(module))  # noqa: S102  # likewise
    return module


class _Loop(asyncio.SelectorEventLoop):
    """The program's event loop: it knows the tasks, and tells of the program's errors, which hypha_rpc would not."""

    def __init__(self):
        super().__init__()
        self.tasks = weakref.WeakSet()

    def create_task(self, *args, **more):
        task = super().create_task(*args, **more)
        self.tasks.add(task)
        return task

    def call_exception_handler(self, context):
        """Tell of an error that nobody awaited. It ends the program only if that offers nothing yet."""
        error = context.get("exception")
        if error is None or not is_own(error):
            super().call_exception_handler(context)
        elif client.serves():
            show(error)
        else:
            fail(error)


def make_loop():
    """Make the program's event loop. It outlives `asyncio.run`, and with it the services registered there."""
    loop = _Loop()
    asyncio.set_event_loop(loop)
    run = asyncio.run

    def run_here(main, **options):
        ours = threading.current_thread() is threading.main_thread() and not loop.is_running()
        return loop.run_until_complete(main) if ours else run(main, **options)

    asyncio.run = run_here
    return loop


async def until_it_serves():
    """Wait until a service is registered; end the process when nothing is left that could."""
    tasks = asyncio.get_running_loop().tasks
    while not client.serves():
        if not any(map(_could_register, tasks)) and not any(map(_works, threading.enumerate())):
            errors = (task.exception() for task in tasks if task.done() and not task.cancelled())
            fail(next((error for error in errors if error and is_own(error)), NOTHING_REGISTERED))
        await asyncio.sleep(LOOK_S)


def _could_register(task):
    """Tell a task of the program's own from this one and those that keep a connection."""
    code = getattr(task.get_coro(), "cr_code", None)
    file = code.co_filename if code else ""
    is_ours = task is asyncio.current_task() or file.endswith(KEEPS_CONNECTED) or "/websockets/" in file
    return not task.done() and not is_ours


def _works(thread):
    waits = thread.daemon or thread is threading.main_thread() or thread.name.startswith(("ThreadPool", "asyncio_"))
    return not waits
