"""How fast and how well dockscale scales, against targets: wakes, a crowd, a step of load, storms, a thousand apps.

Run: `.venv/bin/python -m bench.scaling` (less than six minutes; needs a Docker engine, and scripts/test-images.sh and
scripts/chromium.sh to have been run). Parts can be named: `waking standby crowd step storm ticks seen programs bounds`.
`--rounds N` changes how often each is measured, `--downs N` and `--real-downs N` how long the storms of scale-downs
are, `--seconds N` how long that of kills is, `--parallel 2,4,8` measures the step with other values of
`DOCKSCALE_PARALLEL_STARTS` as well. `--output FILE` writes the tables to a file, too.

Method. dockscale runs in this process, on uvloop and with the product's defaults, on a real engine; so do the clients,
which counts against it. Its clock can be set forward: what takes minutes of quiet does not take them here. The engine's
own time is taken out, or measured beside. The parts say more: bench/waking.py, step.py, storm.py, bounds.py,
programs.py, ticks.py and seen.py. Loads are bounded, and go to loopback and the containers' bridge alone.
"""

import argparse
import asyncio
import resource
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvloop

from bench import waking
from bench.bounds import bounds
from bench.programs import programs
from bench.report import Verdict, judgement, machine, say
from bench.seen import seen
from bench.stage import Part
from bench.step import DEFAULT_PARALLEL, step
from bench.storm import storm
from bench.ticks import ticks


def parts(options: argparse.Namespace) -> dict[str, Callable[[], Coroutine[Any, Any, Part]]]:
    """All there is to measure."""
    few = max(1, options.rounds // 5)
    return {
        "waking": lambda: waking.from_asleep(options.rounds),
        "standby": lambda: waking.from_standby(options.rounds),
        "crowd": lambda: waking.crowd(few),
        "step": lambda: step(few, options.parallel),
        "storm": lambda: storm(options.downs, options.real_downs),
        "ticks": lambda: ticks(options.rounds),
        "seen": lambda: seen(options.rounds),
        "programs": lambda: programs(few),
        "bounds": lambda: bounds(options.seconds),
    }


def options_of(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bench.scaling", description="Measure how dockscale scales.")
    parser.add_argument("names", nargs="*", metavar="part", help="what to measure (default: all)")
    parser.add_argument("--rounds", type=int, default=20, help="of what is quick; a fifth of the rest (default: 20)")
    parser.add_argument("--downs", type=int, default=1000, help="scale-downs on the memory engine (default: 1000)")
    parser.add_argument("--real-downs", type=int, default=30, help="scale-downs on the real engine (default: 30)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the storm of kills (default: 60)")
    parser.add_argument(
        "--parallel", type=_numbers, default=(DEFAULT_PARALLEL,), help="starts at a time, such as 2,4,8"
    )
    parser.add_argument("--output", type=Path, help="write the tables to this file as well")
    options = parser.parse_args(argv)
    known = parts(options)
    if unknown := set(options.names) - known.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    return options


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def main() -> None:
    options = options_of()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # kills make errors, which are counted
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pieces = [f"{machine()}."]
    verdicts: list[Verdict] = []
    for name, measure in parts(options).items():
        if not options.names or name in options.names:
            say(name)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                part = runner.run(measure())
            pieces += part.tables
            verdicts += part.verdicts
            print("\n\n".join(part.tables), end="\n\n", flush=True)
    print(judgement(verdicts))
    if options.output:
        options.output.write_text("\n\n".join([*pieces, judgement(verdicts)]) + "\n")


if __name__ == "__main__":
    main()
