"""How many instances an app should have, and why. Nothing here waits, reads a clock or talks to an engine."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil
from typing import Protocol, TypeVar

from dockscale.core.load import BURST_S, WINDOW_S, Load
from dockscale.core.spec import AppSpec

BURST_FACTOR = 2
BURST_REQUESTS = 10
"""Fewer requests than this in the short window are noise, whatever rate they would make in a minute."""
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)


class Reason(StrEnum):
    """Why the wish is what it is. Each has a sentence in `explain`."""

    ASLEEP = "asleep"
    WAKE = "wake"
    MINIMUM = "minimum"
    BUSY = "busy"
    BURST = "burst"
    NO_PLACE = "no_place"
    QUIET = "quiet"
    IDLE = "idle"
    OVER_MAX = "over_max"
    STEADY = "steady"


class Held(StrEnum):
    """What kept the result from the wish."""

    MAX_INSTANCES = "max_instances"
    MIN_INSTANCES = "min_instances"
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


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier decisions leave behind. Times are seconds on the caller's clock."""

    awake: bool = False
    """The app has had a ready instance since it last slept, so `min_instances` are kept."""
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
    recheck_at: float = 0.0
    """When what holds a scale-up back is over (0: nothing does)."""
    gone: tuple[str, ...] = ()
    """What became of instances that died or were ejected and that this decision may replace, a sentence for each."""

    @property
    def changes(self) -> bool:
        return self.start > 0 or self.stop > 0


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
    return _replaced(decision, memory) if memory.gone else (decision, memory)


def _replaced(decision: Decision, memory: Memory) -> tuple[Decision, Memory]:
    """Tell what is gone with the decision; remember of it what is missing still, which none that is ready may show."""
    missing = decision.instances < decision.wanted or (decision.load.ready == 0 and decision.instances > 0)
    left = memory.gone[decision.start :] if missing else ()
    return replace(decision, gone=memory.gone), replace(memory, gone=left)


def _remember(spec: AppSpec, load: Load, memory: Memory, now: float) -> Memory:
    """Keep the two facts about time that loads alone do not show: in a burst, and below the threshold since."""
    below = load.requests < spec.autoscaling.down_line * load.ready
    below_since = (memory.below_since if memory.below_since is not None else now) if below else None
    in_burst = memory.in_burst
    if _burst_wish(spec, load):
        in_burst = True
    elif in_burst and below_since is not None and now - below_since >= WINDOW_S:
        in_burst = False
    awake = memory.awake or load.ready > 0
    if (awake, below_since, in_burst) == (memory.awake, memory.below_since, memory.in_burst):
        return memory
    return replace(memory, awake=awake, below_since=below_since, in_burst=in_burst)


def _wish(spec: AppSpec, load: Load, memory: Memory, now: float) -> tuple[int, Reason]:
    """What the app would have if nothing held it back. The cases are in order of weight."""
    low, high = spec.bounds
    have = load.have
    if not (load.in_flight or load.waiting):
        patience = spec.startup_config.stop_after_inactive
        if memory.awake and patience and load.idle_s >= patience:
            return 0, Reason.IDLE
        if not memory.awake and have == 0:
            return 0, Reason.ASLEEP
    if load.ready == 0 and load.waiting:
        return max(low, 1, have), Reason.WAKE
    if have > high:
        return high, Reason.OVER_MAX
    if memory.awake and have < low:
        return low, Reason.MINIMUM
    if load.ready == 0:
        return have, Reason.STEADY
    busy, burst = _busy_wish(spec, load), _burst_wish(spec, load)
    place = _place_wish(spec, load)
    wish, reason = busy, Reason.BUSY
    if burst:  # in a tie, what waits for no cooldown counts
        wish, reason = max(busy, burst), Reason.BURST
    if place >= wish:
        wish, reason = place, Reason.NO_PLACE
    if wish > have:
        return (have + 1 if spec.autoscaling.step == "one" else wish), reason
    if load.requests < spec.autoscaling.down_line * load.ready:
        return (have - 1 if spec.autoscaling.step == "one" else min(wish, have - 1)), Reason.QUIET
    return have, Reason.STEADY


def _busy_wish(spec: AppSpec, load: Load) -> int:
    """The fewest instances at which the load would not ask for another one."""
    return ceil(load.requests / spec.autoscaling.up_line)


def _burst_wish(spec: AppSpec, load: Load) -> int:
    """What the last six seconds alone ask for, or 0 if that is not at least twice what those ready should serve."""
    rate = load.burst * (WINDOW_S / BURST_S)
    if load.burst < BURST_REQUESTS or load.ready == 0 or rate < BURST_FACTOR * load.ready * spec.autoscaling.up_line:
        return 0
    return ceil(rate / spec.autoscaling.up_line)


def _place_wish(spec: AppSpec, load: Load) -> int:
    """Enough places for all that is in flight or waits, where places are bounded."""
    cap = spec.autoscaling.max_concurrency
    return ceil((load.in_flight + load.waiting) / cap) if cap else 0


def _up(spec: AppSpec, load: Load, memory: Memory, now: float, wanted: int, reason: Reason) -> tuple[Decision, Memory]:
    _, high = spec.bounds
    have = load.have
    held: list[Held] = []
    recheck_at = 0.0
    instances = min(wanted, high)
    if instances < wanted:
        held.append(Held.MAX_INSTANCES)
    room = max(have, high - load.draining)
    if instances > room:
        instances = room
        held.append(Held.DRAINING)
    for_load = reason in (Reason.BUSY, Reason.BURST, Reason.NO_PLACE)
    if for_load and spec.autoscaling.step == "one" and load.starting and instances > have:
        instances = have
        held.append(Held.STARTING)
    if reason is Reason.BUSY and instances > have and memory.last_up is not None:
        over_at = memory.last_up + spec.autoscaling.scale_up_cooldown
        replacing = min(instances, have + len(memory.gone))
        if now < over_at and instances > replacing:
            instances, recheck_at = replacing, over_at
            held.append(Held.UP_COOLDOWN)
    if instances > have and now < memory.retry_at:
        instances, recheck_at = have, memory.retry_at
        held.append(Held.BACKOFF)
    start = max(0, instances - have)
    if start:
        replaces = reason is Reason.MINIMUM or start <= len(memory.gone)
        last_up = memory.last_up if replaces else now
        memory = replace(memory, last_up=last_up, last_up_before=memory.last_up)
    return Decision(
        now, wanted, max(instances, have), reason, tuple(held), load, start=start, recheck_at=recheck_at
    ), memory


def _down(
    spec: AppSpec, load: Load, memory: Memory, now: float, wanted: int, reason: Reason
) -> tuple[Decision, Memory]:
    if reason is Reason.QUIET:
        return _quieter(spec, load, memory, now, wanted)
    instances = max(wanted, load.pinned)
    held = (Held.PINNED,) if instances > wanted else ()
    if reason is Reason.IDLE and not instances:
        memory = replace(memory, awake=False, in_burst=False, below_since=None)
    return Decision(now, wanted, instances, reason, held, load, stop=load.have - instances), memory


def _quieter(spec: AppSpec, load: Load, memory: Memory, now: float, wanted: int) -> tuple[Decision, Memory]:
    """Go down by the seed's rule: at most half at a time, never to where the same load would scale up again."""
    low, _ = spec.bounds
    have = load.have
    held: list[Held] = []
    instances = max(wanted, ceil(have / 2) if have > 1 else 0)
    if instances < low:
        instances = min(low, have)
        held.append(Held.MIN_INSTANCES)
    needed = max(_busy_wish(spec, load), _place_wish(spec, load))
    while needed < have and load.burst >= BURST_REQUESTS and _burst_wish(spec, replace(load, ready=needed)) > needed:
        needed += 1
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
    if load.stale:
        blocked.append(Held.ROLLOUT)
    if load.observed_s < WINDOW_S:
        blocked.append(Held.WINDOW)
    if memory.in_burst:
        blocked.append(Held.AFTER_BURST)
    if memory.last_down is not None and now - memory.last_down < spec.autoscaling.scale_down_cooldown:
        blocked.append(Held.DOWN_COOLDOWN)
    return blocked


@dataclass(frozen=True, slots=True)
class Rollout:
    """One step from an earlier template to the present one."""

    start: int
    """Instances to make from the present template."""
    stop: int
    """Instances of the earlier one to drain."""


def rollout(spec: AppSpec, load: Load, memory: Memory, now: float) -> Rollout:
    """Replace instances of an earlier template: new ones get ready first, as far as `max_instances` leaves room.

    Where it leaves none, one old instance goes first, and what it would have served waits in the line.
    """
    if not load.stale:
        return Rollout(0, 0)
    low, high = spec.bounds
    in_use = 1 if load.in_flight or load.waiting else 0
    want = min(high, max(low if memory.awake else 0, _busy_wish(spec, load), _place_wish(spec, load), in_use))
    missing = max(0, want - (load.have - load.stale))
    room = high - load.have - load.draining
    may_start = now >= memory.retry_at
    start = min(missing, room) if may_start else 0
    stop = min(load.stale, max(load.ready - want, 0) + (load.stale - load.stale_ready))
    if may_start and missing and room <= 0 and not load.draining:
        stop = max(stop, 1)
    return Rollout(max(0, start), stop)


def after_failed_start(memory: Memory, now: float) -> Memory:
    """Wait longer after each failure in a row (those begun together are one), and give back the cooldown it took."""
    if now < memory.retry_at:
        return memory
    wait = BACKOFF_S[min(memory.failures, len(BACKOFF_S) - 1)]
    return replace(memory, failures=memory.failures + 1, retry_at=now + wait, last_up=memory.last_up_before)


def after_good_start(memory: Memory) -> Memory:
    """Forget the failures before a start that worked; it has used its cooldown."""
    return replace(memory, failures=0, retry_at=0.0, last_up_before=memory.last_up)


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
