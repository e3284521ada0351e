"""dockscale's hub next to a Hypha server: calls, large values, ASGI and HTTP calls through RPC, with the same clients.

Run: `.venv/bin/python -m bench.rpc` (less than five minutes; needs two cores and a Docker engine; gets what is missing
with scripts/compile.sh, bench-peers.sh and hypha-venv.sh). `--quick` is for development, `--only hypha` for one of the
servers, `--rounds N` changes how often each is measured, `--requests N` over how many requests the memory is watched
(0: not at all), `--output FILE` writes the tables to a file as well.

Method. Each server runs on one core; the load and the worker, an ordinary hypha_rpc program, share the other.
bench/rpc/servers.py says how each is started. The worker and the load are the same programs for both, so the server is
the only difference. Both run from the beginning to the end, and only one has work at a time: round 1 measures each in
turn, then round 2 does. A figure is the median over rounds, with the least and the most behind it; a ratio is the
median of the ratios of each round. CPU is user and system time of the server's processes, divided by the calls that
the load counted. Where a server is quick, its rate is bounded by the core of the worker and the load, and the ratio of
rates says less than there is.

- Echo: one hypha_rpc client, 16 calls of a synchronous function on their way.
- 1 MB echo: one call at a time, of 10⁶ bytes by chance, which no compression makes smaller.
- ASGI: wrk with 16 connections; the worker's app answers 12 bytes.
- HTTP call: wrk with 16 connections; each GET is one call of the echo.

Then, with dockscale alone and started anew: its resident size while 100,000 requests, in turn of the last two kinds, go
through it.
"""

import argparse
import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop

from bench.figures import Sample
from bench.load import Counted, LoadFailed, closed_loop, percentile
from bench.report import machine, say
from bench.rpc.servers import HOST, ROOT, SERVERS, Served, calling, hypha_version, served
from bench.rpc.tables import ASGI, ECHO, HTTP_CALL, LARGE, Outcome, tables

IN_FLIGHT = 16
PAUSE_S = 0.2
STEP = 10_000
_LARGE = random.Random(7).randbytes(1_000_000)
_WATCH_S = 600.0

Case = Callable[[], Awaitable[Counted]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything."""

    rounds: int = 5
    seconds: int = 4
    requests: int = 100_000
    names: tuple[str, ...] = tuple(SERVERS)


QUICK = Plan(rounds=2, seconds=1, requests=2 * STEP)


async def measure(plan: Plan, folder: Path, core: int) -> Outcome:
    outcome = Outcome()
    async with AsyncExitStack() as stack:
        cases = {}
        for name in plan.names:
            say(f"starting {name}")
            it = await stack.enter_async_context(served(name, folder, core))
            cases[name] = it, _cases(it, await stack.enter_async_context(calling(it)), plan.seconds)
        for number in range(1, plan.rounds + 1):
            for name, (it, all_cases) in cases.items():
                say(f"round {number} of {plan.rounds}: {name}")
                for case, run in all_cases.items():
                    samples = outcome.series.setdefault(case, {}).setdefault(name, [])
                    samples.append(await _sample(it, run))
    if plan.requests and "dockscale" in plan.names:
        async with served("dockscale", folder, core) as it:
            outcome.memory = await watch_memory(it, plan.requests)
    return outcome


def _cases(it: Served, service: Any, seconds: int) -> dict[str, Case]:
    return {
        ECHO: lambda: calls(lambda: _echo(service, "Hello, bench"), seconds, IN_FLIGHT),
        LARGE: lambda: calls(lambda: _echo(service, _LARGE), seconds, 1),
        ASGI: lambda: _get(it, it.web_path, seconds),
        HTTP_CALL: lambda: _get(it, it.echo_path, seconds),
    }


async def _echo(service: Any, value: object) -> None:
    if await service.echo(value) != value:
        raise LoadFailed("an echo came back changed")


async def calls(call: Callable[[], Awaitable[None]], seconds: float, in_flight: int) -> Counted:
    """Run a closed loop: each of the callers calls again when it has its answer."""
    took_ms: list[float] = []
    began = time.perf_counter()

    async def caller() -> None:
        now = time.perf_counter()
        while now < began + seconds:
            since = now
            await call()
            now = time.perf_counter()
            took_ms.append((now - since) * 1000)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(caller(), name="caller")
    took = time.perf_counter() - began
    return Counted(len(took_ms), took, percentile(took_ms, 0.5), percentile(took_ms, 0.99))


async def _get(it: Served, path: str, seconds: int) -> Counted:
    return await asyncio.to_thread(closed_loop, it.server.address, path, seconds, connections=IN_FLIGHT, host=HOST)


async def _sample(it: Served, run: Case) -> Sample:
    await asyncio.sleep(PAUSE_S)  # what the last load left behind has ended
    before = it.server.cpu()
    counted = await run()
    return Sample(counted, it.server.cpu() - before)


async def watch_memory(it: Served, requests: int) -> list[tuple[int, int]]:
    """Look at the resident size (bytes) each time that so many more have been answered (requests so far, size)."""
    seen: list[tuple[int, int]] = []
    done = 0
    end = time.monotonic() + _WATCH_S
    paths = (it.web_path, it.echo_path)
    slices = 0
    while done < requests:
        if time.monotonic() > end:
            raise LoadFailed(f"{done} of {requests} requests in {_WATCH_S:g} s")
        done += (await _get(it, paths[slices % 2], 1)).done
        slices += 1
        if done >= (len(seen) + 1) * STEP:
            seen.append((done, it.server.memory()))
            say(f"memory: {done} requests")
    return seen


def setting(plan: Plan) -> str:
    """Say what was measured where."""
    version = f", Hypha {hypha_version()}" if "hypha" in plan.names else ""
    return f"{machine()}{version}. Median of {plan.rounds} rounds (least – most)."


def plan_of(argv: Sequence[str] | None = None) -> tuple[Plan, Path | None]:
    parser = argparse.ArgumentParser("bench.rpc", description="Measure dockscale's hub next to a Hypha server.")
    parser.add_argument("--rounds", type=int, help=f"rounds (default {Plan().rounds}; with --quick {QUICK.rounds})")
    parser.add_argument("--requests", type=int, help=f"that the memory is watched over (default {Plan().requests})")
    parser.add_argument("--only", default=",".join(SERVERS), help="servers, separated by commas (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="short and coarse, for development")
    parser.add_argument("--output", type=Path, help="write the tables to this file as well")
    options = parser.parse_args(argv)
    names = tuple(options.only.split(","))
    if unknown := set(names) - set(SERVERS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(SERVERS)}")
    base = QUICK if options.quick else Plan()
    requests = base.requests if options.requests is None else options.requests
    return replace(base, names=names, rounds=options.rounds or base.rounds, requests=requests), options.output


SCRIPTS = {"hypha": ("bench-peers.sh", "hypha-venv.sh"), "dockscale": ("bench-peers.sh", "engine.sh", "compile.sh")}
"""What gets each server what it needs."""


def main() -> None:
    plan, output = plan_of()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("bench: two cores are needed, one for the server and one for the load and the worker.")
    for script in dict.fromkeys(script for name in plan.names for script in SCRIPTS[name]):
        subprocess.run([ROOT / "scripts" / script], check=True, stdout=sys.stderr)
    os.sched_setaffinity(0, cores[1:2])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger("RPC").setLevel(logging.ERROR)  # the client warns of its own goodbye
    try:
        with tempfile.TemporaryDirectory(prefix="dockscale-bench-") as folder:
            outcome = uvloop.run(measure(plan, Path(folder), cores[0]))
    except KeyboardInterrupt:
        raise SystemExit("bench: interrupted; what was started has been ended") from None
    text = f"{setting(plan)}\n\n{tables(outcome)}\n"
    print(text, end="")
    if output:
        output.write_text(text)


if __name__ == "__main__":
    main()
