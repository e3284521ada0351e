"""docs/monitoring on a real Prometheus, which scrapes a dockscale that everything happens to that is warned of."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from dockscale.engine import Event
from dockscale.engine.memory import MemoryEngine, Program
from dockscale.metrics import FAMILIES
from tests.support.backend import backend
from tests.support.process import ROOT, free_port
from tests.support.world import ENABLED, World, eject, prefixed, serving, until

pytestmark = pytest.mark.usefixtures("prometheus_ready")

FILES = ROOT / "docs" / "monitoring"
BIN = ROOT / "build" / "prometheus" / "usr" / "bin"
BOUND_S = 15.0
OFTEN = "200ms"
[GROUP] = yaml.safe_load((FILES / "alerts.yml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for rule in GROUP["rules"]}
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
QUERIES = {
    f"{panel['title']}: {target['legendFormat']}": target["expr"]
    .replace("$app", "web")
    .replace("$__rate_interval", "1m")
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}
WEB = {
    "app_id": "web", "lazy": "false", "autoscaling.min_instances": "2", "autoscaling.max_instances": "3",
    "autoscaling.target_requests_per_instance": "5", "autoscaling.target_concurrency": "50",
}  # fmt: skip
NARROW = {"autoscaling.max_instances": "1", "autoscaling.max_concurrency": "1"}


@dataclass(frozen=True)
class Prometheus:
    """A running one, asked over its HTTP API."""

    base: str
    session: aiohttp.ClientSession

    async def ask(self, path: str, **parameters: str) -> Any:
        async with self.session.get(f"{self.base}/api/v1/{path}", params=parameters) as answer:
            told = await answer.json()
        assert told["status"] == "success", told
        return told["data"]

    async def query(self, expression: str) -> list[Any]:
        result: list[Any] = (await self.ask("query", query=expression))["result"]
        return result

    async def sees(self, expression: str) -> None:
        """Wait until an expression has a result."""
        await become_true(lambda: self.query(expression), expression)

    async def warns(self, alert: str) -> None:
        """Wait until an alert is pending or fires: it does the latter after its `for`."""
        await self.sees(f'ALERTS{{alertname="{alert}"}}')

    async def is_ready(self) -> bool:
        try:
            async with self.session.get(f"{self.base}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


@dataclass(frozen=True)
class Seen:
    """What Prometheus knew when all had happened."""

    names: set[str]
    types: dict[str, str]
    answers: dict[str, list[Any]]
    """Of each query of the dashboard."""
    ill_rules: list[Any]
    page: str
    """What it scraped."""
    alerts: frozenset[str] = frozenset()
    """Those that were pending or fired."""


async def become_true(ask: Callable[[], Awaitable[object]], what: str) -> None:
    try:
        async with asyncio.timeout(BOUND_S):
            while not await ask():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"still not so after {BOUND_S:g} s: {what}") from None


@asynccontextmanager
async def prometheus(admin: str, folder: Path) -> AsyncIterator[Prometheus]:
    """Run one with the configuration that ships, in a hurry and aimed at this admin port."""
    config = (FILES / "prometheus.yml").read_text().replace("interval: 15s", f"interval: {OFTEN}")
    (folder / "prometheus.yml").write_text(config.replace("127.0.0.1:9528", admin.removeprefix("http://")))
    (folder / "alerts.yml").write_text((FILES / "alerts.yml").read_text())
    port = free_port()
    command = (
        BIN / "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )  # fmt: skip
    with (folder / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        async with aiohttp.ClientSession() as session:
            it = Prometheus(f"http://127.0.0.1:{port}", session)
            await become_true(it.is_ready, f"prometheus is ready, see {folder / 'log'}")
            yield it
    finally:
        process.kill()
        await process.wait()


class Leaving(MemoryEngine):
    """An engine that can go away for good. It tells of nothing then, not even of what has begun before."""

    def leave(self) -> None:
        self._tell(Event.AWAY)
        self.away = True

    def _tell(self, event: Event = Event.CHANGED) -> None:
        if not self.away:
            super()._tell(event)


def apps() -> MemoryEngine:
    engine = Leaving()
    engine.add_image("web", Program(backend), ENABLED | prefixed(WEB))
    engine.add_image("broken", Program(backend, exits="no database"), ENABLED)
    engine.add_image("narrow", Program(backend), ENABLED | prefixed(NARROW))
    engine.add_image("renewed", Program(backend), ENABLED)
    return engine


@asynccontextmanager
async def a_line(it: World) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Requests at an app that has one place, in a line that can be made longer."""
    pool = it.app("narrow").pool
    asking: list[asyncio.Task[tuple[int, Any]]] = []

    async def grow(by: int) -> None:
        length = len(asking) + by
        for _ in range(by):
            ask = it.get("/stream?n=1000&s=0.1", "narrow", timeout=aiohttp.ClientTimeout(None))
            asking.append(asyncio.create_task(ask))
        await until(lambda: pool.in_flight == 1 and pool.waiting == length - 1, "one has the place, the others wait")

    try:
        yield grow
    finally:
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def starts_fail(it: World, sight: Prometheus) -> None:
    await sight.sees('dockscale_start_failures_total{app="broken"} == 0')
    for _ in range(3):
        assert (await it.get(app_id="broken"))[0] == 502
        it.clock.advance(60)


async def requests_reach_no_app(it: World, sight: Prometheus) -> None:
    await it.get(app_id="nobody")
    async with it.session.get(it.base + "/public/services") as answer:
        assert answer.status == 200
    await sight.sees("dockscale_refused_total and ignoring (code) dockscale_hub_answers_total")


async def errors_come(it: World, sight: Prometheus) -> None:
    await it.get("/status?code=500")
    await sight.sees('dockscale_requests_total{app="web", code="500"} == 1')  # one look more makes a rate
    for _ in range(20):
        await it.get("/status?code=500")


async def load_comes(it: World) -> None:
    it.app().gauge = 7.5
    for _ in range(40):
        await it.get()
    await until(lambda: it.ready() == 3, "as many as there may be")


async def instances_are_ejected(it: World) -> None:
    for _ in range(2):
        eject(it)
        await until(lambda: it.ready() == 3, "it is replaced")


async def a_rollout_hangs(it: World) -> None:
    await it.get(app_id="renewed")
    it.engine.add_image("renewed", Program(backend, gate=asyncio.Event()), ENABLED)
    await until(lambda: it.states("renewed") == {"ready": 1, "starting": 1}, "the new one is starting")


async def an_app_is_refused(it: World) -> None:
    it.engine.add_image("wrong", Program(backend), ENABLED | prefixed({"port": "no"}))
    await it.settled()


async def happens(it: World, sight: Prometheus) -> None:
    await starts_fail(it, sight)
    await requests_reach_no_app(it, sight)
    await errors_come(it, sight)
    await load_comes(it)
    await instances_are_ejected(it)
    await a_rollout_hangs(it)
    await an_app_is_refused(it)
    it.engine.leave()
    for alert in ALERTS.keys() - {"DockscaleDown"}:
        await sight.warns(alert)


async def collected(it: World, sight: Prometheus) -> Seen:
    [target] = (await sight.ask("targets"))["activeTargets"]
    assert target["health"] == "up", target["lastError"]
    groups = (await sight.ask("rules"))["groups"]
    async with it.session.get(it.admin + "/metrics") as answer:
        page = await answer.text()
    return Seen(
        names=set(await sight.ask("label/__name__/values")),
        types={each["metric"]: each["type"] for each in await sight.ask("targets/metadata")},
        answers={name: await sight.query(query) for name, query in QUERIES.items()},
        ill_rules=[rule for group in groups for rule in group["rules"] if rule["health"] != "ok"],
        page=page,
    )


async def story(folder: Path) -> Seen:
    async with AsyncExitStack() as ends:
        it = await ends.enter_async_context(serving(apps()))
        await until(lambda: it.ready() == 2)
        grow = await ends.enter_async_context(a_line(it))
        await grow(2)  # before the first look: an alert asks whether there was a line at each
        async with prometheus(it.admin, folder) as sight:
            await sight.sees('dockscale_waiting{app="narrow"} == 1')
            await grow(4)
            await happens(it, sight)
            seen = await collected(it, sight)
            await ends.aclose()
            await sight.warns("DockscaleDown")
            alerts = await sight.query("count by (alertname) (last_over_time(ALERTS[10m]))")
            return replace(seen, alerts=frozenset(each["metric"]["alertname"] for each in alerts))


@pytest.fixture(scope="module")
def seen(prometheus_ready: None, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What is to be seen after all that is warned of has happened, and has been warned of."""
    return asyncio.run(story(tmp_path_factory.mktemp("prometheus")))


def promtool(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "promtool", *arguments], input=stdin, capture_output=True, text=True, check=False)


def test_configuration_and_rules_are_valid() -> None:
    done = promtool("check", "config", FILES / "prometheus.yml")

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    done = promtool("test", "rules", FILES / "alerts_test.yml")

    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_and_says_what_to_do() -> None:
    tested = re.findall(r'alertname(?:: |=")(\w+)', (FILES / "alerts_test.yml").read_text())

    assert set(tested) == set(ALERTS)
    assert all(alert["annotations"].keys() == {"summary", "description"} for alert in ALERTS.values())
    assert {alert["labels"]["severity"] for alert in ALERTS.values()} == {"page", "ticket"}


def test_each_alert_is_pending_or_fires_when_what_it_warns_of_has_happened(seen: Seen) -> None:
    assert seen.alerts == set(ALERTS)
    assert seen.ill_rules == []


def test_every_metric_is_seen_under_its_name_and_type(seen: Seen) -> None:
    kinds = {name: kind for name, (kind, _) in FAMILIES.items()}
    parts = {"histogram": ("_bucket", "_sum", "_count")}

    assert {name: kind for name, kind in seen.types.items() if name.startswith("dockscale_")} == kinds
    assert {name + part for name, kind in kinds.items() for part in parts.get(kind, ("",))} <= seen.names


def test_what_is_told_is_as_prometheus_advises(seen: Seen) -> None:
    # But for the gauge of an app's own, which is called so because it is one.
    page = seen.page.replace("dockscale_app_gauge", "dockscale_app_own")

    complaints = promtool("check", "metrics", stdin=page).stderr

    assert complaints == ""


def test_each_query_of_the_dashboard_has_an_answer(seen: Seen) -> None:
    assert len(seen.answers) > 30
    assert [name for name, answer in seen.answers.items() if not answer] == []


@pytest.mark.engine
@pytest.mark.usefixtures("engine_ready")
def test_the_profile_of_compose_has_pinned_images_and_listens_on_loopback_only() -> None:
    command = [str(ROOT / "scripts" / "compose.sh"), "--profile", "monitoring", "config", "--format", "json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    services = {name: told["services"][name] for name in ("prometheus", "grafana")}

    for service in services.values():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+", service["image"])
        assert service["network_mode"] == "host"
        assert service["profiles"] == ["monitoring"]
        assert all(Path(each["source"]).exists() for each in service["volumes"] if each["type"] == "bind")
    assert "--web.listen-address=127.0.0.1:9090" in services["prometheus"]["command"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
