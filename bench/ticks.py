"""What it costs to look at a thousand apps, one after the other, as happens every `DOCKSCALE_INTERVAL`.

On the memory engine. A tenth of the apps are awake, with one instance each, the others sleep; nothing is to be changed.
A figure is the time for all of them. Nothing else runs in the process.
"""

import gc
import time

from bench.report import Verdict, table
from bench.stage import Part, head_of, in_ms, ms, p95
from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.world import ENABLED, prefixed, serving, until

APPS = 1000
AWAKE = 100
TARGET_S = 0.01


async def ticks(rounds: int) -> Part:
    engine = MemoryEngine()
    for number in range(APPS):
        lazy = {} if number < AWAKE else {"lazy": "true"}
        labels = prefixed({"app_id": f"app-{number}", "lazy": "false"} | lazy)
        engine.add_image(f"app-{number}", Program(backend), ENABLED | labels)
    async with serving(engine, create_ahead=True) as it:
        apps = list(it.dockscale.registry.apps.values())
        await until(lambda: sum(it.ready(app.app_id) for app in apps) == AWAKE, "some are awake")
        gc.collect()
        took = []
        for _ in range(rounds):
            began = time.perf_counter()
            it.dockscale.scaler.look(apps, it.session)
            took.append(time.perf_counter() - began)
    verdict = Verdict(f"a look at {APPS} apps: p95 ≤ {ms(TARGET_S)} ms", f"{ms(p95(took))} ms", p95(took) <= TARGET_S)
    shown = table(head_of(f"{APPS} apps, {AWAKE} awake", rounds), [in_ms("a look at each", took)])
    return Part((shown,), (verdict,))
