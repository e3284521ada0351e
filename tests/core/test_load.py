"""Windows slide in whole seconds, and never count more or less than a naive list of arrivals would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockscale.core.load import Load, Window


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


def test_load_per_instance_is_shared_by_those_that_are_ready() -> None:
    load = Load(ready=4, starting=2, requests=100)

    assert load.per_instance == 25.0
    assert load.have == 6


def test_load_of_an_app_without_a_ready_instance_is_all_its_requests() -> None:
    assert Load(starting=2, requests=100).per_instance == 100.0
