"""Tables in Markdown of what was measured on both servers, and the targets with what came of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.figures import Sample, Series, over_rounds, ratio
from bench.report import MIB, Verdict, judgement, table

ECHO, LARGE, ASGI, HTTP_CALL = "echo, 16 in flight", "1 MB echo", "ASGI over RPC", "HTTP call"
GROWTH = 1.05
"""How much the resident size may grow between the first look and the last."""

Figure = Callable[[Sample], float]


@dataclass(slots=True)
class Outcome:
    series: Series = field(default_factory=dict)
    memory: list[tuple[int, int]] = field(default_factory=list)
    """Of dockscale: requests answered so far, bytes resident then."""


def _rate(sample: Sample) -> float:
    return sample.rate


def _cpu_ms(sample: Sample) -> float:
    return sample.cpu_us / 1000


@dataclass(frozen=True, slots=True)
class Target:
    """What dockscale's figure has to be, as a multiple of Hypha's."""

    case: str
    what: str
    figure: Figure
    bound: float
    at_least: bool

    def verdict(self, targets: Mapping[str, Sequence[Sample]]) -> Verdict:
        value = ratio(targets["dockscale"], targets["hypha"], self.figure).median
        met = value >= self.bound if self.at_least else value <= self.bound
        sign = "≥" if self.at_least else "≤"
        return Verdict(f"{self.case}: {self.what} {sign} {self.bound:g} × Hypha's", f"{value:.2f} ×", met)


TARGETS = (
    Target(ECHO, "CPU per call", _cpu_ms, 0.3, at_least=False),
    Target(LARGE, "round trips per second", _rate, 4, at_least=True),
    Target(ASGI, "requests per second", _rate, 8, at_least=True),
    Target(ASGI, "CPU per request", _cpu_ms, 0.1, at_least=False),
    Target(HTTP_CALL, "calls per second", _rate, 50, at_least=True),
)


def tables(outcome: Outcome) -> str:
    parts = [_case(case, targets) for case, targets in outcome.series.items()]
    if outcome.memory:
        parts.append(_memory(outcome.memory))
    judged = list(verdicts(outcome))
    if judged:
        parts.append(judgement(judged))
    return "\n\n".join([*parts, *_warnings(outcome.series)])


def _case(case: str, targets: Mapping[str, Sequence[Sample]]) -> str:
    head = (case[0].upper() + case[1:], "per second", "÷ Hypha", "p50 ms", "p99 ms", "server CPU ms each", "÷ Hypha")
    rows = [
        (
            name,
            over_rounds(samples, _rate).show(1), _against_hypha(targets, name, _rate),
            over_rounds(samples, lambda it: it.counted.p50_ms).show(1),
            over_rounds(samples, lambda it: it.counted.p99_ms).show(1),
            over_rounds(samples, _cpu_ms).show(3), _against_hypha(targets, name, _cpu_ms),
        )
        for name, samples in targets.items()
    ]  # fmt: skip
    return table(head, rows)


def _against_hypha(targets: Mapping[str, Sequence[Sample]], name: str, figure: Figure) -> str:
    return ratio(targets[name], targets["hypha"], figure).show(2) if name != "hypha" and "hypha" in targets else ""


def _memory(seen: Sequence[tuple[int, int]]) -> str:
    rows = [(str(requests), f"{size / MIB:.1f}") for requests, size in seen]
    return table(("HTTP requests through RPC, dockscale", "MiB resident"), rows)


def verdicts(outcome: Outcome) -> Iterable[Verdict]:
    """Judge each target of which the figures are there."""
    for target in TARGETS:
        targets = outcome.series.get(target.case, {})
        if targets.keys() >= {"hypha", "dockscale"}:
            yield target.verdict(targets)
    if len(outcome.memory) > 1:
        (first, before), (last, after) = outcome.memory[0], outcome.memory[-1]
        grown = f"{(after / before - 1) * 100:+.1f} %"
        yield Verdict(f"memory from {first} to {last} requests grows ≤ 5 %", grown, after <= GROWTH * before)


def _warnings(series: Series) -> Iterable[str]:
    for case, targets in series.items():
        for name, samples in targets.items():
            if errors := sum(sample.counted.errors for sample in samples):
                yield f"Not to be trusted: {name} had {errors} errors in {case!r}."
