"""Which of the free instances serves a request: by selection mode (seed: Service Selection Mode)."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from dockscale.core.spec import SelectionMode

Chance = Callable[[int], int]
"""Chance as an argument: `chance(n)` is one of 0 … n-1."""


class Choice(Protocol):
    @property
    def in_flight(self) -> int: ...
    def per_minute(self, now: float) -> int: ...


C = TypeVar("C", bound=Choice)


def choose(mode: SelectionMode, free: Sequence[C], now: float, chance: Chance) -> C:
    """Pick one of `free` (never empty, oldest first)."""
    match mode:
        case SelectionMode.RANDOM:
            return free[chance(len(free))]
        case SelectionMode.LAST:
            return free[-1]
        case SelectionMode.MIN_LOAD:
            return min(free, key=lambda instance: (instance.in_flight, instance.per_minute(now)))
        case SelectionMode.FIRST | SelectionMode.EXACT:
            return free[0]
