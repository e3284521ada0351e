"""The examples of docs/examples, each as its README says: its commands are run, and what they print is compared."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from playwright.async_api import Error as Dropped
from playwright.async_api import Page, expect

from tests.support.browser import browsing
from tests.support.process import ROOT, Server, process
from tests.support.real import Real, in_thread
from tests.support.runtimes import base_image, package_index
from tests.support.world import BOUND_S

pytestmark = pytest.mark.engine

EXAMPLES = ROOT / "docs" / "examples"
BUILD_S = 300.0
"""What one command may take: the first one builds an image."""
DROPPED = r"Failed to load resource: |TypeError: Failed to fetch dynamically imported module: |.*ERR_NETWORK_CHANGED"
"""What Chromium writes of a page that it dropped, since a container's network came or went; it is opened again."""
BAD_INPUT = {
    '{"text": 3}': "body.text: Input should be a valid string",
    '{"text": " "}': "body.text: String should have at least 1 character",
    "{}": "body.text: Field required",
    '{"text": "x", "language": "de"}': "body.language: Extra inputs are not permitted",
    '{"text": "\\ud800"}': "body.text: Input should be a valid string, unable to parse raw data as a unicode string",
    '{"text": "' + "x" * 20_001 + '"}': "body.text: String should have at most 20000 characters",
    '{"text": ': "body.9: JSON decode error",
    "[]": "body: Input should be a valid dictionary or object to extract fields from",
}


def told(name: str) -> list[tuple[str, str]]:
    """Return the commands of an example, as README tells them, each with what it prints there."""
    section = (EXAMPLES / "README.md").read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]
    blocks = "".join(re.findall(r"^```console\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)


def fits(printed: str, promised: str) -> bool:
    """Tell whether a text is what README promises: each `…` there stands for anything, or nothing."""
    pattern = re.escape(promised.strip()).replace("…", ".*") + "\n?"
    return re.fullmatch(pattern, printed.strip() + "\n", re.DOTALL) is not None


class Example:
    """One example beside a dockscale of its own, which sees nothing else."""

    def __init__(self, name: str, real: Real, server: Server, session: aiohttp.ClientSession, folder: Path) -> None:
        self.real, self.server, self.session = real, server, session
        self.left = told(name)
        services = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text())["services"]
        [self.app_id] = [service for service, what in services.items() if "labels" in what]
        self._more = folder / "only.yaml"
        self._more.write_text(json.dumps({"services": {service: {"labels": real.labels} for service in services}}))
        self._project = real.named(f"example-{name}")
        self._down = f"docker compose -f docs/examples/{name}.yaml down"

    @property
    def base(self) -> str:
        return f"http://localhost:{self.server.port}"

    async def up(self) -> None:
        """Run the first command, which makes an app that sleeps."""
        await self.next()
        await self.until(lambda app: app.get("state") == "asleep")
        assert self.real.running() == []

    async def next(self) -> str:
        """Run the next command of README, and return what it prints, which is as promised."""
        command, promised = self.left.pop(0)
        printed = await self.say(command)
        assert not promised or fits(printed, promised), f"{command}\n{printed}"
        return printed

    async def say(self, command: str) -> str:
        """Run a command of README; only the compose project, its label and dockscale's port are the test's."""
        command = re.sub(
            r"^docker compose -f (\S+)", rf"scripts/compose.sh -p {self._project} -f \1 -f {self._more}", command
        ).replace("localhost:9527", f"localhost:{self.server.port}")
        environment = os.environ | {"BASE_IMAGE": base_image(), "SERVER_URL": f"ws://localhost:{self.server.port}"}
        if index := package_index():
            environment["PIP_INDEX_URL"] = index
        run = partial(subprocess.run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=BUILD_S)
        done = await in_thread(lambda: run(["bash", "-o", "pipefail", "-c", command], check=False))
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return str(done.stdout)

    async def until(self, condition: Any) -> dict[str, Any]:
        """Wait until what dockscale tells of the app is so, and return it."""
        async with asyncio.timeout(BOUND_S):
            while not condition(app := await self.server.explain(self.session, self.app_id)):
                await asyncio.sleep(0.02)
        return app

    async def down(self) -> None:
        """Take the example away, as README says, and wait until nothing of it is left."""
        await self.say(self._down)
        async with asyncio.timeout(BOUND_S):
            while await in_thread(self.real.containers):
                await asyncio.sleep(0.05)


def ready(number: int) -> Any:
    return lambda app: app.get("instances_by_state", {}).get("ready") == number


@asynccontextmanager
async def example(name: str, real: Real, folder: Path) -> AsyncIterator[Example]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=BOUND_S)) as session,
        process(session, ONLY=real.label, HOST="0.0.0.0") as server,
    ):
        it = Example(name, real, server, session, folder)
        await it.up()
        yield it
        await it.down()


async def test_a_model_answers_one_request_at_a_time_and_its_spare_joins_under_load(real: Real, tmp_path: Path) -> None:
    async with example("model", real, tmp_path) as it:
        await it.next()  # it tells a language
        await it.next()  # it refuses an empty text
        await it.until(lambda app: app["instances_by_state"].get("standby") == 1)
        [spare] = [str(box.id) for box in real.containers() if box.status == "paused"]

        spread = await it.next()

        served = re.findall(r'(\d+) "instance":"(\w+)","at_once":(\d+)\n', spread)
        assert sum(int(requests) for requests, _, _ in served) == 2000
        assert {at_once for _, _, at_once in served} == {"1"}
        assert 2 <= len(served) <= 3
        assert spare[:12] in [instance for _, instance, _ in served]


async def test_a_model_says_what_is_wrong_with_its_input(real: Real, tmp_path: Path) -> None:
    async with example("model", real, tmp_path) as it:
        url = f"{it.base}/public/apps/model"
        for body, wrong in BAD_INPUT.items():
            async with it.session.post(
                url + "/predict", data=body, headers={"Content-Type": "application/json"}
            ) as got:
                assert (got.status, await got.json()) == (422, {"error": "bad_input", "wrong": [wrong]})
        async with it.session.get(url + "/healthz") as got:
            assert (got.status, (await got.json())["status"]) == (200, "ready")


async def test_somebody_elses_image_is_an_app_by_its_labels(
    real: Real, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await in_thread(partial(subprocess.check_output, [ROOT / "scripts" / "nginx-image.sh"], text=True))
    monkeypatch.setenv("WEB_IMAGE", made.strip())
    async with example("third-party", real, tmp_path) as it:
        await it.next()

        async with it.session.get(it.base, headers={"Host": "web.localhost"}) as got:
            assert (got.status, got.headers["Server"][:5]) == (200, "nginx")


async def test_a_worker_is_called_over_http_and_by_its_client(real: Real, tmp_path: Path) -> None:
    async with example("rpc", real, tmp_path) as it:
        await it.next()
        await it.until(ready(2))

        printed = await it.next()

        assert "answered by 2 instances" in printed


async def opened(page: Page, url: str) -> None:
    """Open the page of the example `ui`; again, if containers that start meanwhile made Chromium drop it."""
    async with asyncio.timeout(BOUND_S):
        while True:
            with suppress(Dropped):
                await page.goto(url)
                await page.get_by_role("button", name="Add").wait_for(timeout=BOUND_S * 1000 / 8)
                return


@pytest.mark.usefixtures("browser_ready")
async def test_a_page_over_a_websocket_works_by_host_and_below_a_path_and_stays_with_its_instance(
    real: Real, tmp_path: Path
) -> None:
    async with example("ui", real, tmp_path) as it:
        await it.next()
        await it.until(ready(2))
        for address in (f"ui.localhost:{it.server.port}/", f"localhost:{it.server.port}/ui/"):
            async with browsing(expected=DROPPED) as page:
                sockets: set[str] = set()
                instances: set[str] = set()
                page.on("websocket", lambda socket: sockets.add(socket.url))  # noqa: B023  # gone with the page
                page.on("response", lambda got: instances.add(got.headers["x-dockscale-instance"]))  # noqa: B023  # likewise
                await opened(page, f"http://{address}")

                await page.get_by_role("button", name="Add").click()
                await expect(page.get_by_text("Total: 3")).to_be_visible()
                await page.get_by_role("slider").press("ArrowRight")
                await page.get_by_role("button", name="Add").click()

                await expect(page.get_by_text("Total: 7")).to_be_visible()
                shown = await page.get_by_text("Instance").inner_text()
                await opened(page, f"http://{address}")
                await expect(page.get_by_text(shown)).to_be_visible()
                assert sockets == {f"ws://{address}_stcore/stream"}
                assert len(instances) == 1


async def test_what_traefik_had_is_had_from_dockscale(real: Real, tmp_path: Path) -> None:
    async with example("from-traefik", real, tmp_path) as it:
        await it.next()  # by a path, which the app does not see
        await it.next()  # by a host
        await it.until(ready(2))

        async def served(session: aiohttp.ClientSession) -> set[str]:
            return {(await (await session.get(f"{it.base}/shop/api/status")).json())["instance_id"] for _ in range(6)}

        async with (
            aiohttp.ClientSession() as visitor,
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as others,
        ):
            assert len(await served(others)) == 2
            assert len(await served(visitor)) == 1
            assert {cookie.key for cookie in visitor.cookie_jar} == {"dockscale-shop"}
