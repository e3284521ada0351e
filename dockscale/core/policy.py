"""How many instances an app should have, and why. Nothing here waits, reads a clock or talks to an engine."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil
from typing import Protocol, TypeVar

from dockscale.core.load import BURST_S, CROWD_S, WINDOW_S, Load
from dockscale.core.spec import AppSpec

BURST_FACTOR = 2
BURST_REQUESTS = 10
"""Fewer requests than this in the short window are noise, whatever rate they would make in a minute."""
PATIENCE_S = 1.0
"""No request is let wait for longer than this because a start takes longer still."""
CROWD_CHECK_S = 0.1
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)


class Reason(StrEnum):
    """Why the wish is what it is. Each has a sentence in `explain`."""

    ASLEEP = "asleep"
    WAKE = "wake"
    MINIMUM = "minimum"
    SCHEDULE = "schedule"
    BY_HAND = "by_hand"
    BUSY = "busy"
    CONCURRENCY = "concurrency"
    METRIC = "metric"
    BURST = "burst"
    NO_PLACE = "no_place"
    QUIET = "quiet"
    IDLE = "idle"
    OVER_MAX = "over_max"
    STEADY = "steady"


FOR_LOAD = frozenset({Reason.BUSY, Reason.CONCURRENCY, Reason.METRIC, Reason.BURST, Reason.NO_PLACE})
WAITS_FOR_COOLDOWN = frozenset({Reason.BUSY, Reason.CONCURRENCY, Reason.METRIC})
BEGINS_NO_COOLDOWN = frozenset({Reason.MINIMUM, Reason.SCHEDULE, Reason.BY_HAND})


class Held(StrEnum):
    """What kept the result from the wish."""

    MAX_INSTANCES = "max_instances"
    MIN_INSTANCES = "min_instances"
    BY_HAND = "by_hand"
    UP_COOLDOWN = "scale_up_cooldown"
    DOWN_COOLDOWN = "scale_down_cooldown"
    STARTING = "starting"
    DRAINING = "draining"
    BACKOFF = "backoff"
    WINDOW = "window"
    AFTER_BURST = "after_burst"
    WOULD_FLAP = "would_flap"
    IN_USE = "in_use"
    ROLLOUT = "rollout"
    PINNED = "pinned"
    HOST_BUDGET = "host_budget"
    NO_METRIC = "no_metric"


ENDS_WITH_A_CHANGE = frozenset({Held.STARTING, Held.DRAINING, Held.BACKOFF, Held.HOST_BUDGET})
"""What holds until something happens that brings the next decision by itself: none before is of use."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier decisions leave behind. Times are seconds on the caller's clock."""

    awake: bool = False
    """The app has had a ready instance since it last slept, so `min_instances` are kept."""
    warm: bool = False
    """The app has been awake, so its standby instances are kept, also while it sleeps."""
    last_up: float | None = None
    last_down: float | None = None
    last_up_before: float | None = None
    """`last_up` before the latest scale-up, given back if that one fails."""
    in_burst: bool = False
    below_since: float | None = None
    failures: int = 0
    """Starts that failed in a row."""
    retry_at: float = 0.0
    """No start before this time."""
    gone: tuple[str, ...] = ()
    """What became of each instance that died or was ejected while it served, and is not replaced yet."""
    spare_failures: int = 0
    """Spares that came to nothing in a row."""
    spare_at: float = 0.0
    """No start for standby before this time."""
    shunned: str = ""
    """The template's revision that took an old instance's place and never got ready."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer to "how many?", with what it rests on. Log, metrics, API and `explain` all read this value."""

    at: float
    wanted: int
    instances: int
    reason: Reason
    held_by: tuple[Held, ...]
    load: Load
    start: int = 0
    stop: int = 0
    park: int = 0
    """How many of those that leave go to standby instead of ending."""
    recheck_at: float = 0.0
    """When to decide again, because a scale-up may be due then (0: no such time is known)."""
    gone: tuple[str, ...] = ()
    """What became of instances that died or were ejected and that this decision may replace, a sentence for each."""

    @property
    def changes(self) -> bool:
        return self.start > 0 or self.stop > 0

    @property
    def from_standby(self) -> int:
        """How many of `start` are there already, paused."""
        return min(self.start, self.load.standby)


def decide(spec: AppSpec, load: Load, memory: Memory, now: float) -> tuple[Decision, Memory]:
    """Choose how many instances the app should have, and what the next decision needs (seed: Scaling Decisions)."""
    memory = _remember(spec, load, memory, now)
    wanted, reason = _wish(spec, load, memory, now)
    have = load.have
    if wanted > have:
        decision, memory = _up(spec, load, memory, now, wanted, reason)
    elif wanted < have or reason is Reason.IDLE:
        decision, memory = _down(spec, load, memory, now, wanted, reason)
    else:
        decision = Decision(now, wanted, have, reason, (), load)
    if decision.stop and spec.autoscaling.standby_instances:
        decision = replace(decision, park=_to_park(spec, decision, memory))
    elif ENDS_WITH_A_CHANGE.isdisjoint(decision.held_by) and (soon := _soon(spec, decision)):
        decision = replace(decision, recheck_at=soon)
    return _replaced(decision, memory) if memory.gone else (decision, memory)


def _soon(spec: AppSpec, decision: Decision) -> float:
    """When a cooldown is over, or what is only beginning will have lasted long enough to count (0: neither)."""
    load = decision.load
    times = [decision.recheck_at] if decision.recheck_at else []
    if load.ready and decision.instances < spec.bounds[1]:
        if load.waiting and load.lined_up_s < (patience := line_patience(load)):
            times.append(decision.at + patience - load.lined_up_s)
        if target := spec.autoscaling.target_concurrency:
            wish = (load.in_flight + load.waiting) / (spec.autoscaling.scale_up_threshold * target)
            if wish >= decision.instances:
                times.append(decision.at + (CROWD_CHECK_S if wish >= BURST_FACTOR * load.ready else CROWD_S))
    return min(times, default=0.0)


def _replaced(decision: Decision, memory: Memory) -> tuple[Decision, Memory]:
    """Tell what is gone with the decision; remember of it what is missing still, which none that is ready may show."""
    missing = decision.instances < decision.wanted or (decision.load.ready == 0 and decision.instances > 0)
    left = memory.gone[decision.start :] if missing else ()
    return replace(decision, gone=memory.gone), replace(memory, gone=left)


def _remember(spec: AppSpec, load: Load, memory: Memory, now: float) -> Memory:
    """Keep the two facts about time that loads alone do not show: in a burst, and below the threshold since."""
    below = _quiet(spec, load)
    below_since = (memory.below_since if memory.below_since is not None else now) if below else None
    in_burst = memory.in_burst
    if _burst_wish(spec, load, load.ready):
        in_burst = True
    elif in_burst and below_since is not None and now - below_since >= WINDOW_S:
        in_burst = False
    awake = memory.awake or load.ready > 0
    warm = memory.warm or awake or load.standby + load.warming + load.spent > 0
    if (awake, warm, below_since, in_burst) == (memory.awake, memory.warm, memory.below_since, memory.in_burst):
        return memory
    return replace(memory, awake=awake, warm=warm, below_since=below_since, in_burst=in_burst)


def _wish(spec: AppSpec, load: Load, memory: Memory, now: float) -> tuple[int, Reason]:
    """What the app would have if nothing held it back. The cases are in order of weight."""
    low, high = bounds(spec, load)
    have = load.have
    if load.asked is not None:
        return load.asked, Reason.BY_HAND
    if not (load.in_flight or load.waiting or load.scheduled or load.floor):
        patience = spec.startup_config.stop_after_inactive
        if memory.awake and patience and load.idle_s >= patience:
            return 0, Reason.IDLE
        if not memory.awake and have == 0:
            return 0, Reason.ASLEEP
    if load.ready == 0 and load.waiting:
        return max(low, 1, have), Reason.WAKE
    if have > high:
        return high, Reason.OVER_MAX
    if have < low and (memory.awake or load.scheduled or load.floor):
        return low, _whose_minimum(spec, load)
    if load.ready == 0:
        return have, Reason.STEADY
    wish, reason = _busiest(spec, load)
    if wish > have:
        return (have + 1 if spec.autoscaling.step == "one" else wish), reason
    if _quiet(spec, load):
        return (have - 1 if spec.autoscaling.step == "one" else min(wish, have - 1)), Reason.QUIET
    return have, Reason.STEADY


def bounds(spec: AppSpec, load: Load) -> tuple[int, int]:
    """Fewest and most instances now. What a person asked for lately raises the fewest."""
    low, high = usual_bounds(spec, load.scheduled)
    return max(low, min(load.floor, high)), high


def usual_bounds(spec: AppSpec, scheduled: int | None) -> tuple[int, int]:
    """Fewest and most instances by the labels. What the schedule asks for replaces `min_instances`."""
    low, high = spec.bounds
    return (low if scheduled is None else min(scheduled, high)), high


def _whose_minimum(spec: AppSpec, load: Load) -> Reason:
    if _is_floor(spec, load):
        return Reason.BY_HAND
    return Reason.SCHEDULE if load.scheduled is not None and load.scheduled > spec.bounds[0] else Reason.MINIMUM


def _is_floor(spec: AppSpec, load: Load) -> bool:
    """Tell whether the fewest instances there may be are what a person asked for."""
    return load.floor > usual_bounds(spec, load.scheduled)[0]


def _busiest(spec: AppSpec, load: Load) -> tuple[int, Reason]:
    """The largest wish of all. In a tie, what waits for no cooldown counts."""
    burst = _burst_wish(spec, load, load.ready)
    wishes = [(_place_wish(spec, load), Reason.NO_PLACE), (burst, Reason.BURST)]
    for amount, up, _, reason in _measures(spec, load):
        wishes.append((ceil(amount / up), Reason.BURST if burst else reason))
    return max(wishes, key=lambda wish: wish[0])


def _quiet(spec: AppSpec, load: Load) -> bool:
    """Tell whether everything that is measured is below its lower line."""
    return all(amount < down * load.ready for amount, _, down, _ in _measures(spec, load))


def _measures(spec: AppSpec, load: Load) -> list[tuple[float, float, float, Reason]]:
    """What there is to serve, the two lines per instance between which it should be, and the reason it gives."""
    scaling = spec.autoscaling
    measures = [(float(load.requests), scaling.up_line, scaling.down_line, Reason.BUSY)]
    for amount, target, reason in (
        (load.concurrency, scaling.target_concurrency, Reason.CONCURRENCY),
        (load.gauge and load.gauge * load.ready, scaling.metric_target, Reason.METRIC),
    ):
        if target is not None and amount is not None:
            up, down = scaling.scale_up_threshold * target, scaling.scale_down_threshold * target
            measures.append((amount, up, down, reason))
    return measures


def _needed(spec: AppSpec, load: Load) -> int:
    """The fewest instances at which neither what is measured nor a burst would ask for another one."""
    needed = max(_places(spec, load), *(ceil(amount / up) for amount, up, _, _ in _measures(spec, load)))
    while needed < load.have and _burst_wish(spec, load, needed) > needed:
        needed += 1
    return needed


def _burst_wish(spec: AppSpec, load: Load, ready: int) -> int:
    """What the shortest windows alone ask for, or 0 if that is not at least twice what so many ready should have."""
    if ready == 0 or not (load.burst >= BURST_REQUESTS or load.crowd):
        return 0
    scaling = spec.autoscaling
    rate = load.burst * (WINDOW_S / BURST_S) if load.burst >= BURST_REQUESTS else 0.0
    shares = [rate / scaling.up_line]
    if scaling.target_concurrency:
        shares.append(load.crowd / (scaling.scale_up_threshold * scaling.target_concurrency))
    return ceil(max(shares)) if max(shares) >= BURST_FACTOR * ready else 0


def _places(spec: AppSpec, load: Load) -> int:
    """Instances with enough places for all that is in flight or waits; 0 where places are not bounded."""
    cap = spec.autoscaling.max_concurrency
    return ceil((load.in_flight + load.waiting) / cap) if cap else 0


def _place_wish(spec: AppSpec, load: Load) -> int:
    """As many as keep the line shorter than a start would take: others would come too late for those who wait."""
    enough = _places(spec, load) if load.waiting else 0
    if enough <= load.ready or not load.start_s:
        return enough
    patience = line_patience(load)
    if load.line_s > patience:
        return min(enough, ceil(load.ready * load.line_s / patience))
    if load.lined_up_s < patience:
        return 0
    if not load.line_s:
        return enough
    return load.have + (0 if load.starting else 1)


def line_patience(load: Load) -> float:
    """Seconds of waiting that nobody is started for."""
    return min(load.start_s, PATIENCE_S)


def _up(spec: AppSpec, load: Load, memory: Memory, now: float, wanted: int, reason: Reason) -> tuple[Decision, Memory]:
    _, high = spec.bounds
    have = load.have
    held: list[Held] = []
    recheck_at = 0.0
    instances = min(wanted, high)
    if instances < wanted:
        held.append(Held.MAX_INSTANCES)
    room = max(have, high - load.draining - load.spent)
    if instances > room:
        instances = room
        held.append(Held.DRAINING)
    if reason in FOR_LOAD and spec.autoscaling.step == "one" and load.starting and instances > have:
        instances = have
        held.append(Held.STARTING)
    if reason in WAITS_FOR_COOLDOWN and instances > have and memory.last_up is not None:
        over_at = memory.last_up + spec.autoscaling.scale_up_cooldown
        replacing = min(instances, have + len(memory.gone))
        if now < over_at and instances > replacing:
            instances, recheck_at = replacing, over_at
            held.append(Held.UP_COOLDOWN)
    if instances > (there := have + load.standby) and now < memory.retry_at:
        instances, recheck_at = there, memory.retry_at
        held.append(Held.BACKOFF)
    # Last: nobody is to give way for what something else holds back.
    if instances > (room := have + load.standby + load.warming + load.room):
        instances = room
        held.append(Held.HOST_BUDGET)
    start = max(0, instances - have)
    if start:
        keeps = reason in BEGINS_NO_COOLDOWN or start <= len(memory.gone)
        last_up = memory.last_up if keeps else now
        memory = replace(memory, last_up=last_up, last_up_before=memory.last_up)
    return Decision(
        now, wanted, max(instances, have), reason, tuple(held), load, start=start, recheck_at=recheck_at
    ), memory


def _down(
    spec: AppSpec, load: Load, memory: Memory, now: float, wanted: int, reason: Reason
) -> tuple[Decision, Memory]:
    if reason is Reason.QUIET:
        return _quieter(spec, load, memory, now, wanted)
    if reason is Reason.IDLE and load.have and load.adopted and load.observed_s < WINDOW_S:
        return Decision(now, wanted, load.have, reason, (Held.WINDOW,), load), memory
    instances = max(wanted, load.pinned)
    held = (Held.PINNED,) if instances > wanted else ()
    if reason in (Reason.IDLE, Reason.BY_HAND) and not instances:
        memory = replace(memory, awake=False, in_burst=False, below_since=None)
    return Decision(now, wanted, instances, reason, held, load, stop=load.have - instances), memory


def _quieter(spec: AppSpec, load: Load, memory: Memory, now: float, wanted: int) -> tuple[Decision, Memory]:
    """Go down by the seed's rule: at most half at a time, never to where the same load would scale up again."""
    low, _ = bounds(spec, load)
    have = load.have
    held: list[Held] = []
    instances = max(wanted, ceil(have / 2) if have > 1 else 0)
    if instances < low:
        instances = min(low, have)
        held.append(Held.BY_HAND if _is_floor(spec, load) else Held.MIN_INSTANCES)
    needed = _needed(spec, load)
    if instances < needed:
        instances = min(needed, have)
        held.append(Held.WOULD_FLAP)
    if instances < load.pinned:
        instances = load.pinned
        held.append(Held.PINNED)
    if instances == 0 and (load.in_flight or load.waiting):
        instances = 1
        held.append(Held.IN_USE)
    if instances < have:
        blocked = _not_down_now(spec, load, memory, now)
        if blocked:
            instances = have
            held += blocked
    if instances < have:
        memory = replace(memory, last_down=now, awake=memory.awake and instances > 0)
    return (
        Decision(now, wanted, instances, Reason.QUIET, tuple(held), load, stop=max(0, have - instances)),
        memory,
    )


def _not_down_now(spec: AppSpec, load: Load, memory: Memory, now: float) -> list[Held]:
    blocked = []
    stalled = (memory.failures or memory.shunned) and not load.starting
    if load.stale and not stalled:
        blocked.append(Held.ROLLOUT)
    if load.observed_s < WINDOW_S:
        blocked.append(Held.WINDOW)
    if memory.in_burst:
        blocked.append(Held.AFTER_BURST)
    if memory.last_down is not None and now - memory.last_down < spec.autoscaling.scale_down_cooldown:
        blocked.append(Held.DOWN_COOLDOWN)
    if spec.autoscaling.metric_target and load.gauge is None:
        blocked.append(Held.NO_METRIC)
    return blocked


def _to_park(spec: AppSpec, decision: Decision, memory: Memory) -> int:
    """How many of those that leave fill up what is missing on standby."""
    load = decision.load
    missing = _spares_wanted(spec, decision.instances) - load.standby - load.warming - load.parking
    return max(0, min(missing, load.ready, decision.stop - load.starting))  # starting ones go first, and end


def _spares_wanted(spec: AppSpec, have: int) -> int:
    """Standby instances beside `have`: what the label says, as far as `max_instances` leaves room for them."""
    return min(spec.autoscaling.standby_instances, max(0, spec.bounds[1] - have))


@dataclass(frozen=True, slots=True)
class Stock:
    """One step towards the standby instances that an app should have."""

    start: int = 0
    stop_spent: int = 0
    """Paused ones to end that are too old, or of an earlier template."""
    stop: int = 0
    """Others to end that are not needed any more."""


def stock(spec: AppSpec, load: Load, memory: Memory, now: float) -> Stock:
    """Keep standby instances filled up and fresh. New ones get ready before old ones end, if there is room for both."""
    want = _spares_wanted(spec, load.have) if memory.warm else 0
    there = load.standby + load.warming + load.parking
    missing = max(0, want - there)
    free = max(0, min(spec.bounds[1] - load.held, load.room))
    in_the_way = min(load.spent, missing - free) if missing > free else 0
    may_start = now >= max(memory.retry_at, memory.spare_at)
    return Stock(
        start=min(missing, free) if may_start else 0,
        # One that is to be replaced cannot serve, and may be in the way of what does.
        stop_spent=in_the_way if may_start and load.standby < want else load.spent,
        stop=min(max(0, there - want), load.standby + load.warming),
    )


@dataclass(frozen=True, slots=True)
class Rollout:
    """One step from an earlier template to the present one."""

    start: int = 0
    """Instances to make from the present template."""
    stop: int = 0
    """Instances of the earlier one to drain."""
    set_aside: int = 0
    """Instances of the earlier one to stop and keep, until a new one in their place is ready."""


def rollout(spec: AppSpec, load: Load, memory: Memory, now: float, revision: str) -> Rollout:
    """Replace instances of an earlier template: new ones get ready first, as far as `max_instances` leaves room.

    Where it leaves none, one old instance is set aside, and what it would have served waits in the line. If the new
    one, of the template `revision`, does not get ready, the old one comes back and that revision is not tried so again.
    """
    if not load.stale:
        return Rollout()
    low, high = bounds(spec, load)
    in_use = 1 if load.in_flight or load.waiting else 0
    want = min(high, max(low if memory.awake else 0, _needed(spec, load), in_use))
    missing = max(0, want - (load.have - load.stale))
    room = min(high - load.held, load.room) + load.standby + load.warming
    may_start = now >= memory.retry_at
    start = min(missing, room) if may_start else 0
    shunned = memory.shunned == revision
    given_up = 0 if shunned else load.stale - load.stale_ready
    stop = min(load.stale, max(load.ready - want, 0) + given_up)
    stuck = may_start and missing > 0 and room <= 0 and not (load.draining or load.spent or stop)
    return Rollout(max(0, start), stop, 1 if stuck and not shunned else 0)


def after_failed_start(memory: Memory, now: float) -> Memory:
    """Wait longer after each failure in a row (those begun together are one), and give back the cooldown it took."""
    if now < memory.retry_at:
        return memory
    retry_at = now + _backoff(memory.failures)
    return replace(memory, failures=memory.failures + 1, retry_at=retry_at, last_up=memory.last_up_before)


def after_good_start(memory: Memory) -> Memory:
    """Forget the failures before a start that worked; it has used its cooldown."""
    return replace(memory, failures=0, retry_at=0.0, last_up_before=memory.last_up)


def after_failed_spare(memory: Memory, now: float) -> Memory:
    """Wait longer after each spare in a row that came to nothing; what serves does not wait for it."""
    spare_at = now + _backoff(memory.spare_failures)
    return replace(memory, spare_failures=memory.spare_failures + 1, spare_at=spare_at)


def after_good_spare(memory: Memory) -> Memory:
    """Forget the failures before a spare that is there."""
    return replace(memory, spare_failures=0, spare_at=0.0)


def _backoff(failures: int) -> float:
    return BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]


class Candidate(Protocol):
    """What choosing whom to stop needs to know of an instance."""

    @property
    def starting(self) -> bool: ...
    @property
    def pinned(self) -> bool: ...
    @property
    def managed(self) -> bool: ...
    @property
    def in_flight(self) -> int: ...
    def per_minute(self, now: float) -> int: ...


C = TypeVar("C", bound=Candidate)


def victims(candidates: Iterable[C], stop: int, now: float) -> list[C]:
    """Choose whom to stop: starting ones first, then the least loaded; copies before the labelled container itself."""
    free = [c for c in candidates if not c.pinned]
    free.sort(key=lambda c: (not c.starting, c.in_flight, c.per_minute(now), not c.managed))
    return free[:stop]
