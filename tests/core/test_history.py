"""What is remembered of an hour, and what is not."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from dockscale.core.history import EVERY_S, POINTS, History, Point
from dockscale.core.load import Load

HOUR_S = EVERY_S * POINTS


def test_points_are_those_that_were_added_the_oldest_first() -> None:
    history = History()
    history.add(1000.0, Load(requests=40, ready=2))
    history.add(1010.0, Load(requests=90, ready=3))

    points = [*history.points(1010.0)]

    assert points == [Point(1000, 40, 2), Point(1010, 90, 3)]
    assert [point.per_instance for point in points] == [20.0, 30.0]


def test_of_several_looks_within_ten_seconds_the_last_one_counts() -> None:
    history = History()
    for at, requests in ((1000.0, 1), (1003.5, 2), (1009.9, 3)):
        history.add(at, Load(requests=requests))

    assert [*history.points(1009.9)] == [Point(1000, 3, 0)]


def test_where_nobody_looked_there_is_no_point() -> None:
    history = History()
    history.add(1000.0, Load(requests=1, ready=1))
    history.add(1060.0, Load(requests=2, ready=1))

    assert [point.at for point in history.points(1060.0)] == [1000, 1060]


def test_after_an_hour_a_point_is_gone_even_where_nothing_was_added_since() -> None:
    history = History()
    history.add(1000.0, Load(requests=1))

    assert [*history.points(1000.0 + HOUR_S - EVERY_S)] != []
    assert [*history.points(1000.0 + HOUR_S)] == []


def test_a_clock_that_steps_back_changes_nothing() -> None:
    history = History()
    history.add(1000.0, Load(requests=1))
    history.add(900.0, Load(requests=9))

    assert [*history.points(1000.0)] == [Point(1000, 1, 0)]


def test_without_an_instance_all_the_load_is_that_of_the_first_to_come() -> None:
    assert Point(0, 7, 0).per_instance == 7.0


def test_a_history_is_small_and_does_not_grow() -> None:
    history = History()
    for at in range(0, 3 * HOUR_S, EVERY_S):
        history.add(float(at), Load(requests=2**40, ready=3))

    size = sum(sys.getsizeof(getattr(history, name)) for name in History.__slots__)
    assert len([*history.points(3.0 * HOUR_S - 1)]) == POINTS
    assert size < 3100


@given(st.lists(st.integers(0, 2 * HOUR_S), min_size=1, max_size=60))
def test_the_ring_holds_what_a_list_would(steps: list[int]) -> None:
    history, told = History(), dict[int, int]()
    now = 0
    for number, step in enumerate(steps):
        now += step // 10
        history.add(float(now), Load(requests=number))
        told[now // EVERY_S * EVERY_S] = number

    oldest = (now // EVERY_S - POINTS + 1) * EVERY_S
    expected = [(at, requests) for at, requests in sorted(told.items()) if at >= oldest]
    assert [(int(point.at), point.requests) for point in history.points(float(now))] == expected
