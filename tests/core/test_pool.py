"""Places, the line in front of them, and the books that must balance whatever happens in whatever order."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dockscale.core.pool import Instance, Lease, LineFull, Pool, SeveralInstances, State, Turn
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


def claimed(pool: Pool, avoid: Instance | None = None) -> Lease:
    lease = pool.claim(avoid)
    assert lease is not None
    return lease


def waiting(pool: Pool) -> Turn:
    turn = Turn(lambda: None)
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
    assert pool.counts() == {State.STARTING: 1, State.READY: 1, State.DRAINING: 1}


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
        mode=st.sampled_from([SelectionMode.FIRST, SelectionMode.LAST, SelectionMode.MIN_LOAD, SelectionMode.EXACT]),
    )
    def begin(self, cap: int | None, mode: SelectionMode) -> None:
        self.clock = ManualClock()
        self.pool = Pool(self.clock, lambda n: n - 1)
        self.pool.mode = mode
        self.pool.max_concurrency = cap
        self.pool.max_queue = MAX_QUEUE
        self.born = 0
        self.everyone: list[Instance] = []
        self.leases: list[Lease] = []
        self.line: list[Turn] = []
        self.served: list[Turn] = []
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
            self.leases.append(turn.lease)
            self.served.append(turn)
        else:
            assert isinstance(turn.error, SeveralInstances)

    @rule(seconds=st.sampled_from([0.5, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: len(self.pool.instances) < 5)
    @rule()
    def launch(self) -> None:
        self.born += 1
        instance = Instance(f"i{self.born}")
        self.everyone.append(instance)
        self.pool.launch(instance)

    @precondition(lambda self: self.present(State.STARTING))
    @rule(pick=PICK)
    def get_ready(self, pick: int) -> None:
        starting = self.present(State.STARTING)
        self.pool.ready(starting[pick % len(starting)], ("10.0.0.1", 8000))

    @precondition(lambda self: self.pool.instances)
    @rule(pick=PICK, lost=st.booleans())
    def go(self, pick: int, lost: bool) -> None:
        instance = list(self.pool)[pick % len(self.pool.instances)]
        if lost:
            self.pool.lose(instance, "died")
        else:
            self.pool.drain(instance, "quiet")

    @precondition(lambda self: self.present(State.DRAINING))
    @rule(pick=PICK)
    def finish(self, pick: int) -> None:
        draining = self.present(State.DRAINING)
        self.pool.finish(draining[pick % len(draining)])

    @rule(avoid=PICK)
    def request(self, avoid: int) -> None:
        ready = self.present(State.READY)
        avoided = ready[avoid % len(ready)] if ready and avoid % 2 else None
        try:
            lease = self.pool.claim(avoided)
        except SeveralInstances:
            assert self.pool.mode is SelectionMode.EXACT
            assert len(ready) > 1
            return
        if lease is not None:
            assert lease.instance.state is State.READY
            self.leases.append(lease)
            return
        turn = Turn(lambda: self.is_called(turn))
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
        assert [name for name, before in self.leaving.items() if draining[name] > before] == []
        self.leaving = draining

    @invariant()
    def the_line_is_who_waits_and_bounded(self) -> None:
        assert self.pool.waiting == len(self.line) <= MAX_QUEUE


PoolLife.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestPoolLife = PoolLife.TestCase
