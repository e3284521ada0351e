"""A decision in words and numbers. Nothing is computed here that the decision does not already hold."""

from dockscale.core.load import BURST_S, WINDOW_S, Load
from dockscale.core.policy import Decision, Held, Reason, bounds
from dockscale.core.spec import AppSpec


def explain(decision: Decision, spec: AppSpec) -> str:
    """Say in a few sentences what was decided, why, what held it back, and what went before by itself."""
    held = held_back(decision, spec)
    sentences = [f"{_change(decision)}: {_why(decision, spec)}", *([f"Held back by {held}"] if held else [])]
    return ". ".join([*sentences, *decision.gone]) + "."


def held_back(decision: Decision, spec: AppSpec) -> str:
    """Say what kept the result from the wish; empty if nothing did."""
    fewest, most = bounds(spec, decision.load)
    return ", ".join(
        _HELD[held].format(scaling=spec.autoscaling, fewest=fewest, most=most) for held in decision.held_by
    )


def _change(decision: Decision) -> str:
    have = decision.load.have
    if decision.changes:
        spares = [
            *([f"{decision.from_standby} from standby"] if decision.from_standby else []),
            *([f"{decision.park} to standby"] if decision.park else []),
        ]
        return f"{have} → {decision.instances} instances" + (f" ({', '.join(spares)})" if spares else "")
    if decision.wanted != have:
        return f"stays at {have}, would be {decision.wanted}"
    return f"stays at {have}"


def _why(decision: Decision, spec: AppSpec) -> str:
    load, scaling = decision.load, spec.autoscaling
    up, down = scaling.up_line, scaling.down_line
    now = f"{load.requests} requests in 60 s on {load.ready} ready = {round(load.per_instance, 2):g} per instance"
    match decision.reason:
        case Reason.ASLEEP:
            return "asleep, and nobody asks for it"
        case Reason.WAKE:
            return f"{_wait(load)} and no instance is ready"
        case Reason.MINIMUM:
            return f"fewer than min_instances ({spec.bounds[0]})"
        case Reason.SCHEDULE:
            return f"fewer than the schedule asks for ({load.scheduled})"
        case Reason.BY_HAND:
            return f"{load.floor if load.asked is None else load.asked} were asked for by hand"
        case Reason.BUSY:
            return f"{now}, above {up:g} (scale_up_threshold × target)"
        case Reason.CONCURRENCY:
            return (
                f"{_crowd(load)} on {load.ready} ready, above scale_up_threshold × {scaling.target_concurrency:g} each"
            )
        case Reason.METRIC:
            return f"{_gauge(load, spec)}, above scale_up_threshold × {scaling.metric_target:g}"
        case Reason.BURST:
            return f"{_sudden(load, spec)}, at least twice what {load.ready} ready should have"
        case Reason.NO_PLACE:
            line = f", which would take {load.line_s:.1f} s" if load.line_s else ""
            fill = f"{load.in_flight} fill the {load.ready} ready (max_concurrency)"
            return f"{_wait(load)}{line}, and {fill}"
        case Reason.QUIET:
            return f"{now}, below {down:g} (scale_down_threshold × target){_others(load, spec)}"
        case Reason.IDLE:
            patience = spec.startup_config.stop_after_inactive
            return f"idle for {load.idle_s:.0f} s (stop_after_inactive {patience:g} s)"
        case Reason.OVER_MAX:
            return f"more than max_instances ({spec.bounds[1]})"
        case Reason.STEADY:
            steady = f"{now}, between {down:g} and {up:g}{_others(load, spec)}"
            return steady if load.ready else f"{load.starting} starting"


def _wait(load: Load) -> str:
    return "1 request waits" if load.waiting == 1 else f"{load.waiting} requests wait"


def _sudden(load: Load, spec: AppSpec) -> str:
    """Whichever of the short windows asks for more."""
    scaling, rate = spec.autoscaling, load.burst * WINDOW_S // BURST_S
    target = scaling.target_concurrency
    if target and load.crowd / target > rate / scaling.target_requests_per_instance:
        return f"{load.crowd:.1f} at once in the last second"
    return f"{load.burst} requests in the last 6 s = {rate} per minute"


def _others(load: Load, spec: AppSpec) -> str:
    """What else is measured of this app."""
    measured = [
        *([_crowd(load)] if spec.autoscaling.target_concurrency else []),
        *([_gauge(load, spec)] if load.gauge is not None else []),
    ]
    return "".join(f"; {each}" for each in measured)


def _crowd(load: Load) -> str:
    return f"{load.concurrency:.1f} in flight or waiting on average"


def _gauge(load: Load, spec: AppSpec) -> str:
    return f"{spec.autoscaling.metric_name} is {load.gauge:g} per instance"


_HELD = {
    Held.MAX_INSTANCES: "max_instances ({most})",
    Held.MIN_INSTANCES: "min_instances ({fewest})",
    Held.BY_HAND: "the {fewest} that were asked for by hand",
    Held.UP_COOLDOWN: "scale_up_cooldown ({scaling.scale_up_cooldown:g} s)",
    Held.DOWN_COOLDOWN: "scale_down_cooldown ({scaling.scale_down_cooldown:g} s)",
    Held.STARTING: "an instance that is starting already (step: one)",
    Held.DRAINING: "instances that still drain and count towards max_instances",
    Held.BACKOFF: "the pause after a failed start",
    Held.WINDOW: "not having watched the app for a full minute yet",
    Held.AFTER_BURST: "a burst within the last minute",
    Held.WOULD_FLAP: "the same load needing them again at once",
    Held.IN_USE: "requests that are still in flight",
    Held.PINNED: "a container made with --rm, which would be gone if it were stopped",
    Held.ROLLOUT: "a rollout that is under way",
    Held.HOST_BUDGET: "the host's budget (DOCKSCALE_MAX_INSTANCES, DOCKSCALE_MEMORY_BUDGET)",
    Held.NO_METRIC: "{scaling.metric_name}, which could not be read",
}
