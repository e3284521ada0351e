"""The apps, kept equal to what the engine says: by listing it anew after each event, and now and then without one."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

import structlog

from dockscale.core.app import App
from dockscale.core.balance import Chance
from dockscale.core.catalog import Catalog, Container, Invalid, survey
from dockscale.core.pool import Clock
from dockscale.core.routes import Routes
from dockscale.core.spec import INSTANCE_OF
from dockscale.engine import Engine, EngineError, Event

log = structlog.get_logger()

RELIST_S = 30.0
RETRY_S = 1.0
LISTED_S = 1.0
"""How long at the most who asks waits for a listing that is due."""
SETTLE_S = 0.05
"""What changed, unlike what ended, may wait for what else changes: a listing takes time from those who are served."""
TICKS_AT_ONCE = 100
"""Apps that are looked at before those who are served have their turn: about 1 ms."""


class Tender(Protocol):
    """Who looks after instances."""

    def observe(self, app: App, members: Iterable[Container], began: float) -> None: ...
    def tick(self, app: App) -> object: ...
    def retire(self, app: App) -> None: ...
    def discard(self, container: Container) -> None: ...


class Registry:
    """What is known of the engine. Reads `apps`, `routes` and `invalid` are always consistent with each other."""

    def __init__(self, engine: Engine, tender: Tender, clock: Clock, chance: Chance, domain: str = "localhost") -> None:
        self.apps: dict[str, App] = {}
        self.invalid: tuple[Invalid, ...] = ()
        self.routes = Routes((), domain)
        self.trials: set[App] = set()
        """Apps that no listing shows and nobody can ask for; their instances are looked after like others."""
        self.engine_up = False
        self.synced = asyncio.Event()
        """Set once the engine has answered."""
        self.told: set[Callable[[], None]] = set()
        """Called after each listing, once all of it is followed."""
        self._engine = engine
        self._tender = tender
        self._clock = clock
        self._chance = chance
        self._domain = domain
        self._dirty = asyncio.Event()
        self._listing = asyncio.Lock()
        """Held from a listing's beginning until it is followed: none is followed after a newer one."""
        self._soon: asyncio.TimerHandle | None = None
        self._leaving: dict[str, App] = {}
        """Apps that are gone and still drain: if one comes back, what drains still counts."""

    async def run(self) -> None:
        """Follow the engine for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="engine-events")
            while True:
                try:
                    async with asyncio.timeout(RELIST_S):
                        await self._dirty.wait()
                except TimeoutError:
                    pass
                self._dirty.clear()
                try:
                    await self.refresh()
                except EngineError as error:
                    log.warning("list_failed", error=str(error), retry_in_s=RETRY_S)
                    await asyncio.sleep(RETRY_S)
                    self._dirty.set()

    async def refresh(self) -> None:
        """List the engine once and follow what it says.

        Raises:
            EngineError: the engine cannot be listed; nothing has changed then.
        """
        async with self._listing:
            began = self._clock()
            catalog = survey(await self._engine.list())
            await asyncio.sleep(0)
            self._follow(catalog, began)
            # All that runs is known before anything is started: the host's budget is one for all apps.
            for number, app in enumerate(list(self.apps.values())):
                if number % TICKS_AT_ONCE == 0:
                    await asyncio.sleep(0)
                self._tender.tick(app)
        self.synced.set()
        for tell in list(self.told):
            tell()

    async def caught_up(self) -> None:
        """Wait until no listing is due any more, `LISTED_S` at the most, and not at all while the engine is away."""
        listed = asyncio.Event()
        self.told.add(listed.set)
        try:
            async with asyncio.timeout(LISTED_S):
                while self.engine_up and self.is_due:
                    await listed.wait()
                    listed.clear()
        except TimeoutError:
            pass
        finally:
            self.told.discard(listed.set)

    @property
    def is_due(self) -> bool:
        """What is known may be out of date, and a listing is about to tell."""
        soon = self._soon is not None and self._soon.when() > asyncio.get_running_loop().time()
        return soon or self._dirty.is_set() or self._listing.locked() or not self.synced.is_set()

    async def _listen(self) -> None:
        told: bool | None = None
        async for event in self._engine.events():
            self.engine_up = event is not Event.AWAY
            if event is Event.CHANGED:
                self._list_soon()
            elif self.engine_up:
                self._dirty.set()
            if self.engine_up is not told:
                told = self.engine_up
                if told:
                    log.info("engine_up")
                else:
                    log.warning("engine_away", hint="traffic to running instances goes on; scaling waits")

    def _list_soon(self) -> None:
        if self._soon is None or self._soon.when() <= asyncio.get_running_loop().time():
            self._soon = asyncio.get_running_loop().call_later(SETTLE_S, self._dirty.set)

    def _follow(self, catalog: Catalog, began: float) -> None:
        for app_id in self.apps.keys() - catalog.apps.keys():
            log.info("app_removed", app=app_id)
            self._leaving[app_id] = self.apps.pop(app_id)
            self._tender.retire(self._leaving[app_id])
        self._leaving = {app_id: app for app_id, app in self._leaving.items() if app.pool.instances}
        for app_id, entry in catalog.apps.items():
            app = self.apps.get(app_id)
            if app is None:
                app = self._leaving.pop(app_id, None) or App(entry.spec, entry.template, self._clock, self._chance)
                app.retired = False
                app.follow(entry.spec, entry.template)
                self.apps[app_id] = app
                log.info("app_found", app=app_id, template=entry.template.name)
            else:
                if app.spec != entry.spec:
                    log.info("app_changed", app=app_id, template=entry.template.name)
                app.follow(entry.spec, entry.template)
        self.routes = Routes([app.spec for app in self.apps.values()], self._domain)
        self._tell_invalid(catalog.invalid)
        for app_id, entry in catalog.apps.items():
            self._tender.observe(self.apps[app_id], entry.members, began)
        for app in self.trials:
            self._tender.observe(app, [each for each in catalog.orphans if _is_of(each, app)], began)
        for container in catalog.orphans:
            if not any(_is_of(container, app) for app in self.trials):
                self._tender.discard(container)

    def _tell_invalid(self, invalid: tuple[Invalid, ...]) -> None:
        for refused in invalid:
            if refused not in self.invalid:
                log.error("app_invalid", source=refused.source, app=refused.app_id, problems=list(refused.problems))
        self.invalid = invalid

    def __repr__(self) -> str:
        return f"<Registry apps={len(self.apps)} invalid={len(self.invalid)} engine_up={self.engine_up}>"


def _is_of(copy: Container, app: App) -> bool:
    return copy.labels.get(INSTANCE_OF) == app.app_id
