"""An app's program, run by its type."""

import asyncio
import inspect
import json
import os
import signal

from dockscale_runtime import asgi, client, program
from dockscale_runtime.failures import FOLDER, fail


def run():
    """Run the program until the process ends."""
    with open(f"{FOLDER}app.json", encoding="utf-8") as file:
        app = json.load(file)
    os.environ.update(app.get("env") or {})
    kind = app["type"]
    loop = program.make_loop()
    client.export_by(kind, lambda error: client.serves() or fail(error))
    at_once = signal.getsignal(signal.SIGTERM)
    try:
        # An application is a module that others serve: `if __name__ == "__main__"` is where it would do so itself.
        module = program.load(f"{FOLDER}main.py", "main" if kind == "asgi" else "__main__")
        if kind == "asgi":
            loop.run_until_complete(_serve_application(module, at_once))
        elif kind == "functions":
            loop.run_until_complete(_serve_functions(module))
        loop.run_until_complete(program.until_it_serves())
    except Exception as error:
        fail(error)
    loop.run_forever()


async def _serve_functions(module):
    """Export what is public in a program that has exported nothing."""
    if client.api.get_registry() or client.serves():
        return
    functions = {name: each for name, each in vars(module).items() if inspect.isfunction(each)}
    own = {name: each for name, each in functions.items() if each.__module__ == module.__name__}
    public = {name: each for name, each in own.items() if not name.startswith("_")}
    if not public:
        fail("main.py has no functions to serve: call api.export({...}), or define some at its top")
    await client.api.export(public)


async def _serve_application(module, at_once):
    """Serve the application that a module defines, from its start-up to its shutdown."""
    application = getattr(module, "app", None)
    if not callable(application):
        fail("main.py defines no `app`: give your ASGI application this name, as in app = FastAPI()")
    life = asgi.Lifespan(application)
    await life.start()
    await client.api.register_service(asgi.service(application, life.state))
    told_to_end = asyncio.Event()
    if signal.getsignal(signal.SIGTERM) is at_once:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_end.set)
    await told_to_end.wait()
    await life.end()
    os._exit(0)
