"""What was measured, as values, and what can be said about values of several rounds."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.load import Counted


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one proxy."""

    counted: Counted
    cpu_s: float
    """CPU seconds that the proxy took for it; 0 where there was none."""

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.counted.done / self.counted.seconds

    @property
    def cpu_us(self) -> float:
        """CPU µs of the proxy per answer."""
        return self.cpu_s / self.counted.done * 1e6

    @property
    def per_cpu_s(self) -> float:
        """Answers per CPU second of the proxy."""
        return self.counted.done / self.cpu_s


Series = dict[str, dict[str, list[Sample]]]
"""Case → target → one sample for each round."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median over rounds, and the least and the most."""

    median: float
    low: float
    high: float

    def show(self, digits: int = 0, sign: str = "") -> str:
        return (
            f"{self.median:{sign},.{digits}f} ({self.low:{sign},.{digits}f} – {self.high:{sign},.{digits}f})"
        ).replace(",", " ")


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))


def over_rounds(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> Spread:
    return spread([figure(sample) for sample in samples])


def ratio(one: Sequence[Sample], other: Sequence[Sample], figure: Callable[[Sample], float]) -> Spread:
    """Compare round by round, so that what slowed a whole round down slows both."""
    return spread([figure(a) / figure(b) for a, b in zip(one, other, strict=True)])


def difference(one: Sequence[Sample], other: Sequence[Sample], figure: Callable[[Sample], float]) -> Spread:
    """Compare round by round."""
    return spread([figure(a) - figure(b) for a, b in zip(one, other, strict=True)])
