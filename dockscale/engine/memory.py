"""Containers that are aiohttp servers in this process: an engine for tests, held to the same contract as Docker's.

Each container gets a loopback address of its own, so that all of them can listen on the port their image exposes.
"""

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from dockscale.core.catalog import Container, Image, Listing, Template
from dockscale.core.spec import ENABLE, MANAGED
from dockscale.engine import EngineAway, EngineError, Event, NotFound

# Processes that run at the same time begin at different places.
_addresses = (f"127.{64 + os.getpid() % 64}.{b}.{c}" for b in range(256) for c in range(1, 255))


@dataclass
class Program:
    """What an image runs. `serve` gets the container's name and returns the app that answers its requests."""

    serve: Callable[[str], web.Application]
    boot_s: float = 0.0
    """Seconds from start until the port accepts."""
    gate: asyncio.Event | None = None
    """If set, the port does not accept before this is set either."""
    exits: str | None = None
    """If set, the program writes this line and exits as soon as it is started."""
    start_s: float = 0.0
    """Seconds that the engine itself takes to start a container."""
    connects: Callable[[Mapping[str, str]], Coroutine[Any, Any, None]] | None = None
    """What it does besides, given its environment, until it is cancelled: for programs that connect to a server."""


@dataclass
class _Box:
    container: Container
    program: Program
    env: Mapping[str, str] = field(default_factory=dict)
    runner: web.AppRunner | None = None
    boot: asyncio.Task[None] | None = None
    work: asyncio.Task[None] | None = None
    end: asyncio.Task[None] | None = None
    binds: bool = False
    """It is about to listen: to cut that short would leave a socket behind."""
    log: list[str] = field(default_factory=list)
    runs: asyncio.Event = field(default_factory=asyncio.Event)
    """Not set while it is paused: connections are accepted then, as the kernel does, and nothing is answered."""


class MemoryEngine:
    """An `Engine` without containers. What tests do to it by hand (`add_image`, `crash`, `away`) tells events too."""

    def __init__(self) -> None:
        self.starts = 0
        self.pauses = 0
        self.away = False
        self.programs: dict[str, Program] = {}
        self.makes: Callable[[Mapping[str, bytes]], Program] | None = None
        """Says what an image runs that is made of files."""
        self._images: dict[str, Image] = {}
        self._boxes: dict[str, _Box] = {}
        self._listeners: list[asyncio.Queue[Event]] = []
        self._ids = itertools.count(1)

    def add_image(
        self,
        name: str,
        program: Program,
        labels: Mapping[str, str] | None = None,
        ports: tuple[int, ...] = (8000,),
    ) -> Image:
        """Add an image, or build it anew."""
        image = self._images[name] = self._image(name, program, labels or {}, ports)
        self._tell()
        return image

    def _image(self, name: str, program: Program, labels: Mapping[str, str], ports: tuple[int, ...]) -> Image:
        number = next(self._ids)
        image_id = f"sha256:{number:064x}"
        self.programs[image_id] = program
        return Image(image_id, name or image_id, dict(labels), float(number), ports)

    @property
    def unnamed(self) -> list[Image]:
        """Images that were made without a name, and not pruned."""
        return [image for image in self._images.values() if image.name == image.id]

    def remove_image(self, name: str) -> None:
        del self._images[name]
        self._tell()

    def add_container(
        self,
        name: str,
        image: str,
        labels: Mapping[str, str],
        *,
        env: Mapping[str, str] | None = None,
        auto_remove: bool = False,
        memory: int = 0,
    ) -> Container:
        """Create a container by hand, as `docker create` would."""
        if any(box.container.name == name for box in self._boxes.values()):
            raise EngineError(f"the name {name} is in use")
        source = self._images[image]
        number = next(self._ids)
        container = Container(
            id=f"{number:064x}",
            name=name,
            labels={**source.labels, **labels},
            created=float(number),
            image_id=source.id,
            ports=source.ports,
            auto_remove=auto_remove,
            memory=memory,
        )
        self._boxes[container.id] = _Box(container, self.programs[source.id], dict(env or {}))
        self._tell()
        return container

    def environment(self, container_id: str) -> Mapping[str, str]:
        """What a container's program would find in its environment."""
        return self._box(container_id).env

    def write(self, container_id: str, *lines: str) -> None:
        """Let a container's program write to its log."""
        self._box(container_id).log.extend(lines)

    async def crash(self, container_id: str, line: str = "killed") -> None:
        """End a container's program as `kill -9` would: connections break."""
        box = self._box(container_id)
        box.log.append(line)
        await self._halt(box)

    def drop_events(self) -> None:
        """Break the event connection once: listeners see `AWAY`, then `RESYNC`."""
        for listener in self._listeners:
            listener.put_nowait(Event.AWAY)
            listener.put_nowait(Event.RESYNC)

    # The engine's verbs.

    async def list(self) -> Listing:
        self._answer()
        labelled = [
            box.container
            for box in self._boxes.values()
            if ENABLE in box.container.labels or MANAGED in box.container.labels
        ]
        return Listing(
            tuple(labelled), tuple(i for i in self._images.values() if ENABLE in i.labels and i.name != i.id)
        )

    async def inspect(self, container_id: str) -> Container:
        self._answer()
        return self._box(container_id).container

    async def clone(self, template: Template, name: str, labels: Mapping[str, str], env: Mapping[str, str]) -> str:
        self._answer()
        if isinstance(template, Image):
            image = next((image for image in self._images.values() if image.id == template.id), None)
            if image is None:
                raise NotFound(f"no image {template.name}")
            return self.add_container(name, image.name, labels, env=env).id
        source = self._box(template.id)
        origin = source.container
        own = {key: value for key, value in origin.labels.items() if not key.startswith("com.docker.compose.")}
        number = next(self._ids)
        copy = replace(
            origin,
            id=f"{number:064x}",
            name=name,
            labels={**own, **labels},
            state="created",
            created=float(number),
            addresses={},
            auto_remove=False,
        )
        self._boxes[copy.id] = _Box(copy, source.program, {**source.env, **env})
        self._tell()
        return copy.id

    async def start(self, container_id: str) -> None:
        self._answer()
        box = self._box(container_id)
        if box.container.runs:
            return
        self.starts += 1
        await asyncio.sleep(box.program.start_s)
        address = next(_addresses)
        box.runs.set()
        box.container = replace(box.container, state="running", addresses={"memory": address})
        self._tell()
        if box.program.exits is not None:
            box.log.append(box.program.exits)
            await self._halt(box)
        else:
            box.binds = False
            box.boot = asyncio.create_task(self._boot(box, address), name=f"boot {box.container.name}")

    async def stop(self, container_id: str, timeout: float) -> None:
        self._answer()
        await self._halt(self._box(container_id))

    async def pause(self, container_id: str) -> None:
        self._answer()
        box = self._box(container_id)
        if box.container.state == "paused":
            return
        if not box.container.runs:
            raise EngineError(f"container {box.container.name} is not running")
        self.pauses += 1
        box.runs.clear()
        box.container = replace(box.container, state="paused")
        self._tell()

    async def unpause(self, container_id: str) -> None:
        self._answer()
        box = self._box(container_id)
        if box.container.runs:
            return
        if box.container.state != "paused":
            raise EngineError(f"container {box.container.name} is not paused")
        box.runs.set()
        box.container = replace(box.container, state="running")
        self._tell()

    async def remove(self, container_id: str) -> None:
        self._answer()
        if container_id in self._boxes:
            await self._halt(self._boxes[container_id])
            self._boxes.pop(container_id, None)
            self._tell(Event.ENDED)

    async def logs(self, container_id: str, tail: int) -> tuple[str, ...]:
        self._answer()
        return tuple(self._box(container_id).log[-tail:])

    async def follow(self, container_id: str, tail: int) -> AsyncGenerator[str, None]:
        self._answer()
        box = self._box(container_id)
        told = max(0, len(box.log) - tail)
        while True:
            runs = box.container.runs and container_id in self._boxes
            for line in box.log[told:]:
                told += 1
                yield line
            if not runs:
                return
            await asyncio.sleep(0.005)

    async def find_image(self, name: str) -> Image:
        self._answer()
        for image in self._images.values():
            if name in (image.name, image.id):
                return image
        raise NotFound(f"no image {name}")

    async def pull(self, name: str) -> None:
        self._answer()
        raise EngineError(f"there is no registry to pull {name} from")

    async def build(self, base: Image, name: str, labels: Mapping[str, str]) -> None:
        self._answer()
        self.add_image(name, self.programs[base.id], {**base.labels, **labels}, base.ports)

    async def make(
        self,
        recipe: str,
        files: Mapping[str, bytes],
        *,
        name: str = "",
        labels: Mapping[str, str],
        args: Mapping[str, str],
    ) -> Image:
        self._answer()
        if self.makes is None:
            raise EngineError("no image can be made here")
        image = self._image(name, self.makes(files), labels, ())
        self._images[image.name] = image
        return image

    async def tag(self, image: Image, name: str) -> None:
        self._answer()
        self._images.pop(image.name, None)
        self._images[name] = replace(image, name=name)
        self._tell()

    async def untag(self, name: str) -> None:
        self._answer()
        if name in self._images:
            self.remove_image(name)

    async def prune(self, labels: Sequence[str]) -> None:
        self._answer()
        for image in self.unnamed:
            said = {*image.labels, *(f"{name}={value}" for name, value in image.labels.items())}
            if said.issuperset(labels):
                del self._images[image.id]

    async def gateway(self) -> str:
        self._answer()
        return "127.0.0.1"

    async def events(self) -> AsyncIterator[Event]:
        listener: asyncio.Queue[Event] = asyncio.Queue()
        self._listeners.append(listener)
        try:
            yield Event.RESYNC
            while True:
                yield await listener.get()
        finally:
            self._listeners.remove(listener)

    async def close(self) -> None:
        for box in self._boxes.values():
            await self._halt(box)
            if box.end is not None:
                await box.end

    # How it is done.

    def _answer(self) -> None:
        if self.away:
            raise EngineAway("the engine is away")

    def _box(self, container_id: str) -> _Box:
        try:
            return self._boxes[container_id]
        except KeyError:
            raise NotFound(f"no container {container_id[:12]}") from None

    def _tell(self, event: Event = Event.CHANGED) -> None:
        for listener in self._listeners:
            listener.put_nowait(event)

    async def _boot(self, box: _Box, address: str) -> None:
        await asyncio.sleep(box.program.boot_s)
        if box.program.gate is not None:
            await box.program.gate.wait()
        box.binds = True
        program = box.program.serve(box.container.name)
        program.middlewares.append(_frozen_until(box.runs))
        box.runner = web.AppRunner(program, access_log=None, shutdown_timeout=0)
        await box.runner.setup()
        if box.program.connects is not None:
            box.work = asyncio.create_task(box.program.connects(box.env), name=f"work {box.container.name}")
        for port in box.container.ports[:1]:  # a program of an app without a port listens nowhere
            await web.TCPSite(box.runner, address, port).start()

    async def _halt(self, box: _Box) -> None:
        if box.container.state not in ("running", "paused"):
            return
        box.container = replace(box.container, state="exited", addresses={})
        self._tell(Event.ENDED)
        # Whoever asked for it may go away meanwhile; the program ends nevertheless.
        box.end = asyncio.create_task(self._clear(box), name=f"end {box.container.name}")
        await asyncio.shield(box.end)

    async def _clear(self, box: _Box) -> None:
        if box.boot is not None:
            if not box.binds:
                box.boot.cancel()
            await asyncio.gather(box.boot, return_exceptions=True)
        if box.work is not None:
            box.work.cancel()
            await asyncio.gather(box.work, return_exceptions=True)
        if box.runner is not None:
            runner, box.runner = box.runner, None
            for site in list(runner.sites):
                await site.stop()
            for _ in range(3):  # what was accepted last becomes a connection
                await asyncio.sleep(0)
            for connection in runner.server.connections if runner.server else ():
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()


def _frozen_until(runs: asyncio.Event) -> Middleware:
    @web.middleware
    async def wait(request: web.Request, handler: Handler) -> web.StreamResponse:
        await runs.wait()
        return await handler(request)

    return wait
