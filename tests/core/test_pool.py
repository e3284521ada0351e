"""Places, the line in front of them, and the books that must balance whatever happens in whatever order."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dockscale.core.pool import (
    EJECT_AFTER,
    Instance,
    Lease,
    LineFull,
    NoPlace,
    Pool,
    SeveralInstances,
    State,
    Turn,
    client_id,
)
from dockscale.core.spec import SelectionMode
from tests.support.clock import ManualClock


def pool_of(*names: str, mode: SelectionMode = SelectionMode.FIRST, cap: int | None = None) -> Pool:
    """A pool with these instances ready, oldest first."""
    pool = Pool(ManualClock(), lambda n: 0)
    pool.mode = mode
    pool.max_concurrency = cap
    for name in names:
        make_ready(pool, launched(pool, name))
    return pool


def launched(pool: Pool, name: str) -> Instance:
    instance = Instance(name)
    pool.launch(instance)
    return instance


def make_ready(pool: Pool, instance: Instance) -> None:
    pool.ready(instance, ("10.0.0.1", 8000))


def claimed(pool: Pool, avoid: Instance | None = None, token: str = "") -> Lease:
    lease = pool.claim(avoid, token)
    assert lease is not None
    return lease


def waiting(pool: Pool, token: str = "") -> Turn:
    turn = Turn(lambda: None, token)
    pool.wait(turn)
    return turn


def served_by(turn: Turn) -> str:
    return turn.lease.instance.name if turn.lease else ""


# Places.


def test_an_empty_pool_has_no_place() -> None:
    assert pool_of().claim() is None


def test_an_instance_has_no_place_before_it_is_ready() -> None:
    pool = pool_of()
    instance = launched(pool, "a")

    assert pool.claim() is None
    make_ready(pool, instance)
    assert claimed(pool).instance is instance
    assert instance.address == ("10.0.0.1", 8000)


def test_a_place_counts_until_it_is_given_back() -> None:
    pool = pool_of("a")
    one, two = claimed(pool), claimed(pool)

    assert pool.instances["a"].in_flight == pool.in_flight == 2
    one.release()
    assert pool.instances["a"].in_flight == pool.in_flight == 1
    two.release()
    assert pool.in_flight == 0


def test_a_place_given_back_twice_counts_once() -> None:
    pool = pool_of("a")
    kept, given_back = claimed(pool), claimed(pool)
    given_back.release()
    given_back.release()

    assert pool.in_flight == 1
    kept.release()
    assert pool.in_flight == 0


def test_a_place_is_given_back_at_the_end_of_its_block_even_by_an_error() -> None:
    pool = pool_of("a")

    def fail() -> None:
        with claimed(pool):
            assert pool.in_flight == 1
            raise RuntimeError("upstream is gone")

    with pytest.raises(RuntimeError, match="upstream is gone"):
        fail()
    assert pool.in_flight == 0


def test_a_place_given_back_within_its_block_counts_once() -> None:
    pool = pool_of("a")
    kept = claimed(pool)
    with claimed(pool) as lease:
        lease.release()

    assert pool.in_flight == 1
    kept.release()
    assert pool.in_flight == 0


def test_an_instance_counts_its_requests_of_the_last_minute() -> None:
    clock = ManualClock()
    pool = Pool(clock, lambda n: 0)
    instance = launched(pool, "a")
    make_ready(pool, instance)
    claimed(pool).release()
    clock.advance(30)
    claimed(pool).release()

    assert instance.per_minute(clock()) == 2
    assert instance.per_minute(clock() + 30) == 1


def test_no_instance_gets_more_than_max_concurrency() -> None:
    pool = pool_of("a", "b", cap=2)

    assert [claimed(pool).instance.name for _ in range(4)] == ["a", "a", "b", "b"]
    assert pool.claim() is None


def test_instances_are_kept_in_the_order_they_were_launched_not_the_one_they_got_ready() -> None:
    pool = pool_of()
    older, younger = launched(pool, "older"), launched(pool, "younger")
    make_ready(pool, younger)
    make_ready(pool, older)

    assert claimed(pool).instance is older
    pool.mode = SelectionMode.LAST
    assert claimed(pool).instance is younger


def test_an_instance_to_avoid_is_taken_only_if_no_other_is_free() -> None:
    pool = pool_of("a", "b", cap=1)
    a = pool.instances["a"]

    assert claimed(pool, avoid=a).instance.name == "b"
    assert claimed(pool, avoid=a).instance.name == "a"
    assert pool.claim(avoid=a) is None


def test_min_load_spreads_evenly() -> None:
    pool = pool_of("a", "b", "c", mode=SelectionMode.MIN_LOAD)

    assert sorted(claimed(pool).instance.name for _ in range(6)) == ["a", "a", "b", "b", "c", "c"]


def test_exact_serves_while_there_is_one_ready_instance() -> None:
    pool = pool_of("a", mode=SelectionMode.EXACT)
    launched(pool, "b")

    assert claimed(pool).instance.name == "a"


def test_exact_with_several_ready_instances_is_refused_until_one_is_left() -> None:
    pool = pool_of("a", "b", mode=SelectionMode.EXACT)

    with pytest.raises(SeveralInstances, match="2 instances are ready"):
        pool.claim()
    pool.drain(pool.instances["a"], "quiet")
    assert claimed(pool).instance.name == "b"


def test_exact_refuses_those_in_the_line_too_when_a_second_gets_ready() -> None:
    pool = pool_of("a", mode=SelectionMode.EXACT, cap=1)
    lease = claimed(pool)
    turns = [waiting(pool), waiting(pool)]
    make_ready(pool, launched(pool, "b"))

    assert [type(turn.error) for turn in turns] == [SeveralInstances, SeveralInstances]
    assert [turn.lease for turn in turns] == [None, None]
    assert pool.waiting == 0
    lease.release()
    assert pool.in_flight == 0


@pytest.mark.parametrize("mode", list(SelectionMode))
def test_every_mode_takes_the_only_one(mode: SelectionMode) -> None:
    assert claimed(pool_of("a", mode=mode)).instance.name == "a"


# In turn, and by token.


def in_turn(pool: Pool, requests: int) -> str:
    """Who served so many requests that ended at once."""
    names = []
    for _ in range(requests):
        with claimed(pool) as lease:
            names.append(lease.instance.name)
    return "".join(names)


def test_round_robin_goes_round_and_round() -> None:
    assert in_turn(pool_of("a", "b", "c", mode=SelectionMode.ROUND_ROBIN), 7) == "abcabca"


def test_round_robin_stays_fair_when_instances_come_and_go() -> None:
    pool = pool_of("a", "b", "c", mode=SelectionMode.ROUND_ROBIN)
    assert in_turn(pool, 4) == "abca"
    pool.drain(pool.instances["b"], "quiet")
    assert in_turn(pool, 2) == "ca"
    make_ready(pool, launched(pool, "d"))

    assert in_turn(pool, 6) == "dcadca"


def test_round_robin_comes_back_first_to_whom_it_passed_over_for_being_full() -> None:
    pool = pool_of("a", "b", "c", mode=SelectionMode.ROUND_ROBIN, cap=1)
    full = claimed(pool)
    assert in_turn(pool, 4) == "bcbc"
    full.release()

    assert in_turn(pool, 4) == "abca"


def test_round_robin_knows_whom_it_was_that_served_before_it_was_chosen() -> None:
    pool = pool_of("a", "b", mode=SelectionMode.FIRST)
    assert in_turn(pool, 3) == "aaa"
    pool.mode = SelectionMode.ROUND_ROBIN

    assert in_turn(pool, 3) == "bab"


def test_a_token_is_short_and_the_same_for_the_same_name() -> None:
    assert Instance("web-1-ab12").token == Instance("web-1-ab12").token
    assert Instance("web-1-ab12").token != Instance("web-2-cd34").token
    assert len(Instance("web-1-ab12").token) == 16


def test_a_client_stays_with_its_instance_however_busy_that_is() -> None:
    pool = pool_of("a", "b", mode=SelectionMode.STICKY)
    token = pool.instances["b"].token

    assert [claimed(pool, token=token).instance.name for _ in range(5)] == ["b"] * 5
    assert claimed(pool).instance.name == "a"


def test_a_client_whose_instance_is_full_goes_to_another_and_back_again() -> None:
    pool = pool_of("a", "b", mode=SelectionMode.STICKY, cap=1)
    a = pool.instances["a"]
    lease = claimed(pool, token=a.token)
    other = claimed(pool, token=a.token)

    assert other.instance.name == "b"
    assert not pool.needs_token(other.instance, a.token)
    lease.release()
    assert claimed(pool, token=a.token).instance is a


def test_a_client_whose_instance_has_just_failed_it_goes_to_another() -> None:
    pool = pool_of("a", "b", mode=SelectionMode.STICKY)
    a = pool.instances["a"]

    assert claimed(pool, avoid=a, token=a.token).instance.name == "b"


def test_a_client_in_the_line_gets_its_instance_if_that_is_free_when_its_turn_comes() -> None:
    pool = pool_of("a", "b", mode=SelectionMode.STICKY, cap=1)
    a, b = pool.instances["a"], pool.instances["b"]
    on_a, _ = claimed(pool), claimed(pool)
    first, second = waiting(pool, b.token), waiting(pool, a.token)
    on_a.release()
    assert served_by(first) == "a"
    pool.max_concurrency = 2
    pool.serve_line()

    assert served_by(second) == "a", "by load it would be b, which had fewer in the last minute"


@pytest.mark.parametrize(
    ("mode", "sent", "given", "expected"),
    [
        (SelectionMode.STICKY, "", "a", True),
        (SelectionMode.STICKY, "nonsense", "a", True),
        (SelectionMode.STICKY, "a", "a", False),
        (SelectionMode.STICKY, "a", "b", False),
        (SelectionMode.STICKY, "drains", "b", True),
        (SelectionMode.STICKY, "starts", "b", True),
        (SelectionMode.RANDOM, "", "a", False),
        (SelectionMode.MIN_LOAD, "drains", "b", False),
    ],
)
def test_a_client_is_told_to_stay_if_it_has_nobody_to_stay_with(
    mode: SelectionMode, sent: str, given: str, expected: bool
) -> None:
    pool = pool_of("a", "b", "drains", mode=mode)
    launched(pool, "starts")
    pool.drain(pool.instances["drains"], "quiet")
    token = pool.instances[sent].token if sent in pool.instances else sent

    assert pool.needs_token(pool.instances[given], token) is expected


@pytest.mark.parametrize(("mode", "chosen"), [(SelectionMode.FIRST, "a"), (SelectionMode.LAST, "b"), (None, "b")])
def test_a_request_can_ask_for_another_mode_than_the_apps(mode: SelectionMode | None, chosen: str) -> None:
    pool = pool_of("a", "b", mode=SelectionMode.LAST)

    lease = pool.claim(mode=mode)

    assert lease is not None
    assert lease.instance.name == chosen


def test_a_request_that_asks_for_the_only_instance_is_refused_while_there_are_several() -> None:
    pool = pool_of("a", "b")

    with pytest.raises(SeveralInstances):
        pool.claim(mode=SelectionMode.EXACT)


def test_a_request_for_one_instance_counts_there_whatever_state_that_is_in() -> None:
    pool = pool_of("a", "leaves")
    instance = pool.instances["leaves"]
    pool.drain(instance, "quiet")

    lease = pool.join(instance)

    assert (instance.in_flight, instance.per_minute(0.0), pool.in_flight) == (1, 1, 1)
    lease.release()
    assert (instance.in_flight, pool.in_flight) == (0, 0)


# The line.


def test_a_crowd_that_waits_is_served_when_an_instance_gets_ready() -> None:
    pool = pool_of()
    instance = launched(pool, "a")
    turns = [waiting(pool) for _ in range(500)]
    make_ready(pool, instance)

    assert {served_by(turn) for turn in turns} == {"a"}
    assert repr(pool) == "<Pool ready=1 | in_flight=500 waiting=0>"


def test_the_line_is_served_in_order_as_far_as_places_go_when_an_instance_gets_ready() -> None:
    pool = pool_of(cap=2)
    turns = [waiting(pool) for _ in range(3)]
    make_ready(pool, launched(pool, "a"))

    assert [served_by(turn) for turn in turns] == ["a", "a", ""]


def test_a_place_given_back_goes_to_the_next_in_line() -> None:
    pool = pool_of("a", cap=1)
    lease = claimed(pool)
    first, second = waiting(pool), waiting(pool)
    lease.release()

    assert (served_by(first), served_by(second)) == ("a", "")
    assert (pool.in_flight, pool.waiting) == (1, 1)
    assert first.lease is not None
    first.lease.release()
    assert served_by(second) == "a"


def test_whoever_is_served_is_called_once_and_has_the_place_by_then() -> None:
    pool = pool_of()
    calls: list[str] = []
    turn = Turn(lambda: calls.append(served_by(turn)))
    pool.wait(turn)
    make_ready(pool, launched(pool, "a"))
    make_ready(pool, launched(pool, "b"))

    assert calls == ["a"]


def test_whoever_gives_the_place_back_as_soon_as_called_lets_the_rest_through_in_order() -> None:
    pool = pool_of(cap=1)
    served: list[int] = []
    turns: list[Turn] = []

    def done(number: int) -> None:
        served.append(number)
        lease = turns[number].lease
        assert lease is not None
        lease.release()

    for number in range(5):
        turns.append(Turn(lambda number=number: done(number)))  # type: ignore[misc]  # a default binds the loop's value
        pool.wait(turns[-1])
    make_ready(pool, launched(pool, "a"))

    assert served == [0, 1, 2, 3, 4]
    assert (pool.in_flight, pool.waiting) == (0, 0)


def test_a_full_line_takes_no_more() -> None:
    pool = pool_of()
    pool.max_queue = 2
    waiting(pool)
    leaving = waiting(pool)

    with pytest.raises(LineFull, match="2 requests are waiting"):
        waiting(pool)
    assert pool.waiting == 2
    pool.leave(leaving)
    waiting(pool)
    assert pool.waiting == 2


def test_a_line_of_no_length_takes_nobody() -> None:
    pool = pool_of()
    pool.max_queue = 0

    with pytest.raises(LineFull):
        waiting(pool)


def test_whoever_leaves_the_line_is_passed_over() -> None:
    pool = pool_of(cap=1)
    first, second = waiting(pool), waiting(pool)
    pool.leave(first)
    make_ready(pool, launched(pool, "a"))

    assert (served_by(first), served_by(second)) == ("", "a")


def test_whoever_leaves_the_line_after_being_served_gives_the_place_back() -> None:
    pool = pool_of("a", cap=1)
    lease = claimed(pool)
    first, second = waiting(pool), waiting(pool)
    lease.release()
    pool.leave(first)

    assert served_by(second) == "a"
    assert (pool.in_flight, pool.waiting) == (1, 0)
    pool.leave(first)
    assert pool.in_flight == 1


def test_whoever_is_dismissed_is_told_why_and_called() -> None:
    pool = pool_of()
    calls: list[str] = []
    turns = [Turn(lambda: calls.append("x")) for _ in range(3)]
    for turn in turns:
        pool.wait(turn)
    error = RuntimeError("no use")
    pool.dismiss(error)

    assert [turn.error for turn in turns] == [error] * 3
    assert calls == ["x"] * 3
    assert pool.waiting == 0
    make_ready(pool, launched(pool, "a"))
    assert pool.in_flight == 0


# Lives.


def test_a_draining_instance_gets_no_request_and_keeps_those_it_has() -> None:
    pool = pool_of("a", "b")
    a = pool.instances["a"]
    lease = claimed(pool)
    pool.drain(a, "quiet")

    assert claimed(pool).instance.name == "b"
    assert (a.in_flight, a.why) == (1, "quiet")
    lease.release()
    assert a.in_flight == 0
    assert repr(pool) == "<Pool ready=1 draining=1 | in_flight=1 waiting=0>"


def test_a_place_given_back_on_a_draining_instance_goes_to_nobody() -> None:
    pool = pool_of("a", cap=1)
    lease = claimed(pool)
    turn = waiting(pool)
    pool.drain(pool.instances["a"], "quiet")
    lease.release()

    assert served_by(turn) == ""
    assert (pool.in_flight, pool.waiting) == (0, 1)


def test_an_instance_that_was_told_to_go_does_not_come_back() -> None:
    pool = pool_of()
    instance = launched(pool, "a")
    pool.drain(instance, "quiet")
    make_ready(pool, instance)

    assert instance.state is State.DRAINING
    assert instance.ready_at is None
    assert pool.claim() is None


def test_an_instance_keeps_the_first_reason_why_it_goes() -> None:
    pool = pool_of("a")
    pool.drain(pool.instances["a"], "quiet")
    pool.drain(pool.instances["a"], "rollout")

    assert pool.instances["a"].why == "quiet"


def test_a_lost_instance_is_out_of_rotation_at_once() -> None:
    pool = pool_of("a", "b")
    a = pool.instances["a"]
    lease = claimed(pool)
    pool.lose(a, "its container is exited")

    assert (a.state, a.lost, a.why) == (State.DRAINING, True, "its container is exited")
    assert claimed(pool).instance.name == "b"
    lease.release()
    assert pool.in_flight == 1


def fail(pool: Pool, name: str, times: int) -> list[bool]:
    return [pool.connect_failed(pool.instances[name]) for _ in range(times)]


def test_an_instance_that_takes_no_connections_is_ejected() -> None:
    pool = pool_of("a", "b")
    a = pool.instances["a"]
    lease = claimed(pool)
    assert fail(pool, "a", EJECT_AFTER) == [False] * (EJECT_AFTER - 1) + [True]

    assert (a.state, a.ejected, a.lost, a.why) == (State.DRAINING, True, False, "5 connections in a row failed")
    assert (lease.instance, a.in_flight) == (a, 1)
    assert claimed(pool).instance.name == "b"
    assert pool.gone == [a]


def test_a_connection_that_is_made_forgets_those_that_failed() -> None:
    pool = pool_of("a", "b")
    fail(pool, "a", EJECT_AFTER - 1)
    pool.connected(pool.instances["a"])

    assert fail(pool, "a", EJECT_AFTER - 1) == [False] * (EJECT_AFTER - 1)
    assert pool.instances["a"].state is State.READY


def test_the_last_ready_instance_is_ejected_only_when_there_is_another() -> None:
    pool = pool_of("a")
    other = launched(pool, "b")
    assert not any(fail(pool, "a", 3 * EJECT_AFTER))
    assert claimed(pool).instance.name == "a"
    make_ready(pool, other)

    assert fail(pool, "a", 1) == [True]
    assert pool.instances["a"].why == "16 connections in a row failed"
    assert not any(fail(pool, "b", 3 * EJECT_AFTER))


def test_an_instance_that_leaves_already_is_not_ejected_too() -> None:
    pool = pool_of("a", "b", "c")
    pool.drain(pool.instances["a"], "quiet")

    assert not any(fail(pool, "a", 2 * EJECT_AFTER))
    assert (pool.instances["a"].why, pool.instances["a"].ejected, pool.gone) == ("quiet", False, [])


def test_those_that_died_while_they_served_are_told_to_the_next_decision() -> None:
    pool = pool_of("a", "b", "c")
    starting = launched(pool, "d")
    pool.drain(pool.instances["b"], "quiet")
    for instance in (pool.instances["a"], pool.instances["b"], starting, pool.instances["a"]):
        pool.lose(instance, "its container is exited")

    assert [instance.name for instance in pool.gone] == ["a"]


def test_an_unplugged_instance_is_starting_until_it_is_ready_again() -> None:
    pool = pool_of("a", "b")
    lease = claimed(pool)
    told: list[str] = []
    lease.instance.changed = lambda: told.append("changed")

    pool.unplug(lease.instance)
    pool.unplug(lease.instance)

    assert lease.instance.starting
    assert told == ["changed"]
    assert claimed(pool).instance.name == "b"
    lease.release()
    make_ready(pool, lease.instance)
    assert not lease.instance.unplugged
    assert claimed(pool).instance is lease.instance


def test_an_unplugged_instance_that_dies_or_is_ejected_is_told_to_the_next_decision() -> None:
    pool = pool_of("a", "b")
    dies, stays_away = pool
    pool.unplug(dies)
    pool.unplug(stays_away)

    pool.lose(dies, "its container is exited")
    pool.eject(stays_away, "it did not register")

    assert pool.gone == [dies, stays_away]
    assert (dies.lost, stays_away.ejected) == (True, True)
    assert [each.state for each in pool] == [State.DRAINING, State.DRAINING]


def test_only_what_is_ready_can_be_unplugged() -> None:
    pool = pool_of("a")
    starting = launched(pool, "b")
    leaving = pool.instances["a"]
    pool.drain(leaving, "quiet")

    pool.unplug(starting)
    pool.unplug(leaving)

    assert not starting.unplugged
    assert leaving.state is State.DRAINING


def test_an_instance_has_a_name_as_an_rpc_client() -> None:
    assert Instance("chat-1-ab12").client_id == client_id("chat-1-ab12") == "chat-1-ab12__rlb"


def test_whoever_looks_after_an_instance_is_told_what_changes() -> None:
    pool = pool_of("a")
    a = pool.instances["a"]
    told: list[tuple[str, int, bool]] = []
    a.changed = lambda: told.append((str(a.state), a.in_flight, a.lost))
    one, two = claimed(pool), claimed(pool)
    one.release()

    assert told == []
    pool.drain(a, "quiet")
    assert told == [("draining", 1, False)]
    two.release()
    assert told == [("draining", 1, False), ("draining", 0, False)]
    pool.lose(a, "died")
    assert told[2:] == [("draining", 0, True)]


def test_a_finished_instance_is_forgotten_and_its_last_places_disturb_nobody() -> None:
    pool = pool_of("a", cap=1)
    lease = claimed(pool)
    turn = waiting(pool)
    pool.finish(pool.instances["a"])
    pool.finish(lease.instance)

    assert repr(pool) == "<Pool empty | in_flight=0 waiting=1>"
    lease.release()
    assert served_by(turn) == ""
    assert lease.instance.in_flight == 0


def test_a_name_is_launched_once() -> None:
    pool = pool_of("a")

    with pytest.raises(ValueError, match="a is in the pool already"):
        launched(pool, "a")


def test_who_is_going_already_is_no_candidate_to_go() -> None:
    pool = pool_of("a", "b")
    launched(pool, "c")
    pool.drain(pool.instances["a"], "quiet")

    assert [instance.name for instance in pool.candidates()] == ["b", "c"]
    assert [instance.name for instance in pool] == ["a", "b", "c"]
    assert pool.counts() == {State.STARTING: 1, State.READY: 1, State.DRAINING: 1, State.STANDBY: 0}


# To standby and back.


def on_standby(pool: Pool, name: str) -> Instance:
    instance = started_for_standby(pool, name)
    pool.park(instance)
    return instance


def started_for_standby(pool: Pool, name: str) -> Instance:
    instance = launched(pool, name)
    instance.spare = True
    return instance


def test_spares_serve_nobody_and_are_no_candidates_to_go() -> None:
    pool = pool_of()
    starting, standby = started_for_standby(pool, "a"), on_standby(pool, "b")

    assert pool.claim() is None
    assert (starting.starting, standby.starting) == (False, False)
    assert pool.candidates() == []
    assert pool.counts() == {State.STARTING: 1, State.READY: 0, State.DRAINING: 0, State.STANDBY: 1}


def test_spares_that_are_there_come_before_those_that_start_the_oldest_first() -> None:
    pool = pool_of("serves")
    starting = started_for_standby(pool, "a")
    older, younger, leaving = on_standby(pool, "b"), on_standby(pool, "c"), on_standby(pool, "d")
    pool.drain(leaving, "it gave way")

    assert pool.spares() == [older, younger, starting]


def test_one_on_standby_serves_when_it_was_promoted_and_has_proved_itself_again() -> None:
    clock = ManualClock()
    pool = Pool(clock, lambda n: 0)
    instance = on_standby(pool, "a")
    clock.advance(100)
    told: list[State] = []
    instance.changed = lambda: told.append(instance.state)
    pool.promote(instance)

    assert (instance.starting, instance.started_at, told) == (True, clock(), [State.STARTING])
    assert (pool.candidates(), pool.spares()) == ([instance], [])
    make_ready(pool, instance)
    assert claimed(pool).instance is instance


def test_one_that_is_promoted_while_it_starts_goes_on_starting() -> None:
    pool = pool_of()
    instance = started_for_standby(pool, "a")
    begun = instance.started_at
    pool.promote(instance)

    assert (instance.starting, instance.started_at) == (True, begun)


def test_one_that_leaves_for_standby_is_a_spare_once_it_is_there() -> None:
    clock = ManualClock()
    pool = Pool(clock, lambda n: 0)
    instance = launched(pool, "a")
    make_ready(pool, instance)
    lease = claimed(pool)
    pool.drain(instance, "quiet")
    instance.parks = True
    assert (pool.claim(), pool.spares()) == (None, [])
    lease.release()
    clock.advance(5)
    pool.park(instance)

    assert (instance.state, instance.spare, instance.parks, instance.why) == (State.STANDBY, True, False, "")
    assert (pool.spares(), instance.started_at) == ([instance], clock())


def test_one_that_died_is_not_put_on_standby() -> None:
    pool = pool_of()
    instance = started_for_standby(pool, "a")
    pool.lose(instance, "its container is exited")
    pool.park(instance)

    assert (instance.state, instance.why) == (State.STARTING, "its container is exited")


def test_one_that_dies_on_standby_leaves_and_nobody_misses_it() -> None:
    pool = pool_of()
    instance = on_standby(pool, "a")
    pool.lose(instance, "its container was unpaused by hand")

    assert (instance.state, instance.lost, pool.gone, pool.spares()) == (State.DRAINING, True, [], [])


def test_one_that_was_set_aside_comes_back_as_one_that_starts() -> None:
    clock = ManualClock()
    pool = Pool(clock, lambda n: 0)
    instance = launched(pool, "a")
    make_ready(pool, instance)
    instance.acknowledged_at, instance.set_aside = clock(), True
    pool.drain(instance, "rollout: it makes room")
    pool.finish(instance)
    assert pool.candidates() == []
    clock.advance(9)
    turn = waiting(pool)
    pool.bring_back(instance)

    assert (instance.starting, instance.set_aside, instance.lost, instance.why) == (True, False, False, "")
    assert instance.started_at == clock()
    assert instance.acknowledged_at is None
    make_ready(pool, instance)
    assert served_by(turn) == "a"


# How many there are, measured.


def test_who_is_served_and_who_waits_is_measured_if_that_is_wanted() -> None:
    clock = ManualClock()
    pool = Pool(clock, lambda n: 0)
    pool.max_concurrency = 2
    make_ready(pool, launched(pool, "a"))
    one = claimed(pool)
    assert (pool.level, pool.concurrency(1)) == (0, 0.0)
    pool.measure(True)
    pool.measure(True)
    claimed(pool)
    waiting(pool)
    waiting(pool)
    clock.advance(2)
    assert (pool.level, pool.concurrency(1)) == (4, 4.0)
    one.release()
    assert pool.level == 3
    clock.advance(1)

    assert pool.concurrency(1) == 3.0
    pool.forget_crowd()
    assert (pool.level, pool.concurrency(1)) == (3, 0.0)
    pool.measure(False)
    assert (pool.level, pool.concurrency(1)) == (0, 0.0)


def test_the_line_is_as_old_as_there_has_been_somebody_in_it() -> None:
    clock = ManualClock()
    pool = Pool(clock, lambda n: 0)
    clock.advance(9)
    assert pool.lined_up_s == 0.0
    first = waiting(pool)
    clock.advance(2)
    second = waiting(pool)
    pool.leave(first)
    clock.advance(3)
    assert pool.lined_up_s == 5.0
    pool.leave(second)
    assert pool.lined_up_s == 0.0
    waiting(pool)

    assert pool.lined_up_s == 0.0


def test_pool_and_instance_read_as_status_lines() -> None:
    pool = pool_of("a", "b", cap=1)
    claimed(pool)
    claimed(pool)
    waiting(pool)
    launched(pool, "c")

    assert repr(pool) == "<Pool starting=1 ready=2 | in_flight=2 waiting=1>"
    assert repr(pool.instances["a"]) == "<Instance a ready in_flight=1>"


# Whatever happens, in whatever order.

PICK = st.integers(0, 1000)
MAX_QUEUE = 3


class PoolLife(RuleBasedStateMachine):
    """Lives, requests and the line in any order; the books must balance after each step."""

    @initialize(
        cap=st.sampled_from([None, 1, 2]),
        mode=st.sampled_from(SelectionMode),
        drawn=st.integers(0, 20),
    )
    def begin(self, cap: int | None, mode: SelectionMode, drawn: int) -> None:
        self.clock = ManualClock()
        self.pool = Pool(self.clock, lambda n: drawn % n)
        self.pool.mode = mode
        self.pool.max_concurrency = cap
        self.pool.max_queue = MAX_QUEUE
        self.pool.measure(True)
        self.born = 0
        self.everyone: list[Instance] = []
        self.leases: list[Lease] = []
        self.line: list[Turn] = []
        self.served: list[Turn] = []
        self.aside: list[Instance] = []
        self.leaving: dict[str, int] = {}
        """What was in flight on draining instances after the step before."""

    def present(self, *states: State) -> list[Instance]:
        return [instance for instance in self.pool if instance.state in states]

    def is_called(self, turn: Turn) -> None:
        assert (turn.lease is None) is not (turn.error is None)
        assert self.line[0] is turn, "served out of order"
        self.line.remove(turn)
        if turn.lease is not None:
            assert turn.lease.instance.state is State.READY
            assert not turn.lease.instance.spare
            self.leases.append(turn.lease)
            self.served.append(turn)
        else:
            assert isinstance(turn.error, NoPlace)

    @rule(seconds=st.sampled_from([0.5, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: len(self.pool.instances) < 5)
    @rule(spare=st.sampled_from([False, False, True]))
    def launch(self, spare: bool) -> None:
        self.born += 1
        instance = Instance(f"i{self.born}")
        instance.spare = spare
        self.everyone.append(instance)
        self.pool.launch(instance)

    @precondition(lambda self: self.present(State.STARTING))
    @rule(pick=PICK)
    def get_ready(self, pick: int) -> None:
        """What has proved itself serves or, if it is a spare, is paused."""
        starting = self.present(State.STARTING)
        instance = starting[pick % len(starting)]
        if instance.spare:
            self.pool.park(instance)
        else:
            self.pool.ready(instance, ("10.0.0.1", 8000))
        assert instance.lost is (instance.state is State.STARTING)

    @precondition(lambda self: self.pool.spares())
    @rule(first=st.booleans())
    def promote(self, first: bool) -> None:
        spare = self.pool.spares()[0 if first else -1]
        self.pool.promote(spare)
        assert spare.starting

    @precondition(lambda self: self.pool.instances)
    @rule(pick=PICK, how=st.sampled_from(["dies", "leaves", "leaves for standby", "is set aside"]))
    def go(self, pick: int, how: str) -> None:
        instance = list(self.pool)[pick % len(self.pool.instances)]
        serves = instance.state is State.READY
        if how == "dies":
            self.pool.lose(instance, "died")
            return
        self.pool.drain(instance, "quiet")
        instance.parks |= serves and how == "leaves for standby"
        instance.set_aside |= serves and how == "is set aside"

    @precondition(lambda self: self.present(State.DRAINING))
    @rule(pick=PICK)
    def get_to_the_end(self, pick: int) -> None:
        """What leaves ends, or is paused if it served all it had, or is kept to be started again."""
        draining = self.present(State.DRAINING)
        instance = draining[pick % len(draining)]
        if instance.parks and not (instance.lost or instance.in_flight):
            self.pool.park(instance)
            assert instance in self.pool.spares()
            return
        self.pool.finish(instance)
        if instance.set_aside and not instance.lost:
            self.aside.append(instance)

    @precondition(lambda self: self.aside and len(self.pool.instances) < 5)
    @rule()
    def bring_back(self) -> None:
        instance = self.aside.pop()
        self.pool.bring_back(instance)
        assert instance in self.pool.candidates()

    @rule()
    def turn_all_away(self) -> None:
        self.pool.dismiss(NoPlace("the app was removed"))
        assert self.line == []

    @precondition(lambda self: self.present(State.READY))
    @rule(pick=PICK)
    def unplug(self, pick: int) -> None:
        ready = self.present(State.READY)
        instance = ready[pick % len(ready)]
        self.pool.unplug(instance)
        assert instance.starting
        assert instance.unplugged

    @precondition(lambda self: any(each.unplugged for each in self.pool))
    @rule()
    def stay_away(self) -> None:
        instance = next(each for each in self.pool if each.unplugged)
        self.pool.eject(instance, "it did not come back")
        assert instance in self.present(State.DRAINING)

    @precondition(lambda self: self.present(State.READY))
    @rule(pick=PICK, made=st.sampled_from([True, False, False, False]))
    def connect(self, pick: int, made: bool) -> None:
        """To be ejected takes several in a row, so most of them fail, and the same few instances are tried."""
        ready = self.present(State.READY)
        instance = ready[pick % len(ready)]
        if made:
            self.pool.connected(instance)
            return
        for _ in range(3):
            ejected = self.pool.connect_failed(instance)
            assert instance.ejected is ejected is (instance.state is State.DRAINING)
            assert self.present(State.READY), "the last one was ejected"
            if ejected:
                return

    @rule(avoid=PICK, sticks=st.one_of(st.none(), PICK))
    def request(self, avoid: int, sticks: int | None) -> None:
        ready = self.present(State.READY)
        avoided = ready[avoid % len(ready)] if ready and avoid % 2 else None
        liked = self.everyone[sticks % len(self.everyone)] if self.everyone and sticks is not None else None
        token = liked.token if liked else ""
        free = [
            each for each in ready if self.pool.max_concurrency is None or each.in_flight < self.pool.max_concurrency
        ]
        try:
            lease = self.pool.claim(avoided, token)
        except SeveralInstances:
            assert self.pool.mode is SelectionMode.EXACT
            assert len(ready) > 1
            return
        if lease is not None:
            assert lease.instance in free
            assert not lease.instance.spare
            assert lease.instance is not avoided or free == [avoided]
            if self.pool.mode is SelectionMode.STICKY and liked in free and liked is not avoided:
                assert lease.instance is liked
            if self.pool.needs_token(lease.instance, token):
                assert lease.instance is not liked
                assert liked not in ready
            self.leases.append(lease)
            return
        assert free == []
        turn = Turn(lambda: self.is_called(turn), token)
        try:
            self.pool.wait(turn)
        except LineFull:
            assert len(self.line) == MAX_QUEUE
        else:
            self.line.append(turn)

    @precondition(lambda self: self.leases)
    @rule(pick=PICK, times=st.integers(1, 2))
    def give_back(self, pick: int, times: int) -> None:
        lease = self.leases.pop(pick % len(self.leases))
        for _ in range(times):
            lease.release()

    @precondition(lambda self: self.line)
    @rule(pick=PICK)
    def leave_the_line(self, pick: int) -> None:
        self.pool.leave(self.line.pop(pick % len(self.line)))

    @precondition(lambda self: self.served)
    @rule(pick=PICK)
    def leave_after_being_served(self, pick: int) -> None:
        turn = self.served.pop(pick % len(self.served))
        if turn.lease in self.leases:
            self.leases.remove(turn.lease)
        self.pool.leave(turn)

    @invariant()
    def in_flight_equals_live_leases(self) -> None:
        for instance in self.everyone:
            assert instance.in_flight == sum(lease.instance is instance for lease in self.leases)

    @invariant()
    def all_who_are_served_or_wait_are_measured(self) -> None:
        assert self.pool.level == len(self.leases) + len(self.line)
        assert self.pool.in_flight == sum(lease.instance.name in self.pool.instances for lease in self.leases)
        assert (self.pool.lined_up_s > 0) <= bool(self.line)

    @invariant()
    def each_instance_is_one_thing(self) -> None:
        there = [*self.pool.candidates(), *self.pool.spares(), *self.present(State.DRAINING)]
        assert sorted(each.name for each in there) == sorted(self.pool.instances)
        assert sum(self.pool.counts().values()) == len(self.pool.instances)
        assert not any(each.lost for each in self.present(State.READY, State.STANDBY))

    @invariant()
    def what_is_unplugged_is_on_its_way_back(self) -> None:
        assert all(each.starting and not each.lost for each in self.everyone if each.unplugged)

    @invariant()
    def spares_serve_nobody(self) -> None:
        assert all(each.in_flight == 0 for each in self.pool.spares())
        assert all(each.spare for each in self.present(State.STANDBY))

    @invariant()
    def what_is_gone_serves_no_more(self) -> None:
        assert len(self.pool.gone) == len(set(self.pool.gone))
        assert all(each.state is State.DRAINING and (each.lost or each.ejected) for each in self.pool.gone)

    @invariant()
    def nobody_waits_beside_a_free_place(self) -> None:
        if self.pool.waiting:
            cap = self.pool.max_concurrency
            assert [i for i in self.present(State.READY) if cap is None or i.in_flight < cap] == []

    @invariant()
    def no_instance_has_more_than_its_cap(self) -> None:
        cap = self.pool.max_concurrency
        assert cap is None or all(instance.in_flight <= cap for instance in self.everyone)

    @invariant()
    def what_drains_never_gets_more(self) -> None:
        draining = {instance.name: instance.in_flight for instance in self.everyone if instance.state is State.DRAINING}
        assert [name for name, before in self.leaving.items() if draining.get(name, 0) > before] == []
        self.leaving = draining

    @invariant()
    def the_line_is_who_waits_and_bounded(self) -> None:
        assert self.pool.waiting == len(self.line) <= MAX_QUEUE


PoolLife.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestPoolLife = PoolLife.TestCase
