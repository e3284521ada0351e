"""Ticks, wakes, and each instance's life from start to removal. Whether and why is decided in `core.policy`."""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from dockscale import probe
from dockscale.core.app import App
from dockscale.core.catalog import Container
from dockscale.core.policy import Decision, rollout, victims
from dockscale.core.pool import Address, Clock, Instance, State
from dockscale.core.spec import ENABLE, INSTANCE_OF, MANAGED, REVISION
from dockscale.engine import Engine, EngineError, NotFound

log = structlog.get_logger()

LOG_TAIL = 10
GOODBYE_S = 1.0
"""What sockets get to close by themselves after they were told that the instance leaves."""
_RETRY_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class _StartFailed(Exception):
    pass


class Scaler:
    """Carries out decisions. `tasks` owns every life; cancelling it leaves the containers running, to be adopted."""

    def __init__(
        self,
        engine: Engine,
        tasks: asyncio.TaskGroup,
        clock: Clock,
        *,
        network: str = "",
        parallel_starts: int = 4,
    ) -> None:
        self._engine = engine
        self._tasks = tasks
        self._clock = clock
        self._network = network
        self._starts = asyncio.Semaphore(parallel_starts)
        self._tended: set[str] = set()
        """Names of the containers that some life here will end."""
        self._rechecks: dict[str, asyncio.TimerHandle] = {}

    # What calls for a decision.

    async def run(self, apps: Callable[[], Iterable[App]], interval: float) -> None:
        """Look at every app each `interval` seconds, for ever. What rises does not wait for this."""
        try:
            while True:
                await asyncio.sleep(interval)
                for app in list(apps()):
                    self.tick(app)
        finally:
            for timer in self._rechecks.values():
                timer.cancel()

    def tick(self, app: App) -> Decision | None:
        """Decide about an app and act on it. Never waits: by the time it returns, the pool shows the decision."""
        if app.retired:
            return None
        decision = app.decide()
        leaving = victims(app.pool.candidates(), decision.stop, self._clock())
        for instance in leaving:
            self._drain(app, instance, decision.reason)
        for _ in range(decision.start):
            self._launch(app)
        if decision.changes:
            self._tell(app, decision, stopped=len(leaving))
        self._roll(app)
        self._recheck(app, decision)
        return decision

    def _recheck(self, app: App, decision: Decision) -> None:
        """Look again when what holds a scale-up back is over: load must not wait for the next tick."""
        timer = self._rechecks.pop(app.app_id, None)
        if timer is not None:
            timer.cancel()
        wait = decision.recheck_at - self._clock()
        if wait > 0:
            loop = asyncio.get_running_loop()
            self._rechecks[app.app_id] = loop.call_later(wait, self.tick, app)

    def _roll(self, app: App) -> None:
        step = rollout(app.spec, app.load(), app.memory, self._clock())
        for instance in app.stale()[: step.stop]:
            self._drain(app, instance, "rollout")
        for _ in range(step.start):
            self._launch(app)
        if step.start or step.stop:
            log.info("rollout", app=app.app_id, start=step.start, stop=step.stop)

    def _tell(self, app: App, decision: Decision, stopped: int) -> None:
        if decision.start:
            app.stats.scale_events["up"] += decision.start
        if stopped:
            app.stats.scale_events["down"] += stopped
        log.info(
            "scaled",
            app=app.app_id,
            before=decision.load.have,
            after=decision.instances,
            reason=str(decision.reason),
            held_by=[str(held) for held in decision.held_by],
            requests_per_minute=decision.load.requests,
            waiting=decision.load.waiting,
            gone=list(decision.gone),
        )

    # What the engine shows.

    def observe(self, app: App, members: Iterable[Container], began: float) -> None:
        """Bring an app's pool into line with a listing that was asked for at `began`."""
        # By id: a container may be given another name while it serves.
        seen = {container.id: container for container in members}
        known = {instance.container_id for instance in app.pool}
        for container in seen.values():
            if container.id in known or container.name in self._tended:
                continue
            if container.runs:
                self._adopt(app, container)
            elif container.managed and container.state != "removing":
                self.discard(container)
        for instance in list(app.pool):
            # A listing says nothing about what was started after it was asked for.
            if instance.acknowledged_at is None or began < instance.acknowledged_at:
                continue
            found = seen.get(instance.container_id)
            if found is None:
                app.pool.lose(instance, "its container was removed")
            elif not found.runs:
                app.pool.lose(instance, f"its container is {found.state}")
            elif instance.state is State.READY and self._host(found) != instance.address[0]:
                # Restarted in between: its old address may be another container's by now.
                app.pool.lose(instance, "its container has another address")
        self.tick(app)

    def retire(self, app: App) -> None:
        """End an app whose template is gone or refused: nobody gets a place any more, and its instances drain."""
        app.retire()
        for instance in app.pool.candidates():
            self._drain(app, instance, "the app was removed")

    def discard(self, container: Container) -> None:
        """Stop and remove a copy that belongs to nobody: its app is gone, or it never got ready before a restart."""
        if container.name in self._tended:
            return
        self._tended.add(container.name)
        self._tasks.create_task(self._discard(container), name=f"discard {container.name}")

    async def _discard(self, container: Container) -> None:
        log.info("leftover_removed", instance=container.name, state=container.state)
        try:
            await self._remove(container.name, container.id, managed=True, stop_timeout=10.0, runs=container.runs)
        finally:
            self._tended.discard(container.name)

    # The life of an instance.

    def _launch(self, app: App) -> None:
        template = app.template
        itself = (
            isinstance(template, Container)
            and template.state in ("created", "exited")
            and template.name not in app.pool.instances
            and template.name not in self._tended
        )
        if itself:
            assert isinstance(template, Container)
            instance = self._instance(template.name, template.id, managed=False, pinned=template.auto_remove)
        else:
            instance = self._instance(_free_name(app), template.id, managed=True, pinned=False)
        self._begin(app, instance, template.id if itself else None)

    def _adopt(self, app: App, container: Container) -> None:
        revision = container.labels.get(REVISION, container.id) if container.managed else container.id
        pinned = container.auto_remove and not container.managed
        instance = self._instance(container.name, revision, managed=container.managed, pinned=pinned)
        instance.container_id = container.id
        instance.acknowledged_at = self._clock()
        if container.managed:
            made = self._clock() - max(0.0, time.time() - container.created)
            last_up = app.memory.last_up
            app.memory = replace(app.memory, last_up=made if last_up is None else max(made, last_up))
        self._begin(app, instance, container)

    def _instance(self, name: str, revision: str, *, managed: bool, pinned: bool) -> Instance:
        return Instance(name, revision=revision, managed=managed, pinned=pinned, now=self._clock())

    def _begin(self, app: App, instance: Instance, source: Container | str | None) -> None:
        app.pool.launch(instance)
        self._tended.add(instance.name)
        self._tasks.create_task(self._tend(app, instance, source), name=f"instance {instance.name}")

    async def _tend(self, app: App, instance: Instance, source: Container | str | None) -> None:
        """Live one life; whatever goes wrong in it ends that life alone."""
        try:
            await self._live(app, instance, source)
        except Exception as error:
            log.exception("instance_lost_track", app=app.app_id, instance=instance.name)
            app.pool.drain(instance, "a bug in dockscale")
            if instance.ready_at is None:
                app.start_failed(f"{instance.name}: {error!r}")
        self._tended.discard(instance.name)
        app.pool.finish(instance)
        self.tick(app)

    async def _live(self, app: App, instance: Instance, source: Container | str | None) -> None:
        """One instance, top to bottom. `source`: a running container to adopt, the id of one to start, or None to copy.

        Only the end of dockscale itself interrupts this; then the container is left running, to be adopted.
        """
        changed = asyncio.Event()
        instance.changed = changed.set
        try:
            address = await self._start(app, instance, source)
            app.started()
            app.pool.ready(instance, address)
            self._note_ready(app, instance, adopted=isinstance(source, Container))
            self.tick(app)
            while instance.state is not State.DRAINING:
                changed.clear()
                await changed.wait()
            if instance.ejected:
                self._note_ejection(app, instance)
        except _StartFailed as failure:
            await self._note_failure(app, instance, str(failure))
        await self._drained(app, instance, changed)
        if instance.lost and instance.ready_at is not None:
            await self._note_death(app, instance)
        await self._remove(
            instance.name,
            instance.container_id,
            managed=instance.managed,
            stop_timeout=app.spec.shutdown_config.stop_timeout,
            # A container that was made by hand is let be when dockscale has nothing to do with it any more, or when
            # it would be gone if it were stopped; then the next listing that shows it running lets it prove itself.
            runs=not instance.lost and not instance.pinned and (instance.managed or not app.retired),
        )

    async def _start(self, app: App, instance: Instance, source: Container | str | None) -> Address:
        """Bring a container up and return where it answers.

        Raises:
            _StartFailed: with the reason, for people.
        """
        try:
            container = source if isinstance(source, Container) else await self._run(app, instance, source)
        except EngineError as error:
            raise _StartFailed(f"the engine refused: {error}") from error
        if not container.runs:
            raise _StartFailed(f"it exited at once (state {container.state})")
        if container.health == "unhealthy":
            raise _StartFailed("its HEALTHCHECK fails")
        address = (self._host(container), app.spec.port)
        if not address[0]:
            raise _StartFailed(f"it has no address on network {self._network or '(any)'}")
        await self._prove(app, instance, address)
        return address

    async def _prove(self, app: App, instance: Instance, address: Address) -> None:
        timeout, path = app.spec.startup_config.timeout, app.spec.startup_config.health_path
        notify = instance.changed
        try:
            async with asyncio.timeout(timeout) as bound:
                # Lost or told to go meanwhile: no reason to go on asking.
                instance.changed = lambda: None if bound.expired() else bound.reschedule(0.0)
                if not _leaves(instance):
                    await probe.until_ready(*address, path)
        except TimeoutError:
            if not _leaves(instance):
                asked = f"answer {path} with 2xx or 3xx" if path else "accept a connection"
                raise _StartFailed(
                    f"it did not {asked} on port {app.spec.port} within {timeout:g} s (startup_config.timeout)"
                ) from None
        finally:
            instance.changed = notify
        if _leaves(instance):
            raise _StartFailed(instance.why)

    async def _run(self, app: App, instance: Instance, container_id: str | None) -> Container:
        async with self._starts:
            if container_id is None:
                labels = {
                    ENABLE: "true",
                    MANAGED: "true",
                    INSTANCE_OF: app.app_id,
                    REVISION: instance.revision,
                }
                container_id = await self._engine.clone(app.template, instance.name, labels)
            instance.container_id = container_id
            await self._engine.start(container_id)
            instance.acknowledged_at = self._clock()
            return await self._engine.inspect(container_id)

    def _host(self, container: Container) -> str:
        if self._network in container.addresses:
            return container.addresses[self._network]
        return next(iter(container.addresses.values()), "")

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

    def _drain(self, app: App, instance: Instance, why: str) -> None:
        app.pool.drain(instance, why)
        log.info("instance_draining", app=app.app_id, instance=instance.name, why=why, in_flight=instance.in_flight)

    def _note_ready(self, app: App, instance: Instance, adopted: bool) -> None:
        took = self._clock() - instance.started_at
        if not adopted:
            app.stats.cold_start.add(took)
        log.info(
            "instance_adopted" if adopted else "instance_ready",
            app=app.app_id,
            instance=instance.name,
            after_s=round(took, 3),
        )

    async def _note_failure(self, app: App, instance: Instance, why: str) -> None:
        if instance.state is State.DRAINING and not instance.lost:
            return  # it was told to go before it was ready: no failure
        lines = await self._last_lines(instance)
        story = f"{instance.name}: {why}" + (f"; it wrote: {' | '.join(lines)}" if lines else "")
        app.pool.drain(instance, why)
        app.start_failed(story)
        log.error("start_failed", app=app.app_id, instance=instance.name, why=why, last_lines=lines)

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


def _leaves(instance: Instance) -> bool:
    return instance.lost or instance.state is State.DRAINING


def _free_name(app: App) -> str:
    """Name a copy `<app>-<n>-<suffix>`: n is the lowest that is free, the suffix makes it unique for ever."""
    taken = {name.removeprefix(f"{app.app_id}-").partition("-")[0] for name in app.pool.instances}
    number = next(n for n in range(1, len(taken) + 2) if str(n) not in taken)
    return f"{app.app_id}-{number}-{secrets.token_hex(2)}"
