"""A hub without sockets: callers and instances are played by the test, frame by frame."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack

from dockscale.core.app import App
from dockscale.core.catalog import Container
from dockscale.core.pool import Instance, State, client_id
from dockscale.core.spec import AppSpec, Autoscaling
from dockscale.hub.calls import Calls
from dockscale.hub.clients import Client
from dockscale.hub.hub import Hub
from dockscale.hub.services import Services
from dockscale.hub.tokens import Tokens, User
from dockscale.hub.wire import Message, body, read
from tests.support.clock import ManualClock

PARTS = "services.built-in.message_cache."
EVERY_S = 15.0


class Played:
    """A client that the test plays. `inbox` has what it was sent and has not dealt with."""

    def __init__(self, hub: Hub, client_id: str, workspace: str = "public", token: str = "") -> None:
        self._hub = hub
        self.inbox: list[Message] = []
        hello = {"client_id": client_id, "workspace": workspace, "token": token}
        self.client, _ = hub.connect(self, hello, "http://hub")

    # As the hub sees it.

    def send(self, frame: bytes) -> None:
        self.inbox.append(read(frame))

    def tell(self, said: dict[str, Any]) -> None: ...
    def throttle(self, sender: Any) -> None: ...
    def hold(self) -> None: ...
    def release(self) -> None: ...
    def close(self, code: int, why: str) -> None: ...
    async def answers(self) -> bool:
        return True

    # What it does.

    def post(self, to: str, method: str, *args: Any, session: str = "", **more: Any) -> None:
        self._hub.receive(self.client, frame(to, method, *args, session=session, **more))

    def call(self, to: str, method: str, *args: Any, every: float = EVERY_S) -> str:
        """Call a function; its session is returned."""
        session = uuid.uuid4().hex
        self.post(to, method, *args, session=session, promise="*", t=every)
        return session

    def answer(self, message: Message, value: Any = None, how: str = "resolve") -> None:
        self.post(message.header["from"], f"{message.session}.{how}", value)

    def beat(self, message: Message) -> None:
        self.post(message.header["from"], f"{message.session}.heartbeat")

    def send_parts(self, to: str, key: str, large: bytes) -> list[tuple[str, tuple[Any, ...]]]:
        """What is to be called, one after the other, in order to send `large` in two parts."""
        half = max(len(large) // 2, 200)
        return [
            (f"{PARTS}create", (key, True)),
            (f"{PARTS}set", (key, 0, large[:half], True)),
            (f"{PARTS}set", (key, 1, large[half:], True)),
            (f"{PARTS}process", (key, True)),
        ]

    def leave(self) -> None:
        self._hub.disconnect(self.client)

    def got(self, session: str) -> list[Message]:
        """What it heard of a call."""
        return [each for each in self.inbox if each.method.startswith(f"{session}.")]


def frame(to: str, method: str, *args: Any, session: str = "", **more: Any) -> bytes:
    header = {"type": "method", "from": "nobody", "to": to, "method": method}
    if session:
        header["session"] = session
    packed: bytes = msgpack.packb(header)
    return packed + body([*args], **more)


class Stage:
    """One rpc app, `bot`, and a hub."""

    def __init__(self, tasks: asyncio.TaskGroup, **autoscaling: Any) -> None:
        self.clock = ManualClock()
        spec = AppSpec(app_id="bot", type="rpc", port=0, autoscaling=Autoscaling(**autoscaling))
        self.app = App(spec, Container(id="v1", name="bot"), self.clock, lambda n: 0)
        self.apps = {"bot": self.app}
        self.tokens = Tokens(b"of tests, and long enough to be one", lambda: 0.0, "none")
        self.hub = Hub(Services(), self.tokens, "none", self.clock)
        self.calls = Calls(self.apps, self.hub, lambda _: None, self.clock, tasks)
        self.hub.connect_to(self, self.calls)

    # Who knows which clients are instances.

    def place_of(self, workspace: str, client_id: str, user: User) -> tuple[App, Instance] | None:
        instance = self.app.pool.instances.get(client_id.removesuffix("__rlb"))
        return (self.app, instance) if instance is not None else None

    def joined(self, client: Client) -> None: ...

    def left(self, client: Client) -> None:
        if client.place is not None:
            self.app.pool.unplug(client.place[1])

    # What happens.

    def caller(self, name: str, **more: Any) -> Played:
        return Played(self.hub, name, **more)

    def instance(self, name: str) -> Played:
        """Connect one, anew if it was there before."""
        if name not in self.app.pool.instances:
            self.app.pool.launch(Instance(name))
        played = Played(self.hub, client_id(name))
        self.app.pool.ready(self.app.pool.instances[name], ("", 0))
        return played

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.calls.sweep()

    @property
    def leases(self) -> int:
        """Those that the books know."""
        calls = {*self.calls.open.values(), *(parts.call for parts in self.calls.parts.values())}
        return sum(call.lease is not None for call in calls) + len(set(self.calls.generators.values()))

    @property
    def books(self) -> dict[str, int]:
        """All that is not empty."""
        calls, pool = self.calls, self.app.pool
        books = {
            "open": len(calls.open), "parts": len(calls.parts), "backs": len(calls.backs),
            "generators": len(calls.generators), "in flight": pool.in_flight, "waiting": pool.waiting,
        }  # fmt: skip
        return {name: count for name, count in books.items() if count}

    @property
    def ready(self) -> int:
        return self.app.pool.counts()[State.READY]


@asynccontextmanager
async def stage(**autoscaling: Any) -> AsyncIterator[Stage]:
    async with asyncio.TaskGroup() as tasks:
        it = Stage(tasks, **autoscaling)
        try:
            yield it
        finally:
            it.calls.close()
            it.app.retire()  # whoever waits is told
