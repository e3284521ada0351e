"""Which of the free instances serves a request: one function per selection mode (seed: Service Selection Mode)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from dockscale.core.spec import SelectionMode

Chance = Callable[[int], int]
"""Chance as an argument: `chance(n)` is one of 0 … n-1."""


class Choice(Protocol):
    """What choosing who serves needs to know of an instance."""

    @property
    def in_flight(self) -> int: ...
    @property
    def last_chosen(self) -> int: ...
    @property
    def token(self) -> str: ...
    def per_minute(self, now: float) -> int: ...


C = TypeVar("C", bound=Choice)


class Choose(Protocol):
    """Pick one of `free` (two at least, oldest first). `token` names the instance that the request would like."""

    def __call__(self, free: Sequence[C], now: float, chance: Chance, token: str) -> C: ...


def _random(free: Sequence[C], now: float, chance: Chance, token: str) -> C:
    return free[chance(len(free))]


def _first(free: Sequence[C], now: float, chance: Chance, token: str) -> C:
    return free[0]


def _last(free: Sequence[C], now: float, chance: Chance, token: str) -> C:
    return free[-1]


def _min_load(free: Sequence[C], now: float, chance: Chance, token: str) -> C:
    fewest = min([instance.in_flight for instance in free])
    least = [instance for instance in free if instance.in_flight == fewest]
    return least[0] if len(least) == 1 else min(least, key=lambda instance: instance.per_minute(now))


def _round_robin(free: Sequence[C], now: float, chance: Chance, token: str) -> C:
    """Pick whom nobody was sent to for longest, so that it stays fair when instances come, go or are full."""
    return min(free, key=lambda instance: instance.last_chosen)


def _power_of_two(free: Sequence[C], now: float, chance: Chance, token: str) -> C:
    """Pick the less loaded of two that chance names (Mitzenmacher 2001: nearly as even as asking them all)."""
    others = len(free) - 1
    one, other = divmod(chance(len(free) * others), others)
    return _min_load((free[one], free[other + (other >= one)]), now, chance, token)


def _sticky(free: Sequence[C], now: float, chance: Chance, token: str) -> C:
    for instance in free:
        if instance.token == token:
            return instance
    return _min_load(free, now, chance, token)


CHOICES: Mapping[SelectionMode, Choose] = {
    SelectionMode.RANDOM: _random,
    SelectionMode.FIRST: _first,
    SelectionMode.LAST: _last,
    SelectionMode.MIN_LOAD: _min_load,
    SelectionMode.EXACT: _first,
    SelectionMode.ROUND_ROBIN: _round_robin,
    SelectionMode.POWER_OF_TWO: _power_of_two,
    SelectionMode.STICKY: _sticky,
}
"""Each mode's function. `exact` has its own rule in `Pool.claim`: there may be no choice."""
