"""Programs as images: made on their runtime, and tried once before anybody can ask for them."""

import asyncio
import json
import random
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from dockscale.claim import claim
from dockscale.core.app import App, StartFailed
from dockscale.core.catalog import Image
from dockscale.core.manifest import Tell
from dockscale.core.pool import Clock, Instance, NoPlace
from dockscale.core.program import ABOUT, Program
from dockscale.core.spec import AppSpec
from dockscale.engine import Engine, EngineAway, EngineError
from dockscale.runtimes import Runtimes

SETTLED_S = 0.2
"""A program that has registered no more services for so long has registered what it has."""
PATIENCE_S = 30.0
"""What a trial waits for others that start, besides its own start."""
DEFAULT_SERVICE = "default"


class ProgramFailed(Exception):
    """The program, or what it requires, does not work. The message has what it wrote last."""


class Tender(Protocol):
    """Who looks after instances."""

    def tick(self, app: App) -> object: ...
    def retire(self, app: App) -> None: ...
    async def ended(self, app: App) -> None: ...


class Programs:
    """`trials` are looked after like apps, and `services` tells what an instance has registered."""

    def __init__(
        self, engine: Engine, tender: Tender, trials: set[App], clock: Clock, runtimes: Runtimes,
        services: Callable[[App, Instance], Collection[str]],
    ) -> None:  # fmt: skip
        self.runtimes = runtimes
        self._engine = engine
        self._tender = tender
        self._trials = trials
        self._clock = clock
        self._services = services

    async def make(self, program: Program, spec: AppSpec, labels: Mapping[str, str], tell: Tell) -> Image:
        """Make an image of a program. It has these labels, and no name yet.

        Raises:
            ProgramFailed: what it requires could not be installed.
            EngineError: the engine could not make it.
        """
        runtime = await self.runtimes.image(program.runtime, tell)
        if program.requirements:
            tell("info", f"installing {', '.join(program.requirements)}")
        about = json.dumps(_about(program, spec), sort_keys=True).encode()
        files = {f"app/{path}": content for path, content in {**program.files, ABOUT: about}.items()}
        recipe = "\n".join((f"FROM {runtime.id}", *_installing(program.requirements), "COPY app /app", ""))
        try:
            return await self._engine.make(recipe, files, labels=labels, args=self.runtimes.build_args)
        except EngineAway:
            raise
        except EngineError as error:
            if program.requirements:
                raise ProgramFailed(f"what {spec.app_id} requires could not be installed: {error}") from error
            raise

    async def prove(self, spec: AppSpec, image: Image, wanted: str) -> str:
        """Start a program once, apart from all apps, and return the service that it is ready with.

        That is `wanted`, or where nothing is, `default`, or else what it registers last.

        Raises:
            ProgramFailed: it ended, or did not register a service within `startup_config.timeout`.
        """
        app = App(_alone(spec, wanted), image, self._clock, random.randrange)
        self._trials.add(app)
        try:
            with await claim(app, self._tender.tick) as lease:
                return wanted or await self._settled(app, lease.instance)
        except BaseException as error:
            self._end(app)
            await self._tender.ended(app)  # so that nothing of it is left
            if not isinstance(error, NoPlace):
                raise
            does_not = "does not start" if isinstance(error, StartFailed) else "could not be tried"
            raise ProgramFailed(f"{spec.app_id} {does_not}: {error}") from None
        finally:
            self._end(app)

    def _end(self, app: App) -> None:
        self._tender.retire(app)
        self._trials.discard(app)

    async def _settled(self, app: App, instance: Instance) -> str:
        """The service to wait for, once the program has registered what it has."""
        has = [*self._services(app, instance)]
        while DEFAULT_SERVICE not in has:
            before = has
            await asyncio.sleep(SETTLED_S)
            has = [*self._services(app, instance)]
            if has and has == before:
                return has[-1]
        return DEFAULT_SERVICE


def _about(program: Program, spec: AppSpec) -> dict[str, Any]:
    """What a runtime is told of the app that it runs."""
    return {
        "type": spec.type, "name": spec.name, "app_id": spec.app_id, "version": spec.version,
        "entry": program.entry, "env": program.env,
    }  # fmt: skip


def _installing(requirements: Iterable[str]) -> Iterable[str]:
    """Steps of a recipe that install packages, before the program comes: while these are the same, they are kept."""
    if requirements:
        yield "ARG PIP_INDEX_URL"
        yield "USER 0:0"
        yield f"RUN {json.dumps(['/runtime/install', *requirements])}"
        yield "USER 10001:10001"


def _alone(spec: AppSpec, wanted: str) -> AppSpec:
    """The same app with one instance, whatever is asked for, and an id that no listing takes for the app's own."""
    startup = spec.startup_config.model_dump() | {"wait_for_service": wanted}
    alone = {"enabled": False, "queue_timeout": spec.startup_config.timeout + PATIENCE_S}
    other = {"app_id": f"{spec.app_id[:50]}--trial", "lazy": True, "autoscaling": alone, "startup_config": startup}
    # Nobody needs what a `setup` that hangs has in flight, nor that a program that hangs ends well.
    end = {"shutdown_config": {"drain_timeout": 0, "stop_timeout": 1}}
    return AppSpec.model_validate(spec.model_dump() | other | end)
