"""What a decision and a place cost: microseconds per call of the two calls that everything else waits for.

Run: `.venv/bin/python -m bench.core`. Each figure is the best of several runs of many calls, which is the one that
other processes disturbed least. The target is 10 µs for each.
"""

import random
import timeit
from collections.abc import Callable

from dockscale.core.load import Load
from dockscale.core.policy import Memory, decide
from dockscale.core.pool import Instance, Pool
from dockscale.core.spec import AppSpec, Autoscaling, SelectionMode

INSTANCES = 10
CALLS = 20_000
RUNS = 7
TARGET_US = 10.0
SPEC = AppSpec(app_id="web", port=8000, autoscaling=Autoscaling(max_instances=INSTANCES))


class Clock:
    """Time that goes on by itself, a tenth of a millisecond at each look."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 0.0001
        return self.now


def deciding(requests: int, last_down: float | None = None) -> Callable[[], object]:
    load = Load(ready=INSTANCES, requests=requests, idle_s=0.0, in_flight=5, observed_s=600.0)
    memory = Memory(awake=True, last_up=100.0, last_down=last_down, below_since=900.0 if requests < 300 else None)
    return lambda: decide(SPEC, load, memory, 1000.0)


def claiming(mode: SelectionMode, max_concurrency: int | None = None) -> Callable[[], object]:
    pool = Pool(Clock(), random.Random(1).randrange)
    pool.mode = mode
    pool.max_concurrency = max_concurrency
    for number in range(INSTANCES):
        instance = Instance(f"web-{number}")
        pool.launch(instance)
        pool.ready(instance, ("127.0.0.1", 8000))

    def once() -> None:
        lease = pool.claim()
        assert lease is not None
        lease.release()

    return once


CASES: dict[str, Callable[[], object]] = {
    "decide, steady": deciding(requests=600),
    "decide, busy at max_instances": deciding(requests=5000),
    "decide, quiet, held by the cooldown": deciding(requests=20, last_down=900.0),
    "decide, going down": deciding(requests=20),
    "claim + release, random": claiming(SelectionMode.RANDOM),
    "claim + release, first": claiming(SelectionMode.FIRST),
    "claim + release, min_load": claiming(SelectionMode.MIN_LOAD),
    "claim + release, random, max_concurrency 8": claiming(SelectionMode.RANDOM, 8),
}


def main() -> None:
    print(f"{f'µs per call, {INSTANCES} instances, best of {RUNS} × {CALLS}':<54}{'µs':>7}")
    for name, call in CASES.items():
        best = min(timeit.repeat(call, number=CALLS, repeat=RUNS)) / CALLS * 1e6
        print(f"{name:<54}{best:>7.2f}  {'' if best < TARGET_US else 'OVER TARGET'}".rstrip())


if __name__ == "__main__":
    main()
