"""What windows and meters tell is what a naive list of all that happened would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockscale.core.load import WINDOW_S, Load, Meter, Window

# Windows.


def test_a_window_counts_arrivals_of_the_last_seconds() -> None:
    window = Window(60)

    assert [window.hit(1000.0), window.hit(1000.9), window.hit(1030.0)] == [1, 2, 3]
    assert window.count(1030.0) == 3


@pytest.mark.parametrize(
    ("now", "expected"),
    [(1000.0, 2), (1059.9, 2), (1060.0, 1), (1060.9, 1), (1061.0, 0)],
    ids=["at once", "last moment", "first second left", "within that second", "both left"],
)
def test_a_window_slides_in_steps_of_one_second(now: float, expected: int) -> None:
    window = Window(60)
    window.hit(1000.5)
    window.hit(1001.5)

    assert window.count(now) == expected


@pytest.mark.parametrize("gap", [60, 61, 119, 120, 100_000])
def test_a_gap_as_long_as_the_window_empties_it(gap: int) -> None:
    window = Window(60)
    for second in range(60):
        window.hit(1000.0 + second)

    assert window.hit(1059.0 + gap) == 1
    assert window.count(1059.0 + gap + 59) == 1
    assert window.count(1059.0 + gap + 60) == 0


def test_a_clock_that_steps_back_neither_loses_nor_invents_arrivals() -> None:
    window = Window(6)
    window.hit(1000.0)

    assert window.count(990.0) == 1
    assert window.hit(990.0) == 2
    assert window.count(1005.0) == 2
    assert window.count(1006.0) == 0


def test_a_cleared_window_starts_from_nothing() -> None:
    window = Window(6)
    window.hit(1000.0)
    window.clear()

    assert window.count(1000.0) == 0
    assert window.hit(1001.0) == 1
    assert repr(window) == "<Window 1 in 6 s>"


@given(
    seconds=st.integers(1, 10),
    steps=st.lists(st.tuples(st.floats(0, 15), st.booleans()), max_size=60),
)
def test_a_window_equals_a_naive_count(seconds: int, steps: list[tuple[float, bool]]) -> None:
    window = Window(seconds)
    arrivals: list[int] = []
    now = 1000.0
    for gap, arrives in steps:
        now += gap
        if arrives:
            arrivals.append(int(now))
            window.hit(now)

        assert window.count(now) == sum(int(now) - second < seconds for second in arrivals)


# Meters.


def meter(*changes: tuple[float, int]) -> Meter:
    """A meter that began at 1000 s and was told of these (time, by)."""
    meter = Meter(1000.0)
    for now, by in changes:
        meter.change(now, by)
    return meter


@pytest.mark.parametrize(
    ("now", "seconds", "expected"),
    [
        (1000.0, 60, 0.0),
        (1030.0, 60, 1.5),
        (1030.0, 10, 3.0),
        (1060.0, 60, 3.0),
        (1075.0, 60, 2.25),
        (1075.0, 10, 0.0),
        (1120.0, 60, 0.0),
        (999_999.0, 60, 0.0),
    ],
    ids=["nothing yet", "half a minute", "the last 10 s", "a minute", "they left", "10 s after", "long ago", "a gap"],
)
def test_a_meter_tells_how_many_there_were_on_average(now: float, seconds: int, expected: float) -> None:
    three = meter((1000.0, 3), (1060.0, -3)) if now >= 1060.0 else meter((1000.0, 3))

    assert three.average(now, seconds) == pytest.approx(expected)


def test_what_stays_for_a_tenth_of_a_second_counts_for_a_tenth() -> None:
    assert meter((1000.0, 50), (1000.1, -50)).average(1001.0, 1) == pytest.approx(5.0)


@pytest.mark.parametrize("gap", [60, 61, 62, 3600, 1e9])
def test_those_who_stay_through_a_gap_are_there_all_the_time(gap: float) -> None:
    assert meter((1000.0, 7)).average(1000.0 + gap, 60) == pytest.approx(7.0)


def test_a_meter_that_forgets_starts_anew_from_how_many_there_are() -> None:
    four = meter((1000.0, 4))
    four.forget(1030.5)

    assert (four.level, four.average(1030.5, 60)) == (4, 0.0)
    assert four.average(1031.5, 1) == pytest.approx(4.0 * 0.5 + 4.0 * 0.5 * 0.5), "half of the oldest second is gone"
    assert four.average(1045.5, 60) == pytest.approx(1.0)


def test_there_are_never_fewer_than_none() -> None:
    none = meter((1000.0, 1), (1001.0, -2))

    assert (none.level, repr(none)) == (0, "<Meter 0>")


def test_a_clock_that_steps_back_neither_loses_nor_invents_time() -> None:
    two = meter((1010.0, 2), (1004.0, 3))
    assert two.average(1007.0, 1) == 0.0

    assert two.level == 5
    assert two.average(1011.0, 1) == pytest.approx(5.0)


class Naive:
    """A meter that keeps all that ever happened: from when on there were how many."""

    def __init__(self, now: float) -> None:
        self.began = self.now = now
        self.history: list[tuple[float, int]] = [(now, 0)]

    def change(self, now: float, by: int) -> None:
        self.now = max(self.now, now)
        self.history.append((self.now, max(0, self.history[-1][1] + by)))

    def forget(self, now: float) -> None:
        self.now = max(self.now, now)
        self.history = [(self.now, self.history[-1][1])]

    def area(self, begin: float, end: float) -> float:
        """Seconds × how many between these times."""
        until = [*(at for at, _ in self.history[1:]), end]
        return sum(
            level * max(0.0, min(stop, end) - max(at, begin))
            for (at, level), stop in zip(self.history, until, strict=True)
        )

    def average(self, now: float, seconds: int) -> float:
        """Of the oldest second the part that is still in the window counts, as if it had been even."""
        self.now = max(self.now, now)
        whole = float(int(self.now) - seconds + 1)
        part = whole + seconds - self.now
        return (self.area(whole, self.now) + part * self.area(whole - 1, whole)) / seconds


STEPS = st.lists(
    st.tuples(
        st.one_of(st.floats(-3, 3), st.sampled_from([0.0, 1.0, 59.0, 60.0, 61.0, 62.0, 1000.0])),
        st.integers(-4, 6),
        st.sampled_from(["change", "change", "change", "look", "forget"]),
    ),
    max_size=40,
)


@given(begin=st.floats(0, 2000), steps=STEPS, seconds=st.integers(1, WINDOW_S))
def test_a_meter_equals_a_naive_integral(begin: float, steps: list[tuple[float, int, str]], seconds: int) -> None:
    meter, naive = Meter(begin), Naive(begin)
    now = begin
    for gap, by, act in steps:
        now = max(0.0, now + gap)
        for each in (meter, naive):
            if act == "change":
                each.change(now, by)
            elif act == "forget":
                each.forget(now)

        assert meter.level == naive.history[-1][1]
        for window in (1, seconds, WINDOW_S):
            assert meter.average(now, window) == pytest.approx(naive.average(now, window), abs=1e-6)


@given(steps=st.lists(st.tuples(st.floats(0, 3), st.integers(-4, 6)), max_size=40), seconds=st.integers(1, WINDOW_S))
def test_a_meter_is_exact_at_whole_seconds_and_within_one_second_of_it_between(
    steps: list[tuple[float, int]], seconds: int
) -> None:
    meter, naive = Meter(1000.0), Naive(1000.0)
    now, most = 1000.0, 0
    for gap, by in steps:
        now += gap
        meter.change(now, by)
        naive.change(now, by)
        most = max(most, meter.level)
        exact = naive.area(now - seconds, now) / seconds

        assert abs(meter.average(now, seconds) - exact) <= most / 4 / seconds + 1e-6
    now = float(int(now) + 1)
    assert meter.average(now, seconds) == pytest.approx(naive.area(now - seconds, now) / seconds, abs=1e-6)


# Loads.


def test_load_per_instance_is_shared_by_those_that_are_ready() -> None:
    load = Load(ready=4, starting=2, requests=100)

    assert load.per_instance == 25.0
    assert load.have == 6


def test_load_of_an_app_without_a_ready_instance_is_all_its_requests() -> None:
    assert Load(starting=2, requests=100).per_instance == 100.0


def test_all_that_is_there_counts_towards_the_maximum() -> None:
    load = Load(ready=1, starting=20, draining=300, parking=100, standby=4_000, spent=50_000, warming=600_000)

    assert (load.have, load.held) == (21, 654_321)
