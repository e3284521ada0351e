"""Programs from source: how long an install takes, and what dockscale adds to the first call of one that sleeps.

Each round, for each runtime: a small program that was never installed before is installed, on a runtime that is there;
then it is called for the first time. *engine* is what creating and
starting the copy took (there is none ahead before an app was awake), *boot* the time from "started" until the program
has registered its service. *added* = answer - engine - boot, all three of the same call. It holds noticing, deciding,
two round trips over RPC and the program's own answer.

dockscale and the client run in this process, which counts against it.
"""

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hypha_rpc import connect_to_server

from bench.report import Verdict, table
from bench.stage import PAUSE_S, Part, Timed, engine, head_of, in_ms, ms
from dockscale.hub.clients import Client
from dockscale.runtimes import RUNTIMES, Runtimes
from tests.support.real import Real
from tests.support.runtimes import base_image, package_index
from tests.support.world import World, serving

INSTALL, ADDED = "install", "**added by dockscale**"
INSTALL_S = 2.0
ADDED_S = 0.05
MOST_BYTES = 250_000_000
MANIFESTS = {
    "javascript": {"type": "window", "source": "api.export({{ echo: (x) => x }}); // {name}"},
    "python": {"type": "python", "source": "from hypha_rpc import api\napi.export({{'echo': lambda x: x}})  # {name}"},
}


async def programs(rounds: int) -> Part:
    seen: dict[str, dict[str, list[float]]] = {runtime: {} for runtime in MANIFESTS}
    async with _stage() as stage:
        for number in range(rounds + 1):
            for runtime, rows in seen.items():
                for name, value in (await _round(stage, runtime, number)).items():
                    if number:  # the first one loads what is loaded at first use
                        rows.setdefault(name, []).append(value)
        sizes = {name: int(stage.real.client.images.get(image).attrs["Size"]) for name, image in stage.images.items()}
    tables = [_table(f"Program in {runtime}", rows) for runtime, rows in seen.items()]
    tables.append(table(("Runtime's image", "MB"), [(name, f"{size / 1e6:.0f}") for name, size in sizes.items()]))
    verdicts = [verdict for runtime, rows in seen.items() for verdict in _verdicts(runtime, rows)]
    largest = max(sizes[runtime] for runtime in MANIFESTS)
    verdicts.append(
        Verdict(f"runtimes: each ≤ {MOST_BYTES / 1e6:g} MB", f"{largest / 1e6:.0f} MB", largest <= MOST_BYTES)
    )
    return Part(tuple(tables), tuple(verdicts))


def _table(title: str, rows: dict[str, list[float]]) -> str:
    rounds = len(next(iter(rows.values())))
    return table(head_of(title, rounds), [in_ms(name, values) for name, values in rows.items()])


def _verdicts(runtime: str, rows: dict[str, list[float]]) -> tuple[Verdict, Verdict]:
    install, added = statistics.median(rows[INSTALL]), statistics.median(rows[ADDED])
    return (
        Verdict(f"{runtime}: median install ≤ {INSTALL_S:g} s", f"{install:.2f} s", install <= INSTALL_S),
        Verdict(f"{runtime}: median added ≤ {ms(ADDED_S)} ms", f"{ms(added)} ms", added <= ADDED_S),
    )


class _Registered:
    """When a service was registered last."""

    def __init__(self, it: World) -> None:
        self.at = 0.0
        self._joined = it.dockscale.rpc.instances.joined
        it.dockscale.rpc.instances.joined = self._note  # type: ignore[method-assign]  # to be told

    def _note(self, client: Client) -> None:
        if "default" in client.services:
            self.at = time.monotonic()
        self._joined(client)


@dataclass(frozen=True, slots=True)
class _Stage:
    it: World
    real: Real
    engine: Timed
    api: Any
    images: Mapping[str, str]
    """Runtime → its image."""
    registered: _Registered


@asynccontextmanager
async def _stage() -> AsyncIterator[_Stage]:
    base, index = base_image(), package_index()
    async with (
        engine() as (real, timed),
        serving(timed, host="0.0.0.0", base_image=base, pip_index_url=index, create_ahead=True) as it,
    ):
        runtimes = Runtimes(timed, base, index)
        images = {runtime: (await runtimes.image(runtime)).name for runtime in RUNTIMES}
        async with connect_to_server({"server_url": f"ws://127.0.0.1:{it.dockscale.main_port}"}) as api:
            yield _Stage(it, real, timed, api, images, _Registered(it))


async def _round(stage: _Stage, runtime: str, number: int) -> dict[str, float]:
    name, control = f"{runtime}-{number}-{os.getpid()}", stage.it.dockscale.control
    manifest = MANIFESTS[runtime]
    began = time.monotonic()
    await control.install({**manifest, "name": name, "source": manifest["source"].format(name=name)})
    installed = time.monotonic() - began
    while (await stage.engine.list()).containers:  # noqa: ASYNC110  # those of the trial; who lists tells nobody
        await asyncio.sleep(PAUSE_S)
    began = time.monotonic()
    service = await stage.api.get_service(f"default@{name}")
    assert await service.echo(number) == number
    answered = time.monotonic() - began
    created, started = stage.engine.clone_s, stage.engine.start_s
    boot = stage.registered.at - stage.engine.started_at
    await control.uninstall(name)
    return {
        INSTALL: installed,
        "first call of one that sleeps": answered,
        "of it: engine, create and start": created + started,
        "of it: boot, started → registered": boot,
        ADDED: answered - created - started - boot,
    }
