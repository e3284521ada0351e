"""Which of the free instances serves, by selection mode."""

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockscale.core.balance import CHOICES, Chance
from dockscale.core.spec import SelectionMode


@dataclass(frozen=True)
class Place:
    name: str
    in_flight: int = 0
    rate: int = 0
    last_chosen: int = 0

    @property
    def token(self) -> str:
        return f"token of {self.name}"

    def per_minute(self, now: float) -> int:
        return self.rate


THREE = [Place("oldest", in_flight=2), Place("middle", in_flight=1), Place("youngest", in_flight=3)]


def choose(mode: SelectionMode, free: list[Place], chance: Chance, token: str = "") -> str:
    return CHOICES[mode](free, 0.0, chance, token).name


def first(_: int) -> int:
    return 0


def last(n: int) -> int:
    return n - 1


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (SelectionMode.FIRST, "oldest"),
        (SelectionMode.LAST, "youngest"),
        (SelectionMode.MIN_LOAD, "middle"),
        (SelectionMode.EXACT, "oldest"),
    ],
)
def test_a_mode_without_chance_always_picks_the_same(mode: SelectionMode, expected: str) -> None:
    assert choose(mode, THREE, first) == choose(mode, THREE, last) == expected


@pytest.mark.parametrize(("drawn", "expected"), [(0, "oldest"), (1, "middle"), (2, "youngest")])
def test_random_picks_whom_chance_names(drawn: int, expected: str) -> None:
    assert choose(SelectionMode.RANDOM, THREE, lambda _: drawn) == expected


def test_random_asks_chance_for_as_many_as_are_free() -> None:
    asked: list[int] = []

    def chance(n: int) -> int:
        asked.append(n)
        return 0

    choose(SelectionMode.RANDOM, THREE, chance)

    assert asked == [3]


def test_min_load_goes_by_what_is_in_flight_before_the_rate() -> None:
    places = [Place("slow", in_flight=1, rate=0), Place("idle but popular", in_flight=0, rate=500)]

    assert choose(SelectionMode.MIN_LOAD, places, first) == "idle but popular"


def test_min_load_goes_by_the_rate_where_as_much_is_in_flight() -> None:
    places = [Place("popular", rate=90), Place("rested", rate=10), Place("rested too", rate=10)]

    assert choose(SelectionMode.MIN_LOAD, places, first) == "rested"


def test_every_mode_has_its_function() -> None:
    assert set(CHOICES) == set(SelectionMode)


@pytest.mark.parametrize(
    ("last_chosen", "expected"),
    [((3, 1, 2), "b"), ((3, 4, 2), "c"), ((5, 6, 0), "c"), ((0, 0, 0), "a")],
    ids=["its turn", "the next one's", "the new one's", "nobody was chosen yet"],
)
def test_round_robin_goes_to_whom_nobody_was_sent_for_longest(last_chosen: tuple[int, ...], expected: str) -> None:
    places = [Place(name, last_chosen=number) for name, number in zip("abc", last_chosen, strict=True)]

    assert choose(SelectionMode.ROUND_ROBIN, places, first) == expected


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [(0, "middle"), (1, "oldest"), (2, "middle"), (3, "middle"), (4, "oldest"), (5, "middle")],
    ids=["oldest, middle", "oldest, youngest", "middle, oldest", "middle, youngest", "youngest, oldest", "y, m"],
)
def test_power_of_two_takes_the_less_loaded_of_two_that_chance_names(drawn: int, expected: str) -> None:
    assert choose(SelectionMode.POWER_OF_TWO, THREE, lambda _: drawn) == expected


def test_power_of_two_goes_by_the_rate_where_as_much_is_in_flight_and_then_by_who_was_named_first() -> None:
    places = [Place("a", rate=5), Place("b", rate=3), Place("c", rate=5)]

    assert choose(SelectionMode.POWER_OF_TWO, places, lambda _: 0) == "b"
    assert choose(SelectionMode.POWER_OF_TWO, places, lambda _: 1) == "a"
    assert choose(SelectionMode.POWER_OF_TWO, places, lambda _: 4) == "c"


@given(count=st.integers(2, 9))
def test_power_of_two_can_name_any_two_and_each_as_often(count: int) -> None:
    def named(drawn: int) -> frozenset[int]:
        """Those who would be chosen if they alone had nothing in flight."""
        return frozenset(
            winner
            for winner in range(count)
            if choose(SelectionMode.POWER_OF_TWO, all_busy_but(winner), lambda _: drawn) == str(winner)
        )

    def all_busy_but(winner: int) -> list[Place]:
        return [Place(str(number), in_flight=int(number != winner)) for number in range(count)]

    pairs = Counter(named(drawn) for drawn in range(count * (count - 1)))

    assert pairs == {frozenset(pair): 2 for pair in combinations(range(count), 2)}


def test_sticky_goes_to_the_one_whose_token_it_is() -> None:
    assert choose(SelectionMode.STICKY, THREE, first, "token of youngest") == "youngest"


@pytest.mark.parametrize("token", ["", "token of somebody who is gone"])
def test_sticky_without_such_a_one_goes_by_load(token: str) -> None:
    assert choose(SelectionMode.STICKY, THREE, first, token) == "middle"


@pytest.mark.parametrize("mode", [mode for mode in SelectionMode if mode is not SelectionMode.STICKY])
def test_no_other_mode_asks_for_a_token(mode: SelectionMode) -> None:
    assert choose(mode, THREE, first, "token of youngest") == choose(mode, THREE, first)
