"""Prometheus metrics, read off the live objects at scrape time. Labels are the app and small enums only."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from types import MappingProxyType

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dockscale import __version__
from dockscale.core.app import App, Histogram
from dockscale.core.pool import State
from dockscale.registry import Registry

CONTENT_TYPE = CONTENT_TYPE_LATEST


_NONE: Mapping[int, int] = MappingProxyType({})


def render(
    registry: Registry, refused: Mapping[int, int] = _NONE, answered: Mapping[int, int] = _NONE, connections: int = 0
) -> bytes:
    """All metrics in Prometheus' text format.

    `refused`: answers by status to requests that reached no app; `answered`: those that the hub gave; `connections`:
    clients that are connected.
    """
    collectors = CollectorRegistry()
    collectors.register(_Collector(registry, refused, answered, connections))
    return generate_latest(collectors)


class _Collector(Collector):
    def __init__(
        self, registry: Registry, refused: Mapping[int, int], answered: Mapping[int, int], connections: int
    ) -> None:
        self._registry = registry
        self._refused = refused
        self._answered = answered
        self._connections = connections

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        apps = list(self._registry.apps.values())
        yield from _whole(self._registry)
        yield GaugeMetricFamily("dockscale_connections", "Clients that are connected.", self._connections)
        yield _by_code("dockscale_refused", "Answers to requests that reached no app.", self._refused)
        yield _by_code("dockscale_hub_answers", "Answers over HTTP to what is RPC.", self._answered)
        yield from _gauges(apps)
        yield from _counters(apps)
        yield from _histograms(apps)


def _whole(registry: Registry) -> Iterator[Metric]:
    build = GaugeMetricFamily("dockscale_build_info", "Version of dockscale.", labels=("version",))
    build.add_metric((__version__,), 1)
    yield build
    yield GaugeMetricFamily("dockscale_engine_up", "1 while the container engine answers.", float(registry.engine_up))
    yield GaugeMetricFamily("dockscale_apps", "Apps that can be served.", len(registry.apps))
    yield GaugeMetricFamily("dockscale_apps_invalid", "Apps refused for their labels.", len(registry.invalid))


def _by_code(name: str, help_: str, counts: Mapping[int, int]) -> Metric:
    family = CounterMetricFamily(name, help_, labels=("code",))
    for code, count in sorted(counts.items()):
        family.add_metric((str(code),), count)
    return family


def _gauges(apps: list[App]) -> Iterator[Metric]:
    instances = GaugeMetricFamily("dockscale_instances", "Instances by state.", labels=("app", "state"))
    in_flight = GaugeMetricFamily("dockscale_in_flight", "Requests on instances now.", labels=("app",))
    waiting = GaugeMetricFamily("dockscale_waiting", "Requests in the line now.", labels=("app",))
    load = GaugeMetricFamily("dockscale_load", "Requests per minute and ready instance.", labels=("app",))
    target = GaugeMetricFamily("dockscale_load_target", "Requests per minute that one should serve.", labels=("app",))
    crowd = GaugeMetricFamily("dockscale_concurrency", "In flight and waiting, averaged over 60 s.", labels=("app",))
    own = GaugeMetricFamily("dockscale_app_gauge", "The app's own metric, per ready instance.", labels=("app",))
    for app in apps:
        now, counts = app.load(), app.pool.counts()
        for state in State:
            instances.add_metric((app.app_id, state), counts[state])
        in_flight.add_metric((app.app_id,), now.in_flight)
        waiting.add_metric((app.app_id,), now.waiting)
        load.add_metric((app.app_id,), now.per_instance)
        target.add_metric((app.app_id,), app.spec.autoscaling.target_requests_per_instance)
        if app.spec.autoscaling.target_concurrency is not None:
            crowd.add_metric((app.app_id,), now.concurrency)
        if now.gauge is not None:
            own.add_metric((app.app_id,), now.gauge)
    yield from (instances, in_flight, waiting, load, target, crowd, own)


def _counters(apps: list[App]) -> Iterator[Metric]:
    requests = CounterMetricFamily("dockscale_requests", "Requests by status code.", labels=("app", "code"))
    decisions = CounterMetricFamily("dockscale_decisions", "Decisions by reason.", labels=("app", "reason"))
    scaled = CounterMetricFamily("dockscale_scale_events", "Instances added or let go.", labels=("app", "direction"))
    failures = CounterMetricFamily("dockscale_start_failures", "Starts that failed.", labels=("app",))
    deaths = CounterMetricFamily("dockscale_instance_deaths", "Instances that died by themselves.", labels=("app",))
    ejected = CounterMetricFamily("dockscale_instances_ejected", "Instances that took no connections.", labels=("app",))
    calls = CounterMetricFamily("dockscale_rpc_calls", "RPC calls that ended on an instance.", labels=("app",))
    for app in apps:
        for code, count in sorted(app.stats.requests.items()):
            requests.add_metric((app.app_id, str(code)), count)
        for reason, count in sorted(app.stats.decisions.items()):
            decisions.add_metric((app.app_id, reason), count)
        for direction in ("up", "down"):
            scaled.add_metric((app.app_id, direction), app.stats.scale_events[direction])
        failures.add_metric((app.app_id,), app.stats.start_failures)
        deaths.add_metric((app.app_id,), app.stats.deaths)
        ejected.add_metric((app.app_id,), app.stats.ejected)
        calls.add_metric((app.app_id,), app.stats.rpc_calls)
    yield from (requests, decisions, scaled, failures, deaths, ejected, calls)


def _histograms(apps: list[App]) -> Iterator[Metric]:
    duration = HistogramMetricFamily("dockscale_request_duration_seconds", "From arrival to end.", labels=("app",))
    wait = HistogramMetricFamily("dockscale_queue_wait_seconds", "From arrival to a place.", labels=("app",))
    start = HistogramMetricFamily("dockscale_cold_start_seconds", "From decision to ready.", labels=("app",))
    spare = HistogramMetricFamily("dockscale_standby_start_seconds", "From standby to ready.", labels=("app",))
    for app in apps:
        _add(duration, app, app.stats.duration)
        _add(wait, app, app.stats.queue_wait)
        _add(start, app, app.stats.cold_start)
        _add(spare, app, app.stats.standby_start)
    yield from (duration, wait, start, spare)


def _add(family: HistogramMetricFamily, app: App, histogram: Histogram) -> None:
    bounds = [*map(str, histogram.BOUNDS), "+Inf"]
    family.add_metric((app.app_id,), list(zip(bounds, accumulate(histogram.buckets), strict=True)), histogram.sum)
