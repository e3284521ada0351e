"""dockscale's image: how large it is, and how little may be done by what runs in it."""

import json
import subprocess
from typing import Any

import pytest

from tests.support.process import ROOT, free_port
from tests.support.real import Real, in_thread
from tests.support.runtimes import base_image
from tests.support.world import until

pytestmark = pytest.mark.engine

IMAGE = "dockscale:local"
MOST_BYTES = 150 * 10**6
"""That it may have beyond its base, as docs/performance.md says."""


def compose(*arguments: str) -> str:
    build = f"set -e; . scripts/build-env.sh; scripts/compose.sh {' '.join(arguments)}"
    done = subprocess.run(["bash", "-c", build], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_the_image_is_small_healthy_and_runs_as_nobody_on_a_root_that_it_cannot_write(real: Real) -> None:
    await in_thread(lambda: compose("build", "dockscale"))
    service: dict[str, Any] = json.loads(compose("config", "--format", "json"))["services"]["dockscale"]
    box = real.client.containers.create(
        IMAGE, name=real.named("dockscale"), labels=real.labels, network_mode=service["network_mode"],
        read_only=service["read_only"], tmpfs=dict.fromkeys(service["tmpfs"], ""), cap_drop=service["cap_drop"],
        cap_add=service["cap_add"], security_opt=service["security_opt"],
        volumes=["/var/run/docker.sock:/var/run/docker.sock", "/var/lib/dockscale"],
        environment={
            "DOCKSCALE_PORT": str(free_port()), "DOCKSCALE_ADMIN_PORT": str(free_port()), "DOCKSCALE_ONLY": real.label,
        },
    )  # fmt: skip
    await in_thread(box.start)
    sizes = [real.client.images.get(name).attrs["Size"] for name in (IMAGE, base_image())]

    def health() -> str:
        box.reload()
        return str(box.attrs["State"]["Health"]["Status"])

    await until(lambda: health() == "healthy", "it is healthy")
    users = {user for pid, user in box.top(ps_args="-o pid,uid")["Processes"] if pid == str(box.attrs["State"]["Pid"])}
    code, told = box.exec_run(["touch", "/written"])

    assert sizes[0] - sizes[1] <= MOST_BYTES
    assert users == {"10001"}
    assert (code, b"Read-only file system" in told) == (1, True)
