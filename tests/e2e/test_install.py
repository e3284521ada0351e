"""Programs that are installed by their source on a real daemon, in the ways that go wrong."""

import asyncio
import subprocess
from typing import Any

import pytest

from dockscale.core.spec import APP_ID
from dockscale.engine.docker import DockerEngine
from dockscale.programs import ProgramFailed
from tests.support.real import Real, in_thread
from tests.support.world import serving

pytestmark = pytest.mark.engine

GOOD = "api.export({ hello: () => 'world' })"


def base_image() -> str:
    return subprocess.run(["scripts/base-image.sh"], check=True, capture_output=True, text=True).stdout.strip()


def left(real: Real) -> tuple[list[Any], list[Any]]:
    """Containers and images, those without a name included."""
    images = real.client.images.list(all=True, filters={"label": [real.label, APP_ID]})
    return real.containers(), images


async def test_programs_that_fail_at_once_are_each_told_why_and_nothing_is_left(real: Real) -> None:
    bad = {
        "throws": ("throw new Error('no')", r"main\.js:1: Error: no"),
        "exports-nothing": ("const a = 1", "without exporting anything"),
        "does-not-parse": ("api.export({", r"main\.js:1: SyntaxError"),
        "hangs": ("while (true) {}", r"within 3 s \(startup_config.timeout\)"),
        "setup-hangs": ("api.export({ setup: () => new Promise(() => {}) })", "did not register a service"),
    }
    async with serving(DockerEngine(only=real.label), host="0.0.0.0", base_image=base_image()) as it:
        install = it.dockscale.control.install
        manifests = [
            {"name": real.named(name), "type": "window", "source": source, "startup_config": {"timeout": 3}}
            for name, (source, _) in bad.items()
        ]

        failures = await asyncio.gather(*map(install, manifests), return_exceptions=True)

        for failure, (_, said) in zip(failures, bad.values(), strict=True):
            with pytest.raises(ProgramFailed, match=said):
                raise failure if isinstance(failure, BaseException) else AssertionError("it was installed")
        assert await in_thread(lambda: left(real)) == ([], [])


async def test_a_version_that_fails_leaves_the_one_before_and_uninstalling_leaves_nothing(real: Real) -> None:
    async with serving(DockerEngine(only=real.label), host="0.0.0.0", base_image=base_image()) as it:
        control, app_id = it.dockscale.control, real.named("good")
        manifest = {"name": app_id, "type": "window", "source": GOOD}
        await control.install(manifest)

        with pytest.raises(ProgramFailed):
            await control.install(manifest | {"source": "api.export({"}, overwrite=True)
        started = await control.start(app_id)
        await control.uninstall(app_id)

        assert started["state"] == "ready"
        assert await in_thread(lambda: left(real)) == ([], [])
