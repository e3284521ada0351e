"""What Prometheus reads, through its own parser."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from dockscale.core.load import BURST_S
from dockscale.engine.memory import Program
from dockscale.metrics import APPS_AT_ONCE, CONTENT_TYPE, FAMILIES, render
from tests.support.backend import backend
from tests.support.world import ENABLED, World, eject, prefixed, until, world

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

NAMES = {
    "dockscale_requests_total", "dockscale_decisions_total", "dockscale_scale_events_total",
    "dockscale_start_failures_total", "dockscale_instance_deaths_total", "dockscale_instances_ejected_total",
    "dockscale_rpc_calls_total",
    "dockscale_instances", "dockscale_instances_max", "dockscale_instances_wanted", "dockscale_instances_stale",
    "dockscale_in_flight", "dockscale_waiting", "dockscale_load", "dockscale_load_target", "dockscale_load_threshold",
    "dockscale_engine_up", "dockscale_connections", "dockscale_refused_total", "dockscale_apps",
    "dockscale_apps_invalid", "dockscale_build_info",
    *(
        f"dockscale_{what}_seconds_{part}"
        for what in ("request_duration", "queue_wait", "cold_start", "standby_start")
        for part in ("bucket", "count", "sum")
    ),
}  # fmt: skip
NOT_OF_EVERY_APP = {"dockscale_concurrency", "dockscale_app_gauge", "dockscale_hub_answers_total"}


PAGE = Path(__file__).parent.parent / "docs" / "metrics.md"


async def scraped(it: World) -> Samples:
    async with it.session.get(it.admin + "/metrics") as answer:
        assert (answer.status, answer.headers["Content-Type"]) == (200, CONTENT_TYPE)
        return read(await answer.text())


def read(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"dockscale_{name}", tuple(sorted({"app": "web", **labels}.items()))]


def buckets(samples: Samples, name: str) -> Iterator[tuple[float, float]]:
    for (sample, labels), count in samples.items():
        if sample == f"dockscale_{name}_bucket":
            yield float(dict(labels)["le"]), count


async def test_the_promised_names_are_there_and_labels_are_few() -> None:
    async with world() as it:
        await it.get()
        await it.get(app_id="nobody")

        samples = await scraped(it)

    assert {name for name, _ in samples} == NAMES
    assert samples["dockscale_refused_total", (("code", "404"),)] == 1
    assert samples["dockscale_connections", ()] == 1
    labels = {label for _, pairs in samples for label, _ in pairs}
    assert labels == {"app", "code", "state", "reason", "direction", "le", "version"}


def test_the_page_about_metrics_names_them_all() -> None:
    told = set(re.findall(r"^\| `(dockscale_\w+)`", PAGE.read_text(), re.MULTILINE))

    assert told == NOT_OF_EVERY_APP | {re.sub(r"_(bucket|count|sum)$", "", name) for name in NAMES} == set(FAMILIES)


async def test_what_an_app_is_scaled_by_besides_requests_is_told_where_it_is_known() -> None:
    async with world({"autoscaling.target_concurrency": "5"}) as it:
        it.app().gauge = 7.5
        slow = asyncio.create_task(it.get("/slow?s=0.2"))
        await until(lambda: it.app().pool.in_flight)

        samples = await scraped(it)
        await slow

    assert value(samples, "concurrency") > 0
    assert value(samples, "app_gauge") == 7.5


async def test_requests_are_counted_by_the_code_that_the_client_got() -> None:
    async with world() as it:
        await it.get()
        await it.get()
        await it.get("/status?code=404")
        await it.get("/hang-up")

        samples = await scraped(it)

    codes = {dict(labels)["code"]: count for (name, labels), count in samples.items() if "requests_total" in name}
    assert codes == {"200": 2, "404": 1, "502": 1}


async def test_gauges_show_the_moment() -> None:
    async with world({"autoscaling.target_requests_per_instance": "50"}) as it:
        await it.get()
        awake = await scraped(it)
        it.engine.add_image("shop", Program(backend), ENABLED | prefixed({"port": "no"}))
        await it.settled()
        samples = await scraped(it)

    assert value(awake, "instances", state="ready") == 1
    assert value(awake, "instances", state="starting") == 0
    assert value(awake, "load") == 1
    assert value(awake, "load_target") == 50
    assert value(awake, "load_threshold", direction="up") == 45
    assert value(awake, "load_threshold", direction="down") == 15
    assert value(awake, "in_flight") == value(awake, "waiting") == 0
    assert samples["dockscale_engine_up", ()] == 1
    assert (samples["dockscale_apps", ()], samples["dockscale_apps_invalid", ()]) == (1, 1)


async def test_a_wake_is_one_cold_start_and_its_numbers_agree() -> None:
    async with world(program=Program(backend, boot_s=0.03)) as it:
        await it.get()
        await it.get()

        samples = await scraped(it)

    for name, count in (("cold_start_seconds", 1), ("queue_wait_seconds", 2), ("request_duration_seconds", 2)):
        counts = [count for _, count in sorted(buckets(samples, name))]
        assert counts == sorted(counts), "buckets add up"
        assert counts[-1] == value(samples, f"{name}_count") == count
    start = value(samples, "cold_start_seconds_sum")
    assert 0.03 <= start <= value(samples, "request_duration_seconds_sum")
    assert all((count == 1) == (start <= bound) for bound, count in buckets(samples, "cold_start_seconds"))
    assert value(samples, "decisions_total", reason="wake") >= 1
    assert value(samples, "scale_events_total", direction="up") == 1
    assert value(samples, "scale_events_total", direction="down") == 0


async def test_how_many_are_wanted_is_told_beside_how_many_there_may_be() -> None:
    labels = {"autoscaling.max_instances": "2", "autoscaling.target_requests_per_instance": "10"}
    async with world(labels) as it:
        await it.get()
        await asyncio.gather(*(it.get() for _ in range(40)))
        it.clock.advance(BURST_S + 1)
        it.tick()

        samples = await scraped(it)

    assert value(samples, "instances_max") == 2
    assert value(samples, "instances_wanted") == 5  # 41 requests, of which each is to have 9 at most


async def test_those_of_an_earlier_template_are_told_until_they_are_replaced() -> None:
    async with world() as it:
        await it.get()
        gate = asyncio.Event()
        it.engine.add_image("web", Program(backend, gate=gate), ENABLED)
        await until(lambda: it.states() == {"ready": 1, "starting": 1})
        during = await scraped(it)
        gate.set()
        await until(lambda: it.states() == {"ready": 1})
        after = await scraped(it)

    assert (value(during, "instances_stale"), value(after, "instances_stale")) == (1, 0)


async def test_failures_and_deaths_are_counted_apart() -> None:
    async with world() as it:
        await it.get()
        [instance] = it.app().pool
        await it.engine.crash(instance.container_id)
        await until(lambda: it.app().stats.deaths == 1)
        dead = await scraped(it)
    async with world(program=Program(backend, exits="no")) as it:
        await it.get()
        failed = await scraped(it)

    assert (value(dead, "instance_deaths_total"), value(dead, "start_failures_total")) == (1, 0)
    assert (value(failed, "instance_deaths_total"), value(failed, "start_failures_total")) == (0, 1)


async def test_ejections_are_counted() -> None:
    async with world({"lazy": "false", "autoscaling.min_instances": "2"}) as it:
        await until(lambda: it.ready() == 2)
        eject(it)
        await until(lambda: it.ready() == 2)

        samples = await scraped(it)

    assert (value(samples, "instances_ejected_total"), value(samples, "instance_deaths_total")) == (1, 0)


async def test_without_apps_the_whole_still_reads_well() -> None:
    async with world() as it:
        it.engine.remove_image("web")
        await it.settled()

        samples = await scraped(it)

    assert samples["dockscale_apps", ()] == 0


async def test_while_many_apps_are_told_others_have_their_turn() -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with world() as it:
        for number in range(3 * APPS_AT_ONCE):
            it.engine.add_image(f"app-{number}", Program(backend), ENABLED)
        await it.settled()
        other = asyncio.create_task(count_turns())

        text = b"".join([piece async for piece in render(it.dockscale.registry)]).decode()
        other.cancel()

    assert turns >= 3
    assert {dict(labels).get("app") for _, labels in read(text)} >= {
        f"app-{number}" for number in range(3 * APPS_AT_ONCE)
    }
