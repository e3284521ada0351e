"""The instance that all measured proxies stand in front of, as a labelled container on a real Docker engine.

It is reached on its bridge address, by the proxies and by the direct series alike. Everything that is made here carries
a label of its own, is seen by no other dockscale, and is removed in the end.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import docker

from bench.peers import Address, answers
from tests.support.real import Real
from tests.support.world import prefixed

IMAGE = "dockscale-bench-origin:local"
APP = "bench"
PORT = 8000
FEW, MANY = "org.dockscale.bench.few", "org.dockscale.bench.many"
"""Labels by which two dockscales see this instance with few and with many other apps."""
_BOOT_S = 10.0


@dataclass(frozen=True, slots=True)
class Instance:
    address: Address
    only: str
    """The label by which a dockscale sees the instance, and what else was made for this run."""
    real: Real


@contextmanager
def instance(core: int) -> Iterator[Instance]:
    """Run it on one core."""
    real = Real(docker.from_env(), f"org.dockscale.test=bench-{uuid.uuid4().hex[:6]}")
    try:
        labels = prefixed({"app_id": APP, "autoscaling.max_instances": "1"}) | {FEW: "true", MANY: "true"}
        box = real.create(APP, labels, IMAGE, cpuset_cpus=str(core))
        box.start()
        box.reload()
        host = box.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        address = (host, PORT)
        end = time.monotonic() + _BOOT_S
        while not answers(address):
            if time.monotonic() > end:
                raise SystemExit(f"bench: the instance does not answer. What it said:\n{box.logs(tail=20).decode()}")
            time.sleep(0.02)
        yield Instance(address, real.label, real)
    finally:
        real.clean()


def add_apps(real: Real, few: int, many: int) -> None:
    """Create (not start) apps beside the instance, until one dockscale sees `few` in all, and another `many`."""
    for number in range(1, many):
        labels = {MANY: "true"} | ({FEW: "true"} if number < few else {})
        real.create(f"sleeper-{number}", labels | prefixed({"app_id": f"sleeper-{number}"}), IMAGE)
