"""One app at run time: what it measures, when it asks for a decision, what it remembers."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockscale.core.app import JOURNAL, App, AppGone, Failing, Histogram, StartFailed
from dockscale.core.catalog import Container
from dockscale.core.policy import Decision, Held, Memory, Reason, decide, victims
from dockscale.core.pool import Instance, Turn
from dockscale.core.spec import AppSpec, Autoscaling, StartupConfig
from tests.support.clock import ManualClock

# With the defaults one instance should serve 100 a minute; above 90 it is busy.
# 18 in six seconds, twice that rate, are a burst.
TEMPLATE = Container(id="v1", name="web")


def spec_of(*, lazy: bool = True, **autoscaling: Any) -> AppSpec:
    return AppSpec(app_id="web", port=8000, lazy=lazy, autoscaling=Autoscaling(**autoscaling))


def app_of(clock: ManualClock, *ready: str, lazy: bool = True, **autoscaling: Any) -> App:
    """An app with these instances ready, watched for long."""
    app = App(spec_of(lazy=lazy, **autoscaling), TEMPLATE, clock, lambda n: 0)
    for name in ready:
        make_ready(app, launched(app, name))
    clock.advance(1000)
    return app


def launched(app: App, name: str, revision: str = "v1", now: float = 0.0) -> Instance:
    instance = Instance(name, revision=revision, now=now)
    app.pool.launch(instance)
    return instance


def make_ready(app: App, instance: Instance) -> None:
    app.pool.ready(instance, ("10.0.0.1", 8000))


def waiting(app: App) -> Turn:
    turn = Turn(lambda: None)
    app.pool.wait(turn)
    return turn


def spread(app: App, clock: ManualClock, requests: int, seconds: float) -> list[bool]:
    """Let this many arrive, evenly over this time."""
    due = []
    for _ in range(requests):
        clock.advance(seconds / requests)
        due.append(app.arrive())
    return due


# When a decision is due.


def test_arrivals_below_the_line_ask_for_no_decision() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", "b", min_instances=2)
    app.decide()

    assert not any(spread(app, clock, 180, 59.0))
    assert app.load().requests == 180


def test_the_arrival_that_crosses_the_line_asks_for_a_decision() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", "b", min_instances=2)
    app.decide()
    spread(app, clock, 180, 59.0)

    assert app.arrive() is True
    assert (app.decide().reason, app.load().requests) == (Reason.BUSY, 181)


def test_the_line_moves_up_with_what_was_decided() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", "b", min_instances=2)
    app.decide()
    spread(app, clock, 181, 59.0)
    assert app.decide().start == 1
    launched(app, "c")

    assert app.arrive() is False


def test_a_scale_up_that_is_held_back_is_not_asked_for_again_until_it_may_go() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", "b", min_instances=2, scale_up_cooldown=100)
    app.memory = Memory(awake=True, last_up=clock())
    app.decide()
    assert not any(spread(app, clock, 180, 45.0))
    assert app.arrive() is True
    held = app.decide()
    assert (held.held_by, held.recheck_at) == ((Held.UP_COOLDOWN,), clock() + 55)

    assert not any(spread(app, clock, 216, 54.0))
    clock.advance(1)
    assert app.arrive() is True
    assert app.decide().start == 1


def test_a_burst_asks_for_a_decision_long_before_the_minute_does() -> None:
    clock = ManualClock()
    app = app_of(clock, "a")
    app.decide()

    assert spread(app, clock, 18, 3.0) == [False] * 17 + [True]
    assert app.decide().reason is Reason.BURST


def test_a_burst_asks_for_a_decision_even_while_a_scale_up_is_held_back() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", "b", min_instances=2)
    app.memory = Memory(awake=True, last_up=clock())
    app.decide()
    spread(app, clock, 181, 59.0)
    assert app.decide().held_by == (Held.UP_COOLDOWN,)
    clock.advance(6)

    assert spread(app, clock, 36, 0.5) == [False] * 35 + [True]


def test_an_app_at_its_max_asks_for_no_decision() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", max_instances=1)
    app.decide()

    assert not any(spread(app, clock, 500, 10.0))


def test_an_app_without_a_ready_instance_leaves_it_to_those_who_find_no_place() -> None:
    clock = ManualClock()
    app = app_of(clock)
    app.decide()

    assert not any(spread(app, clock, 500, 10.0))


@given(steps=st.lists(st.tuples(st.floats(0, 20), st.integers(1, 40)), max_size=25))
def test_an_arrival_that_asks_for_no_decision_would_have_changed_nothing(steps: list[tuple[float, int]]) -> None:
    clock = ManualClock()
    app = app_of(clock, "a", target_requests_per_instance=20, max_instances=6, scale_up_cooldown=30)
    act(app)
    for pause, requests in steps:
        clock.advance(pause)
        for _ in range(requests):
            if app.arrive():
                act(app)

            assert decide(app.spec, app.load(), app.memory, clock())[0].start == 0


def act(app: App) -> None:
    """Do at once what is decided."""
    decision = app.decide()
    for instance in victims(app.pool.candidates(), decision.stop, 0.0):
        app.pool.finish(instance)
    for number in range(decision.start):
        make_ready(app, launched(app, f"{len(app.journal)}-{app.stats.decisions.total()}-{number}"))
    if decision.changes:
        app.decide()


# When a crowd is due. Eight at once on each are aimed at: above 7.2 they are too many.


def stay(app: App, clock: ManualClock, requests: int, seconds: float = 0.0) -> list[bool]:
    """Let this many arrive, evenly over this time, that do not end."""
    due = []
    for _ in range(requests):
        clock.advance(seconds / requests)
        due.append(app.arrive())
        assert app.pool.claim() is not None
    return due


def test_the_arrival_at_a_crowd_asks_for_a_decision() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", target_concurrency=8)
    app.decide()

    assert stay(app, clock, 9) == [False] * 8 + [True]
    assert app.decide().recheck_at == clock() + 1.0


def test_places_that_are_given_back_are_no_crowd() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", target_concurrency=8)
    app.decide()

    for _ in range(17):
        assert app.arrive() is False
        with app.pool.claim() or pytest.fail("no place"):
            pass


def test_those_who_wait_are_of_the_crowd_too() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", target_concurrency=8, max_concurrency=4)
    app.decide()
    stay(app, clock, 4)
    for _ in range(4):
        waiting(app)

    assert app.arrive() is True


def test_a_crowd_that_is_looked_at_soon_anyway_asks_for_no_decision_before() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", target_concurrency=10, scale_up_threshold=1, target_requests_per_instance=1e6)
    app.decide()
    assert stay(app, clock, 11)[-1] is True
    app.decide()

    assert not any(stay(app, clock, 10, 0.9))
    clock.advance(0.2)
    assert app.arrive() is True


def test_a_crowd_that_stays_as_it_is_asks_once_in_a_second() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", target_concurrency=10, scale_up_threshold=1, target_requests_per_instance=1e6)
    stay(app, clock, 10)
    asked = 0
    for _ in range(1000):
        clock.advance(0.004)
        if app.arrive():
            asked += 1
            app.decide()

    assert asked <= 5


def test_a_crowd_asks_for_a_decision_even_while_a_scale_up_is_held_back() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", "b", min_instances=2, target_concurrency=8)
    app.memory = Memory(awake=True, last_up=clock())
    app.decide()
    spread(app, clock, 181, 59.0)
    assert app.decide().held_by == (Held.UP_COOLDOWN,)

    assert stay(app, clock, 16)[-1] is True
    decision = app.decide()
    assert (decision.held_by, decision.recheck_at) == ((Held.UP_COOLDOWN,), clock() + 1.0)


@pytest.mark.parametrize("held", [Held.HOST_BUDGET, Held.BACKOFF, Held.DRAINING], ids=str)
def test_arrivals_ask_for_nothing_that_only_another_change_can_bring(held: Held) -> None:
    clock = ManualClock()
    app = app_of(clock, "a", target_concurrency=8, max_instances=3)
    if held is Held.HOST_BUDGET:
        app.room = 0
    elif held is Held.BACKOFF:
        app.memory = Memory(awake=True, retry_at=clock() + 60)
    else:
        for name in ("x", "y"):
            app.pool.drain(launched(app, name), "quiet")
    spread(app, clock, 150, 30.0)
    assert app.decide().held_by == (held,)

    assert not any(stay(app, clock, 60, 5.0))


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.02, 0.3, 1.1, 40.0]),
        st.integers(0, 25),
        st.sampled_from([0, 0, 1, 8, 100]),
    ),
    max_size=20,
)


@given(steps=ARRIVALS, cap=st.sampled_from([None, 4]), known=st.booleans())
def test_what_is_due_is_asked_for_by_an_arrival_or_looked_at_within_a_second(
    steps: list[tuple[float, int, int]], cap: int | None, known: bool
) -> None:
    clock = ManualClock()
    app = app_of(clock, "a", target_concurrency=5, max_concurrency=cap, max_instances=6, scale_up_cooldown=30)
    if known:
        app.stats.cold_start.add(3.0)
        app.stats.duration.add(0.2)
    act(app)
    leases = []
    for pause, requests, ends in steps:
        let_pass(app, clock, pause)
        for _ in range(requests):
            if app.arrive():
                act(app)
            lease = app.pool.claim()
            if lease is not None:
                leases.append(lease)
            else:
                waiting(app)
                act(app)
        for lease in leases[:ends]:
            lease.release()
        del leases[:ends]

        if decide(app.spec, app.load(), app.memory, clock())[0].start:
            assert clock() < latest(app).recheck_at <= clock() + 1.0


def let_pass(app: App, clock: ManualClock, seconds: float) -> None:
    """Let time pass, and look again when a decision says so."""
    end = clock() + seconds
    while clock() < latest(app).recheck_at <= end:
        clock.now = latest(app).recheck_at
        act(app)
    clock.now = end


def latest(app: App) -> Decision:
    assert app.decision is not None
    return app.decision


# What it measures.


def test_the_load_shows_the_pool_and_the_windows() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", "b", max_concurrency=1)
    launched(app, "c")
    drained = launched(app, "d")
    app.pool.drain(drained, "quiet")
    for _ in range(3):
        app.arrive()
    clock.advance(10)
    for _ in range(2):
        app.arrive()
        assert app.pool.claim() is not None
    waiting(app)
    load = app.load()

    assert (load.ready, load.starting, load.draining) == (2, 1, 1)
    assert (load.in_flight, load.waiting) == (2, 1)
    assert (load.requests, load.burst) == (5, 2)
    assert (load.idle_s, load.observed_s) == (0.0, 1010.0)


def test_idle_time_is_counted_from_the_end_of_the_last_request() -> None:
    clock = ManualClock()
    app = app_of(clock, "a")
    app.arrive()
    lease = app.pool.claim()
    assert lease is not None
    clock.advance(100)
    assert app.load().idle_s == 0.0
    lease.release()
    app.leave()
    clock.advance(7)

    assert app.load().idle_s == 7.0


def test_idle_time_of_an_app_that_nobody_asked_for_is_counted_from_the_beginning() -> None:
    clock = ManualClock()
    app = app_of(clock)

    assert app.load().idle_s == 1000.0
    app.arrive()
    clock.advance(3)
    assert app.load().idle_s == 3.0


def test_an_instance_that_was_found_running_is_no_idle_time() -> None:
    clock = ManualClock()
    app = app_of(clock, "a")
    assert (app.load().idle_s, app.load().adopted) == (1000.0, False)
    app.adopted()
    clock.advance(5)

    assert (app.load().idle_s, app.load().adopted) == (5.0, True)


def parked(app: App, name: str, revision: str = "v1") -> Instance:
    """A spare on standby."""
    instance = launched(app, name, revision)
    instance.spare = True
    app.pool.park(instance)
    return instance


def warming(app: App, name: str, revision: str = "v1") -> Instance:
    """A spare that starts."""
    instance = launched(app, name, revision)
    instance.spare = True
    return instance


def leaving(app: App, name: str, *, parks: bool = False) -> Instance:
    instance = launched(app, name)
    make_ready(app, instance)
    app.pool.drain(instance, "quiet")
    instance.parks = parks
    return instance


def pinned(app: App, name: str, revision: str) -> Instance:
    instance = launched(app, name, revision)
    instance.pinned = True
    make_ready(app, instance)
    return instance


@pytest.mark.parametrize(
    ("add", "expected"),
    [
        (lambda app: launched(app, "x"), {"starting": 1}),
        (lambda app: make_ready(app, launched(app, "x")), {"ready": 1}),
        (lambda app: launched(app, "x", "v0"), {"starting": 1, "stale": 1}),
        (lambda app: make_ready(app, launched(app, "x", "v0")), {"ready": 1, "stale": 1, "stale_ready": 1}),
        (lambda app: pinned(app, "x", "v1"), {"ready": 1, "pinned": 1}),
        (lambda app: pinned(app, "x", "v0"), {"ready": 1, "pinned": 1}),
        (lambda app: leaving(app, "x"), {"draining": 1}),
        (lambda app: leaving(app, "x", parks=True), {"draining": 1, "parking": 1}),
        (lambda app: warming(app, "x"), {"warming": 1}),
        (lambda app: warming(app, "x", "v0"), {"spent": 1}),
        (lambda app: parked(app, "x"), {"standby": 1}),
        (lambda app: parked(app, "x", "v0"), {"spent": 1}),
        (lambda app: app.pool.promote(parked(app, "x")), {"starting": 1}),
        (lambda app: app.pool.promote(warming(app, "x")), {"starting": 1}),
        (lambda app: app.pool.drain(parked(app, "x"), "gave way"), {"draining": 1}),
        (lambda app: app.pool.lose(parked(app, "x"), "died"), {"draining": 1}),
        (lambda app: app.pool.lose(launched(app, "x"), "died"), {"starting": 1}),
    ],
    ids=[
        "starting",
        "ready",
        "starting, stale",
        "ready, stale",
        "pinned",
        "pinned is not stale",
        "draining",
        "draining to standby",
        "starting for standby",
        "starting for standby, stale",
        "standby",
        "standby, stale",
        "from standby",
        "promoted while it starts",
        "standby, gives way",
        "standby, died",
        "starting, died",
    ],
)
def test_each_instance_counts_as_what_it_is_and_once(add: Callable[[App], object], expected: dict[str, int]) -> None:
    app = app_of(ManualClock(), "a")
    before = asdict(app.load())
    add(app)
    added = {fact: value - before[fact] for fact, value in asdict(app.load()).items() if value != before[fact]}

    assert added == expected
    assert app.load().held == 2


def test_a_spare_is_spent_when_it_is_older_than_it_may_be() -> None:
    clock = ManualClock()
    app = app_of(clock, standby_instances=1, standby_max_age=60)
    old = parked(app, "x")
    slow = warming(app, "y")
    clock.advance(60)
    assert (app.load().standby, app.load().warming, app.load().spent) == (1, 1, 0)
    clock.advance(1)

    assert (app.load().standby, app.load().warming, app.load().spent) == (0, 1, 1)
    assert (app.is_spent(old, clock()), app.is_spent(slow, clock())) == (True, False)


def test_concurrency_is_measured_where_it_is_aimed_at() -> None:
    clock = ManualClock()
    aimed, not_aimed = app_of(clock, "a", target_concurrency=5), app_of(clock, "a")
    for app in (aimed, not_aimed):
        stay(app, clock, 6)
    clock.advance(30)

    assert aimed.load().concurrency == pytest.approx(3.0)
    assert aimed.load().crowd == pytest.approx(6.0)
    assert (not_aimed.load().concurrency, not_aimed.load().crowd) == (0.0, 0.0)


def test_the_line_is_measured_by_how_long_it_is_there_and_how_long_it_would_take() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", "b", max_concurrency=1)
    app.stats.duration.add(3.0)
    app.stats.cold_start.add(7.0)
    stay(app, clock, 2)
    for _ in range(4):
        waiting(app)
    clock.advance(5)
    load = app.load()

    assert (load.line_s, load.lined_up_s, load.start_s) == (6.0, 5.0, 7.0)


def test_what_others_know_is_part_of_the_load() -> None:
    app = app_of(ManualClock(), "a")
    app.gauge, app.scheduled, app.room = 3.5, 4, 2
    load = app.load()

    assert (load.gauge, load.scheduled, load.room) == (3.5, 4, 2)


def test_instances_of_an_earlier_template_are_stale_and_those_that_serve_nobody_first() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", "b")
    launched(app, "c")
    assert app.load().stale == 0
    assert app.pool.claim() is not None
    app.follow(app.spec, Container(id="v2", name="web"))
    make_ready(app, launched(app, "d", revision="v2"))
    load = app.load()

    assert (load.stale, load.stale_ready, load.ready, load.starting) == (3, 2, 3, 1)
    order = [instance.name for instance in app.stale()]
    assert order[0] == "c"
    busy = next(instance.name for instance in app.pool if instance.in_flight)
    assert order[-1] == busy
    app.pool.drain(app.pool.instances["c"], "rollout")
    assert app.load().stale == 2


# What it follows.


def test_new_settings_hold_for_the_pool() -> None:
    app = app_of(ManualClock())
    app.follow(spec_of(max_concurrency=3, max_queue=7), Container(id="v2", name="web"))

    assert (app.pool.max_concurrency, app.pool.max_queue, app.template.id) == (3, 7, "v2")


def test_new_settings_that_make_room_serve_those_who_wait() -> None:
    app = app_of(ManualClock(), "a", max_concurrency=1)
    assert app.pool.claim() is not None
    turn = waiting(app)
    app.follow(spec_of(max_concurrency=5), TEMPLATE)

    assert turn.lease is not None
    assert repr(app) == "<App web <Pool ready=1 | in_flight=2 waiting=0>>"


def test_an_app_that_is_lazy_no_more_wakes() -> None:
    app = app_of(ManualClock(), lazy=True, min_instances=2)
    app.sleep()

    app.follow(spec_of(lazy=False, min_instances=2), TEMPLATE)

    assert app.decide().start == 2


def test_an_app_that_is_not_lazy_is_awake_from_the_beginning() -> None:
    assert app_of(ManualClock(), lazy=False, min_instances=2).decide().start == 2
    assert app_of(ManualClock(), lazy=True, min_instances=2).decide().reason is Reason.ASLEEP


# What a person wants.


def test_what_a_person_asks_for_is_wanted_once_and_the_fewest_for_one_cooldown() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", scale_down_cooldown=100)

    app.ask(3)

    assert (app.load().asked, app.load().floor) == (3, 3)
    assert (app.decide().start, app.load().asked) == (2, None)
    clock.advance(99)
    assert app.load().floor == 3
    clock.advance(1)
    assert app.load().floor == 0


def test_an_app_that_is_put_to_sleep_keeps_nothing_that_was_asked_for() -> None:
    app = app_of(ManualClock(), "a")
    app.ask(3)

    app.sleep()

    assert app.load().floor == 0


def test_those_that_have_been_ready_are_replaced_and_their_number_is_kept_meanwhile() -> None:
    app = app_of(ManualClock(), "a", "b", min_instances=0)
    launched(app, "c")
    app.shun()

    app.renew()

    assert [instance.name for instance in app.stale()] == ["a", "b"]
    assert (app.load().stale, app.load().stale_ready, app.load().floor) == (2, 2, 3)
    assert app.memory.shunned == ""


def test_those_on_standby_are_replaced_as_well() -> None:
    app = app_of(ManualClock(), standby_instances=1)
    spare = launched(app, "a")
    app.pool.park(spare)

    app.renew()

    assert (app.load().spent, app.load().standby) == (1, 0)


# What it decides and notes.


def test_a_decision_repeated_without_change_is_noted_once_and_as_of_now() -> None:
    clock = ManualClock()
    app = app_of(clock, "a")
    for _ in range(5):
        clock.advance(10)
        app.decide()

    assert [decision.at for decision in app.journal] == [clock()]
    assert app.decision is app.journal[-1]
    assert app.stats.decisions.total() == 5


def test_a_wish_beyond_the_maximum_that_rises_with_each_request_is_one_decision() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", max_instances=1, target_requests_per_instance=60)
    wishes = []
    for _ in range(5):
        spread(app, clock, 20, 1.0)
        wishes.append(app.decide().wanted)

    assert wishes == sorted(set(wishes)), "each is larger"
    assert [decision.wanted for decision in app.journal] == wishes[-1:]


def test_a_decision_that_changed_something_stays_noted() -> None:
    clock = ManualClock()
    app = app_of(clock)
    waiting(app)
    app.decide()
    launched(app, "a")
    clock.advance(10)
    app.decide()
    clock.advance(10)
    app.decide()

    assert [(decision.reason, decision.start) for decision in app.journal] == [(Reason.WAKE, 1), (Reason.WAKE, 0)]


def test_a_decision_that_changes_something_takes_no_other_ones_place() -> None:
    clock = ManualClock()
    app = app_of(clock)
    waiting(app)
    app.decide()
    lost = launched(app, "a")
    app.decide()
    app.pool.finish(lost)
    app.decide()

    assert [(decision.reason, decision.start) for decision in app.journal] == [
        (Reason.WAKE, 1),
        (Reason.WAKE, 0),
        (Reason.WAKE, 1),
    ]


def test_who_watches_hears_each_decision_and_whether_it_is_only_repeated() -> None:
    clock = ManualClock()
    app = app_of(clock, "a")
    heard: list[tuple[Decision, bool]] = []
    app.watchers.add(lambda decision, repeats: heard.append((decision, repeats)))
    made = [app.decide(), app.decide()]
    make_ready(app, launched(app, "b"))
    made.append(app.decide())

    assert heard == list(zip(made, (False, True, False), strict=True))


def test_the_journal_is_bounded() -> None:
    clock = ManualClock()
    app = app_of(clock, "a")
    for turn in range(JOURNAL + 50):
        clock.advance(61)
        spread(app, clock, 40 if turn % 2 else 0, 1.0)
        app.decide()

    assert len(app.journal) == JOURNAL
    assert app.journal[-1].at == clock()


def test_an_app_before_its_first_decision_has_none() -> None:
    assert app_of(ManualClock()).decision is None


# Starts that work and starts that do not.


def test_those_who_waited_for_the_first_instance_are_no_crowd() -> None:
    clock = ManualClock()
    app = app_of(clock, target_concurrency=2)
    for _ in range(50):
        waiting(app)
    clock.advance(3)
    instance = launched(app, "a")
    app.started(instance)
    make_ready(app, instance)
    load = app.load()

    assert (load.in_flight, load.concurrency, load.crowd) == (50, 0.0, 0.0)
    assert app.decide().start == 0


def test_the_backlog_of_a_start_is_no_burst() -> None:
    clock = ManualClock()
    app = app_of(clock)
    spread(app, clock, 50, 2.0)
    instance = launched(app, "a")
    app.started(instance)
    make_ready(app, instance)

    assert (app.load().burst, app.load().requests) == (0, 50)
    assert app.decide().start == 0


def test_the_stragglers_of_a_crowd_that_waited_are_no_burst_either() -> None:
    clock = ManualClock()
    app = app_of(clock)
    turns = [waiting(app) for _ in range(10)]
    instance = launched(app, "a")
    app.started(instance)
    make_ready(app, instance)
    app.decide()

    assert not any(spread(app, clock, 40, 0.9))
    assert (app.load().burst, app.load().requests) == (0, 40)
    assert all(turn.lease for turn in turns)


def test_after_the_stragglers_of_a_crowd_a_burst_is_a_burst() -> None:
    clock = ManualClock()
    app = app_of(clock)
    for _ in range(10):
        waiting(app)
    instance = launched(app, "a")
    app.started(instance)
    make_ready(app, instance)
    app.decide()
    clock.advance(1)

    assert spread(app, clock, 18, 0.5)[-1] is True
    assert app.load().burst == 18


def test_those_who_come_right_after_fewer_than_a_crowd_may_be_a_burst() -> None:
    clock = ManualClock()
    app = app_of(clock)
    for _ in range(9):
        waiting(app)
    instance = launched(app, "a")
    app.started(instance)
    make_ready(app, instance)
    app.decide()

    assert spread(app, clock, 18, 0.5)[-1] is True


def test_a_further_instance_that_gets_ready_hides_no_burst() -> None:
    clock = ManualClock()
    app = app_of(clock, "a")
    spread(app, clock, 50, 2.0)
    app.started(Instance("a"))

    assert app.load().burst == 50


def test_a_start_that_failed_tells_those_who_wait_if_nothing_else_comes() -> None:
    app = app_of(ManualClock())
    turn = waiting(app)
    app.pool.drain(launched(app, "a"), "failed")
    app.start_failed("a: it exited at once", Instance("x"))

    assert isinstance(turn.error, StartFailed)
    assert str(turn.error) == "a: it exited at once"
    assert (app.pool.waiting, app.stats.start_failures, app.failure) == (0, 1, "a: it exited at once")


def test_a_start_that_failed_lets_those_wait_on_for_whom_another_comes() -> None:
    app = app_of(ManualClock())
    turn = waiting(app)
    launched(app, "b")
    app.start_failed("a: it exited at once", Instance("x"))

    assert turn.error is None
    assert app.pool.waiting == 1


def test_while_a_start_is_not_due_a_request_is_spared_the_wait() -> None:
    clock = ManualClock()
    app = app_of(clock)
    app.check()
    app.start_failed("it exited at once", Instance("x"))
    clock.advance(1.0)
    app.start_failed("it exited again", Instance("x"))
    clock.advance(0.5)

    with pytest.raises(Failing, match="it exited again") as caught:
        app.check()
    assert caught.value.retry_after == 1.5
    clock.advance(1.5)
    app.check()


def test_while_an_instance_is_there_or_coming_nobody_is_sent_away() -> None:
    app = app_of(ManualClock())
    app.start_failed("it exited at once", Instance("x"))
    instance = launched(app, "a")
    app.check()
    make_ready(app, instance)
    app.check()
    app.pool.drain(instance, "quiet")

    with pytest.raises(Failing):
        app.check()


def test_a_start_that_works_forgets_the_failure() -> None:
    app = app_of(ManualClock())
    app.start_failed("it exited at once", Instance("x"))
    app.started(Instance("a"))
    app.check()

    assert app.failure == ""
    assert app.stats.start_failures == 1


def test_a_spare_that_fails_leaves_those_who_serve_and_wait_alone() -> None:
    clock = ManualClock()
    app = app_of(clock)
    turn = waiting(app)
    spare = warming(app, "x")
    app.start_failed("x: it exited at once", spare)

    assert (turn.error, app.failure, app.memory.failures, app.memory.retry_at) == (None, "", 0, 0.0)
    assert (app.stats.start_failures, app.memory.spare_at) == (1, clock() + 1)
    assert app.decide().start == 1
    app.check()


def test_each_spare_that_fails_in_a_row_makes_the_next_wait_longer() -> None:
    clock = ManualClock()
    app = app_of(clock)
    waits: list[float] = []
    for _ in range(8):
        app.spare_failed(warming(app, f"x{len(waits)}"))
        waits.append(app.memory.spare_at - clock())
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    app.parked()

    assert (app.memory.spare_failures, app.memory.spare_at) == (0, 0.0)


def test_a_spare_that_fails_when_it_is_to_serve_is_replaced_as_if_it_had_died() -> None:
    app = app_of(ManualClock(), "a")
    spare = parked(app, "x")
    app.pool.promote(spare)
    app.pool.drain(spare, "it does not answer")
    app.spare_failed(spare)

    assert app.decide().gone == ("x died: it does not answer",)
    assert (app.memory.spare_failures, app.memory.failures) == (0, 0)


def rolling(*old: str) -> App:
    """An app whose template has just changed."""
    app = app_of(ManualClock(), *old)
    app.follow(app.spec, Container(id="v2", name="web"))
    return app


def test_why_a_new_template_does_not_get_ready_is_told_until_it_does() -> None:
    app = rolling("a")
    app.start_failed("b: it exited at once", Instance("b", revision="v2"))
    assert app.rollout_failure == "b: it exited at once"
    app.started(Instance("a2", revision="v1"))
    assert app.rollout_failure == "b: it exited at once"
    app.started(Instance("c", revision="v2"))

    assert app.rollout_failure == ""


def test_a_start_that_fails_is_no_failed_rollout_if_there_is_nothing_to_replace() -> None:
    new, old = rolling(), rolling("a")
    new.start_failed("b: it exited at once", Instance("b", revision="v2"))
    old.start_failed("b: it exited at once", Instance("b", revision="v1"))

    assert (new.rollout_failure, old.rollout_failure) == ("", "")


def test_those_set_aside_are_something_to_replace_and_to_wait_for() -> None:
    app = rolling()
    app.aside.append(Instance("a", revision="v1"))
    turn = waiting(app)
    app.start_failed("b: it exited at once", Instance("b", revision="v2"))
    app.shun()

    assert (app.rollout_failure, app.memory.shunned) == ("b: it exited at once", "v2")
    assert turn.error is None


@pytest.mark.parametrize("next_template", ["v1", "v3"], ids=["the one before", "one more"])
def test_what_is_known_of_a_template_that_failed_is_not_held_against_the_next(next_template: str) -> None:
    app = rolling("a")
    app.start_failed("b: it exited at once", Instance("b", revision="v2"))
    app.shun()
    app.follow(spec_of(min_instances=1), Container(id="v2", name="web"))
    assert (app.rollout_failure, app.memory.shunned) == ("b: it exited at once", "v2")
    app.follow(app.spec, Container(id=next_template, name="web"))

    assert (app.rollout_failure, app.memory.shunned) == ("", "")


def test_a_retired_app_gives_no_places() -> None:
    app = app_of(ManualClock())
    turn = waiting(app)
    app.retire()

    assert isinstance(turn.error, AppGone)
    with pytest.raises(AppGone, match="the app web was removed"):
        app.check()


# What goes by itself.


def test_what_died_or_was_ejected_is_told_with_the_next_decision_and_replaced() -> None:
    app = app_of(ManualClock(), "a", "b", "c", min_instances=2)
    app.decide()
    for _ in range(5):
        app.pool.connect_failed(app.pool.instances["a"])
    app.pool.lose(app.pool.instances["b"], "its container is exited")
    decision = app.decide()

    told = ("a was ejected: 5 connections in a row failed", "b died: its container is exited")
    assert (decision.reason, decision.start, decision.gone) == (Reason.MINIMUM, 1, told)
    launched(app, "d")
    assert app.decide().gone == ()
    assert [each.gone for each in app.journal] == [(), told, ()]


def test_an_ejection_in_the_cooldown_is_replaced_at_the_same_load() -> None:
    clock = ManualClock()
    app = app_of(clock, "a", "b")
    app.memory = Memory(awake=True, last_up=clock())
    app.decide()
    spread(app, clock, 100, 58.0)
    for _ in range(5):
        app.pool.connect_failed(app.pool.instances["a"])

    assert told_of(app.decide()) == (1, Reason.BUSY, ())


def told_of(decision: Decision) -> tuple[int, Reason, tuple[Held, ...]]:
    return decision.start, decision.reason, decision.held_by


# When to come again.


@pytest.mark.parametrize(
    ("cold_starts", "begun_ago", "expected"),
    [
        ([], [], 5),
        ([], [2.0], 3),
        ([], [30.0], 1),
        ([10.0, 20.0], [], 15),
        ([10.0, 20.0], [4.5, 1.0], 11),
        ([10.0, 20.0], [15.0], 1),
        ([0.3], [], 1),
        ([200.0], [], 60),
    ],
)
def test_while_nothing_is_ready_it_is_a_cold_start_less_what_the_oldest_start_has_had(
    cold_starts: list[float], begun_ago: list[float], expected: int
) -> None:
    clock = ManualClock()
    app = app_of(clock)
    for seconds in cold_starts:
        app.stats.cold_start.add(seconds)
    for number, ago in enumerate(begun_ago):
        launched(app, str(number), now=clock() - ago)

    assert app.retry_after() == expected


def test_a_start_that_was_never_seen_takes_no_longer_than_it_may() -> None:
    spec = AppSpec(app_id="web", port=8000, startup_config=StartupConfig(timeout=2))

    assert App(spec, TEMPLATE, ManualClock(), lambda n: 0).retry_after() == 2


@pytest.mark.parametrize(
    ("waiting_now", "durations", "queue_waits", "cap", "expected"),
    [
        (16, [1.0, 3.0], [], 4, 4),
        (17, [1.0, 3.0], [], 4, 5),
        (16, [11.0, 13.0], [10.0, 10.0], 4, 4),
        (16, [1.0], [30.0], 4, 1),
        (0, [2.0], [], 4, 1),
        (16, [], [], 4, 1),
        (16, [2.0], [], None, 1),
        (500, [2.0], [], 1, 60),
    ],
    ids=["even", "rounded up", "less the line", "no less", "no line", "none ended", "no bound", "far too long"],
)
def test_while_instances_are_ready_it_is_the_line_over_the_places(
    waiting_now: int, durations: list[float], queue_waits: list[float], cap: int | None, expected: int
) -> None:
    app = app_of(ManualClock(), "a", "b", max_concurrency=cap)
    launched(app, "c")
    for seconds in durations:
        app.stats.duration.add(seconds)
    for seconds in queue_waits:
        app.stats.queue_wait.add(seconds)
    for _ in range(waiting_now):
        waiting(app)

    assert app.retry_after() == expected


@given(
    seconds=st.lists(st.floats(0, 1e6), max_size=5),
    begun_ago=st.lists(st.floats(0, 1e6), max_size=3),
    ready=st.integers(0, 3),
    cap=st.sampled_from([None, 1, 50]),
    line=st.integers(0, 50),
)
def test_it_is_always_between_a_second_and_a_minute(
    seconds: list[float], begun_ago: list[float], ready: int, cap: int | None, line: int
) -> None:
    clock = ManualClock()
    app = app_of(clock, *(f"ready {number}" for number in range(ready)), max_concurrency=cap)
    for each in seconds:
        app.stats.cold_start.add(each)
        app.stats.duration.add(each)
    for number, ago in enumerate(begun_ago):
        launched(app, str(number), now=clock() - ago)
    for _ in range(line):
        waiting(app)

    assert 1 <= app.retry_after() <= 60


# How long things took.


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0.0, 0), (0.005, 0), (0.0051, 1), (0.01, 1), (1.0, 7), (59.9, 12), (60.0, 12), (60.1, 13), (1e9, 13)],
)
def test_a_duration_falls_into_the_first_bucket_that_is_not_below_it(value: float, bucket: int) -> None:
    histogram = Histogram()
    histogram.add(value)

    assert histogram.buckets == [int(number == bucket) for number in range(14)]
    assert histogram.sum == value


def test_a_histogram_adds_up() -> None:
    histogram = Histogram()
    for value in (0.5, 0.25, 2.0, 100.0):
        histogram.add(value)

    assert histogram.count == sum(histogram.buckets) == 4
    assert histogram.sum == 102.75


def test_an_app_reads_as_a_status_line() -> None:
    assert repr(app_of(ManualClock(), "a")) == "<App web <Pool ready=1 | in_flight=0 waiting=0>>"


# Who need not be looked at.


def test_an_app_that_sleeps_and_that_nobody_asks_for_is_at_rest() -> None:
    app = app_of(ManualClock())
    before = app.at_rest
    app.decide()

    assert (before, app.at_rest) == (False, True)


def test_an_app_that_somebody_or_some_time_asks_for_is_not_at_rest() -> None:
    asked, timed = app_of(ManualClock()), app_of(ManualClock())
    for app in (asked, timed):
        app.decide()
    waiting(asked)
    timed.scheduled = 1

    assert (asked.at_rest, timed.at_rest) == (False, False)


def test_an_app_whose_spares_came_to_nothing_is_not_at_rest() -> None:
    app = app_of(ManualClock(), standby_instances=1)
    app.memory = Memory(warm=True)
    app.decide()

    assert not app.at_rest
