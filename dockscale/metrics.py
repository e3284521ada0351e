"""Prometheus metrics as text, read off the live objects at scrape time. Labels are the app and small enums only.

Written without the client library: for a thousand apps it would hold up all requests for more than a second.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import accumulate
from types import MappingProxyType

from dockscale import __version__
from dockscale.core.app import App, Histogram
from dockscale.core.pool import State
from dockscale.registry import Registry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
APPS_AT_ONCE = 20
"""Apps that are read before other work has its turn; they take about 2 ms."""

_NONE: Mapping[int, int] = MappingProxyType({})

FAMILIES = {
    "dockscale_build_info": ("gauge", "Version of dockscale."),
    "dockscale_engine_up": ("gauge", "1 while the container engine answers."),
    "dockscale_apps": ("gauge", "Apps that can be served."),
    "dockscale_apps_invalid": ("gauge", "Apps refused for their labels."),
    "dockscale_connections": ("gauge", "Clients that are connected."),
    "dockscale_refused_total": ("counter", "Answers to requests that reached no app."),
    "dockscale_hub_answers_total": ("counter", "Answers over HTTP to what is RPC."),
    "dockscale_instances": ("gauge", "Instances by state."),
    "dockscale_instances_max": ("gauge", "Instances that there may be."),
    "dockscale_instances_wanted": ("gauge", "Instances that there would be if nothing held the latest decision back."),
    "dockscale_instances_stale": ("gauge", "Instances of an earlier template that are still to be replaced."),
    "dockscale_in_flight": ("gauge", "Requests on instances now."),
    "dockscale_waiting": ("gauge", "Requests in the line now."),
    "dockscale_load": ("gauge", "Requests per minute and ready instance."),
    "dockscale_load_target": ("gauge", "Requests per minute that one should serve."),
    "dockscale_load_threshold": ("gauge", "Load above or below which the app is scaled."),
    "dockscale_concurrency": ("gauge", "In flight and waiting, averaged over 60 s."),
    "dockscale_app_gauge": ("gauge", "The app's own metric, per ready instance."),
    "dockscale_requests_total": ("counter", "Requests by status code."),
    "dockscale_decisions_total": ("counter", "Decisions by reason."),
    "dockscale_scale_events_total": ("counter", "Instances added or let go."),
    "dockscale_start_failures_total": ("counter", "Starts that failed."),
    "dockscale_instance_deaths_total": ("counter", "Instances that died by themselves."),
    "dockscale_instances_ejected_total": ("counter", "Instances that took no connections."),
    "dockscale_rpc_calls_total": ("counter", "RPC calls that ended on an instance."),
    "dockscale_request_duration_seconds": ("histogram", "From arrival to end."),
    "dockscale_queue_wait_seconds": ("histogram", "From arrival to a place."),
    "dockscale_cold_start_seconds": ("histogram", "From decision to ready."),
    "dockscale_standby_start_seconds": ("histogram", "From standby to ready."),
}
"""Name → type and help, in the order in which they are told."""


async def render(
    registry: Registry, refused: Mapping[int, int] = _NONE, answered: Mapping[int, int] = _NONE, connections: int = 0
) -> AsyncIterator[bytes]:
    """All metrics in Prometheus' text format, in pieces. All is read before the first piece is given.

    Other work has its turn in between: what is told of one app is of one moment, what is told of several is nearly so.
    `refused`: answers by status to requests that reached no app; `answered`: those that the hub gave; `connections`:
    clients that are connected.
    """
    page = _Page()
    _whole(page, registry)
    page.add("dockscale_connections", connections)
    for name, counts in (("dockscale_refused_total", refused), ("dockscale_hub_answers_total", answered)):
        for code, count in sorted(counts.items()):
            page.add(name, count, f'code="{code}"')
    for number, app in enumerate(list(registry.apps.values()), start=1):
        _app(page, app)
        if number % APPS_AT_ONCE == 0:
            await asyncio.sleep(0)
    for lines in page.families.values():
        await asyncio.sleep(0)
        yield "".join(lines).encode()


class _Page:
    """Samples as lines, kept by family: the format wants each family in one piece.

    Label values are written as they are: ids of apps, codes and enums have nothing in them that would need an escape.
    """

    def __init__(self) -> None:
        self.families = {
            name: [f"# HELP {name} {told}\n# TYPE {name} {kind}\n"] for name, (kind, told) in FAMILIES.items()
        }

    def add(self, name: str, value: float, labels: str = "") -> None:
        self.families[name].append(f"{name}{{{labels}}} {value}\n" if labels else f"{name} {value}\n")

    def add_histogram(self, name: str, seen: Histogram, labels: str) -> None:
        counts = list(accumulate(seen.buckets))
        lines = [
            f'{name}_bucket{{{labels},le="{bound}"}} {count}\n'
            for bound, count in zip((*seen.BOUNDS, "+Inf"), counts, strict=True)
        ]
        lines.append(f"{name}_sum{{{labels}}} {seen.sum}\n{name}_count{{{labels}}} {counts[-1]}\n")
        self.families[name].append("".join(lines))


def _whole(page: _Page, registry: Registry) -> None:
    page.add("dockscale_build_info", 1, f'version="{__version__}"')
    page.add("dockscale_engine_up", int(registry.engine_up))
    page.add("dockscale_apps", len(registry.apps))
    page.add("dockscale_apps_invalid", len(registry.invalid))


def _app(page: _Page, app: App) -> None:
    labels = f'app="{app.app_id}"'
    _instances(page, app, labels)
    _load(page, app, labels)
    _counters(page, app, labels)
    page.add_histogram("dockscale_request_duration_seconds", app.stats.duration, labels)
    page.add_histogram("dockscale_queue_wait_seconds", app.stats.queue_wait, labels)
    page.add_histogram("dockscale_cold_start_seconds", app.stats.cold_start, labels)
    page.add_histogram("dockscale_standby_start_seconds", app.stats.standby_start, labels)


def _instances(page: _Page, app: App, labels: str) -> None:
    counts = app.pool.counts()
    for state in State:
        page.add("dockscale_instances", counts[state], f'{labels},state="{state}"')
    page.add("dockscale_instances_max", app.spec.bounds[1], labels)
    page.add("dockscale_instances_wanted", app.decision.wanted if app.decision else 0, labels)


def _load(page: _Page, app: App, labels: str) -> None:
    now, scaling = app.load(), app.spec.autoscaling
    page.add("dockscale_instances_stale", now.stale, labels)
    page.add("dockscale_in_flight", now.in_flight, labels)
    page.add("dockscale_waiting", now.waiting, labels)
    page.add("dockscale_load", now.per_instance, labels)
    page.add("dockscale_load_target", scaling.target_requests_per_instance, labels)
    page.add("dockscale_load_threshold", scaling.up_line, f'{labels},direction="up"')
    page.add("dockscale_load_threshold", scaling.down_line, f'{labels},direction="down"')
    if scaling.target_concurrency is not None:
        page.add("dockscale_concurrency", now.concurrency, labels)
    if now.gauge is not None:
        page.add("dockscale_app_gauge", now.gauge, labels)


def _counters(page: _Page, app: App, labels: str) -> None:
    stats = app.stats
    for code, count in sorted(stats.requests.items()):
        page.add("dockscale_requests_total", count, f'{labels},code="{code}"')
    for reason, count in sorted(stats.decisions.items()):
        page.add("dockscale_decisions_total", count, f'{labels},reason="{reason}"')
    for direction in ("up", "down"):
        page.add("dockscale_scale_events_total", stats.scale_events[direction], f'{labels},direction="{direction}"')
    page.add("dockscale_start_failures_total", stats.start_failures, labels)
    page.add("dockscale_instance_deaths_total", stats.deaths, labels)
    page.add("dockscale_instances_ejected_total", stats.ejected, labels)
    page.add("dockscale_rpc_calls_total", stats.rpc_calls, labels)
