"""Tables in Markdown of what was measured, and the targets with what came of them. Most of it is bench.proxies' own."""

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Sample, Series, difference, over_rounds, ratio
from bench.memory import Memory

DIRECT = "direct"
SMALL, MEDIUM, LARGE, UPLOAD = "12 B answer", "20 KB answer", "1 MB answer", "1 MB upload"
ECHO, OPEN = "WebSocket echo", "500 req/s, open loop"
CLOSED = (SMALL, MEDIUM, LARGE, UPLOAD)
KIB, MIB = 1 << 10, 1 << 20
SHOWN = {"haproxy": "HAProxy", "caddy": "Caddy"}
RESOLVED_S = 1.0
"""CPU time below which a reading is too near to the clock's tick of 10 ms."""


@dataclass(slots=True)
class Outcome:
    series: Series = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    apps: dict[int, list[Sample]] = field(default_factory=dict)
    """Apps known to dockscale → samples."""


@dataclass(frozen=True, slots=True)
class Verdict:
    target: str
    figure: str
    met: bool


def tables(outcome: Outcome) -> str:
    parts = [_closed(case, outcome.series[case]) for case in CLOSED if case in outcome.series]
    if ECHO in outcome.series:
        parts.append(_echo(outcome.series[ECHO]))
    if OPEN in outcome.series:
        parts.append(_open(outcome.series[OPEN]))
    if outcome.memory:
        parts.append(_memory(outcome.memory))
    if outcome.apps:
        parts.append(_apps(outcome.apps))
    judged = verdicts(outcome)
    if judged:
        parts.append(judgement(judged))
    return "\n\n".join([*parts, *_warnings(outcome)])


def _closed(case: str, targets: Mapping[str, Sequence[Sample]]) -> str:
    large = case in (LARGE, UPLOAD)
    head = [f"{case}, 32 connections", "req/s", "p50 ms", "p99 ms", "CPU µs per request", "÷ nginx", "÷ Caddy"]
    head += ["MB per CPU s", "÷ nginx"] if large else []
    rows = []
    for name, samples in targets.items():
        row = [
            _shown(name),
            over_rounds(samples, _rate).show(),
            over_rounds(samples, _p50).show(1 if large else 2),
            over_rounds(samples, _p99).show(1 if large else 2),
        ]
        if name != DIRECT:
            row += [over_rounds(samples, _cpu_us).show(), *(_against(targets, name, to) for to in ("nginx", "caddy"))]
            row += [over_rounds(samples, _per_cpu_s).show(), _against(targets, name, "nginx", _per_cpu_s)] * large
        rows.append(row)
    return table(head, rows)


def _echo(targets: Mapping[str, Sequence[Sample]]) -> str:
    rows = []
    for name, samples in targets.items():
        row = [_shown(name), over_rounds(samples, _rate).show()]
        if name != DIRECT:
            row += [over_rounds(samples, _per_cpu_s).show(), _against(targets, name, "nginx", _per_cpu_s)]
        rows.append(row)
    return table((f"{ECHO}, 32 connections", "messages/s", "messages per CPU s", "÷ nginx"), rows)


def _open(targets: Mapping[str, Sequence[Sample]]) -> str:
    rows = []
    for name, samples in targets.items():
        row = [_shown(name), over_rounds(samples, _p50).show(2), over_rounds(samples, _p99).show(2)]
        if name != DIRECT:
            row += [difference(samples, targets[DIRECT], figure).show(2, "+") for figure in (_p50, _p99)]
        rows.append(row)
    return table((OPEN, "p50 ms", "p99 ms", "p50 added ms", "p99 added ms"), rows)


def _memory(memory: Mapping[str, Memory]) -> str:
    rows = [
        (
            _shown(name), f"{it.start / MIB:.1f}", f"{it.idle / KIB:.1f}",
            f"{it.down / MIB:.1f}", f"{it.up / MIB:.1f}",
        )
        for name, it in memory.items()
    ]  # fmt: skip
    head = ("Memory", "MiB at start", "KiB per idle connection", "MiB grown, 1 GiB down", "MiB grown, 1 GiB up")
    return table(head, rows)


def _apps(apps: Mapping[int, Sequence[Sample]]) -> str:
    few, many = apps
    rows = [
        [str(few), over_rounds(apps[few], _cpu_us).show(1), ""],
        [str(many), over_rounds(apps[many], _cpu_us).show(1), ratio(apps[many], apps[few], _cpu_us).show(3)],
    ]
    return table(("Apps known to dockscale", "CPU µs per request", f"÷ {few} apps"), rows)


def verdicts(outcome: Outcome) -> list[Verdict]:
    """Judge each target of which the figures are there."""
    found = [*_of_small(outcome.series), *_of_rates(outcome.series), *_of_open(outcome.series)]
    if it := outcome.memory.get("dockscale"):
        found.append(Verdict("idle client connection ≤ 64 KiB", f"{it.idle / KIB:.1f} KiB", it.idle <= 64 * KIB))
        for way, grown in (("down", it.down), ("up", it.up)):
            found.append(Verdict(f"1 GiB {way} grows it < 16 MiB", f"{grown / MIB:.1f} MiB", grown < 16 * MIB))
    if outcome.apps:
        few, many = outcome.apps
        value = ratio(outcome.apps[many], outcome.apps[few], _cpu_us).median
        found.append(
            Verdict(f"CPU per request, {many} apps ≤ 1.05 × {few} apps", f"{value:.3f} ×", round(value, 3) <= 1.05)
        )
    return found


def _of_small(series: Series) -> Iterable[Verdict]:
    targets = series.get(SMALL, {})
    own = targets.get("dockscale")
    if not own:
        return
    for peer, most in (("nginx", 1.8), ("caddy", 0.6)):
        if peer in targets:
            value = ratio(own, targets[peer], _cpu_us).median
            yield Verdict(f"CPU per {SMALL} ≤ {most} × {_shown(peer)}", f"{value:.2f} ×", value <= most)
    if "caddy" in targets:
        ours, theirs = (over_rounds(samples, _p99).median for samples in (own, targets["caddy"]))
        yield Verdict(f"p99 of {SMALL} ≤ Caddy's", f"{ours:.2f} ms to {theirs:.2f} ms", ours <= theirs)


def _of_rates(series: Series) -> Iterable[Verdict]:
    for case, unit in ((LARGE, "bytes"), (ECHO, "messages")):
        targets = series.get(case, {})
        if "dockscale" in targets and "nginx" in targets:
            value = ratio(targets["dockscale"], targets["nginx"], _per_cpu_s).median
            yield Verdict(f"{case}: {unit} per CPU s ≥ 0.7 × nginx", f"{value:.2f} ×", value >= 0.7)


def _of_open(series: Series) -> Iterable[Verdict]:
    targets = series.get(OPEN, {})
    if "dockscale" in targets and "nginx" in targets:
        value = difference(targets["dockscale"], targets["nginx"], _p99).median
        yield Verdict(f"p99 added at {OPEN} ≤ nginx's + 1 ms", f"{value:+.2f} ms", value <= 1.0)


def _warnings(outcome: Outcome) -> Iterable[str]:
    coarse = []
    for case, targets in outcome.series.items():
        for name, samples in targets.items():
            errors = sum(sample.counted.errors for sample in samples)
            if errors:
                yield f"Not to be trusted: {_shown(name)} had {errors} errors in {case!r}."
            if case != OPEN and name != DIRECT and over_rounds(samples, _cpu_s).median < RESOLVED_S:
                coarse.append(f"{case} ({_shown(name)})")
    if coarse:
        yield f"Coarse, since the proxy took less than {RESOLVED_S:g} CPU s in the median: {', '.join(coarse)}."


def judgement(judged: Iterable[Verdict]) -> str:
    """Say of each target whether it was met."""
    rows = [(each.target, each.figure, "met" if each.met else "**missed**") for each in judged]
    return table(("Target", "measured", ""), rows)


def machine() -> str:
    """Say what this was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())
    kernel = platform.release().partition("-")[0]
    return f"{os.cpu_count()} CPUs ({cpu}), Linux {kernel}, Python {platform.python_version()}"


def say(text: str) -> None:
    """Tell whoever waits how far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _against(
    targets: Mapping[str, Sequence[Sample]], name: str, to: str, figure: Callable[[Sample], float] | None = None
) -> str:
    return ratio(targets[name], targets[to], figure or _cpu_us).show(2) if to in targets and to != name else ""


def _shown(name: str) -> str:
    return SHOWN.get(name, name)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out cells; rows that are too short are filled up."""
    padded = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *padded]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _rate(sample: Sample) -> float:
    return sample.rate


def _cpu_us(sample: Sample) -> float:
    return sample.cpu_us


def _cpu_s(sample: Sample) -> float:
    return sample.cpu_s


def _per_cpu_s(sample: Sample) -> float:
    return sample.per_cpu_s


def _p50(sample: Sample) -> float:
    return sample.counted.p50_ms


def _p99(sample: Sample) -> float:
    return sample.counted.p99_ms
