"""A decision in words and numbers. Nothing is computed here that the decision does not already hold."""

from dockscale.core.policy import Decision, Held, Reason
from dockscale.core.spec import AppSpec


def explain(decision: Decision, spec: AppSpec) -> str:
    """Say in a few sentences what was decided, why, what held it back, and what went before by itself."""
    change = _change(decision)
    held = ", ".join(_held(held, spec) for held in decision.held_by)
    sentences = [f"{change}: {_why(decision, spec)}", *([f"Held back by {held}"] if held else []), *decision.gone]
    return ". ".join(sentences) + "."


def _change(decision: Decision) -> str:
    have = decision.load.have
    if decision.changes:
        return f"{have} → {decision.instances} instances"
    if decision.wanted != have:
        return f"stays at {have}, would be {decision.wanted}"
    return f"stays at {have}"


def _why(decision: Decision, spec: AppSpec) -> str:
    load, scaling = decision.load, spec.autoscaling
    up, down = scaling.up_line, scaling.down_line
    now = f"{load.requests} requests in 60 s on {load.ready} ready = {load.per_instance:g} per instance"
    match decision.reason:
        case Reason.ASLEEP:
            return "asleep, and nobody asks for it"
        case Reason.WAKE:
            return f"{load.waiting} requests wait and no instance is ready"
        case Reason.MINIMUM:
            return f"fewer than min_instances ({spec.bounds[0]})"
        case Reason.BUSY:
            return f"{now}, above {up:g} (scale_up_threshold × target)"
        case Reason.BURST:
            rate = f"{load.burst} requests in the last 6 s = {load.burst * 10} per minute"
            return f"{rate}, at least twice what {load.ready} ready should serve"
        case Reason.NO_PLACE:
            return f"{load.waiting} requests wait and {load.in_flight} fill the {load.ready} ready (max_concurrency)"
        case Reason.QUIET:
            return f"{now}, below {down:g} (scale_down_threshold × target)"
        case Reason.IDLE:
            patience = spec.startup_config.stop_after_inactive
            return f"idle for {load.idle_s:.0f} s (stop_after_inactive {patience:g} s)"
        case Reason.OVER_MAX:
            return f"more than max_instances ({spec.bounds[1]})"
        case Reason.STEADY:
            return f"{now}, between {down:g} and {up:g}" if load.ready else f"{load.starting} starting"


def _held(held: Held, spec: AppSpec) -> str:
    scaling = spec.autoscaling
    match held:
        case Held.MAX_INSTANCES:
            return f"max_instances ({spec.bounds[1]})"
        case Held.MIN_INSTANCES:
            return f"min_instances ({spec.bounds[0]})"
        case Held.UP_COOLDOWN:
            return f"scale_up_cooldown ({scaling.scale_up_cooldown:g} s)"
        case Held.DOWN_COOLDOWN:
            return f"scale_down_cooldown ({scaling.scale_down_cooldown:g} s)"
        case Held.STARTING:
            return "an instance that is starting already (step: one)"
        case Held.DRAINING:
            return "instances that still drain and count towards max_instances"
        case Held.BACKOFF:
            return "the pause after a failed start"
        case Held.WINDOW:
            return "not having watched the app for a full minute yet"
        case Held.AFTER_BURST:
            return "a burst within the last minute"
        case Held.WOULD_FLAP:
            return "the same load needing them again at once"
        case Held.IN_USE:
            return "requests that are still in flight"
        case Held.PINNED:
            return "a container made with --rm, which would be gone if it were stopped"
        case Held.ROLLOUT:
            return "a rollout that is under way"
