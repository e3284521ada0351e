"""Every script and fragment of tests/seed/autoscaling.md, unchanged, against a dockscale at localhost:9527.

Whole programs run as processes, from the beginning and side by side; tests wait for them. Fragments run in the test
that claims them, with the names that they use. docs/seed.md tells what each is seen to do.
"""

import asyncio
import json
import re
import runpy
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from hypha_rpc import connect_to_server

from tests.support.process import ROOT, process
from tests.support.real import Real
from tests.support.seed import Ran, Witness, blocks, run_fragment, run_program

PORT = 9527
"""Where the document's scripts look for their server."""
STORIES = (
    ("simple_app.py", "test_scaling.py"),
    ("scalable_fastapi_app.py", "test_fastapi_scaling.py", "test_fastapi_http.py"),
    ("ai_model_server.py",),
)
"""Programs that follow each other. Stories do not touch each other's apps."""

FIRST, FASTAPI, MODEL = "my-first-autoscaling-app", "scalable-fastapi-image-processor", "production-ai-model-server"
SCALABLE, FUNCTIONS = "my-scalable-app", "scalable-function-service"

TOLD = """
await api.registerService({
    id: "my-service",
    config: { visibility: "public" },
    process_data: data => `processed ${data}`,
});
api.export({
    who: () => env.HYPHA_CLIENT_ID,
    hold: async until => await until(env.HYPHA_CLIENT_ID),
});
"""
"""The app of the fragments, where the document shows none: it says which instance it is, and can be kept busy."""

CLAIMED: list[str] = []
BOUND_S = 40.0
DOWN_BOUND_S = 200.0
"""The load has to leave the window of a minute, a burst holds on for another, and looks are 10 s apart."""


def runs(title: str) -> Callable[[Callable[..., Any]], Any]:
    """Claim a block of the document for a test, which gets its title."""
    CLAIMED.append(title)

    def mark(test: Callable[..., Any]) -> Any:
        return pytest.mark.parametrize("title", [title])(on_stage(test))

    return mark


def on_stage(test: Callable[..., Any]) -> Any:
    """Let a test use the stage, which is one for all tests here."""
    return pytest.mark.engine(pytest.mark.asyncio(loop_scope="module")(test))


def test_every_block_of_the_document_is_run_by_exactly_one_test() -> None:
    assert sorted(CLAIMED) == sorted(blocks())


def test_the_page_on_the_document_has_a_row_for_each_block() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (ROOT / "docs" / "seed.md").read_text(), re.M)

    assert rows == list(blocks())


class Stage:
    """A dockscale at the document's address, a client of it, the document's programs under way, and a witness."""

    def __init__(self, api: Any, controller: Any, admin: str, http: aiohttp.ClientSession, witness: Witness) -> None:
        self.api = api
        self.controller = controller
        self.http = http
        self.witness = witness
        self.programs: dict[str, asyncio.Task[Ran]] = {}
        self.notebook: dict[str, Any] = {"api": api, "controller": controller}
        """Names that fragments use and leave behind."""
        self._admin = admin
        self.noted: set[str] = set()
        """Fragments that have run."""

    def begin(self, story: tuple[str, ...], folder: Path) -> None:
        before: asyncio.Task[Ran] | None = None
        for title in story:
            self.programs[title] = before = asyncio.create_task(self._program(title, folder, before))

    async def _program(self, title: str, folder: Path, before: "asyncio.Task[Ran] | None") -> Ran:
        if before is not None:
            await asyncio.wait([before])
        return await run_program(title, folder, self.witness)

    async def end(self) -> None:
        for program in self.programs.values():
            program.cancel()
        await asyncio.wait(self.programs.values())

    async def fragment(self, title: str) -> dict[str, Any]:
        """Run a fragment, unless it has run, and return the notebook."""
        if title not in self.noted:
            await run_fragment(title, self.notebook)
            self.noted.add(title)
        return self.notebook

    async def running(self, app_id: str) -> list[Any]:
        return [each for each in await self.controller.list_running() if each["app_id"] == app_id]

    async def ready(self, app_id: str, instances: int) -> list[str]:
        """Wait until so many instances are ready, and return their clients' ids."""
        async with asyncio.timeout(BOUND_S):
            while True:
                there = [each["client_id"] for each in await self.running(app_id) if each["state"] == "ready"]
                if len(there) == instances:
                    return there
                await asyncio.sleep(0.1)

    async def runs_at_last(self, app_id: str, instances: int, bound_s: float = BOUND_S) -> None:
        """Wait until the engine says that so many run."""
        async with asyncio.timeout(bound_s):
            while (await self.witness.look())[app_id] != instances:
                await asyncio.sleep(0.3)

    async def comes_true(self, told: list[tuple[float, int]], app_id: str) -> None:
        """Wait until numbers of instances that a program printed are between the fewest and the most that were seen.

        dockscale counts an instance from the decision to start it, the engine once its process runs.
        """
        assert told
        async with asyncio.timeout(BOUND_S):
            for at, number in told:
                while not self._seen_around(number, app_id, at - 2):
                    await asyncio.sleep(0.3)

    def _seen_around(self, number: int, app_id: str, since: float) -> bool:
        counts = self.witness.counts(app_id, since)
        return bool(counts) and min(counts) <= number <= max(counts)

    async def json(self, method: str, path: str, **more: Any) -> Any:
        """Ask an app over HTTP. The path begins with its id."""
        return json.loads(await self.text(method, path, **more))

    async def text(self, method: str, path: str, **more: Any) -> str:
        async with self.http.request(method, f"http://localhost:{PORT}/public/apps/{path}", **more) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def metrics(self) -> dict[str, float]:
        async with self.http.get(f"{self._admin}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return {name: float(value) for name, _, value in (ln.rpartition(" ") for ln in lines if ln[:1] != "#")}


def demand_port() -> None:
    with socket.socket() as it:
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            it.bind(("0.0.0.0", PORT))
            it.listen()
        except OSError:
            pytest.fail(f"port {PORT}, where the document's scripts look for dockscale, is taken: end what has it")


def build_environment() -> dict[str, str]:
    """What dockscale needs to know to make runtimes on this machine, as scripts that build images know it."""
    shown = '. scripts/build-env.sh; printf "%s\\n" "$BASE_IMAGE" "${PIP_INDEX_URL:-}"'
    done = subprocess.run(["bash", "-ec", shown], cwd=ROOT, capture_output=True, text=True, check=True)
    base, index, *_ = done.stdout.split("\n")
    return {"BASE_IMAGE": base, "PIP_INDEX_URL": index}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(lasting_real: Real, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    demand_port()
    folder = tmp_path_factory.mktemp("seed")
    settings = {"PORT": str(PORT), "HOST": "0.0.0.0", "ONLY": lasting_real.label, "DATA_DIR": str(folder / "data")}
    witness = Witness(lasting_real)
    async with (
        aiohttp.ClientSession() as http,
        process(http, **settings, **await asyncio.to_thread(build_environment)) as server,
    ):
        watching = asyncio.create_task(witness.watch())
        api = await connect_to_server({"server_url": f"ws://localhost:{PORT}"})
        it = Stage(api, await api.get_service("public/server-apps"), server.admin, http, witness)
        try:
            for story in STORIES:
                it.begin(story, folder)
            yield it
        finally:
            await it.end()
            await api.disconnect()
            watching.cancel()
            await server.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def app_source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The document's own `app_source`, of its first program."""
    program = tmp_path_factory.mktemp("source") / "simple_app.py"
    program.write_text(blocks()[program.name])
    return str(runpy.run_path(str(program))["app_source"])


def has(told: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return {name: told.get(name) for name in wanted} == dict(wanted)


# Getting Started


@runs("simple_app.py")
async def test_the_first_app_is_installed(stage: Stage, title: str) -> None:
    ran = await stage.programs[title]

    assert (ran.status, ran.errors) == (0, "")
    assert f"App installed with ID: {FIRST}" in ran.text
    assert f"api.get_service('default@{FIRST}')" in ran.text


@runs("test_scaling.py")
async def test_the_first_app_starts_when_it_is_asked_for_and_scales_up_to_its_maximum(stage: Stage, title: str) -> None:
    ran = await stage.programs[title]

    assert (ran.status, ran.errors) == (0, "")
    assert ran.before[FIRST] == 0
    assert "Processed 50 requests" in ran.text
    await stage.comes_true(ran.told(r"Currently running (\d+) instances"), FIRST)
    await stage.runs_at_last(FIRST, 3)


# Configuration


@runs("Configuration")
async def test_an_app_is_installed_with_its_scaling_configured(stage: Stage, title: str, app_source: str) -> None:
    stage.notebook["app_source"] = app_source

    noted = await stage.fragment(title)

    assert noted["app_info"]["id"] == SCALABLE
    assert has(noted["app_info"]["autoscaling"], noted["autoscaling_config"])
    assert (await stage.witness.look())[SCALABLE] == 0
    service = await stage.api.get_service(f"default@{SCALABLE}")
    assert (await service.processRequest("it"))["processed"] == "it"


async def selected(stage: Stage, app_source: str) -> dict[str, Any]:
    """The document installs one app twice, as two variants of a step: the first one goes before the second comes."""
    stage.notebook["app_source"] = app_source
    await stage.fragment("Configuration")
    if "Understanding Service Selection" not in stage.noted:
        await stage.controller.uninstall(SCALABLE)
        stage.notebook["app_source"] = TOLD
    return await stage.fragment("Understanding Service Selection")


@runs("Understanding Service Selection")
async def test_the_mode_random_spreads_calls_over_all_instances(stage: Stage, title: str, app_source: str) -> None:
    noted = await selected(stage, app_source)
    service = await stage.api.get_service(f"default@{SCALABLE}")

    await asyncio.gather(*(service.who() for _ in range(100)))
    instances = await stage.ready(SCALABLE, noted["autoscaling_config"]["max_instances"])
    answers = await asyncio.gather(*(service.who() for _ in range(100)))

    assert noted["app_info"]["service_selection_mode"] == "random"
    assert set(answers) == set(instances)
    await stage.runs_at_last(SCALABLE, len(instances))


@runs("Recommended Mode for Autoscaling")
async def test_the_recommended_configuration_is_one(stage: Stage, title: str, app_source: str) -> None:
    config = (await stage.fragment(title))["config"]

    info = await stage.controller.install(source=app_source, config=config)

    assert has(info["autoscaling"], config["autoscaling"])
    assert (info["service_selection_mode"], info["name"], info["type"]) == ("random", config["name"], "window")
    service = await stage.api.get_service(f"default@{info['id']}")
    assert (await service.processRequest("it"))["processed"] == "it"


# Available Selection Modes


async def two(stage: Stage, mode: str) -> tuple[Any, list[str]]:
    """An app of two instances with this mode: its service, and the instances, the older one first."""
    config = {
        "name": f"Mode {mode.replace('_', ' ')}", "type": "window", "service_selection_mode": mode,
        "autoscaling": {"enabled": True, "min_instances": 2, "max_instances": 2},
    }  # fmt: skip
    info = await stage.controller.install(source=TOLD, config=config)
    service = await stage.api.get_service(f"default@{info['id']}")
    return service, sorted(await stage.ready(info["id"], 2))


@on_stage
async def test_the_modes_first_and_last_take_one_and_the_same(stage: Stage) -> None:
    (first, (one, _)), (last, (_, other)) = await asyncio.gather(two(stage, "first"), two(stage, "last"))

    assert {await first.who() for _ in range(10)} == {one}
    assert {await last.who() for _ in range(10)} == {other}


@on_stage
async def test_the_mode_min_load_takes_the_one_that_has_less_to_do(stage: Stage) -> None:
    service, instances = await two(stage, "min_load")
    busy: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def until(instance: str) -> str:
        busy.set_result(instance)
        await done.wait()
        return instance

    call = asyncio.ensure_future(service.hold(until))
    [free] = {*instances} - {await busy}
    answers = {await service.who() for _ in range(10)}
    done.set()

    assert answers == {free}
    assert await call == await busy


@on_stage
async def test_the_mode_exact_fails_only_if_there_are_several(stage: Stage) -> None:
    config = {
        "name": "Mode exact", "type": "window", "service_selection_mode": "exact",
        "autoscaling": {"enabled": True, "max_instances": 2, "target_requests_per_instance": 10},
    }  # fmt: skip
    info = await stage.controller.install(source=TOLD, config=config)
    service = await stage.api.get_service(f"default@{info['id']}")

    alone = await service.who()
    await asyncio.gather(*(service.who() for _ in range(30)), return_exceptions=True)
    instances = await stage.ready(info["id"], 2)

    assert alone in instances
    with pytest.raises(Exception, match="2 instances are ready, and the selection mode is exact"):
        await service.who()


# End-to-End Example: Autoscaling FastAPI Application


@runs("scalable_fastapi_app.py")
async def test_the_fastapi_app_is_installed(stage: Stage, title: str) -> None:
    ran = await stage.programs[title]

    assert (ran.status, ran.errors) == (0, "")
    for line in (f"App ID: {FASTAPI}", "Autoscaling enabled: True", "Min instances: 1", "Max instances: 4"):
        assert line in ran.text
    assert f"http://localhost:9527/public/apps/{FASTAPI}" in ran.text


@runs("test_fastapi_scaling.py")
async def test_the_fastapi_app_starts_when_it_is_asked_for_and_scales_up_under_load(stage: Stage, title: str) -> None:
    ran = await stage.programs[title]

    assert (ran.status, ran.errors) == (0, "")
    assert ran.before[FASTAPI] == 0
    assert re.search(r"Instance ID: instance_\d{4}\n   Requests processed: 1\n", ran.text)
    assert "Processed 20 requests" in ran.text
    assert ran.text.count("processed 10 requests") == 5
    await stage.comes_true(ran.told(r"(?:Running instances:|Currently running) (\d+)"), FASTAPI)
    [(at, final)] = ran.told(r"Final state: (\d+) instances running")
    await stage.comes_true([(at, final)], FASTAPI)
    assert final == 4
    assert len(re.findall(r"Instance \d: instance_\d{4} - \d+ requests", ran.text)) == final


@runs("test_fastapi_http.py")
async def test_the_fastapi_app_answers_over_http_with_a_token(stage: Stage, title: str) -> None:
    ran = await stage.programs[title]

    assert (ran.status, ran.errors) == (0, "")
    page = await stage.text("GET", f"{FASTAPI}/")
    assert "<h1>Scalable Image Processing API</h1>" in page
    [(_, length)] = ran.told(r"Response length: (\d+) characters")
    assert length == pytest.approx(len(page), abs=6)  # it tells its uptime and the number of requests
    assert re.search(r"Status: \{'instance_id': 'instance_\d{4}', .*'status': 'healthy'\}", ran.text)
    assert re.search(r"Process result: \{'processed_by': 'instance_\d{4}', 'input': \{'data': 'test_data'\}", ran.text)
    assert "Completed 30 HTTP requests" in ran.text
    await stage.comes_true(ran.told(r"Running instances after HTTP load: (\d+)"), FASTAPI)
    requests = f'dockscale_requests_total{{app="{FASTAPI}",code='
    codes = {name.removeprefix(requests)[1:4] for name in await stage.metrics() if name.startswith(requests)}
    assert codes <= {"200", "499"}  # it leaves without having read its last answers


@on_stage
async def test_the_fastapi_apps_instances_share_the_requests(stage: Stage) -> None:
    await stage.programs["test_fastapi_http.py"]
    headers = {"Authorization": f"Bearer {await stage.api.generate_token()}"}

    answers = [await stage.json("GET", f"{FASTAPI}/api/status", headers=headers) for _ in range(60)]

    assert len({answer["instance_id"] for answer in answers}) == 4


# Integration with Other Hypha Features


@runs("Serverless Functions")
async def test_functions_start_with_the_first_request_and_scale_under_load(stage: Stage, title: str) -> None:
    info = (await stage.fragment(title))["app_info"]
    before = (await stage.witness.look())[FUNCTIONS]

    answer = await stage.json("POST", f"{FUNCTIONS}/process-data")
    answers = await asyncio.gather(*(stage.json("GET", f"{FUNCTIONS}/process-data") for _ in range(80)))

    assert (info["id"], before) == (FUNCTIONS, 0)
    assert has(answer, {"message": "Data processed", "path": "/process-data"})
    assert {each["message"] for each in answers} == {"Data processed"}
    await stage.runs_at_last(FUNCTIONS, 3)
    told_defaults = {
        "scale_up_threshold": 0.9, "scale_down_threshold": 0.3, "scale_up_cooldown": 300, "scale_down_cooldown": 600,
    }  # fmt: skip
    assert has(info["autoscaling"], told_defaults)


@runs("Lazy Loading")
async def test_a_sleeping_app_starts_when_its_service_is_asked_for(stage: Stage, title: str, app_source: str) -> None:
    await selected(stage, app_source)
    for instance in await stage.running(SCALABLE):
        await stage.controller.stop(instance["id"])
    await stage.runs_at_last(SCALABLE, 0)

    noted = await stage.fragment(title)

    assert noted["result"] == "processed test"
    assert (await stage.witness.look())[SCALABLE] >= 1


# Monitoring


async def awake(stage: Stage, app_source: str) -> Any:
    """An instance of the app of the fragments."""
    await selected(stage, app_source)
    service = await stage.api.get_service(f"default@{SCALABLE}")
    await service.who()
    return (await stage.running(SCALABLE))[0]


@runs("Application Logs")
async def test_logs_of_an_instance_tell_how_its_app_was_scaled(stage: Stage, title: str, app_source: str) -> None:
    stage.notebook["session_id"] = (await awake(stage, app_source))["id"]

    logs = (await stage.fragment(title))["logs"]

    scaling = [item["content"] for item in logs["items"] if item["type"] == "scaling"]
    assert any("no instance is ready" in line for line in scaling)


@runs("Running Instances")
async def test_running_instances_are_listed(
    stage: Stage, title: str, app_source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await awake(stage, app_source)
    stage.notebook["app_id"] = SCALABLE

    instances = (await stage.fragment(title))["instances"]

    assert capsys.readouterr().out == f"Currently running {len(instances)} instances\n"
    await stage.runs_at_last(SCALABLE, len(instances))


@on_stage
async def test_load_is_there_as_prometheus_metrics(stage: Stage, app_source: str) -> None:
    await awake(stage, app_source)

    metrics = await stage.metrics()

    assert metrics[f'dockscale_load{{app="{SCALABLE}"}}'] >= 1
    assert metrics[f'dockscale_load_target{{app="{SCALABLE}"}}'] == 100
    assert metrics[f'dockscale_instances{{app="{SCALABLE}",state="ready"}}'] >= 1
    assert metrics[f'dockscale_decisions_total{{app="{SCALABLE}",reason="wake"}}'] >= 1


# Troubleshooting


async def under_load(stage: Stage, name: str, calls: int, autoscaling: Mapping[str, Any]) -> Any:
    """An app after so many calls at once: the one instance that it still has."""
    config = {"name": name, "type": "window", "autoscaling": {"target_requests_per_instance": 5, **autoscaling}}
    info = await stage.controller.install(source=TOLD, config=config)
    service = await stage.api.get_service(f"default@{info['id']}")
    await asyncio.gather(*(service.who() for _ in range(calls)))
    [instance] = await stage.running(info["id"])
    return instance


async def held_back(stage: Stage, instance: Any, by: str) -> None:
    """Wait until the log tells of a decision that this held back."""
    async with asyncio.timeout(BOUND_S):
        while True:
            logs = await stage.controller.get_logs(instance["id"], type="scaling")
            if any(f"Held back by {by}." in item["content"] for item in logs["items"]):
                return
            await asyncio.sleep(0.3)


@on_stage
async def test_what_keeps_an_app_from_scaling_is_seen_where_the_document_says(stage: Stage) -> None:
    off, cooling, small = await asyncio.gather(
        under_load(stage, "Scaling off", 40, {"enabled": False}),
        under_load(stage, "In cooldown", 9, {"enabled": True}),
        under_load(stage, "Small", 40, {"enabled": True, "max_instances": 1}),
    )

    assert (await stage.controller.get_app_info(off["app_id"]))["autoscaling"]["enabled"] is False
    await held_back(stage, cooling, "scale_up_cooldown (300 s)")
    await held_back(stage, small, "max_instances (1)")
    await stage.witness.look()
    for instance in (off, cooling, small):
        assert instance["client_id"].endswith("__rlb")
        assert instance["load"] > 5
        assert max(stage.witness.counts(instance["app_id"])) == 1


# Complete Real-World Example: AI Model Serving


@runs("ai_model_server.py")
async def test_the_model_server_keeps_two_instances_and_scales_up_under_load(stage: Stage, title: str) -> None:
    ran = await stage.programs[title]

    assert (ran.status, ran.errors) == (0, "")
    assert ran.before[MODEL] == 0
    for line in ("deployed successfully", f"App ID: {MODEL}", "Prediction: AI prediction for: What is the weather"):
        assert line in ran.text
    for line in ("Batch size: 5", "Health: healthy", "Model loaded: True", "testing completed!"):
        assert line in ran.text
    assert ran.text.count("Completed 20 requests") == 5
    running = ran.told(r"Running instances: (\d+)")
    await stage.comes_true(running, MODEL)
    [(at, final)] = ran.told(r"Final result: (\d+) instances running")
    await stage.comes_true([(at, final)], MODEL)
    assert 2 < final <= 8
    model = await stage.api.get_service(f"default@{MODEL}")
    assert len({(await model.get_model_stats())["model_id"] for _ in range(40)}) > 2


# How It Works


@on_stage
async def test_instances_go_when_the_load_has_gone_and_the_minimum_stays(stage: Stage) -> None:
    """One goes by the first app's own cooldown, which the document shows. Then that is cut short, and the next goes."""
    await stage.programs["test_scaling.py"]
    await stage.runs_at_last(FIRST, 2, DOWN_BOUND_S)

    info = await stage.controller.edit_app(FIRST, autoscaling_config={"scale_down_cooldown": 1})
    await stage.runs_at_last(FIRST, 1, DOWN_BOUND_S)

    assert has(info["autoscaling"], {"scale_down_cooldown": 1, "min_instances": 1, "max_instances": 3})
    assert stage.witness.fewest_since(FIRST, 3) == 1


@on_stage
async def test_no_app_ever_has_more_instances_than_its_maximum_or_fewer_than_its_minimum(stage: Stage) -> None:
    await asyncio.wait(stage.programs.values())

    assert stage.witness.fewest_since(FASTAPI, 1) == 1
    assert stage.witness.fewest_since(MODEL, 2) == 2
    for app in await stage.controller.list_apps():
        most = app["autoscaling"]["max_instances"] if app["autoscaling"]["enabled"] else 1
        assert max(stage.witness.counts(app["id"]), default=0) <= most, app["id"]
