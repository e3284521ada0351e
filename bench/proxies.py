"""dockscale next to nginx, HAProxy and Caddy, in front of the same instance, and that instance alone as the floor.

Run: `.venv/bin/python -m bench.proxies` (at most ten minutes; needs two cores and a Docker engine; gets what is missing
with scripts/compile.sh, bench-peers.sh and bench-origin.sh). `--quick` is for development, `--only dockscale,nginx` for
some of the proxies, `--output FILE` writes the tables to a file as well.

Method. Every proxy runs on one core; the load and the instance (a container, reached on its bridge address) share the
other. bench/peers.py says how each is configured, bench/load.py what the loads are. All run from the beginning to the
end, and only one has work at a time: round 1 measures each in turn, then round 2 does. A figure is the median over
rounds, with the least and the most behind it; a ratio is the median of the ratios of each round. CPU is user and
system time of the proxy's processes, all threads included, divided by the answers that the load counted; it is the
figure to compare. Requests per second are bounded by the core of the load and the instance where a proxy is quick, and
then say nothing about the proxy. MB are 10⁶ bytes.

Then, each in a process of its own: memory (bench/memory.py), and dockscale that knows 10 apps beside dockscale that
knows 1000 (the same instance; the others are containers on the same engine that were created and never started),
measured in turn under the load of 12-byte answers. Their listing of the engine every 30 s falls into few of these
measurements: it is in the spread, hardly in the median.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench import load, memory
from bench.figures import Sample
from bench.instance import FEW, MANY, Instance, add_apps, instance
from bench.load import Counted
from bench.peers import PROXIES, Address, Proxy, running, versions
from bench.report import DIRECT, ECHO, LARGE, MEDIUM, OPEN, SMALL, UPLOAD, Outcome, machine, say, tables

ROOT = Path(__file__).parent.parent
RATE = 500
PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    rounds: int = 5
    seconds: int = 2
    open_seconds: int = 4
    connections: int = 2000
    few: int = 10
    many: int = 1000
    names: tuple[str, ...] = tuple(PROXIES)


QUICK = Plan(rounds=2, seconds=1, open_seconds=1, connections=300, many=100)


@dataclass(frozen=True, slots=True)
class Bench:
    plan: Plan
    folder: Path
    proxy_core: int
    load_core: int

    def cases(self) -> dict[str, Callable[[Address], Counted]]:
        seconds = self.plan.seconds
        return {
            SMALL: lambda to: load.closed_loop(to, "/12", seconds),
            MEDIUM: lambda to: load.closed_loop(to, "/20k", seconds),
            LARGE: lambda to: load.closed_loop(to, "/1m", seconds),
            UPLOAD: lambda to: load.closed_loop(to, "/swallow", seconds, 1_000_000),
            ECHO: lambda to: load.echo(to, seconds),
            OPEN: lambda to: load.open_loop(to, RATE, self.plan.open_seconds),
        }

    def measure(self) -> Outcome:
        outcome = Outcome()
        with instance(self.load_core) as it:
            self._side_by_side(it, outcome)
            for name in self.plan.names:
                say(f"memory of {name}")
                with self._running(name, it) as proxy:
                    outcome.memory[name] = memory.measure(proxy, self.plan.connections)
            if "dockscale" in self.plan.names:
                self._apps(it, outcome)
            say("cleaning up")
        return outcome

    def _running(self, name: str, it: Instance, only: str = "") -> AbstractContextManager[Proxy]:
        return running(name, self.folder, it.address, only or it.only, self.proxy_core)

    def _side_by_side(self, it: Instance, outcome: Outcome) -> None:
        with ExitStack() as started:
            proxies: dict[str, Proxy] = {DIRECT: Proxy(it.address, ())}
            proxies |= {name: started.enter_context(self._running(name, it)) for name in self.plan.names}
            for number in range(1, self.plan.rounds + 1):
                for name, proxy in proxies.items():
                    say(f"round {number} of {self.plan.rounds}: {name}")
                    for case, run in self.cases().items():
                        samples = outcome.series.setdefault(case, {}).setdefault(name, [])
                        samples.append(sample(proxy, run))

    def _apps(self, it: Instance, outcome: Outcome) -> None:
        few, many = self.plan.few, self.plan.many
        say(f"dockscale with {few} and with {many} apps: creating them")
        add_apps(it.real, few, many)
        with self._running("dockscale", it, FEW) as one, self._running("dockscale", it, MANY) as other:
            say("dockscale with few and with many apps: measuring")
            pair = [(few, one), (many, other)]
            outcome.apps = {few: [], many: []}
            for _ in range(2 * self.plan.rounds):
                for count, proxy in pair:
                    outcome.apps[count].append(sample(proxy, self.cases()[SMALL]))
                pair.reverse()


def sample(proxy: Proxy, run: Callable[[Address], Counted]) -> Sample:
    time.sleep(PAUSE_S)  # what the last load left behind has ended
    before = proxy.cpu()
    counted = run(proxy.address)
    return Sample(counted, proxy.cpu() - before)


def setting(plan: Plan) -> str:
    """Say what was measured where."""
    peers = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{machine()}, {peers}. Median of {plan.rounds} rounds (least – most)."


def plan_of(argv: Sequence[str] | None = None) -> tuple[Plan, Path | None]:
    parser = argparse.ArgumentParser("bench.proxies", description="Measure dockscale next to other proxies.")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {Plan().rounds}; with --quick {QUICK.rounds})")
    parser.add_argument("--only", default=",".join(PROXIES), help="proxies, separated by commas (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="short and coarse, for development")
    parser.add_argument("--output", type=Path, help="write the tables to this file as well")
    options = parser.parse_args(argv)
    names = tuple(options.only.split(","))
    if unknown := set(names) - set(PROXIES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(PROXIES)}")
    base = QUICK if options.quick else Plan()
    return replace(base, names=names, rounds=options.rounds or base.rounds), options.output


def main() -> None:
    plan, output = plan_of()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("bench: two cores are needed, one for the proxy and one for the load and the instance.")
    for script in ("engine.sh", "compile.sh", "bench-peers.sh", "bench-origin.sh"):
        subprocess.run([ROOT / "scripts" / script], check=True, stdout=sys.stderr)
    os.sched_setaffinity(0, cores[1:2])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="dockscale-bench-") as folder:
            outcome = Bench(plan, Path(folder), *cores[:2]).measure()
    except KeyboardInterrupt:
        raise SystemExit("bench: interrupted; what was started has been removed") from None
    text = f"{setting(plan)}\n\n{tables(outcome)}\n"
    print(text, end="")
    if output:
        output.write_text(text)


if __name__ == "__main__":
    main()
