"""Every decision can be said in words, with the numbers that it rests on."""

from dataclasses import replace

import pytest

from dockscale.core.explain import explain
from dockscale.core.load import Load
from dockscale.core.policy import Decision, Held, Reason
from dockscale.core.spec import AppSpec, Autoscaling, StartupConfig

SPEC = AppSpec(
    app_id="web",
    port=8000,
    autoscaling=Autoscaling(
        min_instances=2,
        max_instances=7,
        target_requests_per_instance=50,
        scale_up_threshold=0.8,
        scale_down_threshold=0.2,
        scale_up_cooldown=301,
        scale_down_cooldown=602,
        target_concurrency=5,
        metric_path="/metrics",
        metric_name="queue_depth",
        metric_target=10,
    ),
    startup_config=StartupConfig(stop_after_inactive=45),
)
LOAD = Load(
    ready=3, starting=1, in_flight=13, waiting=17, requests=151, burst=33, idle_s=46.4, observed_s=99.0,
    concurrency=21.25, crowd=30.0, line_s=2.5, gauge=8.5, scheduled=5, floor=6,
)  # fmt: skip
NUMBERS = "151 requests in 60 s on 3 ready = 50.33 per instance"
DOWN = "10 (scale_down_threshold × target)"
ALSO = "21.2 in flight or waiting on average; queue_depth is 8.5 per instance"
BOTH = "not having watched the app for a full minute yet, scale_down_cooldown (602 s)"

WHY = {
    Reason.ASLEEP: ["asleep"],
    Reason.WAKE: ["17 requests wait"],
    Reason.MINIMUM: ["min_instances (2)"],
    Reason.BUSY: [NUMBERS, "above 40"],
    Reason.SCHEDULE: ["the schedule asks for (5)"],
    Reason.BY_HAND: ["6 were asked for by hand"],
    Reason.CONCURRENCY: ["21.2 in flight or waiting on average on 3 ready", "above scale_up_threshold × 5"],
    Reason.METRIC: ["queue_depth is 8.5 per instance", "above scale_up_threshold × 10"],
    Reason.BURST: ["33 requests in the last 6 s = 330 per minute", "3 ready"],
    Reason.NO_PLACE: ["17 requests wait, which would take 2.5 s", "13 fill the 3 ready", "max_concurrency"],
    Reason.QUIET: [NUMBERS, "below 10"],
    Reason.IDLE: ["idle for 46 s", "stop_after_inactive 45 s"],
    Reason.OVER_MAX: ["max_instances (7)"],
    Reason.STEADY: [NUMBERS, "between 10 and 40"],
}
HELD = {
    Held.MAX_INSTANCES: "max_instances (7)",
    Held.MIN_INSTANCES: "min_instances (6)",
    Held.BY_HAND: "the 6 that were asked for by hand",
    Held.UP_COOLDOWN: "scale_up_cooldown (301 s)",
    Held.DOWN_COOLDOWN: "scale_down_cooldown (602 s)",
    Held.STARTING: "starting already",
    Held.DRAINING: "instances that still drain",
    Held.BACKOFF: "failed start",
    Held.WINDOW: "full minute",
    Held.AFTER_BURST: "burst",
    Held.WOULD_FLAP: "needing them again",
    Held.IN_USE: "in flight",
    Held.PINNED: "made with --rm",
    Held.ROLLOUT: "rollout",
    Held.HOST_BUDGET: "DOCKSCALE_MAX_INSTANCES",
    Held.NO_METRIC: "queue_depth, which could not be read",
}


GONE = ("web-1-ab12 was ejected: 5 connections in a row failed", "web-2-cd34 died: its container is exited")

DRAINING = "Held back by instances that still drain and count towards max_instances"


def decision(
    reason: Reason, *, wanted: int = 4, instances: int = 4, held: tuple[Held, ...] = (), load: Load = LOAD
) -> Decision:
    change = instances - load.have
    return Decision(0.0, wanted, instances, reason, held, load, start=max(0, change), stop=max(0, -change))


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_has_words_and_numbers(reason: Reason) -> None:
    told = explain(decision(reason), SPEC)

    assert [part for part in WHY[reason] if part not in told] == []
    assert told.startswith("stays at 4: ")
    assert told.endswith(".")


@pytest.mark.parametrize("held", list(Held))
def test_every_limit_has_words(held: Held) -> None:
    told = explain(decision(Reason.BUSY, wanted=9, held=(held,)), SPEC)

    assert HELD[held] in told.partition("Held back by ")[2]


def test_no_two_limits_read_alike() -> None:
    told = {explain(decision(Reason.BUSY, wanted=9, held=(held,)), SPEC) for held in Held}

    assert len(told) == len(Held)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            decision(Reason.BUSY, wanted=9, instances=7, held=(Held.MAX_INSTANCES,)),
            f"4 → 7 instances: {NUMBERS}, above 40 (scale_up_threshold × target). Held back by max_instances (7).",
        ),
        (
            decision(Reason.QUIET, wanted=1, held=(Held.WINDOW, Held.DOWN_COOLDOWN)),
            f"stays at 4, would be 1: {NUMBERS}, below {DOWN}; {ALSO}. Held back by {BOTH}.",
        ),
        (decision(Reason.IDLE, wanted=0, instances=0), "4 → 0 instances: idle for 46 s (stop_after_inactive 45 s)."),
        (
            decision(Reason.STEADY, wanted=2, instances=2, load=Load(starting=2)),
            "stays at 2: 2 starting.",
        ),
        (
            decision(Reason.WAKE, wanted=2, instances=2, load=Load(waiting=1, standby=1)),
            "0 → 2 instances (1 from standby): 1 request waits and no instance is ready.",
        ),
        (
            decision(Reason.BURST, load=replace(LOAD, crowd=40.25)),
            "stays at 4: 40.2 at once in the last second, at least twice what 3 ready should have.",
        ),
        (
            decision(Reason.BY_HAND, wanted=2, instances=2, load=replace(LOAD, asked=2)),
            "4 → 2 instances: 2 were asked for by hand.",
        ),
        (
            replace(decision(Reason.IDLE, wanted=0, instances=0), park=1),
            "4 → 0 instances (1 to standby): idle for 46 s (stop_after_inactive 45 s).",
        ),
        (
            replace(decision(Reason.MINIMUM, instances=5), gone=GONE),
            f"4 → 5 instances: fewer than min_instances (2). {GONE[0]}. {GONE[1]}.",
        ),
        (
            replace(decision(Reason.BUSY, wanted=6, held=(Held.DRAINING,)), gone=GONE[:1]),
            f"stays at 4, would be 6: {NUMBERS}, above 40 (scale_up_threshold × target). {DRAINING}. {GONE[0]}.",
        ),
    ],
    ids=[
        "up, held",
        "not down, and why not",
        "asleep",
        "nobody ready yet",
        "from standby",
        "a crowd",
        "by hand",
        "to standby",
        "replaced",
        "to be replaced",
    ],
)
def test_a_decision_reads_as_a_sentence(made: Decision, expected: str) -> None:
    assert explain(made, SPEC) == expected
