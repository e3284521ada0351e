"""One app at run time: its spec, its pool, its load, and the decisions made about it."""

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import replace
from math import ceil, inf

from dockscale.core.balance import Chance
from dockscale.core.catalog import Template
from dockscale.core.history import History
from dockscale.core.load import BURST_S, CROWD_S, UNBOUNDED, WINDOW_S, Load, Window
from dockscale.core.policy import (
    BURST_FACTOR,
    BURST_REQUESTS,
    ENDS_WITH_A_CHANGE,
    Decision,
    Memory,
    Reason,
    after_failed_spare,
    after_failed_start,
    after_good_spare,
    after_good_start,
    decide,
)
from dockscale.core.pool import Clock, Instance, NoPlace, Pool, State
from dockscale.core.spec import AppSpec

Watcher = Callable[[Decision, bool], None]
"""Called after each decision, with whether it only repeats the one before."""
JOURNAL = 200
STRAGGLERS_S = 1.0
RETRY_AFTER_S = 1, 60
"""Bounds of what a client is told to wait, whatever the numbers say."""
COLD_START_S = 5.0
"""What a start is thought to take before one was seen, unless `startup_config.timeout` is shorter."""


class StartFailed(NoPlace):
    """The instance that a request waited for could not be started."""


class Failing(NoPlace):
    """The last start failed and the next one is not due yet. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AppGone(NoPlace):
    """The app was removed, or refused for its labels, while a request was on its way to it."""


class Histogram:
    """Counts of durations (seconds) in fixed buckets, as Prometheus wants them."""

    BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
    __slots__ = ("buckets", "sum")

    def __init__(self) -> None:
        self.buckets = [0] * (len(self.BOUNDS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(self.BOUNDS, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        return sum(self.buckets)


class Stats:
    """What an app has done since dockscale started, as plain numbers that are read at scrape time."""

    def __init__(self) -> None:
        self.requests: defaultdict[int, int] = defaultdict(int)
        """By status. A `Counter` would take three times as long to count one."""
        self.duration = Histogram()
        self.queue_wait = Histogram()
        self.cold_start = Histogram()
        self.standby_start = Histogram()
        self.decisions: Counter[str] = Counter()
        self.scale_events: Counter[str] = Counter()
        self.start_failures = 0
        self.deaths = 0
        self.ejected = 0
        self.rpc_calls = 0
        self.wakes = 0
        """Times that it had no instance and got one because somebody asked."""


class App:
    """Facts about one app, each with one owner: `pool` counts, `arrive` measures, `decide` remembers."""

    def __init__(self, spec: AppSpec, template: Template, clock: Clock, chance: Chance) -> None:
        self._clock = clock
        self.pool = Pool(clock, chance)
        self.stats = Stats()
        self.journal: deque[Decision] = deque(maxlen=JOURNAL)
        self.history = History()
        self.watchers: set[Watcher] = set()
        self.retired = False
        """Its template is gone or refused: no more places, no more starts."""
        self.failure = ""
        """Why the latest start failed; empty once one succeeds."""
        self.rollout_failure = ""
        """Why the present template does not get ready, while instances of an earlier one serve on."""
        self.aside: list[Instance] = []
        """Those of an earlier template that are stopped and kept until one of the present template is ready."""
        self.scheduled: int | None = None
        """Minimum by the schedule now; whoever knows the time of day sets it."""
        self._asked: int | None = None
        """How many instances a person asked for, until a decision has followed that."""
        self._floor = 0
        self._floor_until = 0.0
        self.gauge: float | None = None
        """The app's own metric, on average over the instances that were asked; whoever asks them sets it."""
        self.gauge_on = 0
        """How many that were."""
        self.shows_waiting = False
        """Browsers that would have to wait get a page."""
        self.gauge_failure = ""
        """Why some or all of them did not tell it."""
        self.room = UNBOUNDED
        """Instances that the host's budget has room for; whoever counts them all sets it."""
        self._minute = Window(WINDOW_S)
        self._burst = Window(BURST_S)
        self._burst_from = 0.0
        self._since = clock()
        self._busy_at = clock()
        self._alarm = inf
        self._burst_alarm = inf
        self._crowd_alarm = inf
        self._quiet_until = 0.0
        self._calm_until = 0.0
        self._adopted = False
        self._distrusted = -inf
        self.memory = Memory(awake=not spec.lazy, warm=not spec.lazy)
        self.spec, self.template = spec, template
        self.follow(spec, template)

    def follow(self, spec: AppSpec, template: Template) -> None:
        """Go on with new settings, or a new template to make instances from, of which nothing bad is known yet."""
        if template.id != self.template.id:
            self.rollout_failure = ""
            self.memory = replace(self.memory, shunned="")
        if self.spec.lazy and not spec.lazy:
            self.memory = replace(self.memory, awake=True, warm=True)
        if spec.autoscaling.metric_name != self.spec.autoscaling.metric_name:
            self.gauge, self.gauge_failure = None, ""
        self.spec = spec
        self.template = template
        self.shows_waiting = spec.startup_config.waiting_page
        self.pool.measure(spec.autoscaling.target_concurrency is not None)
        self.pool.mode = spec.service_selection_mode
        self.pool.max_concurrency = spec.autoscaling.max_concurrency
        self.pool.max_queue = spec.autoscaling.max_queue
        self.pool.serve_line()  # there may be more room now

    @property
    def app_id(self) -> str:
        return self.spec.app_id

    @property
    def watched_s(self) -> float:
        """Seconds for which the app has been known."""
        return self._clock() - self._since

    @property
    def decision(self) -> Decision | None:
        """The latest decision."""
        return self.journal[-1] if self.journal else None

    def arrive(self) -> bool:
        """Count a request that reached the app, and tell whether a decision is due at once."""
        now = self._clock()
        self._busy_at = now
        burst = self._burst.hit(now) if now >= self._burst_from else 0
        if burst >= self._burst_alarm:
            self._minute.hit(now)
            return True
        if self._minute.hit(now) > self._alarm and now >= self._quiet_until:
            return True
        return self.pool.level >= self._crowd_alarm and now >= self._calm_until

    def adopted(self) -> None:
        """Note that an instance was found that ran already. Idle time is counted from now on."""
        self._adopted = True
        self._busy_at = self._clock()

    def leave(self) -> None:
        """Note the end of a request, from which idle time is counted."""
        self._busy_at = self._clock()

    @property
    def at_rest(self) -> bool:
        """It sleeps, nobody asks for it, and no time that passes can change that."""
        asleep = self.decision is not None and self.decision.reason is Reason.ASLEEP
        spares = self.memory.warm and self.spec.autoscaling.standby_instances > 0
        return asleep and not (spares or self.pool.instances or self.pool.waiting or self.scheduled)

    def check(self) -> None:
        """Spare a request a wait that is known to be in vain.

        Raises:
            AppGone: the app is retired.
            Failing: no instance is there or coming, and the next start is not due yet.
        """
        if self.retired:
            raise AppGone(f"the app {self.app_id} was removed")
        wait = self.memory.retry_at - self._clock()
        if wait > 0 and not self._hopes():
            raise Failing(f"the last start failed: {self.failure}", wait)

    def _hopes(self) -> bool:
        """Tell whether there is any that serves, is coming, or can be put into service without a start."""
        spares = (each for each in self.pool.spares() if each.state is State.STANDBY)
        return bool(self.pool.candidates() or self.aside) or any(
            not self.is_spent(each, self._clock()) for each in spares
        )

    def retry_after(self) -> int:
        """Estimate in how many whole seconds a client that got no place may find one (RFC 9110 section 10.2.3)."""
        ready = self.pool.counts()[State.READY]
        shortest, longest = RETRY_AFTER_S
        return max(shortest, min(longest, ceil(self._line_s(ready) if ready else self._start_s())))

    def _start_s(self) -> float:
        """Seconds until the first instance is ready: a mean cold start, less what the oldest start has had of it."""
        usual = _mean(self.stats.cold_start) or min(COLD_START_S, self.spec.startup_config.timeout)
        begun = [instance.started_at for instance in self.pool if instance.starting]
        return usual - (self._clock() - min(begun) if begun else 0.0)

    def _line_s(self, ready: int) -> float:
        """Seconds until those in the line have had their places: each takes one for as long as requests do here.

        Means are over all requests so far; what they waited in the line themselves is not part of it.
        """
        ended, places = self.stats.duration.count, ready * (self.pool.max_concurrency or 0)
        if not ended or not places:
            return 0.0
        mean = max(0.0, self.stats.duration.sum - self.stats.queue_wait.sum) / ended
        return self.pool.waiting * mean / places

    def load(self) -> Load:
        """Measure the app now."""
        now, seen = self._clock(), _Census()
        for instance in self.pool:
            seen.add(instance, stale=instance.revision != self.template.id, spent=self.is_spent(instance, now))
        waiting = self.pool.waiting
        crowded = self.spec.autoscaling.target_concurrency is not None
        return Load(
            ready=seen.ready,
            starting=seen.starting,
            draining=seen.draining,
            stale=seen.stale,
            stale_ready=seen.stale_ready,
            pinned=seen.pinned,
            standby=seen.standby,
            spent=seen.spent,
            warming=seen.warming,
            parking=seen.parking,
            in_flight=seen.in_flight,
            waiting=waiting,
            requests=self._minute.count(now),
            burst=self._burst.count(now),
            concurrency=self.pool.concurrency(WINDOW_S) if crowded else 0.0,
            crowd=self.pool.concurrency(CROWD_S) if crowded and now >= self._burst_from else 0.0,
            line_s=self._line_s(seen.ready) if waiting else 0.0,
            lined_up_s=self.pool.lined_up_s if waiting else 0.0,
            start_s=_mean(self.stats.cold_start),
            gauge=self._gauge_for(seen.ready),
            scheduled=self.scheduled,
            asked=self._asked,
            floor=self._floor if now < self._floor_until else 0,
            room=self.room,
            idle_s=0.0 if seen.in_flight or waiting else now - self._busy_at,
            observed_s=now - self._since,
            adopted=self._adopted,
        )

    def _gauge_for(self, ready: int) -> float | None:
        """The gauge shared by those ready now: until they are asked again, all that there was is theirs together."""
        if self.gauge is None or not ready or not self.gauge_on:
            return self.gauge
        return self.gauge * self.gauge_on / ready

    def is_spent(self, spare: Instance, now: float) -> bool:
        """Tell whether it is a spare that is not trusted to serve well, or that was made from an earlier template."""
        if not spare.spare:
            return False
        kept_from = max(self._distrusted, now - self.spec.autoscaling.standby_max_age)
        too_old = spare.state is State.STANDBY and spare.started_at < kept_from
        return too_old or spare.revision != self.template.id

    def stale(self) -> list[Instance]:
        """Instances of an earlier template that may go and are not going yet; those that serve nobody first."""
        old = [
            instance
            for instance in self.pool.candidates()
            if instance.revision != self.template.id and not instance.pinned
        ]
        return sorted(old, key=lambda instance: (instance.state is State.READY, instance.in_flight)) if old else old

    def decide(self) -> Decision:
        """Decide how many instances there should be, and note it. Steady repetition is noted once."""
        now = self._clock()
        if self.pool.gone:
            self.memory = replace(self.memory, gone=(*self.memory.gone, *map(_fate, self.pool.gone)))
            self.pool.gone.clear()
        decision, self.memory = decide(self.spec, self.load(), self.memory, now)
        self._asked = None
        self.stats.decisions[decision.reason] += 1
        last = self.decision
        repeats = last is not None and not last.changes and not decision.changes and _told(last) == _told(decision)
        if repeats:
            self.journal.pop()
        self.journal.append(decision)
        self._set_alarms(decision)
        for tell in self.watchers:
            tell(decision, repeats)
        return decision

    def ask(self, instances: int) -> None:
        """Note that a person wants so many instances: the next decision follows, and for a while none has fewer."""
        self._asked = instances
        self._keep(instances)

    def renew(self) -> None:
        """Have every instance that has been ready replaced as if its template were an earlier one.

        Those that are only starting are new already. For a while there are no fewer instances than now.
        """
        self._keep(len(self.pool.candidates()))
        self.rollout_failure = ""
        self.memory = replace(self.memory, shunned="")
        for instance in self.pool:
            if instance.ready_at is not None or instance.state is State.STANDBY:
                instance.revision = ""

    def _keep(self, instances: int) -> None:
        self._floor = instances
        self._floor_until = self._clock() + self.spec.autoscaling.scale_down_cooldown

    def remember(self) -> None:
        """Note how busy it is, for those who look at the last hour."""
        self.history.add(self._clock(), self.load())

    def sleep(self) -> None:
        """Note that it is to sleep until somebody asks for it."""
        self._floor = 0
        self.memory = replace(self.memory, awake=False, in_burst=False, below_since=None)

    def retire(self) -> None:
        """Tell whoever waits, and whoever comes, that there will be no place; those who have one keep it."""
        self.retired = True
        self.pool.dismiss(AppGone(f"the app {self.app_id} was removed"))

    def started(self, instance: Instance) -> None:
        """Note that an instance proved ready to serve.

        Those who waited for the first one were a backlog, not a rate that goes on; if they were a crowd, so are its
        stragglers, who come within the next second.
        """
        self.failure = ""
        self.memory = after_good_start(self.memory)
        if instance.revision == self.template.id:
            self.rollout_failure = ""
        if self.pool.counts()[State.READY] == 0:
            self._burst.clear()
            self.pool.forget_crowd()
            if self.pool.waiting >= BURST_REQUESTS:
                self._burst_from = self._clock() + STRAGGLERS_S

    def parked(self) -> None:
        """Note that an instance is on standby."""
        self.memory = after_good_spare(self.memory)

    def start_failed(self, why: str, instance: Instance) -> None:
        """Note a start that failed; if nothing else serves or comes, whoever waits is told."""
        self.stats.start_failures += 1
        if instance.spare:
            self.spare_failed(instance)
            return
        self.failure = why
        self.memory = after_failed_start(self.memory, self._clock())
        if instance.revision == self.template.id and (self.aside or any(self.stale())):
            self.rollout_failure = why
        if not self._hopes():
            self.pool.dismiss(StartFailed(why))

    def spare_failed(self, instance: Instance) -> None:
        """Note a spare that came to nothing; if it was to serve already, another instance takes its place.

        That one is no other spare that was there then: what one did not survive, the others hardly will.
        """
        if instance.spare:
            self.memory = after_failed_spare(self.memory, self._clock())
        else:
            self.pool.gone.append(instance)
            self._distrusted = self._clock()

    def shun(self) -> None:
        """Note that the present template got nothing ready in the place of an instance that had to make room for it."""
        self.memory = replace(self.memory, shunned=self.template.id)

    def _set_alarms(self, decision: Decision) -> None:
        """Say from how many arrivals on the next decision must not wait for a tick."""
        have = decision.instances
        ready = decision.load.ready
        self._quiet_until = decision.recheck_at
        soon = decision.recheck_at <= decision.at + CROWD_S
        self._calm_until = decision.recheck_at if soon else 0.0  # a crowd does not wait for a cooldown
        waits = not ENDS_WITH_A_CHANGE.isdisjoint(decision.held_by)
        if ready == 0 or have >= self.spec.bounds[1] or waits:  # then the next change brings the next decision
            self._alarm = self._burst_alarm = self._crowd_alarm = inf
            return
        line = self.spec.autoscaling.up_line
        self._alarm = line * have
        target = self.spec.autoscaling.target_concurrency
        self._crowd_alarm = self.spec.autoscaling.scale_up_threshold * target * have if target else inf
        share = line * BURST_S / WINDOW_S
        self._burst_alarm = float(max(BURST_REQUESTS, ceil(BURST_FACTOR * ready * share), int(have * share) + 1))

    def __repr__(self) -> str:
        return f"<App {self.app_id} {self.pool!r}>"


class _Census:
    """Instances by what they are to a decision, counted in one pass."""

    def __init__(self) -> None:
        self.ready = self.starting = self.draining = self.stale = self.stale_ready = self.pinned = 0
        self.standby = self.spent = self.warming = self.parking = self.in_flight = 0

    def add(self, instance: Instance, stale: bool, spent: bool) -> None:
        self.in_flight += instance.in_flight
        if instance.state is State.DRAINING:
            self.draining += 1
            self.parking += instance.parks
        elif spent:
            self.spent += 1
        elif instance.state is State.STANDBY:
            self.standby += 1
        elif instance.spare:
            self.warming += 1
        else:
            ready = instance.state is State.READY
            self.ready += ready
            self.starting += not ready
            self.pinned += instance.pinned
            if stale and not instance.pinned:
                self.stale += 1
                self.stale_ready += instance.ready_at is not None


def _mean(seen: Histogram) -> float:
    """Mean of the durations, in seconds; 0 if there are none."""
    return seen.sum / seen.count if seen.count else 0.0


def _told(decision: Decision) -> tuple[object, ...]:
    """What makes it another one: not how much more is wished for than may be, which rises with each request."""
    return decision.instances, decision.reason, decision.held_by, decision.gone


def _fate(instance: Instance) -> str:
    return f"{instance.name} {'was ejected' if instance.ejected else 'died'}: {instance.why}"
