"""Carries out decisions: who starts, who leaves, who makes room. Whether and why is decided in `core.policy`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

import aiohttp
import structlog

from dockscale.core.app import App
from dockscale.core.catalog import Container
from dockscale.core.host import Host
from dockscale.core.policy import Decision, Held, Reason, rollout, stock, victims
from dockscale.core.pool import Clock, Instance, State
from dockscale.core.spec import LAST_DOWN, REVISION
from dockscale.engine import Engine
from dockscale.life import Ahead, Lives, Rpc, free_name
from dockscale.scrape import gauges

log = structlog.get_logger()

FILL_S = 0.25
"""What is only for later begins so long after what is wanted now, whose first answers it would slow down."""

STARVED_S = 1.0
"""How often an app that requests wait for looks whether another one has become idle and can give way."""


class Scaler:
    """Nothing here waits but `run`: by the time that a method returns, the pools show what was decided."""

    def __init__(
        self,
        engine: Engine,
        tasks: asyncio.TaskGroup,
        clock: Clock,
        host: Host,
        *,
        network: str = "",
        parallel_starts: int = 4,
        create_ahead: bool = True,
    ) -> None:
        self._tasks = tasks
        self._clock = clock
        self._host = host
        self._create_ahead = create_ahead
        self._lives = Lives(
            engine, tasks, clock, self.tick, self._ended, network=network, parallel_starts=parallel_starts
        )
        self._rechecks: dict[str, asyncio.TimerHandle] = {}
        self._fills: dict[str, asyncio.TimerHandle] = {}
        """By app: when what is only for later begins."""
        self._starved: dict[str, App] = {}
        """Apps that the host's budget keeps from what they need."""
        self._reading: set[str] = set()
        """Apps whose instances are being asked for their metric."""
        self._end = asyncio.Event()
        """Set when the next instance is gone, whosever it is; then another one takes its place."""

    def connect_to(self, rpc: Rpc) -> None:
        """Say who knows the instances of rpc apps, before the first app is found."""
        self._lives.rpc = rpc

    # What calls for a decision.

    async def run(self, apps: Callable[[], Iterable[App]], interval: float) -> None:
        """Look at every app each `interval` seconds, for ever. What rises does not wait for this."""
        try:
            async with aiohttp.ClientSession() as session:
                while True:
                    await asyncio.sleep(interval)
                    self.look(list(apps()), session)
        finally:
            for timer in [*self._rechecks.values(), *self._fills.values()]:
                timer.cancel()

    def look(self, apps: Iterable[App], session: aiohttp.ClientSession) -> None:
        """Look at each app once; those at rest need no more than to be remembered so."""
        for app in apps:
            app.scheduled = _scheduled(app)
            if not app.at_rest:
                self._read_gauge(app, session)
                self.tick(app)
            app.remember()

    def _read_gauge(self, app: App, session: aiohttp.ClientSession) -> None:
        """Begin to ask the instances for the app's own metric; what they say is for a decision of its own."""
        path, name = app.spec.autoscaling.metric_path, app.spec.autoscaling.metric_name
        if path and name and app.app_id not in self._reading:
            self._reading.add(app.app_id)
            ready = {each.name: each.address for each in app.pool if each.state is State.READY}
            reading = self._gauge(app, len(ready), gauges(session, ready, path, name))
            self._tasks.create_task(reading, name=f"gauge of {app.app_id}")

    async def _gauge(self, app: App, asked: int, reading: Awaitable[tuple[dict[str, float], dict[str, str]]]) -> None:
        values, reasons = await reading
        self._reading.discard(app.app_id)
        why = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items()))
        if why and not app.gauge_failure:
            log.warning("gauge_unread", app=app.app_id, why=why)
        app.gauge = sum(values.values()) / len(values) if values else None
        app.gauge_on = asked
        app.gauge_failure = why
        self.tick(app)

    def tick(self, app: App) -> Decision | None:
        """Decide about an app and act on it."""
        self._settle_aside(app)
        if app.retired:
            return None
        self._measure_room(app)
        decision = app.decide()
        leaving = victims(app.pool.candidates(), decision.stop, self._clock())
        for instance in [each for each in leaving if each.state is State.READY][: decision.park]:
            instance.parks = True
        for instance in leaving:
            self._drain(app, instance, decision.reason)
        for _ in range(decision.start):
            self._add(app)
        if decision.changes:
            self._tell(app, decision, stopped=len(leaving))
        if decision.stop and decision.reason is Reason.QUIET:
            self._lives.drop_ahead(app)  # it says when the last time was
        self._roll(app, decision)
        self._stock(app, decision)
        self._make_room(app, decision)
        self._recheck(app, decision)
        return decision

    def _measure_room(self, app: App) -> None:
        app.room = self._host.room(app.template.memory)

    def _recheck(self, app: App, decision: Decision) -> None:
        """Look again when what holds something back is over: none of it must wait for the next tick."""
        timer = self._rechecks.pop(app.app_id, None)
        if timer is not None:
            timer.cancel()
        now = self._clock()
        times = [decision.recheck_at, *(at for at in (app.memory.retry_at, app.memory.spare_at) if at > now)]
        if app.app_id in self._starved and app.pool.waiting:
            times.append(now + STARVED_S)
        if due := min(filter(None, times), default=0.0):
            # Never at once: a timer may come a little early, and would then be set again for no time at all.
            wait = max(0.001, due - now)
            self._rechecks[app.app_id] = asyncio.get_running_loop().call_later(wait, self.tick, app)

    def _roll(self, app: App, decision: Decision) -> None:
        if not decision.load.stale:
            return
        self._measure_room(app)
        step = rollout(app.spec, app.load(), app.memory, self._clock(), app.template.id)
        stale = app.stale()
        for instance in stale[: step.stop]:
            self._drain(app, instance, "rollout")
        # One after the other: what is left serves meanwhile.
        aside = [] if app.aside else stale[step.stop :][: step.set_aside]
        for instance in aside:
            app.rollout_failure = ""  # what failed before had another place
            instance.set_aside = True
            self._drain(app, instance, "rollout: it makes room for one of the new template")
        for _ in range(step.start):
            self._add(app)
        if step.start or step.stop or aside:
            log.info("rollout", app=app.app_id, start=step.start, stop=step.stop, set_aside=len(aside))

    def _settle_aside(self, app: App) -> None:
        """Try the present template in the place of one set aside; then let that one go, or bring it back."""
        if not app.aside:
            return
        new = [instance.state for instance in app.pool.candidates() if instance.revision == app.template.id]
        if app.retired or State.READY in new or not (new or app.memory.awake):
            self._let_go(app)
        elif not new and self._has_room(app):  # none is there while one that failed is still being stopped
            if app.rollout_failure:
                self._bring_back(app)
            else:
                self._add(app)

    def _has_room(self, app: App) -> bool:
        self._measure_room(app)
        return min(app.spec.bounds[1] - app.load().held, app.room) > 0

    def _bring_back(self, app: App) -> None:
        app.shun()
        log.error("rollout_failed", app=app.app_id, why=app.rollout_failure, back=[each.name for each in app.aside])
        for instance in app.aside:
            self._host.take(app, instance)
            app.pool.bring_back(instance)
        self._let_go(app)

    def _let_go(self, app: App) -> None:
        aside, app.aside = app.aside, []
        for instance in aside:
            instance.set_aside = False
            instance.changed()

    def _stock(self, app: App, decision: Decision) -> None:
        """Renew and reduce what is on standby, and see to it that what is missing is begun later."""
        if self._lacks_copy(app):
            self._fill_later(app)
        if not (app.spec.autoscaling.standby_instances or decision.load.standby or decision.load.spent):
            return
        self._measure_room(app)
        step = stock(app.spec, app.load(), app.memory, self._clock())
        now = self._clock()
        spares = app.pool.spares()
        spent = [each for each in spares if app.is_spent(each, now)]
        for instance in spent[: step.stop_spent]:
            self._drain(app, instance, "its time on standby is over")
        for instance in [each for each in reversed(spares) if each not in spent][: step.stop]:
            self._drain(app, instance, "more on standby than are wanted")
        if step.start:
            self._fill_later(app)

    def _fill_later(self, app: App) -> None:
        if app.app_id not in self._fills:
            self._fills[app.app_id] = asyncio.get_running_loop().call_later(FILL_S, self._fill, app)

    def _fill(self, app: App) -> None:
        """Begin what is only for later: spares, and a copy for the next start. What is wanted now goes first."""
        del self._fills[app.app_id]
        if app.retired:
            return
        self._measure_room(app)
        load = app.load()
        if load.starting or load.waiting:
            self._fill_later(app)
            return
        for _ in range(stock(app.spec, load, app.memory, self._clock()).start if not self._starved else 0):
            self._launch(app, spare=True)
        if self._lacks_copy(app):
            self._lives.copy_ahead(app)

    def _lacks_copy(self, app: App) -> bool:
        """Tell whether a copy should be made ahead: the app has been awake, and has none of its present template."""
        ahead = self._lives.ahead.get(app.app_id)
        if ahead is not None and ahead.revision != app.template.id:
            self._lives.drop_ahead(app)
        if not (self._create_ahead and app.memory.warm) or app.app_id in self._lives.ahead:
            return False
        return self._clock() >= app.memory.retry_at and not _is_all_there_can_be(app)

    def _make_room(self, app: App, decision: Decision) -> None:
        """Let others give way to an app that the host has no room for, and remember it until there is."""
        if Held.HOST_BUDGET not in decision.held_by:
            self._starved.pop(app.app_id, None)
            return
        self._starved[app.app_id] = app
        missing = min(decision.wanted, app.spec.bounds[1]) - decision.instances
        for owner, instance in self._host.give_way(app, missing):
            self._drain(owner, instance, f"it gave way to {app.app_id} (the host's budget)")

    def rest(self, app: App, instances: Iterable[Instance]) -> None:
        """Let instances go because a person wants it. If none is left, the app sleeps until somebody asks for it."""
        for instance in instances:
            self._drain(app, instance, "it was stopped by hand")
        if not app.pool.candidates():
            app.sleep()
        self.tick(app)

    def drain(self, app: App, instance: Instance) -> None:
        """Let one instance go because a person wants it. Another one takes its place if the minimum asks for it."""
        self._drain(app, instance, "it was drained by hand")
        self.tick(app)

    def scale(self, app: App, instances: int) -> None:
        """Have so many instances because a person wants it, until load decides otherwise."""
        app.ask(instances)
        self.tick(app)

    def restart(self, app: App) -> None:
        """Replace all instances because a person wants it: new ones get ready first."""
        app.renew()
        self.tick(app)

    async def ended(self, app: App) -> None:
        """Wait until the last instance of an app that was removed is gone, unless the app comes back."""
        while app.retired and app.pool.instances:
            await self._end.wait()

    def _ended(self, app: App, instance: Instance) -> None:
        self._end.set()
        self._end = asyncio.Event()
        self._host.give_back(instance)
        waiting = [app, *(starved for starved in self._starved.values() if starved is not app)]
        for each in sorted(waiting, key=lambda each: -each.spec.priority):
            self.tick(each)

    def _tell(self, app: App, decision: Decision, stopped: int) -> None:
        if decision.start:
            app.stats.scale_events["up"] += decision.start
            app.stats.wakes += decision.reason is Reason.WAKE
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

    def unplugged(self, app: App, instance: Instance) -> None:
        """Take an instance whose RPC connection broke out of rotation until it has registered anew.

        The calls that it had have failed already. If it does not come back in time, it is ejected.
        """
        app.pool.unplug(instance)
        if instance.unplugged:
            log.warning("instance_unplugged", app=app.app_id, instance=instance.name)
            self.tick(app)

    # What the engine shows.

    def observe(self, app: App, members: Iterable[Container], began: float) -> None:
        """Bring an app's pool into line with a listing that was asked for at `began`. A decision is due then."""
        # By id: a container may be given another name while it serves.
        seen = {container.id: container for container in members}
        known = {instance.container_id for instance in app.pool}
        for container in seen.values():
            if container.id not in known and not self._lives.knows(container, began):
                self._find(app, container)
        for instance in list(app.pool):
            # A listing says nothing about what was started after it was asked for.
            if instance.acknowledged_at is not None and began >= instance.acknowledged_at:
                self._compare(app, instance, seen.get(instance.container_id))
        app.scheduled = _scheduled(app)

    def _find(self, app: App, container: Container) -> None:
        """Take over a container that nobody here has begun."""
        if container.runs or (container.state == "paused" and _is_spare(app, container)):
            self._adopt(app, container)
        elif not container.managed or container.state == "removing":
            return
        elif container.state == "created" and self._is_ahead(app, container):
            self._lives.keep_ahead(app, Ahead(container.name, app.template.id, container.id))
        else:
            self.discard(container)

    def _is_ahead(self, app: App, container: Container) -> bool:
        revision = container.labels.get(REVISION)
        return self._create_ahead and app.app_id not in self._lives.ahead and revision == app.template.id

    def _compare(self, app: App, instance: Instance, found: Container | None) -> None:
        """Note what has become of an instance's container while nobody looked."""
        if found is None:
            app.pool.lose(instance, "its container was removed")
        elif found.state == "paused" and instance.frozen:
            pass
        elif not found.runs:
            app.pool.lose(instance, f"its container is {found.state}")
        elif instance.state is State.STANDBY:
            self._drain(app, instance, "its container was unpaused by hand")
        elif instance.state is State.READY and not app.spec.speaks_rpc:
            host = self._lives.host_of(found)
            if host != instance.address[0]:
                # Restarted in between: its old address may be another container's by now.
                app.pool.lose(instance, f"its container has {'another' if host else 'no'} address")

    def retire(self, app: App) -> None:
        """End an app whose template is gone or refused: nobody gets a place any more, and its instances drain."""
        app.retire()
        self._starved.pop(app.app_id, None)
        self._lives.drop_ahead(app)
        for instance in [*app.pool.candidates(), *app.pool.spares()]:
            self._drain(app, instance, "the app was removed")
        self._settle_aside(app)

    def discard(self, container: Container) -> None:
        """Stop and remove a copy that belongs to nobody: its app is gone, or it never got ready before a restart."""
        self._lives.discard(container)

    # How an instance begins and ends.

    def _add(self, app: App) -> None:
        """Put one more into service: one on standby, else one on its way there, else a new one."""
        now = self._clock()
        spare = next((each for each in app.pool.spares() if not app.is_spent(each, now)), None)
        if spare is not None:
            app.pool.promote(spare)
        else:
            self._launch(app)

    def _launch(self, app: App, *, spare: bool = False) -> None:
        template = app.template
        ahead = None
        if _startable(app, self._lives.tended) and not (spare and _pinned(template)):
            instance = self._instance(app, template.name, template.id, managed=False, pinned=_pinned(template))
            source: str | None = template.id
        else:
            ahead = self._lives.take_ahead(app)
            name = ahead.name if ahead else free_name(app)
            instance = self._instance(app, name, template.id, managed=True, pinned=False)
            source = ahead.container_id if ahead else None
        instance.spare = spare
        self._begin(app, instance, source)

    def _adopt(self, app: App, container: Container) -> None:
        revision = container.labels.get(REVISION, container.id) if container.managed else container.id
        pinned = container.auto_remove and not container.managed
        instance = self._instance(app, container.name, revision, managed=container.managed, pinned=pinned)
        instance.memory = container.memory
        instance.container_id = container.id
        instance.acknowledged_at = self._clock()
        instance.spare = instance.frozen = container.state == "paused"
        instance.ready_at = instance.started_at if container.runs else None
        app.adopted()
        if container.managed:
            self._recall(app, container)
        self._begin(app, instance, container)

    def _recall(self, app: App, container: Container) -> None:
        """Set the cooldowns' clocks by what a copy shows of the time before dockscale watched."""
        ago = self._clock() - time.time()
        started = max(container.created, container.started)
        up = min(self._clock(), started + ago) if container.runs else None  # a spare is no scale-up
        down = None
        if container.labels.get(LAST_DOWN, "").isdecimal():
            down = min(self._clock(), int(container.labels[LAST_DOWN]) + ago)
        memory = app.memory
        app.memory = replace(memory, last_up=_later(memory.last_up, up), last_down=_later(memory.last_down, down))

    def _instance(self, app: App, name: str, revision: str, *, managed: bool, pinned: bool) -> Instance:
        memory = app.template.memory
        return Instance(name, revision=revision, managed=managed, pinned=pinned, memory=memory, now=self._clock())

    def _begin(self, app: App, instance: Instance, source: Container | str | None) -> None:
        app.pool.launch(instance)
        self._host.take(app, instance)
        self._lives.begin(app, instance, source)

    def _drain(self, app: App, instance: Instance, why: str) -> None:
        app.pool.drain(instance, why)
        log.info("instance_draining", app=app.app_id, instance=instance.name, why=why, in_flight=instance.in_flight)


def _startable(app: App, tended: set[str]) -> bool:
    """Tell whether the labelled container itself can be the next instance.

    It cannot where it would need an environment to connect with, which only copies can be given.
    """
    template = app.template
    return (
        isinstance(template, Container)
        and not app.spec.speaks_rpc
        and template.state in ("created", "exited")
        and template.name not in app.pool.instances
        and template.name not in tended
    )


def _is_all_there_can_be(app: App) -> bool:
    """Tell whether there will never be a copy, since the labelled container is the one instance."""
    return isinstance(app.template, Container) and app.spec.bounds[1] == 1 and not app.spec.speaks_rpc


def _pinned(template: object) -> bool:
    return isinstance(template, Container) and template.auto_remove


def _is_spare(app: App, container: Container) -> bool:
    """Tell whether a paused container may be one that dockscale paused; one made by hand only if spares are wanted."""
    return container.managed or (app.spec.autoscaling.standby_instances > 0 and not container.auto_remove)


def _scheduled(app: App) -> int | None:
    """What the schedule asks for at this time of day."""
    scaling = app.spec.autoscaling
    return scaling.schedule.minimum(datetime.now(UTC)) if scaling.schedule and scaling.enabled else None


def _later(one: float | None, other: float | None) -> float | None:
    times = [each for each in (one, other) if each is not None]
    return max(times, default=None)
