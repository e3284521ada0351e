"""Each instance's life, from its start to its removal, one task for each. When it begins and ends is the scaler's."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol

import structlog

from dockscale import probe
from dockscale.core.app import App
from dockscale.core.catalog import Container
from dockscale.core.pool import Address, Clock, Instance, State
from dockscale.core.spec import ENABLE, INSTANCE_OF, LAST_DOWN, MANAGED, REVISION
from dockscale.engine import Engine, EngineAway, EngineError, NotFound

log = structlog.get_logger()

LOG_TAIL = 10
GOODBYE_S = 1.0
"""What sockets get to close by themselves after they were told that the instance leaves."""
WAKE_S = 5.0
"""Within this an instance that was unpaused must answer again; another one is started then."""
RECONNECT_S = 75.0
"""Within this an RPC client that has been without dockscale for long tries to connect again."""
LISTING_S = 300.0
"""No listing takes longer than this."""
_RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)

Source = Container | str | None
"""A running or paused container to adopt, the id of one to start, or None to copy the template."""


class Rpc(Protocol):
    """What instances of apps of type `rpc` need of whoever they connect to."""

    async def env(self, app: App, instance_name: str) -> Mapping[str, str]:
        """Return what a copy needs in its environment in order to connect. It may be started much later.

        Raises:
            EngineError: it cannot be found out where instances reach dockscale.
        """

    async def registered(self, app: App, instance: Instance) -> None:
        """Wait until the instance's client is connected and has registered `startup_config.wait_for_service`.

        That is so when this returns, and not only a moment before. It never gives up.
        """


class _StartFailed(Exception):
    pass


class _SpareFailed(Exception):
    pass


@dataclass(slots=True)
class Ahead:
    """A copy that is created before anybody wants it, and not started."""

    name: str
    revision: str
    container_id: str = ""
    """Empty until it is there."""


class Lives:
    """All lives. `tasks` owns them; cancelling it leaves the containers as they are, to be adopted.

    `decide` is called after each change that may call for a decision, `ended` when an instance is gone for good.
    """

    def __init__(
        self,
        engine: Engine,
        tasks: asyncio.TaskGroup,
        clock: Clock,
        decide: Callable[[App], object],
        ended: Callable[[App, Instance], object],
        *,
        network: str = "",
        parallel_starts: int = 4,
    ) -> None:
        self.rpc: Rpc | None = None
        """Who knows which instances of rpc apps are connected; it is told before the first app is found."""
        self.tended: set[str] = set()
        """Names of the containers that some life here will end."""
        self.ahead: dict[str, Ahead] = {}
        """By app: the copy that its next start can use."""
        self._left: dict[str, float] = {}
        """When lives ended, by their containers' ids."""
        self._engine = engine
        self._tasks = tasks
        self._clock = clock
        self._decide = decide
        self._ended = ended
        self._network = network
        self._starts = asyncio.Semaphore(parallel_starts)

    def begin(self, app: App, instance: Instance, source: Source) -> None:
        """Look after an instance, which is in the pool already, until it is gone."""
        self.tended.add(instance.name)
        self._tasks.create_task(self._tend(app, instance, source), name=f"instance {instance.name}")

    def knows(self, container: Container, began: float) -> bool:
        """Tell whether a life here will end a container, or has ended it since a listing was asked for at `began`."""
        return container.name in self.tended or self._left.get(container.id, -inf) >= began

    def discard(self, container: Container) -> None:
        """Stop and remove a copy that belongs to nobody: its app is gone, or it never got ready before a restart."""
        if container.name in self.tended:
            return
        self.tended.add(container.name)
        self._tasks.create_task(self._discard(container), name=f"discard {container.name}")

    def copy_ahead(self, app: App) -> None:
        """Create a copy for the next start, unless there is one; it waits for nobody."""
        if app.app_id not in self.ahead:
            ahead = Ahead(free_name(app), app.template.id)
            self.keep_ahead(app, ahead)
            self._tasks.create_task(self._copy_ahead(app, ahead), name=f"ahead {ahead.name}")

    def keep_ahead(self, app: App, ahead: Ahead) -> None:
        """Know a copy as the one that the app's next start can use."""
        self.tended.add(ahead.name)
        self.ahead[app.app_id] = ahead

    def take_ahead(self, app: App) -> Ahead | None:
        """Hand out the copy made ahead, if it is there and of the present template."""
        ahead = self.ahead.get(app.app_id)
        if ahead is None or not ahead.container_id or ahead.revision != app.template.id:
            return None
        return self.ahead.pop(app.app_id)

    def drop_ahead(self, app: App) -> None:
        """Remove the copy made ahead."""
        ahead = self.ahead.pop(app.app_id, None)
        if ahead is not None and ahead.container_id:
            self._tasks.create_task(self._drop(ahead.name, ahead.container_id), name=f"drop {ahead.name}")

    # One life.

    async def _tend(self, app: App, instance: Instance, source: Source) -> None:
        """Live one life; whatever goes wrong in it ends that life alone."""
        try:
            await self._live(app, instance, source)
        except Exception as error:
            log.exception("instance_lost_track", app=app.app_id, instance=instance.name)
            app.pool.drain(instance, "a bug in dockscale")
            if instance.ready_at is None:
                app.start_failed(f"{instance.name}: {error!r}", instance)
        self._leave(instance)
        app.pool.finish(instance)
        self._ended(app, instance)

    def _leave(self, instance: Instance) -> None:
        now = self._clock()
        self.tended.discard(instance.name)
        self._left = {left: at for left, at in self._left.items() if at > now - LISTING_S}
        self._left[instance.container_id] = now

    async def _live(self, app: App, instance: Instance, source: Source) -> None:
        """One instance, top to bottom. Only the end of dockscale itself interrupts this."""
        changed = asyncio.Event()
        instance.changed = changed.set
        while True:
            try:
                await self._serve(app, instance, source, changed)
            except _StartFailed as failure:
                await self._note_failure(app, instance, str(failure))
            except _SpareFailed as failure:
                self._note_spare_failure(app, instance, str(failure))
            await self._drained(app, instance, changed)
            if not instance.set_aside or instance.lost or not await self._aside(app, instance, changed):
                break
            source = instance.container_id
        if instance.lost and instance.ready_at is not None:
            await self._note_death(app, instance)
        await self._remove(
            instance.name,
            instance.container_id,
            managed=instance.managed,
            stop_timeout=app.spec.shutdown_config.stop_timeout,
            # A container that was made by hand is let be when dockscale has nothing to do with it any more, or when
            # it would be gone if it were stopped; then the next listing that shows it running lets it prove itself.
            runs=not instance.lost and not instance.pinned and (instance.managed or instance.frozen or not app.retired),
        )

    async def _serve(self, app: App, instance: Instance, source: Source, changed: asyncio.Event) -> None:
        """Start it and let it serve until it is told to go, by way of standby if that is where it is meant to be.

        Raises:
            _StartFailed: it did not get ready.
            _SpareFailed: it could not be paused, or was of no use after it.
        """
        address = await self._start(app, instance, source)
        became = "instance_adopted" if isinstance(source, Container) else "instance_ready"
        if not isinstance(source, Container):
            app.stats.cold_start.add(self._clock() - instance.started_at)
        while True:
            if instance.spare:
                await self._stand_by(app, instance, address, changed)
                became = "instance_unpaused"
            if instance.state is State.STARTING:
                app.started(instance)
                app.pool.ready(instance, address)
                after_s = round(self._clock() - instance.started_at, 3)
                log.info(became, app=app.app_id, instance=instance.name, after_s=after_s)
                self._decide(app)
            while instance.state is State.READY:
                changed.clear()
                await changed.wait()
            if instance.unplugged and await self._comes_back(app, instance, address):
                became = "instance_back"
                continue
            if instance.ejected:
                self._note_ejection(app, instance)
            if not instance.parks:
                return
            await self._drained(app, instance, changed)
            if instance.in_flight or instance.lost or app.retired or instance.revision != app.template.id:
                return
            instance.spare = True

    async def _comes_back(self, app: App, instance: Instance, address: Address) -> bool:
        """Let an unplugged instance prove itself anew, and tell whether it has; one that does not is ejected."""
        try:
            await self._prove(app, instance, address, app.spec.startup_config.timeout)
        except _StartFailed as failure:
            if instance.unplugged:  # else it leaves for another reason
                app.pool.eject(instance, f"its connection broke, and {failure}")
                self._decide(app)
            return False
        return True

    async def _start(self, app: App, instance: Instance, source: Source) -> Address:
        """Bring a container up and return where it answers.

        Raises:
            _StartFailed: with the reason, for people.
        """
        try:
            container = source if isinstance(source, Container) else await self._run(app, instance, source)
        except EngineAway as error:
            raise _StartFailed(str(error)) from error
        except EngineError as error:
            raise _StartFailed(f"the engine refused: {error}") from error
        address = (self.host_of(container), app.spec.port)
        reachable = bool(address[0]) or app.spec.speaks_rpc  # then it is the one who connects
        if container.state == "paused" and reachable:
            return address
        if not container.runs:
            raise _StartFailed(f"it exited at once (state {container.state})")
        if container.health == "unhealthy":
            raise _StartFailed("its HEALTHCHECK fails")
        if not reachable:
            raise _StartFailed(f"it has no address on network {self._network or '(any)'}")
        timeout = app.spec.startup_config.timeout
        if app.spec.speaks_rpc and isinstance(source, Container):
            timeout = max(timeout, RECONNECT_S)
        await self._prove(app, instance, address, timeout)
        return address

    async def _prove(self, app: App, instance: Instance, address: Address, timeout: float) -> None:
        """Wait until an instance can serve.

        Raises:
            _StartFailed: it could not within `timeout` seconds, or leaves.
        """
        notify = instance.changed
        try:
            async with asyncio.timeout(timeout) as bound:
                # Lost or told to go meanwhile: no reason to go on asking.
                instance.changed = lambda: _cut_short(bound) if _leaves(instance) else None
                if not _leaves(instance):
                    await self._can_serve(app, instance, address)
        except TimeoutError:
            if not _leaves(instance):
                raise _StartFailed(_not_proved(app, instance, timeout)) from None
        finally:
            instance.changed = notify
        if _leaves(instance):
            raise _StartFailed(instance.why)

    async def _can_serve(self, app: App, instance: Instance, address: Address) -> None:
        if app.spec.speaks_rpc:
            await self._hub.registered(app, instance)
        else:
            await probe.until_ready(*address, app.spec.startup_config.health_path)

    @property
    def _hub(self) -> Rpc:
        if self.rpc is None:
            raise _StartFailed("this dockscale has no RPC for its instances to connect to")
        return self.rpc

    async def _run(self, app: App, instance: Instance, container_id: str | None) -> Container:
        instance.container_id = container_id or ""
        async with self._starts:
            if _leaves(instance):
                raise _StartFailed(instance.why)
            if container_id is None:
                await self._copy(app, instance)
            try:
                await self._engine.start(instance.container_id)
            except NotFound:
                if container_id is None or not instance.managed or instance.revision != app.template.id:
                    raise
                # The copy made ahead was removed by hand.
                await self._copy(app, instance)
                await self._engine.start(instance.container_id)
            instance.acknowledged_at = self._clock()
            return await self._engine.inspect(instance.container_id)

    async def _copy(self, app: App, instance: Instance | Ahead) -> None:
        """Create the container of an instance, or of one to come, from the template as it is now.

        Raises:
            EngineError: the engine did not, or does not say where instances reach dockscale.
            _StartFailed: its instances need RPC, and there is none.
        """
        instance.revision = app.template.id
        labels = {ENABLE: "true", MANAGED: "true", INSTANCE_OF: app.app_id, REVISION: instance.revision}
        if app.memory.last_down is not None:
            labels[LAST_DOWN] = f"{time.time() - (self._clock() - app.memory.last_down):.0f}"
        env = await self._hub.env(app, instance.name) if app.spec.speaks_rpc else {}
        instance.container_id = await self._engine.clone(app.template, instance.name, labels, env)

    def host_of(self, container: Container) -> str:
        """Where a container is reached; empty if nowhere."""
        if self._network in container.addresses:
            return container.addresses[self._network]
        return next(iter(container.addresses.values()), "")

    async def _stand_by(self, app: App, instance: Instance, address: Address, changed: asyncio.Event) -> None:
        """Pause a proven instance until it is wanted; then let it prove itself anew.

        Raises:
            _SpareFailed: it could not be paused, or does not answer any more.
        """
        instance.frozen = True
        try:
            await self._engine.pause(instance.container_id)
            instance.acknowledged_at = self._clock()
            if app.retired:
                instance.parks = False
                app.pool.drain(instance, "the app was removed")
            if instance.spare and not _leaves(instance):
                app.pool.park(instance)
                app.parked()
                log.info("instance_parked", app=app.app_id, instance=instance.name)
                self._decide(app)
            while instance.spare and not _leaves(instance):
                changed.clear()
                await changed.wait()
            if instance.lost:
                raise _SpareFailed(instance.why)
            if _leaves(instance):
                return
            await self._engine.unpause(instance.container_id)
            instance.acknowledged_at = self._clock()
            instance.frozen = False
            await self._prove(app, instance, address, min(WAKE_S, app.spec.startup_config.timeout))
            app.stats.standby_start.add(self._clock() - instance.started_at)
        except (EngineError, _StartFailed) as error:
            raise _SpareFailed(str(error)) from error

    async def _drained(self, app: App, instance: Instance, changed: asyncio.Event) -> None:
        """Wait until nothing is in flight; when the bound has passed, tell open sockets and wait a little more."""
        for bound in (app.spec.shutdown_config.drain_timeout, GOODBYE_S):
            try:
                async with asyncio.timeout(bound):
                    while instance.in_flight and not instance.lost:
                        changed.clear()
                        await changed.wait()
                return
            except TimeoutError:
                for goodbye in list(instance.goodbyes):
                    goodbye()
        log.warning("drain_timed_out", app=app.app_id, instance=instance.name, in_flight=instance.in_flight)

    async def _aside(self, app: App, instance: Instance, changed: asyncio.Event) -> bool:
        """Make room for an instance of a newer template; tell whether this one is wanted back."""
        try:
            await self._engine.stop(instance.container_id, app.spec.shutdown_config.stop_timeout)
        except EngineError as error:
            log.warning("set_aside_failed", app=app.app_id, instance=instance.name, error=str(error))
            return False
        instance.lost = False  # what a listing saw was this stop
        app.pool.finish(instance)
        app.aside.append(instance)
        self._ended(app, instance)
        while instance in app.aside:
            changed.clear()
            await changed.wait()
        return instance.state is not State.DRAINING

    async def _remove(self, name: str, container_id: str, *, managed: bool, stop_timeout: float, runs: bool) -> None:
        """Stop a container and, if it is a copy, remove it. Tried until it is done, however long the engine is away."""
        if not container_id:
            return
        for attempt in itertools.count():
            try:
                if runs:
                    await self._engine.stop(container_id, stop_timeout)
                if managed:
                    await self._engine.remove(container_id)
                return
            except NotFound:
                return
            except EngineError as error:
                pause = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
                log.warning("remove_failed", instance=name, error=str(error), retry_in_s=pause)
                await asyncio.sleep(pause)

    async def _discard(self, container: Container) -> None:
        log.info("leftover_removed", instance=container.name, state=container.state)
        try:
            runs = container.runs or container.state == "paused"
            await self._remove(container.name, container.id, managed=True, stop_timeout=10.0, runs=runs)
        finally:
            self.tended.discard(container.name)

    async def _copy_ahead(self, app: App, ahead: Ahead) -> None:
        try:
            await self._copy(app, ahead)
        except (EngineError, _StartFailed) as error:
            log.debug("copy_ahead_failed", app=app.app_id, error=str(error))
            if self.ahead.get(app.app_id) is ahead:
                del self.ahead[app.app_id]
        if self.ahead.get(app.app_id) is not ahead:  # nobody wants it any more
            await self._drop(ahead.name, ahead.container_id)

    async def _drop(self, name: str, container_id: str) -> None:
        try:
            await self._remove(name, container_id, managed=True, stop_timeout=0.0, runs=False)
        finally:
            self.tended.discard(name)

    # What is told of it.

    async def _note_failure(self, app: App, instance: Instance, why: str) -> None:
        if instance.state is State.DRAINING and not instance.lost:
            return  # it was told to go before it was ready: no failure
        lines = await self._last_lines(instance)
        story = f"{instance.name}: {why}" + (f"; it wrote: {' | '.join(lines)}" if lines else "")
        app.pool.drain(instance, why)
        app.start_failed(story, instance)
        log.error("start_failed", app=app.app_id, instance=instance.name, why=why, last_lines=lines)
        self._decide(app)

    def _note_spare_failure(self, app: App, instance: Instance, why: str) -> None:
        if instance.state is State.DRAINING and not instance.lost:
            return
        app.pool.drain(instance, why)
        app.spare_failed(instance)
        log.warning("standby_failed", app=app.app_id, instance=instance.name, why=why)
        self._decide(app)

    def _note_ejection(self, app: App, instance: Instance) -> None:
        app.stats.ejected += 1
        log.warning(
            "instance_ejected", app=app.app_id, instance=instance.name, why=instance.why, in_flight=instance.in_flight
        )

    async def _note_death(self, app: App, instance: Instance) -> None:
        app.stats.deaths += 1
        lines = await self._last_lines(instance)
        log.error("instance_died", app=app.app_id, instance=instance.name, why=instance.why, last_lines=lines)

    async def _last_lines(self, instance: Instance) -> tuple[str, ...]:
        try:
            return await self._engine.logs(instance.container_id, LOG_TAIL) if instance.container_id else ()
        except EngineError:
            return ()


def _not_proved(app: App, instance: Instance, timeout: float) -> str:
    """Say what an instance did not do in time."""
    startup = app.spec.startup_config
    within = f"within {timeout:g} s" + (" (startup_config.timeout)" if timeout == startup.timeout else "")
    if not app.spec.speaks_rpc:
        asked = f"answer {startup.health_path} with 2xx or 3xx" if startup.health_path else "accept a connection"
        return f"it did not {asked} on port {app.spec.port} {within}"
    by_hand = "" if instance.managed else "; made by hand, it needs the HYPHA_* variables that copies are given"
    service = f"the service {startup.wait_for_service!r}" if startup.wait_for_service else "a service"
    return f"it did not register {service} as client {instance.client_id!r} {within}{by_hand}"


def _leaves(instance: Instance) -> bool:
    return instance.lost or (instance.state is State.DRAINING and not instance.parks)


def _cut_short(bound: asyncio.Timeout) -> None:
    if not bound.expired():
        bound.reschedule(0.0)


def free_name(app: App) -> str:
    """Name a copy `<app>-<n>-<suffix>`: n is the lowest that is free, the suffix makes it unique for ever."""
    taken = {name.removeprefix(f"{app.app_id}-").partition("-")[0] for name in app.pool.instances}
    number = next(n for n in range(1, len(taken) + 2) if str(n) not in taken)
    return f"{app.app_id}-{number}-{secrets.token_hex(2)}"
