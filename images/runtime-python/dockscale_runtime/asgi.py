"""An ASGI application as a service: its life, and its requests."""

import asyncio

from dockscale_runtime.failures import show

GOODBYE_S = 5.0
"""Within this an application must have shut down."""


class Lifespan:
    """An application's life, from its start-up to its shutdown. One that knows nothing of that is well, too."""

    def __init__(self, app):
        self.state = {}
        """What it has made ready for its requests."""
        self._app = app
        self._asked = asyncio.Queue()
        self._told = asyncio.Queue()

    async def start(self):
        """Start it up.

        Raises:
            Exception: it says that it cannot, and why.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._life = asyncio.ensure_future(self._app(scope, self._asked.get, self._told.put))
        told = await self._ask("lifespan.startup")
        if told is not None and told["type"] == "lifespan.startup.failed":
            await self._life
            raise RuntimeError(told.get("message") or "the application could not start up")
        if told is None and not self._life.cancelled():
            self._life.exception()  # it may say by an error that it knows nothing of this

    async def end(self):
        """Shut it down, if that can be done in time."""
        if self._life.done():
            return
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._ask("lifespan.shutdown")
                await self._life
        except Exception as error:
            show(error)

    async def _ask(self, event):
        """Return what it answers, or None if its life is over."""
        self._asked.put_nowait({"type": event})
        answer = asyncio.ensure_future(self._told.get())
        await asyncio.wait({self._life, answer}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        return None


def service(app, state):
    """The service whose requests an application answers."""

    async def serve(args):
        scope = dict(args["scope"])
        scope["headers"] = [tuple(pair) for pair in scope["headers"]]
        scope |= {name: tuple(scope[name]) for name in ("client", "server") if scope.get(name)}
        scope["state"] = dict(state)
        try:
            await app(scope, args["receive"], args["send"])
        except Exception as error:
            show(error)
            raise

    return {
        "id": "default",
        "type": "asgi",
        "config": {"visibility": "public", "require_context": False},
        "serve": serve,
    }
