"""What an app's instances write and how it is scaled, as it happens, for one reader."""

import asyncio
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, Self

from dockscale.core.app import App
from dockscale.core.pool import Instance
from dockscale.engine import Engine, EngineError
from dockscale.watch import LOOK_S, News, Watch

MOST_LINES = 10_000
"""Lines of one container's log that are read."""
MOST_UNREAD = 256
"""Lines that are kept for a reader who is slow; then the engine waits."""


class Follow:
    """The lines of an app's instances, those that come later too. A context manager: afterwards nothing is read.

    Of each instance the `tail` lines are told that it wrote before, and all of one that comes later. With `name`, it is
    that instance alone, until it is gone. `kind` is `log` or `scaling`; empty is both.
    """

    def __init__(self, watch: Watch, app: App, engine: Engine, name: str, kind: str, tail: int) -> None:
        self.ended = False
        """No more news will come."""
        self._watch = watch
        self._app = app
        self._engine = engine
        self._name = name
        self._kind = kind
        self._tail = tail
        self._unread: asyncio.Queue[News] = asyncio.Queue(MOST_UNREAD)
        self._readers: dict[Instance, asyncio.Task[None]] = {}
        self._decisions: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._watch.__enter__()
        self._join(self._tail)
        self._decisions = asyncio.create_task(self._tell_decisions(), name=f"decisions of {self._app.app_id}")
        return self

    def __exit__(self, *_: object) -> None:
        for task in (*self._readers.values(), self._decisions):
            if task is not None:
                task.cancel()
        self._watch.__exit__()

    async def news(self) -> list[News]:
        """Wait for lines, `LOOK_S` at most, and return them in the order in which they came."""
        self._join(MOST_LINES)
        told: list[News] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                told.append(await self._unread.get())
        while len(told) < MOST_UNREAD and not self._unread.empty():
            told.append(self._unread.get_nowait())
        gone = bool(self._name) and self._name not in self._app.pool.instances
        if (gone or self._watch.ended) and not (told or self.ended):
            self.ended = True
            told.append(("removed", {"app_id": self._app.app_id, "instance": self._name}))
        return told

    def end(self) -> None:
        """Let the reader go."""
        self.ended = True
        self._watch.end()

    def _join(self, tail: int) -> None:
        """Begin to read those that have a container and are not read yet."""
        for instance in self._app.pool if self._kind != "scaling" else ():
            if instance.container_id and self._name in ("", instance.name) and instance not in self._readers:
                reader = asyncio.create_task(self._read(instance, tail), name=f"lines of {instance.name}")
                reader.add_done_callback(partial(self._forget, instance))
                self._readers[instance] = reader

    def _forget(self, instance: Instance, _: asyncio.Task[None]) -> None:
        del self._readers[instance]

    async def _read(self, instance: Instance, tail: int) -> None:
        """Tell the lines of one instance until it is gone. What it writes while the engine is away is not told."""
        while True:
            with suppress(EngineError):
                async with aclosing(self._engine.follow(instance.container_id, tail)) as lines:
                    async for line in lines:
                        await self._put(type="log", instance=instance.name, content=line)
            if self._app.pool.instances.get(instance.name) is not instance:
                return
            tail = 0
            await asyncio.sleep(LOOK_S)

    async def _tell_decisions(self) -> None:
        while not self._watch.ended:
            for name, facts in await self._watch.news():
                if name == "decision" and self._kind != "log" and not self._name:
                    await self._put(type="scaling", at=facts["at"], content=facts["explanation"])

    async def _put(self, **facts: Any) -> None:
        await self._unread.put(("line", facts))
