"""How many instances there should be and why: stories over a moved `now`, and what holds whatever comes."""

from collections import Counter
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dockscale.core.load import UNBOUNDED, Load
from dockscale.core.policy import (
    FOR_LOAD,
    Decision,
    Held,
    Memory,
    Reason,
    Rollout,
    Stock,
    after_failed_spare,
    after_failed_start,
    after_good_spare,
    after_good_start,
    bounds,
    decide,
    rollout,
    stock,
    victims,
)
from dockscale.core.spec import AppSpec, Autoscaling, StartupConfig

# With the defaults one instance should serve 100 a minute: above 90 it is busy, below 30 quiet.
AWAKE = Memory(awake=True)
GAUGE: dict[str, Any] = {"metric_name": "jobs", "metric_target": 10}


def app(*, stop_after_inactive: float = 0, lazy: bool = True, **autoscaling: Any) -> AppSpec:
    return AppSpec(
        app_id="web",
        port=8000,
        lazy=lazy,
        autoscaling=Autoscaling(**autoscaling),
        startup_config=StartupConfig(stop_after_inactive=stop_after_inactive),
    )


def load(**facts: Any) -> Load:
    """A load that has been watched for long."""
    return Load(**{"observed_s": 1000.0, **facts})


class Story:
    """One app through time: each decision remembers what the one before left behind."""

    def __init__(self, spec: AppSpec, memory: Memory = AWAKE) -> None:
        self.spec = spec
        self.memory = memory

    def at(self, now: float, **facts: Any) -> Decision:
        decision, self.memory = decide(self.spec, load(**facts), self.memory, now)
        return decision

    def start_fails(self, now: float) -> None:
        self.memory = after_failed_start(self.memory, now)

    def start_works(self) -> None:
        self.memory = after_good_start(self.memory)


def told(decision: Decision) -> tuple[int, int, Reason, tuple[Held, ...]]:
    return decision.start, decision.stop, decision.reason, decision.held_by


# From nothing to the first instance.


def test_an_app_that_nobody_asks_for_stays_asleep() -> None:
    story = Story(app(min_instances=2), Memory())

    assert told(story.at(0)) == (0, 0, Reason.ASLEEP, ())


@pytest.mark.parametrize(
    ("min_instances", "waiting", "expected"),
    [(1, 1, 1), (1, 500, 1), (0, 500, 1), (3, 500, 3)],
    ids=["one request", "a crowd", "min 0", "min 3"],
)
def test_the_first_requests_start_min_instances_and_at_least_one(
    min_instances: int, waiting: int, expected: int
) -> None:
    story = Story(app(min_instances=min_instances), Memory())

    assert told(story.at(0, waiting=waiting, requests=waiting)) == (expected, 0, Reason.WAKE, ())


def test_a_crowd_that_waits_for_a_starting_instance_starts_no_other() -> None:
    story = Story(app(), Memory())
    story.at(0, waiting=1, requests=1)

    assert told(story.at(1, waiting=500, requests=500, starting=1)) == (0, 0, Reason.WAKE, ())


def test_a_wake_takes_no_instance_back_that_starts_already() -> None:
    assert told(Story(app()).at(0, waiting=5, starting=3)) == (0, 0, Reason.WAKE, ())


def test_a_start_whose_request_went_away_brings_no_others_along() -> None:
    assert told(Story(app(min_instances=3), Memory()).at(0, starting=1)) == (0, 0, Reason.STEADY, ())


def test_a_request_at_a_sleeping_app_waits_for_no_cooldown() -> None:
    story = Story(app(), Memory(last_up=0.0, last_down=0.0))

    assert told(story.at(1, waiting=1)) == (1, 0, Reason.WAKE, ())


def test_an_app_that_is_not_lazy_has_its_minimum_without_a_request() -> None:
    story = Story(app(min_instances=2, lazy=False))

    assert told(story.at(0)) == (2, 0, Reason.MINIMUM, ())


def test_an_app_that_is_awake_gets_a_lost_instance_back_without_cooldown() -> None:
    story = Story(app(min_instances=3), Memory(awake=True, last_up=0.0))

    assert told(story.at(1, ready=2)) == (1, 0, Reason.MINIMUM, ())


def test_a_lost_instance_that_is_replaced_uses_up_no_cooldown() -> None:
    story = Story(app(min_instances=2))
    story.at(0, ready=1)

    assert told(story.at(10, ready=2, requests=200)) == (1, 0, Reason.BUSY, ())


def test_one_ready_instance_makes_the_app_awake() -> None:
    story = Story(app(min_instances=2), Memory())

    assert told(story.at(0, ready=1, requests=50)) == (1, 0, Reason.MINIMUM, ())
    assert told(story.at(1)) == (2, 0, Reason.MINIMUM, ())


# Up.


@pytest.mark.parametrize(
    ("ready", "requests", "expected"),
    [(1, 90, 0), (1, 91, 1), (1, 180, 1), (1, 181, 2), (2, 180, 0), (2, 181, 1), (3, 900, 7), (3, 901, 7)],
)
def test_a_busy_app_gets_the_fewest_instances_at_which_it_is_not_busy(ready: int, requests: int, expected: int) -> None:
    decision = Story(app()).at(0, ready=ready, requests=requests)

    assert decision.start == expected
    assert decision.reason is (Reason.BUSY if expected else Reason.STEADY)


def test_instances_that_start_already_count() -> None:
    assert told(Story(app()).at(0, ready=1, starting=2, requests=270)) == (0, 0, Reason.STEADY, ())
    assert told(Story(app()).at(0, ready=1, starting=2, requests=271)) == (1, 0, Reason.BUSY, ())


def test_max_instances_is_where_going_up_ends() -> None:
    decision = Story(app(max_instances=4)).at(0, ready=2, requests=1000)

    assert (decision.wanted, decision.instances) == (12, 4)
    assert told(decision) == (2, 0, Reason.BUSY, (Held.MAX_INSTANCES,))


def test_draining_instances_count_towards_max_instances() -> None:
    story = Story(app(max_instances=4))

    assert told(story.at(0, ready=2, draining=1, requests=360)) == (1, 0, Reason.BUSY, (Held.DRAINING,))
    assert told(Story(app(max_instances=1)).at(0, draining=1, waiting=5)) == (0, 0, Reason.WAKE, (Held.DRAINING,))


def test_more_draining_instances_than_max_instances_stop_nobody() -> None:
    decision = Story(app(max_instances=2)).at(0, ready=1, draining=5, requests=150)

    assert told(decision) == (0, 0, Reason.BUSY, (Held.DRAINING,))
    assert decision.instances == 1


def test_step_one_goes_up_one_at_a_time_and_waits_for_it() -> None:
    story = Story(app(step="one", scale_up_cooldown=0))

    assert told(story.at(0, ready=1, requests=1000)) == (1, 0, Reason.BUSY, ())
    assert told(story.at(5, ready=1, starting=1, requests=1000)) == (0, 0, Reason.BUSY, (Held.STARTING,))
    assert told(story.at(9, ready=2, requests=1000)) == (1, 0, Reason.BUSY, ())


def test_step_one_still_wakes_with_all_of_min_instances() -> None:
    assert Story(app(step="one", min_instances=3), Memory()).at(0, waiting=1).start == 3


def test_a_second_scale_up_waits_for_the_cooldown() -> None:
    story = Story(app(scale_up_cooldown=300))

    assert told(story.at(100, ready=1, requests=150)) == (1, 0, Reason.BUSY, ())
    held = story.at(399, ready=2, requests=250)
    assert told(held) == (0, 0, Reason.BUSY, (Held.UP_COOLDOWN,))
    assert (held.wanted, held.instances, held.recheck_at) == (3, 2, 400.0)
    assert told(story.at(400, ready=2, requests=250)) == (1, 0, Reason.BUSY, ())


def test_a_held_scale_up_does_not_start_the_cooldown_again() -> None:
    story = Story(app(scale_up_cooldown=300))
    story.at(0, ready=1, requests=150)
    for now in range(10, 300, 10):
        story.at(now, ready=2, requests=250)

    assert story.at(300, ready=2, requests=250).start == 1


def test_requests_without_a_place_do_not_wait_for_the_cooldown() -> None:
    story = Story(app(max_concurrency=4), Memory(awake=True, last_up=0.0))

    assert told(story.at(1, ready=1, in_flight=4, requests=50)) == (0, 0, Reason.STEADY, ())
    assert told(story.at(1, ready=1, in_flight=4, waiting=1)) == (1, 0, Reason.NO_PLACE, ())
    assert told(story.at(1, ready=1, in_flight=4, waiting=9)) == (3, 0, Reason.NO_PLACE, ())
    assert told(story.at(1, ready=1, starting=3, in_flight=4, waiting=9, requests=50)) == (0, 0, Reason.STEADY, ())


def test_without_a_bound_on_concurrency_any_number_has_a_place() -> None:
    assert Story(app()).at(0, ready=1, in_flight=500, requests=50).start == 0


def test_an_app_without_autoscaling_stays_at_one_whatever_comes() -> None:
    story = Story(app(enabled=False, min_instances=3, max_instances=9), Memory())

    assert told(story.at(0, waiting=500, requests=500)) == (1, 0, Reason.WAKE, ())
    busy = story.at(9, ready=1, requests=5000, burst=500)
    assert (busy.start, busy.stop, busy.instances, busy.held_by) == (0, 0, 1, (Held.MAX_INSTANCES,))
    assert story.at(99, ready=1).changes is False
    assert told(story.at(100)) == (1, 0, Reason.MINIMUM, ())


# Bursts.


def test_a_burst_bypasses_the_cooldown_and_counts_the_short_window() -> None:
    story = Story(app(), Memory(awake=True, last_up=0.0))

    # 45 in six seconds are 450 a minute: five instances.
    assert told(story.at(10, ready=1, requests=45, burst=45)) == (4, 0, Reason.BURST, ())


def test_what_is_less_than_twice_what_is_ready_is_no_burst() -> None:
    story = Story(app(), Memory(awake=True, last_up=0.0))

    # Two that are ready should serve up to 180 a minute; twice that is 36 in six seconds.
    assert told(story.at(10, ready=2, requests=100, burst=35)) == (0, 0, Reason.STEADY, ())
    assert told(story.at(10, ready=2, requests=100, burst=36)) == (2, 0, Reason.BURST, ())


def test_a_handful_of_requests_is_no_burst_however_small_the_target() -> None:
    story = Story(app(target_requests_per_instance=10), Memory(awake=True, last_up=0.0))

    assert story.at(10, ready=1, requests=9, burst=9).reason is Reason.STEADY
    assert told(story.at(10, ready=1, requests=10, burst=10)) == (9, 0, Reason.BURST, (Held.MAX_INSTANCES,))


def test_a_burst_does_not_wait_for_the_cooldown_where_the_whole_minute_asks_for_as_many() -> None:
    story = Story(app(), Memory(awake=True, last_up=0.0))

    # 450 a minute by both windows. The short one alone asks for five, which is more than twice what is ready.
    assert story.at(10, ready=1, requests=450, burst=45).start == 4


def test_a_burst_does_not_wait_for_the_cooldown_where_the_whole_minute_asks_for_more() -> None:
    story = Story(app(), Memory(awake=True, last_up=0.0))

    # The minute asks for six, which has to wait; the last six seconds alone ask for four, which has not.
    assert story.at(10, ready=1, requests=500, burst=36).start >= 3


def test_nothing_goes_down_before_a_full_window_below_after_a_burst() -> None:
    story = Story(app(scale_down_cooldown=0))
    story.at(0, ready=1, requests=45, burst=45)

    assert told(story.at(20, ready=5, requests=100)) == (0, 0, Reason.QUIET, (Held.AFTER_BURST,))
    assert told(story.at(79, ready=5, requests=10)) == (0, 0, Reason.QUIET, (Held.AFTER_BURST,))
    assert told(story.at(80, ready=5, requests=10)) == (0, 2, Reason.QUIET, ())


def test_a_load_on_the_line_is_not_below_it_after_a_burst() -> None:
    story = Story(app(scale_down_cooldown=0))
    story.at(0, ready=1, requests=45, burst=45)
    story.at(20, ready=5, requests=150)
    story.at(30, ready=5, requests=149)

    assert story.at(89, ready=5, requests=10).held_by == (Held.AFTER_BURST,)
    assert story.at(90, ready=5, requests=10).stop == 2


def test_a_load_that_rises_again_after_a_burst_begins_the_window_anew() -> None:
    story = Story(app(scale_down_cooldown=0))
    story.at(0, ready=1, requests=45, burst=45)
    story.at(20, ready=5, requests=100)
    story.at(50, ready=5, requests=200)
    story.at(60, ready=5, requests=100)

    assert story.at(119, ready=5, requests=10).held_by == (Held.AFTER_BURST,)
    assert story.at(120, ready=5, requests=10).stop == 2


# Starts that fail.


def test_a_start_that_failed_gives_the_cooldown_back() -> None:
    story = Story(app(scale_up_cooldown=300))
    story.at(0, ready=1, requests=150)
    story.start_fails(5)

    assert told(story.at(6, ready=1, requests=150)) == (1, 0, Reason.BUSY, ())


def test_a_start_that_failed_leaves_the_cooldown_of_the_one_before() -> None:
    story = Story(app(scale_up_cooldown=300))
    story.at(0, ready=1, requests=150)
    story.start_works()
    story.at(300, ready=2, requests=250)
    story.start_fails(301)

    assert story.memory.last_up == 0.0
    assert story.at(303, ready=2, requests=250).start == 1


def test_a_lost_instance_that_cannot_be_replaced_gives_back_no_cooldown_of_a_start_that_worked() -> None:
    story = Story(app(min_instances=2, scale_up_cooldown=300))
    story.at(100, ready=2, requests=250)
    story.start_works()
    replacement = story.at(110, ready=1, requests=20)
    story.start_fails(112)

    assert replacement.reason is Reason.MINIMUM
    assert told(story.at(120, ready=2, requests=250)) == (0, 0, Reason.BUSY, (Held.UP_COOLDOWN,))


def test_each_start_that_failed_in_a_row_makes_the_next_wait_longer() -> None:
    story = Story(app(), Memory())
    now = 0.0
    waits = []
    for _ in range(9):
        assert story.at(now, waiting=1).start == 1
        story.start_fails(now)
        held = story.at(now, waiting=1)
        assert told(held) == (0, 0, Reason.WAKE, (Held.BACKOFF,))
        waits.append(held.recheck_at - now)
        now = held.recheck_at

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_start_that_works_forgets_the_failures_before() -> None:
    story = Story(app(), Memory())
    for now in (0, 10, 20):
        story.start_fails(now)
    story.start_works()

    assert story.at(20, waiting=1).start == 1
    story.start_fails(30)
    assert story.at(30, waiting=1).recheck_at == 31.0


def test_a_minimum_and_a_burst_wait_for_the_backoff_too() -> None:
    story = Story(app(min_instances=2), Memory(awake=True, failures=3, retry_at=50.0))

    assert told(story.at(49, ready=1)) == (0, 0, Reason.MINIMUM, (Held.BACKOFF,))
    assert told(story.at(49, ready=2, requests=45, burst=45)) == (0, 0, Reason.BURST, (Held.BACKOFF,))


# Down.


@pytest.mark.parametrize(
    ("ready", "requests", "expected"),
    [(2, 60, 0), (2, 59, 1), (3, 0, 1), (10, 0, 5), (9, 0, 4), (10, 299, 5), (1, 0, 0)],
    ids=["not below", "just below", "odd", "half", "odd half", "near the line", "minimum"],
)
def test_a_quiet_app_goes_down_by_at_most_half(ready: int, requests: int, expected: int) -> None:
    decision = Story(app()).at(0, ready=ready, requests=requests)

    assert decision.stop == expected
    assert decision.instances == ready - expected


def test_step_one_goes_down_one_at_a_time() -> None:
    assert Story(app(step="one")).at(0, ready=10).stop == 1


def test_going_down_ends_at_min_instances() -> None:
    assert told(Story(app(min_instances=4)).at(0, ready=5)) == (0, 1, Reason.QUIET, (Held.MIN_INSTANCES,))
    assert told(Story(app(min_instances=4)).at(0, ready=4)) == (0, 0, Reason.QUIET, (Held.MIN_INSTANCES,))


def test_what_must_not_be_stopped_is_kept_and_said_so() -> None:
    story = Story(app(stop_after_inactive=60))

    assert told(story.at(0, ready=1, pinned=1, idle_s=61.0)) == (0, 0, Reason.IDLE, (Held.PINNED,))
    assert told(Story(app(min_instances=0)).at(0, ready=1, pinned=1)) == (0, 0, Reason.QUIET, (Held.PINNED,))


def test_a_min_of_zero_lets_the_app_fall_asleep_when_the_load_goes() -> None:
    story = Story(app(min_instances=0))

    assert told(story.at(0, ready=1, requests=1)) == (0, 0, Reason.QUIET, (Held.WOULD_FLAP,))
    assert told(story.at(10, ready=1)) == (0, 1, Reason.QUIET, ())
    assert told(story.at(20)) == (0, 0, Reason.ASLEEP, ())


@pytest.mark.parametrize("facts", [{"in_flight": 1}, {"waiting": 1}], ids=["an open socket", "a waiting request"])
def test_the_last_instance_stays_while_someone_uses_it(facts: dict[str, int]) -> None:
    story = Story(app(min_instances=0))

    assert told(story.at(0, ready=1, **facts)) == (0, 0, Reason.QUIET, (Held.IN_USE,))


def test_the_load_never_goes_to_where_it_would_scale_up_again() -> None:
    story = Story(app(scale_up_threshold=0.5, scale_down_threshold=0.45))

    # Half of five would be three, with 59.7 requests each; above 50 is busy, so four is as far as it goes.
    assert told(story.at(0, ready=5, requests=179)) == (0, 1, Reason.QUIET, ())
    assert story.at(1000, ready=4, requests=179).changes is False


def test_a_quiet_app_that_cannot_do_with_fewer_says_that_it_would_flap() -> None:
    story = Story(app(scale_up_threshold=0.5, scale_down_threshold=0.45))

    # 44.75 each are below 45, so the seed's rule says down; three would have 59.7 each, and above 50 is busy.
    assert told(story.at(0, ready=4, requests=179)) == (0, 0, Reason.QUIET, (Held.WOULD_FLAP,))


def test_what_is_in_flight_keeps_the_instances_that_it_needs() -> None:
    story = Story(app(max_concurrency=2))

    assert story.at(0, ready=6, in_flight=9).stop == 1
    assert story.at(1000, ready=5, in_flight=9).stop == 0


def test_nothing_goes_down_before_a_full_window_was_watched() -> None:
    story = Story(app())

    assert told(story.at(0, ready=4, observed_s=59.9)) == (0, 0, Reason.QUIET, (Held.WINDOW,))
    assert told(story.at(1, ready=4, observed_s=60.0)) == (0, 2, Reason.QUIET, ())


def test_a_second_scale_down_waits_for_the_cooldown() -> None:
    story = Story(app(scale_down_cooldown=600))

    assert story.at(0, ready=8).stop == 4
    assert told(story.at(599, ready=4)) == (0, 0, Reason.QUIET, (Held.DOWN_COOLDOWN,))
    assert told(story.at(600, ready=4)) == (0, 2, Reason.QUIET, ())


def test_nothing_goes_down_during_a_rollout() -> None:
    assert told(Story(app()).at(0, ready=4, stale=1, stale_ready=1)) == (0, 0, Reason.QUIET, (Held.ROLLOUT,))


def test_everything_that_holds_a_scale_down_back_is_told() -> None:
    story = Story(app(), Memory(awake=True, last_down=0.0, in_burst=True))

    assert story.at(1, ready=4, stale=1, observed_s=1.0).held_by == (
        Held.ROLLOUT,
        Held.WINDOW,
        Held.AFTER_BURST,
        Held.DOWN_COOLDOWN,
    )


def test_more_than_max_instances_go_at_once() -> None:
    story = Story(app(max_instances=2), Memory(awake=True, last_down=0.0))

    assert told(story.at(1, ready=5, starting=1, requests=5000, observed_s=0.0)) == (0, 4, Reason.OVER_MAX, ())


# Sleep.


def test_an_idle_app_sleeps_after_its_time_and_below_its_minimum() -> None:
    story = Story(app(min_instances=2, stop_after_inactive=30))

    assert story.at(0, ready=3, idle_s=29.9).reason is not Reason.IDLE
    assert told(story.at(1, ready=2, starting=1, idle_s=30.0)) == (0, 3, Reason.IDLE, ())
    assert told(story.at(2, draining=3, idle_s=31.0)) == (0, 0, Reason.ASLEEP, ())


@pytest.mark.parametrize("facts", [{"in_flight": 1}, {"waiting": 1}], ids=["in flight", "waiting"])
def test_an_app_in_use_is_not_idle(facts: dict[str, int]) -> None:
    decision = Story(app(stop_after_inactive=30)).at(0, ready=1, idle_s=0.0, **facts)

    assert decision.reason is not Reason.IDLE


def test_an_app_that_has_no_inactive_time_never_sleeps() -> None:
    assert Story(app()).at(0, ready=1, idle_s=1e9).changes is False


def test_sleep_waits_for_no_cooldown_and_no_window() -> None:
    story = Story(app(stop_after_inactive=30), Memory(awake=True, last_down=0.0, in_burst=True))

    assert told(story.at(1, ready=2, idle_s=30.0, observed_s=31.0)) == (0, 2, Reason.IDLE, ())


def test_an_app_that_slept_wakes_with_the_next_request() -> None:
    story = Story(app(stop_after_inactive=30))
    story.at(0, ready=1, idle_s=30.0)

    assert told(story.at(1, waiting=1, requests=1)) == (1, 0, Reason.WAKE, ())


# By schedule.


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"scheduled": 0}, (0, 0, Reason.ASLEEP, ())),
        ({"scheduled": 3}, (3, 0, Reason.SCHEDULE, ())),
        ({"scheduled": 3, "starting": 3}, (0, 0, Reason.STEADY, ())),
        ({"scheduled": 99}, (10, 0, Reason.SCHEDULE, ())),
        ({"scheduled": 2}, (2, 0, Reason.MINIMUM, ())),
        ({"scheduled": 3, "waiting": 1}, (3, 0, Reason.WAKE, ())),
        ({"scheduled": 3, "ready": 1, "requests": 80}, (2, 0, Reason.SCHEDULE, ())),
        ({"scheduled": 1, "ready": 2, "requests": 0}, (0, 1, Reason.QUIET, ())),
        ({"scheduled": 3, "ready": 3, "requests": 0}, (0, 0, Reason.QUIET, (Held.MIN_INSTANCES,))),
        ({"scheduled": 3, "ready": 3, "idle_s": 99.0}, (0, 0, Reason.QUIET, (Held.MIN_INSTANCES,))),
        ({"scheduled": 0, "ready": 3, "idle_s": 99.0}, (0, 3, Reason.IDLE, ())),
    ],
    ids=[
        "none are asked for",
        "a sleeping app wakes",
        "they start already",
        "never more than max_instances",
        "no more than min_instances",
        "a request wakes as many",
        "the minimum rises",
        "and falls below min_instances",
        "it is where going down ends",
        "it keeps an idle app awake",
        "none: an idle app sleeps",
    ],
)
def test_the_schedule_sets_the_minimum(facts: dict[str, Any], expected: tuple[Any, ...]) -> None:
    story = Story(app(min_instances=2, stop_after_inactive=60), Memory(awake="ready" in facts))

    assert told(story.at(0, **facts)) == expected


def test_what_the_schedule_asks_for_uses_up_no_cooldown_and_waits_for_none() -> None:
    story = Story(app(), Memory(awake=True, last_up=0.0))
    story.at(1, ready=1, scheduled=4)

    assert story.memory.last_up == 0.0


def test_before_the_schedule_begins_min_instances_hold() -> None:
    assert told(Story(app(min_instances=2)).at(0, ready=1, scheduled=None)) == (1, 0, Reason.MINIMUM, ())


# By hand.


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"asked": 4}, (4, 0, Reason.BY_HAND, ())),
        ({"asked": 4, "ready": 2, "requests": 100}, (2, 0, Reason.BY_HAND, ())),
        ({"asked": 2, "ready": 5, "requests": 800}, (0, 3, Reason.BY_HAND, ())),
        ({"asked": 2, "ready": 2}, (0, 0, Reason.BY_HAND, ())),
        ({"asked": 4, "ready": 2, "draining": 7}, (1, 0, Reason.BY_HAND, (Held.DRAINING,))),
        ({"asked": 1, "ready": 3, "pinned": 2}, (0, 1, Reason.BY_HAND, (Held.PINNED,))),
        ({"floor": 4}, (4, 0, Reason.BY_HAND, ())),
        ({"floor": 4, "ready": 3, "requests": 200}, (1, 0, Reason.BY_HAND, ())),
        ({"floor": 99, "ready": 3, "requests": 200}, (7, 0, Reason.BY_HAND, ())),
        ({"floor": 4, "ready": 4, "idle_s": 99.0}, (0, 0, Reason.QUIET, (Held.BY_HAND,))),
        ({"floor": 1, "ready": 1, "scheduled": 2, "requests": 50}, (1, 0, Reason.SCHEDULE, ())),
        ({"floor": 2, "ready": 2, "requests": 400}, (3, 0, Reason.BUSY, ())),
        ({"floor": 3, "waiting": 1}, (3, 0, Reason.WAKE, ())),
        ({"ready": 4, "idle_s": 99.0}, (0, 4, Reason.IDLE, ())),
    ],
    ids=[
        "it wakes",
        "up",
        "down, whatever the load",
        "there already",
        "not past the maximum",
        "not those that must not be stopped",
        "kept although nobody asks",
        "one that is missing is replaced",
        "never more than the maximum",
        "it keeps an idle app awake",
        "a higher minimum counts",
        "load may want more",
        "a wake brings all of them",
        "later an idle app sleeps",
    ],
)
def test_what_a_person_asks_for_is_done_and_kept_for_a_while(facts: dict[str, Any], expected: tuple[Any, ...]) -> None:
    story = Story(app(min_instances=0, stop_after_inactive=60), Memory(awake="ready" in facts, last_up=-999.0))

    assert told(story.at(0, **facts)) == expected


def test_what_a_person_asks_for_waits_for_no_cooldown_and_begins_none() -> None:
    story = Story(app(), Memory(awake=True, last_up=0.0, last_down=0.0))

    assert told(story.at(1, ready=1, asked=4)) == (3, 0, Reason.BY_HAND, ())
    assert story.memory.last_up == 0.0


def test_an_app_that_a_person_wants_none_of_sleeps() -> None:
    story = Story(app(min_instances=0))

    assert told(story.at(0, ready=2, requests=50, asked=0)) == (0, 2, Reason.BY_HAND, ())
    assert told(story.at(1, draining=2, requests=50)) == (0, 0, Reason.ASLEEP, ())


# By concurrency: eight at once on each are aimed at, above 7.2 is busy, below 2.4 quiet, twice 7.2 a burst.


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"ready": 1, "concurrency": 7.2}, (0, 0, Reason.STEADY, ())),
        ({"ready": 1, "concurrency": 7.3}, (1, 0, Reason.CONCURRENCY, ())),
        ({"ready": 2, "concurrency": 29.0}, (3, 0, Reason.CONCURRENCY, ())),
        ({"ready": 1, "concurrency": 7.3, "requests": 181}, (2, 0, Reason.BUSY, ())),
        ({"ready": 1, "concurrency": 14.5, "requests": 91}, (2, 0, Reason.CONCURRENCY, ())),
        ({"ready": 2, "concurrency": 4.8}, (0, 0, Reason.STEADY, ())),
        ({"ready": 2, "concurrency": 4.7}, (0, 1, Reason.QUIET, ())),
        ({"ready": 2, "concurrency": 4.7, "requests": 60}, (0, 0, Reason.STEADY, ())),
        ({"ready": 2, "concurrency": 6.0, "crowd": 28.7}, (0, 0, Reason.STEADY, ())),
        ({"ready": 2, "concurrency": 6.0, "crowd": 28.9}, (3, 0, Reason.BURST, ())),
        ({"ready": 1, "concurrency": 36.0, "crowd": 20.0}, (4, 0, Reason.BURST, ())),
    ],
    ids=[
        "on the line",
        "above it",
        "as many as it takes",
        "requests want more",
        "concurrency wants more",
        "on the lower line",
        "below it",
        "below it, but requests are not",
        "less than twice what is ready",
        "twice what is ready",
        "a burst, and the minute wants more",
    ],
)
def test_concurrency_is_shared_by_those_that_are_ready(facts: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert told(Story(app(target_concurrency=8)).at(0, **facts)) == expected


def test_a_crowd_does_not_wait_for_the_cooldown_that_concurrency_waits_for() -> None:
    story = Story(app(target_concurrency=8), Memory(awake=True, last_up=0.0))

    assert told(story.at(10, ready=1, concurrency=9.0, crowd=9.0)) == (0, 0, Reason.CONCURRENCY, (Held.UP_COOLDOWN,))
    assert told(story.at(10, ready=1, concurrency=9.0, crowd=30.0)) == (4, 0, Reason.BURST, ())


@pytest.mark.parametrize(
    ("facts", "soon"),
    [
        ({"in_flight": 14}, 0.0),
        ({"in_flight": 15}, 1.0),
        ({"in_flight": 28}, 1.0),
        ({"in_flight": 20, "waiting": 9}, 0.1),
        ({"in_flight": 29, "starting": 1}, 0.1),
        ({"in_flight": 29, "starting": 3}, 0.0),
        ({"in_flight": 29, "starting": 8}, 0.0),
    ],
    ids=["few", "more than they should", "not twice", "twice", "one more comes", "enough come", "at the maximum"],
)
def test_a_crowd_that_has_just_come_is_looked_at_again_soon(facts: dict[str, Any], soon: float) -> None:
    decision = Story(app(target_concurrency=8)).at(100, ready=2, requests=100, **facts)

    assert told(decision) == (0, 0, Reason.STEADY, ())
    assert decision.recheck_at == (100 + soon if soon else 0.0)


def test_what_a_cooldown_holds_back_keeps_no_crowd_or_line_from_being_looked_at_soon() -> None:
    crowded = Story(app(target_concurrency=8), Memory(awake=True, last_up=0.0))
    lined_up = Story(app(max_concurrency=10), Memory(awake=True, last_up=0.0))
    begun = crowded.at(100, ready=1, in_flight=40, concurrency=9.0, crowd=2.0)
    short = lined_up.at(100, ready=1, requests=150, in_flight=10, waiting=1, line_s=0.1, start_s=5.0)

    assert (begun.held_by, begun.recheck_at) == ((Held.UP_COOLDOWN,), 100.1)
    assert (short.held_by, short.recheck_at) == ((Held.UP_COOLDOWN,), 101.0)


# By a gauge of its own: ten on each are aimed at, above 9 is busy, below 3 quiet.


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"ready": 2, "gauge": 9.0}, (0, 0, Reason.STEADY, ())),
        ({"ready": 2, "gauge": 9.1}, (1, 0, Reason.METRIC, ())),
        ({"ready": 2, "gauge": 40.0}, (7, 0, Reason.METRIC, ())),
        ({"ready": 2, "gauge": 9.1, "requests": 300}, (2, 0, Reason.BUSY, ())),
        ({"ready": 2, "gauge": 3.0}, (0, 0, Reason.STEADY, ())),
        ({"ready": 2, "gauge": 2.9}, (0, 1, Reason.QUIET, ())),
        ({"ready": 2, "gauge": 0.0}, (0, 1, Reason.QUIET, ())),
        ({"ready": 2, "gauge": 0.0, "requests": 60}, (0, 0, Reason.STEADY, ())),
        ({"ready": 2, "gauge": None}, (0, 0, Reason.QUIET, (Held.NO_METRIC,))),
        ({"ready": 2, "gauge": None, "requests": 300}, (2, 0, Reason.BUSY, ())),
    ],
    ids=[
        "on the line",
        "above it",
        "as many as it takes",
        "requests want more",
        "on the lower line",
        "below it",
        "nothing to do",
        "nothing to do, but requests",
        "unread: not down",
        "unread: up by requests",
    ],
)
def test_the_gauge_is_added_up_over_those_that_are_ready(facts: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert told(Story(app(**GAUGE)).at(0, **facts)) == expected


def test_a_gauge_waits_for_the_cooldown() -> None:
    story = Story(app(**GAUGE))
    story.at(0, ready=1, gauge=15.0)

    assert told(story.at(10, ready=2, gauge=12.0)) == (0, 0, Reason.METRIC, (Held.UP_COOLDOWN,))


# By the line: ten places on each, and a start takes four seconds, so one is worth it for a line of more than a second.


@pytest.mark.parametrize(
    ("facts", "start", "recheck"),
    [
        ({"waiting": 40, "line_s": 1.0}, 0, 1.0),
        ({"waiting": 40, "line_s": 1.1}, 1, 1.0),
        ({"waiting": 40, "line_s": 2.5}, 3, 1.0),
        ({"waiting": 25, "line_s": 90.0}, 3, 1.0),
        ({"waiting": 5, "line_s": 0.2, "lined_up_s": 0.4}, 0, 0.6),
        ({"waiting": 5, "line_s": 0.2, "lined_up_s": 1.0}, 1, 0.0),
        ({"waiting": 25, "line_s": 0.9, "lined_up_s": 1.0}, 1, 0.0),
        ({"waiting": 25, "line_s": 0.9, "lined_up_s": 1.0, "starting": 1}, 0, 0.0),
        ({"waiting": 25, "line_s": 0.0, "lined_up_s": 0.9}, 0, 0.1),
        ({"waiting": 25, "line_s": 0.0, "lined_up_s": 1.0}, 3, 0.0),
        ({"waiting": 25, "line_s": 0.1, "start_s": 0.0}, 3, 0.0),
        ({"waiting": 40, "line_s": 0.5, "start_s": 0.25}, 2, 0.25),
        ({"waiting": 5, "line_s": 0.2, "lined_up_s": 0.2, "start_s": 0.25}, 0, 0.05),
        ({"waiting": 5, "line_s": 90.0, "in_flight": 12}, 0, 1.0),
        ({"waiting": 0, "in_flight": 75}, 0, 0.0),
    ],
    ids=[
        "gone before a start could help",
        "just not gone",
        "as many as shorten it to a second",
        "no more than have a use",
        "short, and only beginning",
        "short, and stays",
        "longer, and stays",
        "longer, stays, and one comes",
        "no pace known, only beginning",
        "no pace known, and stays",
        "no start was seen",
        "a start is shorter than a second",
        "a start is shorter, and it is only beginning",
        "places are free",
        "nobody waits",
    ],
)
def test_a_line_is_worth_a_start_if_it_outlasts_it(facts: dict[str, Any], start: int, recheck: float) -> None:
    known = {"ready": 2, "in_flight": 20, "requests": 100, "start_s": 4.0}
    decision = Story(app(max_concurrency=10, max_instances=30)).at(100, **{**known, **facts})

    assert told(decision) == (start, 0, Reason.NO_PLACE if start else Reason.STEADY, ())
    assert decision.recheck_at == pytest.approx(100 + recheck if recheck else 0.0)


# In the host's budget.


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"requests": 450, "room": 9}, (4, 0, Reason.BUSY, ())),
        ({"requests": 450, "room": 2}, (2, 0, Reason.BUSY, (Held.HOST_BUDGET,))),
        ({"requests": 450, "room": 0}, (0, 0, Reason.BUSY, (Held.HOST_BUDGET,))),
        ({"requests": 450, "room": 0, "standby": 1, "warming": 2}, (3, 0, Reason.BUSY, (Held.HOST_BUDGET,))),
        ({"requests": 450, "room": 1, "standby": 1, "warming": 2}, (4, 0, Reason.BUSY, ())),
        ({"scheduled": 3, "room": 1}, (1, 0, Reason.SCHEDULE, (Held.HOST_BUDGET,))),
        ({"requests": 5000, "room": 2}, (2, 0, Reason.BUSY, (Held.MAX_INSTANCES, Held.HOST_BUDGET))),
        ({"requests": 50, "room": 0}, (0, 0, Reason.STEADY, ())),
    ],
    ids=[
        "room for all",
        "room for some",
        "none",
        "spares need none",
        "spares and one more",
        "the schedule too",
        "after max_instances",
        "nothing is wanted",
    ],
)
def test_what_the_host_has_no_room_for_is_held_back(facts: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert told(Story(app()).at(0, ready=1, **facts)) == expected


def test_a_wake_that_the_host_has_no_room_for_says_so() -> None:
    assert told(Story(app(), Memory()).at(0, waiting=1, room=0)) == (0, 0, Reason.WAKE, (Held.HOST_BUDGET,))


@pytest.mark.parametrize(
    "facts",
    [
        {"room": 0},
        {"draining": 9},
        {"starting": 1, "step": "one"},
        {"retry_at": 130.0},
    ],
    ids=["room on the host", "drains", "a start", "backoff"],
)
def test_before_something_changes_that_a_scale_up_waits_for_nobody_looks_again(facts: dict[str, Any]) -> None:
    step, retry_at = facts.pop("step", "proportional"), facts.pop("retry_at", 0.0)
    story = Story(app(target_concurrency=8, step=step), Memory(awake=True, retry_at=retry_at))
    decision = story.at(100, ready=1, in_flight=200, concurrency=200.0, crowd=200.0, **facts)

    assert decision.start == 0
    assert decision.recheck_at == retry_at


# To and from standby.


@pytest.mark.parametrize(
    ("facts", "stop", "park"),
    [
        ({"ready": 8}, 4, 2),
        ({"ready": 8, "standby": 1}, 4, 1),
        ({"ready": 8, "warming": 1, "draining": 1, "parking": 1}, 4, 0),
        ({"ready": 8, "spent": 2}, 4, 2),
        ({"ready": 3, "starting": 2}, 2, 0),
        ({"ready": 5, "starting": 3}, 4, 1),
        ({"ready": 8, "idle_s": 99.0}, 8, 2),
        ({"ready": 12, "requests": 999}, 2, 0),
    ],
    ids=[
        "both",
        "one",
        "none is missing",
        "in place of spent ones",
        "starting ones end",
        "one of them",
        "sleep",
        "max",
    ],
)
def test_what_leaves_goes_to_standby_as_far_as_spares_are_missing(facts: dict[str, Any], stop: int, park: int) -> None:
    decision = Story(app(standby_instances=2, stop_after_inactive=60)).at(0, **facts)

    assert (decision.stop, decision.park) == (stop, park)


@pytest.mark.parametrize(("standby", "warming", "expected"), [(0, 0, 0), (2, 1, 2), (9, 0, 4)])
def test_what_is_on_standby_serves_first(standby: int, warming: int, expected: int) -> None:
    decision = Story(app()).at(0, ready=1, requests=450, standby=standby, warming=warming)

    assert (decision.start, decision.from_standby) == (4, expected)


def test_spares_that_are_spent_take_the_place_of_those_that_serve_until_they_are_gone() -> None:
    story = Story(app(max_instances=4))

    assert told(story.at(0, ready=2, spent=1, requests=360)) == (1, 0, Reason.BUSY, (Held.DRAINING,))


# After a restart of dockscale.


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"observed_s": 59.9, "adopted": True}, (0, 0, Reason.IDLE, (Held.WINDOW,))),
        ({"observed_s": 60.0, "adopted": True}, (0, 2, Reason.IDLE, ())),
        ({"observed_s": 59.9, "adopted": False}, (0, 2, Reason.IDLE, ())),
    ],
    ids=["adopted, not watched for long", "adopted, watched for a minute", "not adopted"],
)
def test_an_adopted_app_does_not_sleep_in_its_first_minute(facts: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert told(Story(app(stop_after_inactive=30)).at(0, ready=2, idle_s=45.0, **facts)) == expected


def test_an_adopted_app_of_which_nothing_is_left_sleeps_and_is_not_held_back() -> None:
    story = Story(app(stop_after_inactive=30))

    assert told(story.at(0, idle_s=45.0, observed_s=45.0, adopted=True)) == (0, 0, Reason.IDLE, ())
    assert story.memory.awake is False


# What is kept on standby. Two are wanted, beside four at most that serve.


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"ready": 1}, Stock(start=2)),
        ({"ready": 1, "warming": 1}, Stock(start=1)),
        ({"ready": 1, "standby": 1, "draining": 1, "parking": 1}, Stock()),
        ({"ready": 1, "standby": 2}, Stock()),
        ({"ready": 1, "standby": 1, "draining": 2}, Stock()),
        ({"ready": 2, "starting": 1}, Stock(start=1)),
        ({"ready": 3, "starting": 1}, Stock()),
        ({"ready": 1, "room": 1}, Stock(start=1)),
        ({"ready": 1, "room": 0}, Stock()),
        ({}, Stock(start=2)),
        ({"ready": 1, "standby": 3}, Stock(stop=1)),
        ({"ready": 1, "standby": 2, "warming": 1}, Stock(stop=1)),
        ({"ready": 4, "standby": 2}, Stock(stop=2)),
        ({"ready": 1, "standby": 1, "draining": 2, "parking": 2}, Stock(stop=1)),
        ({"ready": 1, "spent": 1}, Stock(start=2)),
        ({"ready": 1, "spent": 1, "warming": 2}, Stock()),
        ({"ready": 1, "spent": 1, "standby": 2}, Stock(stop_spent=1)),
        ({"ready": 1, "spent": 2}, Stock(start=1, stop_spent=1)),
        ({"ready": 2, "spent": 2}, Stock(stop_spent=2)),
        ({"ready": 2, "spent": 1, "standby": 1}, Stock(stop_spent=1)),
        ({"ready": 1, "spent": 2, "room": 0}, Stock(stop_spent=2)),
        ({"ready": 4, "spent": 1}, Stock(stop_spent=1)),
    ],
    ids=[
        "both are missing",
        "one starts already",
        "one drains to it",
        "both are there",
        "no place: others drain",
        "a place for one",
        "no place: all serve",
        "the host has room for one",
        "the host has no room",
        "also while it sleeps",
        "one too many",
        "one too many is on its way",
        "their places are taken",
        "more drain to it than are missing",
        "one is spent, new ones first",
        "they are on their way",
        "they are there, the spent one ends",
        "two are spent, a place for one",
        "no place: they end first",
        "no place: it ends first",
        "no room on the host: they end first",
        "none is wanted, it ends",
    ],
)
def test_spares_are_filled_up_renewed_and_reduced(facts: dict[str, Any], expected: Stock) -> None:
    memory = Memory(awake=True, warm=True)

    assert stock(app(standby_instances=2, max_instances=4), load(**facts), memory, 0.0) == expected


def test_an_app_that_never_was_awake_has_no_spares() -> None:
    assert stock(app(standby_instances=2), load(), Memory(), 0.0) == Stock()


def test_an_app_of_which_spares_are_found_has_been_awake() -> None:
    spec, found = app(standby_instances=2), load(standby=1)
    _, memory = decide(spec, found, Memory(), 0.0)

    assert (memory.awake, stock(spec, found, memory, 0.0)) == (False, Stock(start=1))


def test_spares_that_are_not_wanted_any_more_end() -> None:
    found = load(ready=1, standby=2, warming=1, spent=1)

    assert stock(app(), found, Memory(awake=True, warm=True), 0.0) == Stock(stop=3, stop_spent=1)


@pytest.mark.parametrize("waits", ["spare_at", "retry_at"])
def test_after_a_failure_spares_wait_and_spent_ones_are_in_nobodys_way(waits: str) -> None:
    spec, facts = app(standby_instances=2, max_instances=3), load(ready=1, spent=2)
    memory = Memory(True, True, spare_at=10.0) if waits == "spare_at" else Memory(True, True, retry_at=10.0)

    assert stock(spec, facts, memory, 9.9) == Stock(stop_spent=2)
    assert stock(spec, replace(facts, spent=0), memory, 10.0) == Stock(start=2)


def test_each_spare_that_fails_in_a_row_makes_the_next_wait_longer_and_nothing_else() -> None:
    memory, waits = Memory(awake=True), []
    for _ in range(8):
        memory = after_failed_spare(memory, 100.0)
        waits.append(memory.spare_at - 100.0)

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert (memory.failures, memory.retry_at) == (0, 0.0)
    assert after_good_spare(memory) == Memory(awake=True)


# From one template to the next.


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"ready": 2}, Rollout(0, 0)),
        ({"ready": 2, "stale": 2, "stale_ready": 2, "requests": 100}, Rollout(2, 0)),
        ({"ready": 2, "starting": 2, "stale": 2, "stale_ready": 2, "requests": 100}, Rollout(0, 0)),
        ({"ready": 3, "starting": 1, "stale": 2, "stale_ready": 2, "requests": 100}, Rollout(0, 1)),
        ({"ready": 4, "stale": 2, "stale_ready": 2, "requests": 100}, Rollout(0, 2)),
        ({"ready": 2, "starting": 1, "stale": 3, "stale_ready": 2, "requests": 100}, Rollout(1, 1)),
        ({"ready": 4, "stale": 4, "stale_ready": 4, "requests": 300}, Rollout(0, 0, 1)),
        ({"ready": 3, "draining": 1, "stale": 3, "stale_ready": 3, "requests": 300}, Rollout(0, 0)),
        ({"ready": 3, "stale": 3, "stale_ready": 3, "requests": 300}, Rollout(1, 0)),
    ],
    ids=[
        "nothing stale",
        "new ones first",
        "not ready yet",
        "one took over",
        "all took over",
        "a stale start is given up",
        "no room: one is set aside",
        "it has to be gone",
        "room again",
    ],
)
def test_new_instances_take_over_from_those_of_the_earlier_template(facts: dict[str, int], expected: Rollout) -> None:
    assert rollout(app(max_instances=4), load(**facts), AWAKE, 0.0, "new") == expected


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"ready": 3, "standby": 1}, Rollout(1)),
        ({"ready": 2, "standby": 1}, Rollout(2)),
        ({"ready": 3, "spent": 1}, Rollout()),
        ({"ready": 2, "room": 1}, Rollout(1)),
        ({"ready": 2, "room": 0}, Rollout(0, 0, 1)),
        ({"ready": 2, "room": 0, "warming": 1}, Rollout(1)),
        ({"ready": 5}, Rollout(0, 1)),
    ],
    ids=[
        "one from standby",
        "one from standby, one new",
        "a spent one makes room first",
        "the host has room for one",
        "the host has no room: one is set aside",
        "one that is on its way to standby",
        "more than max_instances",
    ],
)
def test_a_rollout_takes_spares_and_the_room_that_there_is(facts: dict[str, Any], expected: Rollout) -> None:
    stale = {"stale": facts["ready"], "stale_ready": facts["ready"], "requests": 300}

    assert rollout(app(max_instances=4), load(**facts, **stale), AWAKE, 0.0, "new") == expected


def test_a_version_that_failed_in_an_old_ones_place_is_tried_only_beside_it() -> None:
    memory = Memory(awake=True, shunned="new")
    no_room, room = load(ready=1, stale=1, stale_ready=1), load(starting=1, stale=1)

    assert rollout(app(max_instances=1), no_room, memory, 0.0, "new") == Rollout()
    assert rollout(app(max_instances=1), no_room, memory, 0.0, "newer") == Rollout(0, 0, 1)
    assert rollout(app(max_instances=2), room, memory, 0.0, "new") == Rollout(1), "the one that came back is kept"


def test_a_rollout_makes_only_as_many_as_the_load_needs() -> None:
    assert rollout(app(), load(ready=6, stale=6, stale_ready=6, requests=100), AWAKE, 0.0, "new") == Rollout(2, 4)


def test_an_app_of_which_nothing_is_needed_just_lets_the_earlier_ones_go() -> None:
    assert rollout(app(min_instances=0), load(ready=2, stale=2, stale_ready=2), AWAKE, 0.0, "new") == Rollout(0, 2)


def test_a_rollout_leaves_as_many_as_a_burst_needs() -> None:
    facts = load(ready=5, stale=5, stale_ready=5, requests=45, burst=45)

    assert rollout(app(), facts, Memory(awake=True, in_burst=True), 0.0, "new") == Rollout(3, 2)


def test_an_open_socket_keeps_one_instance_through_a_rollout() -> None:
    facts = load(ready=1, stale=1, stale_ready=1, in_flight=1)

    assert rollout(app(min_instances=0), facts, AWAKE, 0.0, "new") == Rollout(1, 0)


def test_a_rollout_waits_for_the_backoff() -> None:
    memory = Memory(awake=True, failures=1, retry_at=10.0)
    facts = load(ready=1, stale=1, stale_ready=1)

    assert rollout(app(), facts, memory, 9.0, "new") == Rollout(0, 0)
    assert rollout(app(), facts, memory, 10.0, "new") == Rollout(1, 0)


# Who goes.


@dataclass(frozen=True)
class Someone:
    name: str
    starting: bool = False
    pinned: bool = False
    managed: bool = True
    in_flight: int = 0
    rate: int = 0

    def per_minute(self, now: float) -> int:
        return self.rate


CROWD = [
    Someone("itself", managed=False),
    Someone("pinned", pinned=True),
    Someone("busy", in_flight=3),
    Someone("popular", rate=50),
    Someone("rested"),
    Someone("starting", starting=True, rate=99),
]


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (0, []),
        (1, ["starting"]),
        (2, ["starting", "rested"]),
        (3, ["starting", "rested", "itself"]),
        (4, ["starting", "rested", "itself", "popular"]),
        (9, ["starting", "rested", "itself", "popular", "busy"]),
    ],
)
def test_starting_ones_go_first_then_the_least_loaded_and_pinned_ones_never(stop: int, expected: list[str]) -> None:
    assert [each.name for each in victims(CROWD, stop, 0.0)] == expected


# What holds whatever comes.


@st.composite
def specs(draw: st.DrawFn) -> AppSpec:
    low = draw(st.integers(0, 5))
    up = draw(st.sampled_from([0.1, 0.5, 0.9, 1.5]))
    gauge = draw(st.sampled_from([False, False, True]))
    return app(
        stop_after_inactive=draw(st.sampled_from([0, 30])),
        enabled=draw(st.sampled_from([True, True, True, False])),
        min_instances=low,
        max_instances=draw(st.integers(max(low, 1), 12)),
        target_requests_per_instance=draw(st.sampled_from([1, 7, 20, 100])),
        target_concurrency=draw(st.sampled_from([None, None, 1, 8])),
        scale_up_threshold=up,
        scale_down_threshold=up * draw(st.sampled_from([0, 0.3, 0.99])),
        scale_up_cooldown=draw(st.sampled_from([0, 300])),
        scale_down_cooldown=draw(st.sampled_from([0, 600])),
        step=draw(st.sampled_from(["proportional", "one"])),
        max_concurrency=draw(st.sampled_from([None, 1, 5])),
        standby_instances=draw(st.sampled_from([0, 0, 1, 3])),
        **(GAUGE if gauge else {}),
    )


@st.composite
def loads(draw: st.DrawFn) -> Load:
    ready, starting, draining = draw(st.integers(0, 14)), draw(st.integers(0, 4)), draw(st.integers(0, 4))
    requests = draw(st.one_of(st.integers(0, 60), st.integers(0, 2000)))
    stale_ready = draw(st.sampled_from([0, 0, ready]))
    stale_starting = draw(st.sampled_from([0, starting]))
    served_before = draw(st.integers(0, stale_starting))
    in_flight = draw(st.sampled_from([0, 0, 1, 9, 40])) if ready else 0
    waiting = draw(st.sampled_from([0, 0, 1, 30]))
    crowd = draw(st.sampled_from([0, 0, 1, 12, 200]))
    few = st.sampled_from([0, 0, 0, 1, 3])
    return Load(
        ready=ready,
        starting=starting,
        draining=draining,
        stale=stale_ready + stale_starting,
        stale_ready=stale_ready + served_before,
        pinned=draw(st.sampled_from([0, 0, 0, min(1, ready)])),
        standby=draw(few),
        spent=draw(few),
        warming=draw(few),
        parking=draw(st.integers(0, draining)),
        in_flight=in_flight,
        waiting=waiting,
        requests=requests,
        burst=draw(st.integers(0, requests)),
        concurrency=crowd / 60 + (draw(st.floats(0, 60)) if crowd else draw(st.sampled_from([0.0, 2.5]))),
        crowd=float(crowd),
        line_s=draw(st.sampled_from([0.0, 0.4, 1.5, 90.0])) if waiting else 0.0,
        lined_up_s=draw(st.sampled_from([0.0, 0.3, 1.0, 20.0])) if waiting else 0.0,
        start_s=draw(st.sampled_from([0.0, 0.3, 7.0])),
        gauge=draw(st.sampled_from([None, 0.0, 0.5, 3.0, 7.0, 64.0])) if ready else None,
        scheduled=draw(st.sampled_from([None, None, 0, 2, 15])),
        floor=draw(few),
        room=draw(st.sampled_from([UNBOUNDED, UNBOUNDED, 0, 2])),
        idle_s=0.0 if in_flight or waiting else draw(st.sampled_from([0.0, 29.0, 31.0])),
        observed_s=draw(st.sampled_from([10.0, 60.0, 1000.0])),
        adopted=draw(st.booleans()),
    )


NOW = 1000.0
PAST = st.sampled_from([None, NOW - 500, NOW - 1])
MEMORIES = st.builds(
    Memory,
    awake=st.booleans(),
    warm=st.booleans(),
    last_up=PAST,
    last_down=PAST,
    last_up_before=st.none(),
    in_burst=st.booleans(),
    below_since=PAST,
    failures=st.just(0),
    retry_at=st.sampled_from([0.0, NOW + 5]),
    gone=st.sampled_from([(), ("a died",), ("a died", "b died", "c was ejected")]),
    spare_at=st.sampled_from([0.0, NOW + 5]),
    shunned=st.sampled_from(["", "", "new"]),
)


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_a_decision_adds_up_and_keeps_within_all_bounds(spec: AppSpec, load: Load, memory: Memory) -> None:
    decision, _ = decide(spec, load, memory, NOW)

    assert decision.instances == load.have + decision.start - decision.stop
    assert min(decision.start, decision.stop) == 0
    assert 0 <= decision.from_standby <= load.standby
    if decision.start:
        assert load.have + load.draining + load.spent + decision.start <= spec.bounds[1]
    assert decision.start - load.standby - load.warming <= load.room
    assert decision.recheck_at == 0.0 or decision.recheck_at > NOW


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_a_result_that_is_not_the_wish_is_half_way_down_or_says_what_held_it(
    spec: AppSpec, load: Load, memory: Memory
) -> None:
    decision, _ = decide(spec, load, memory, NOW)
    half_way = decision.reason is Reason.QUIET and decision.instances == ceil(load.have / 2)

    if decision.instances != decision.wanted:
        assert decision.held_by or half_way
    else:
        assert decision.held_by == ()
    assert len(set(decision.held_by)) == len(decision.held_by)


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_what_leaves_is_parked_only_as_far_as_spares_are_missing(spec: AppSpec, load: Load, memory: Memory) -> None:
    decision, _ = decide(spec, load, memory, NOW)

    assert 0 <= decision.park <= decision.stop
    if decision.park:
        spares = load.standby + load.warming + load.parking + decision.park
        assert spares <= min(spec.autoscaling.standby_instances, spec.bounds[1] - decision.instances)
        assert decision.park <= decision.stop - min(load.starting, decision.stop), "only what is ready can be parked"


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_what_is_gone_is_told_at_once_and_remembered_as_far_as_it_is_missing(
    spec: AppSpec, load: Load, memory: Memory
) -> None:
    decision, after = decide(spec, load, memory, NOW)

    assert decision.gone == memory.gone
    assert len(after.gone) <= max(0, len(memory.gone) - decision.start)
    if load.ready and decision.instances == decision.wanted:
        assert after.gone == ()


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_replacing_what_is_gone_begins_no_cooldown(spec: AppSpec, load: Load, memory: Memory) -> None:
    decision, after = decide(spec, load, memory, NOW)

    if decision.start <= len(memory.gone):
        assert after.last_up == memory.last_up


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_what_is_measured_over_a_minute_starts_no_more_within_the_cooldown_than_is_gone(
    spec: AppSpec, load: Load, memory: Memory
) -> None:
    decision, _ = decide(spec, load, memory, NOW)

    if decision.reason in (Reason.BUSY, Reason.CONCURRENCY, Reason.METRIC) and memory.last_up is not None:
        over = NOW - memory.last_up >= spec.autoscaling.scale_up_cooldown
        assert over or decision.start <= len(memory.gone)


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_a_start_that_fails_leaves_the_cooldown_as_it_was(spec: AppSpec, load: Load, memory: Memory) -> None:
    decision, after = decide(spec, load, memory, NOW)

    if decision.start > load.standby:  # the others are there already
        assert after_failed_start(after, NOW + 1).last_up == memory.last_up
        assert after_failed_start(after_good_start(after), NOW + 1).last_up == after.last_up


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_an_app_that_goes_down_without_sleeping_keeps_its_minimum(spec: AppSpec, load: Load, memory: Memory) -> None:
    decision, _ = decide(spec, load, memory, NOW)

    if decision.stop and decision.reason is not Reason.IDLE:
        assert decision.instances >= bounds(spec, load)[0]
    if decision.reason is Reason.QUIET:
        assert decision.stop <= load.have / 2 or load.have == 1
    if decision.reason is Reason.IDLE or decision.instances == 0:
        assert load.in_flight == load.waiting == 0 or load.have == 0
    if load.scheduled:
        assert decision.instances >= bounds(spec, load)[0] or decision.held_by
    assert decision.instances >= min(load.pinned, load.have) or decision.reason is Reason.OVER_MAX


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_nothing_is_started_for_a_line_that_is_not_there(spec: AppSpec, load: Load, memory: Memory) -> None:
    decision, _ = decide(spec, load, memory, NOW)

    assert load.waiting or decision.reason is not Reason.NO_PLACE


@st.composite
def busier(draw: st.DrawFn, load: Load) -> Load:
    """The same app with more of one thing."""
    more = draw(st.integers(1, 500))
    match draw(st.sampled_from(["requests", "burst", "concurrency", "crowd", "gauge", "in_flight"])):
        case "requests":
            return replace(load, requests=load.requests + more)
        case "burst":
            return replace(load, requests=load.requests + more, burst=load.burst + more)
        case "concurrency":
            return replace(load, concurrency=load.concurrency + more / 7)
        case "crowd":
            return replace(load, crowd=load.crowd + more / 7)
        case "gauge":
            return load if load.gauge is None else replace(load, gauge=load.gauge + more / 7)
        case _:
            return replace(load, in_flight=load.in_flight + more, idle_s=0.0) if load.ready else load


@given(data=st.data(), spec=specs(), load=loads(), memory=MEMORIES)
def test_an_app_with_more_to_do_never_wants_fewer_instances(
    data: st.DataObject, spec: AppSpec, load: Load, memory: Memory
) -> None:
    more = data.draw(busier(load))

    assert decide(spec, more, memory, NOW)[0].wanted >= decide(spec, load, memory, NOW)[0].wanted


@given(spec=specs(), load=loads(), memory=MEMORIES, times=st.integers(2, 40), longer=st.floats(0, 100))
def test_a_line_with_more_in_it_never_starts_fewer(
    spec: AppSpec, load: Load, memory: Memory, times: int, longer: float
) -> None:
    more = replace(
        load, waiting=load.waiting * times, line_s=load.line_s * times, lined_up_s=load.lined_up_s + longer
    ) if load.waiting else replace(load, waiting=times, line_s=longer, lined_up_s=0.0, idle_s=0.0)  # fmt: skip

    assert decide(spec, more, memory, NOW)[0].start >= decide(spec, load, memory, NOW)[0].start


def after_going_down(load: Load, decision: Decision) -> Load:
    """The same to do for those who are left: starting ones went first. What the gauge tells adds up as before."""
    begun = min(load.starting, decision.stop)
    ready = load.ready - (decision.stop - begun)
    return replace(
        load,
        starting=load.starting - begun,
        ready=ready,
        draining=0,
        stale=0,
        stale_ready=0,
        standby=load.standby + decision.park,
        gauge=load.gauge * load.ready / ready if load.gauge is not None and ready else None,
        line_s=load.line_s * load.ready / ready if ready else 0.0,
    )


@given(spec=specs(), load=loads(), memory=MEMORIES)
@example(
    spec=app(), load=Load(ready=2, requests=15, burst=15, observed_s=1000.0), memory=Memory(awake=True)
)  # two are quiet at 15 a minute, and one finds the same 15 a burst
def test_what_went_down_does_not_go_up_again_at_the_same_load(spec: AppSpec, load: Load, memory: Memory) -> None:
    down, memory = decide(spec, load, memory, NOW)
    assume(down.stop)
    fewer = after_going_down(load, down)

    for later in (0, 10, 1000):
        assert decide(spec, fewer, replace(memory, retry_at=0.0), NOW + later)[0].start == 0


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_what_a_decision_starts_is_enough(spec: AppSpec, load: Load, memory: Memory) -> None:
    decision, memory = decide(spec, load, memory, NOW)
    if spec.autoscaling.step == "proportional" and decision.reason in FOR_LOAD:
        cold = max(0, decision.start - load.standby - load.warming)
        after = replace(load, starting=load.starting + decision.start, standby=0, warming=0, room=load.room - cold)

        assert decide(spec, after, memory, NOW)[0].start == 0


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_a_rollout_stays_below_max_and_takes_none_that_is_needed(spec: AppSpec, load: Load, memory: Memory) -> None:
    step = rollout(spec, load, memory, NOW, "new")

    assert step.start >= 0
    assert 0 <= step.stop <= load.stale
    if step.start:
        assert load.have + load.draining + load.spent + step.start <= spec.bounds[1]
        assert step.start - load.standby - load.warming <= load.room
    if step.stop > load.stale - load.stale_ready:
        needed = min(load.requests / (spec.autoscaling.target_requests_per_instance * 1.5), spec.bounds[1])
        left = load.ready - (step.stop - (load.stale - load.stale_ready))
        assert left >= needed or load.have + load.draining >= spec.bounds[1]


@given(spec=specs(), load=loads(), memory=MEMORIES)
def test_spares_are_started_within_all_bounds_and_ended_as_far_as_they_are_there(
    spec: AppSpec, load: Load, memory: Memory
) -> None:
    step = stock(spec, load, memory, NOW)
    there = load.standby + load.warming + load.parking

    assert min(step.start, step.stop, step.stop_spent) >= 0
    assert step.stop <= load.standby + load.warming
    assert step.stop_spent <= load.spent
    assert not (step.start and step.stop)
    if step.start:
        assert load.held + step.start <= spec.bounds[1]
        assert step.start <= load.room
        assert there + step.start <= spec.autoscaling.standby_instances
        assert max(memory.retry_at, memory.spare_at) <= NOW
    if step.stop:
        assert (
            there - step.stop >= min(spec.autoscaling.standby_instances, spec.bounds[1] - load.have) or not memory.warm
        )


# What went by itself.

EJECTED = "web-1 was ejected: 5 connections in a row failed"
DIED = "web-2 died: its container is exited"


def without(*gone: str) -> Memory:
    """An app in its cooldown that has just lost these."""
    return Memory(awake=True, last_up=0.0, gone=gone)


def test_what_is_missing_from_the_minimum_is_replaced_and_told() -> None:
    story = Story(app(min_instances=2), without(EJECTED))
    decision = story.at(10, ready=1, draining=1)

    assert told(decision) == (1, 0, Reason.MINIMUM, ())
    assert decision.gone == (EJECTED,)
    assert story.at(11, ready=1, starting=1, draining=1).gone == ()


def test_what_the_load_misses_is_replaced_without_waiting_for_the_cooldown_or_beginning_one() -> None:
    story = Story(app(), without(EJECTED))

    assert told(story.at(10, ready=4, draining=1, requests=430)) == (1, 0, Reason.BUSY, ())
    assert (story.memory.last_up, story.memory.gone) == (0.0, ())


def test_what_the_load_wants_beyond_that_waits_for_the_cooldown() -> None:
    story = Story(app(), without(EJECTED, DIED))
    decision = story.at(10, ready=3, requests=630)

    assert told(decision) == (2, 0, Reason.BUSY, (Held.UP_COOLDOWN,))
    assert (decision.wanted, decision.instances, decision.recheck_at) == (7, 5, 300.0)
    assert told(story.at(11, ready=3, starting=2, requests=630)) == (0, 0, Reason.BUSY, (Held.UP_COOLDOWN,))


def test_what_cannot_be_replaced_before_it_has_drained_is_replaced_then() -> None:
    story = Story(app(max_instances=2), without(EJECTED))
    assert told(story.at(10, ready=1, draining=1, requests=150)) == (0, 0, Reason.BUSY, (Held.DRAINING,))
    decision = story.at(20, ready=1, requests=150)

    assert told(decision) == (1, 0, Reason.BUSY, ())
    assert decision.gone == (EJECTED,)


def test_what_nobody_misses_is_told_once_and_forgotten() -> None:
    story = Story(app(), without(DIED))
    decision = story.at(10, ready=2, requests=100)

    assert told(decision) == (0, 0, Reason.STEADY, ())
    assert decision.gone == (DIED,)
    assert told(story.at(20, ready=2, requests=250)) == (0, 0, Reason.BUSY, (Held.UP_COOLDOWN,))


def test_when_all_are_gone_the_rest_comes_back_as_soon_as_the_first_shows_the_load() -> None:
    story = Story(app(), without(DIED, DIED, DIED))
    assert told(story.at(10, draining=3, requests=250)) == (1, 0, Reason.MINIMUM, ())
    assert story.at(11, starting=1, requests=250).start == 0

    assert told(story.at(12, ready=1, requests=250)) == (2, 0, Reason.BUSY, ())


def test_an_app_that_may_have_none_forgets_what_it_had() -> None:
    story = Story(app(min_instances=0), without(DIED))
    story.at(10)

    assert story.memory.gone == ()


def test_the_smallest_target_that_may_be_set_can_be_decided_by() -> None:
    story = Story(app(target_requests_per_instance=0.01, scale_up_threshold=0.01, scale_down_threshold=0.0))

    assert told(story.at(0, ready=1, requests=10**9)) == (9, 0, Reason.BUSY, (Held.MAX_INSTANCES,))


# From any state to rest.


class Fleet:
    """An app whose starts work and whose drains end, by numbers; what there is to do stays the same."""

    def __init__(self, spec: AppSpec, todo: Load, budget: int, **counts: int) -> None:
        self.spec = spec
        self.todo = todo
        self.jobs = (todo.gauge or 0.0) * todo.ready
        self.budget = budget
        self.memory = Memory(awake=True, warm=True)
        self.n = Counter(counts)
        """How many there are of each kind; `old` ones are of the earlier template."""

    @property
    def held(self) -> int:
        return self.n.total() - self.n["aside"]

    @property
    def ready(self) -> int:
        return self.n["ready"] + self.n["old_ready"]

    def load(self) -> Load:
        n, ready = self.n, self.ready
        return replace(
            self.todo,
            ready=ready,
            starting=n["starting"] + n["old_starting"],
            stale=n["old_ready"] + n["old_starting"],
            stale_ready=n["old_ready"],
            draining=n["draining"] + n["parking"] + n["making_room"],
            parking=n["parking"],
            standby=n["standby"],
            warming=n["warming"],
            spent=n["spent"],
            in_flight=self.todo.in_flight if ready else 0,
            waiting=0 if ready or not (self.todo.requests or self.todo.in_flight) else 1,
            room=max(0, self.budget - self.held),
            gauge=self.jobs / ready if self.spec.autoscaling.metric_target and ready else None,
        )

    def move(self, wanted: int, to: str, *kinds: str) -> int:
        """Make at most so many of these kinds, the first ones first, another kind. Return how many there were."""
        moved = 0
        for kind in kinds:
            step = min(wanted - moved, self.n[kind])
            self.n[kind] -= step
            self.n[to] += step
            moved += step
        return moved

    def add(self, wanted: int) -> None:
        new = wanted - self.move(wanted, "starting", "standby", "warming")
        self.n["starting"] += new

    def look(self, now: float) -> bool:
        """Decide and act as the scaler does; tell whether anything was done."""
        before = Counter(self.n)
        decision, self.memory = decide(self.spec, self.load(), self.memory, now)
        self.move(decision.park, "parking", "ready", "old_ready")
        self.move(decision.stop - decision.park, "draining", "old_starting", "starting", "ready", "old_ready")
        self.add(decision.start)
        step = rollout(self.spec, self.load(), self.memory, now, "new")
        self.move(step.stop, "draining", "old_starting", "old_ready")
        self.move(step.set_aside, "making_room", "old_ready")
        self.add(step.start)
        if self.n["ready"]:
            self.n["aside"] = 0
        elif not self.n["starting"]:
            self.move(self.n["aside"], "old_starting", "aside")
        shelf = stock(self.spec, self.load(), self.memory, now)
        self.move(shelf.stop_spent, "draining", "spent")
        self.move(shelf.stop, "draining", "warming", "standby")
        self.n["warming"] += shelf.start
        return +self.n != +before

    def go_on(self, most: int) -> bool:
        """Let at most so many of each kind come to the end of what they are doing; tell whether any did."""
        before = Counter(self.n)
        self.move(most, "ready", "starting")
        self.move(most, "old_ready", "old_starting")
        self.move(most, "standby", "parking", "warming")
        self.move(most, "aside", "making_room")
        self.n["draining"] -= min(most, self.n["draining"])
        return +self.n != +before

    def __repr__(self) -> str:
        return f"Fleet({self.spec.autoscaling!r}, {self.todo!r}, {self.budget}, **{dict(+self.n)!r})"


@st.composite
def fleets(draw: st.DrawFn, *kinds: str) -> Fleet:
    spec, few = draw(specs()), st.integers(0, 3)
    counts, left = {}, spec.bounds[1]
    for kind in kinds:
        counts[kind] = min(left, draw(few))
        left -= counts[kind]
    todo = Load(
        ready=1,
        in_flight=draw(st.sampled_from([0, 1, 9])),
        requests=draw(st.sampled_from([0, 5, 60, 300, 2000])),
        concurrency=draw(st.sampled_from([0.0, 0.5, 3.0, 25.0])),
        gauge=draw(st.sampled_from([0.0, 4.0, 33.0])),
        scheduled=draw(st.sampled_from([None, None, 0, 2, 15])),
        floor=draw(few),
        observed_s=1000.0,
    )
    if draw(st.sampled_from([False, False, True])):
        crowd = draw(st.sampled_from([0.0, 30.0]))  # of which the minute had a part too
        burst = draw(st.integers(0, todo.requests))
        todo = replace(todo, burst=burst, crowd=crowd, concurrency=max(todo.concurrency, crowd / 60))
    return Fleet(spec, todo, draw(st.sampled_from([UNBOUNDED, UNBOUNDED, 4])), **counts)


PACES = st.lists(st.tuples(st.sampled_from([0, 1, 9]), st.sampled_from([1.0, 61.0, 700.0])), max_size=12)
KINDS = "ready", "starting", "standby", "warming", "spent", "draining", "parking"
ROUNDS = 40


@given(fleet=fleets(*KINDS), paces=PACES)
def test_any_app_comes_to_rest_with_what_it_should_have(fleet: Fleet, paces: list[tuple[int, float]]) -> None:
    come_to_rest(fleet, paces)


@given(fleet=fleets("old_ready", "spent", "old_starting", "ready", "starting", "draining"), paces=PACES)
def test_any_rollout_comes_to_its_end(fleet: Fleet, paces: list[tuple[int, float]]) -> None:
    come_to_rest(fleet, paces)


def come_to_rest(fleet: Fleet, paces: list[tuple[int, float]]) -> None:
    """Go on, first at these paces (how many get on, how much time passes), until nothing more is done."""
    now = NOW
    for most, pause in [*paces, *[(99, 700.0)] * ROUNDS]:
        ready, held = fleet.ready, fleet.held
        acted = fleet.look(now)
        low, high = bounds(fleet.spec, fleet.load())
        assert fleet.held <= max(held, min(high, fleet.budget))
        assert fleet.ready >= min(ready, low) - fleet.n["making_room"]
        went_on = fleet.go_on(most)
        now += pause
        if most == 99 and not acted and not went_on:
            break
    else:
        raise AssertionError(f"no rest: {fleet.n}")

    n, want = fleet.n, fleet.spec.autoscaling.standby_instances
    low, high = bounds(fleet.spec, fleet.load())
    assert +n == Counter({kind: n[kind] for kind in ("ready", "standby") if n[kind]})
    assert n["ready"] >= min(low, fleet.budget)
    assert n["standby"] <= min(want, high - n["ready"])
    if fleet.budget == UNBOUNDED:
        assert n["standby"] == min(want, high - n["ready"])
