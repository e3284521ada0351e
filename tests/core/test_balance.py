"""Which of the free instances serves, by selection mode."""

from dataclasses import dataclass

import pytest

from dockscale.core.balance import choose
from dockscale.core.spec import SelectionMode


@dataclass(frozen=True)
class Place:
    name: str
    in_flight: int = 0
    rate: int = 0

    def per_minute(self, now: float) -> int:
        return self.rate


THREE = [Place("oldest", in_flight=2), Place("middle", in_flight=1), Place("youngest", in_flight=3)]


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
    assert choose(mode, THREE, 0.0, first).name == expected
    assert choose(mode, THREE, 0.0, last).name == expected


@pytest.mark.parametrize(("drawn", "expected"), [(0, "oldest"), (1, "middle"), (2, "youngest")])
def test_random_picks_whom_chance_names(drawn: int, expected: str) -> None:
    assert choose(SelectionMode.RANDOM, THREE, 0.0, lambda _: drawn).name == expected


def test_random_asks_chance_for_as_many_as_are_free() -> None:
    asked: list[int] = []

    def chance(n: int) -> int:
        asked.append(n)
        return 0

    choose(SelectionMode.RANDOM, THREE, 0.0, chance)

    assert asked == [3]


def test_min_load_goes_by_what_is_in_flight_before_the_rate() -> None:
    places = [Place("slow", in_flight=1, rate=0), Place("idle but popular", in_flight=0, rate=500)]

    assert choose(SelectionMode.MIN_LOAD, places, 0.0, first).name == "idle but popular"


def test_min_load_goes_by_the_rate_where_as_much_is_in_flight() -> None:
    places = [Place("popular", rate=90), Place("rested", rate=10), Place("rested too", rate=10)]

    assert choose(SelectionMode.MIN_LOAD, places, 0.0, first).name == "rested"


@pytest.mark.parametrize("mode", list(SelectionMode))
def test_every_mode_picks_the_only_one(mode: SelectionMode) -> None:
    assert choose(mode, [Place("only")], 0.0, first).name == "only"
