"""Every operator verb once, as plain values that the API, the command line and the dashboard show alike."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from dockscale.core.app import App
from dockscale.core.catalog import Invalid, describe
from dockscale.core.explain import explain
from dockscale.core.load import Load
from dockscale.core.policy import Decision
from dockscale.core.pool import Clock, Instance, State
from dockscale.registry import Registry


class UnknownApp(LookupError):
    """No app has this id."""


class Control:
    def __init__(self, registry: Registry, clock: Clock, main_port: int) -> None:
        self._registry = registry
        self._clock = clock
        self._port = main_port
        self._epoch = time.time() - clock()
        """Unix time at the clock's zero. Asked once: a decision keeps its time when the machine's is set."""

    def status(self) -> dict[str, Any]:
        """The whole: is the engine there, and how many apps are."""
        registry = self._registry
        return {
            "engine_up": registry.engine_up,
            "apps": len(registry.apps),
            "invalid": len(registry.invalid),
            "instances": sum(len(app.pool.instances) for app in registry.apps.values()),
        }

    def list(self) -> "list[dict[str, Any]]":
        """Every app in short, invalid ones included."""
        apps = [self._short(app) for app in self._registry.apps.values()]
        return sorted(apps + [_refused(each) for each in self._registry.invalid], key=lambda app: str(app["app_id"]))

    def explain(self, app_id: str) -> dict[str, Any]:
        """One app in full: instances, load, settings and the latest decisions with their reasons.

        Raises:
            UnknownApp: no app, valid or not, has this id.
        """
        app = self._registry.apps.get(app_id)
        if app is not None:
            return self._short(app) | {
                "instances": [self._instance(instance) for instance in app.pool],
                "decisions": [self._decision(decision, app) for decision in reversed(app.journal)],
                "spec": app.spec.model_dump(mode="json"),
            }
        for refused in self._registry.invalid:
            if refused.app_id == app_id:
                return _refused(refused)
        raise UnknownApp(f"no app is called {app_id!r}; `dockscale ps` lists them all")

    def _short(self, app: App) -> dict[str, Any]:
        load, scaling = app.load(), app.spec.autoscaling
        counts = app.pool.counts()
        return {
            "app_id": app.app_id,
            "workspace": app.spec.workspace,
            "name": app.spec.name or app.app_id,
            "state": _state(app),
            "template": describe(app.template),
            "urls": [self._url(url) for url in self._registry.routes.urls(app.spec)],
            "instances_by_state": {str(state): counts[state] for state in State},
            "bounds": list(app.spec.bounds),
            "load": {
                "requests_per_minute": load.requests,
                "per_instance": load.per_instance,
                "target": scaling.target_requests_per_instance,
                "scale_up_above": scaling.up_line,
                "scale_down_below": scaling.down_line,
                "in_flight": load.in_flight,
                "waiting": load.waiting,
                "idle_s": round(load.idle_s, 1),
            },
            "failure": app.failure,
            "decision": self._decision(app.decision, app) if app.decision else None,
        }

    def _url(self, url: str) -> str:
        if url.startswith("/"):
            return f"http://localhost:{self._port}{url}"
        host, slash, path = url.partition("/")
        return f"http://{host}:{self._port}{slash}{path}"

    def _instance(self, instance: Instance) -> dict[str, Any]:
        now = self._clock()
        return {
            "name": instance.name,
            "state": str(instance.state),
            "address": f"{instance.address[0]}:{instance.address[1]}" if instance.address[1] else "",
            "container_id": instance.container_id[:12],
            "managed": instance.managed,
            "in_flight": instance.in_flight,
            "requests_per_minute": instance.per_minute(now),
            "age_s": round(now - instance.started_at, 1),
            "why": instance.why,
        }

    def _decision(self, decision: Decision, app: App) -> dict[str, Any]:
        return {
            "at": datetime.fromtimestamp(self._epoch + decision.at, UTC).isoformat(timespec="microseconds"),
            "ago_s": round(self._clock() - decision.at, 1),
            "before": decision.load.have,
            "wanted": decision.wanted,
            "instances": decision.instances,
            "reason": str(decision.reason),
            "held_by": [str(held) for held in decision.held_by],
            "gone": list(decision.gone),
            "load": _inputs(decision.load),
            "explanation": explain(decision, app.spec),
        }


def _inputs(load: Load) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(load).items()}


def _state(app: App) -> str:
    counts = app.pool.counts()
    if counts[State.READY]:
        return "ready"
    if counts[State.STARTING]:
        return "starting"
    return "failing" if app.failure else "asleep"


def _refused(refused: Invalid) -> dict[str, Any]:
    return {
        "app_id": refused.app_id,
        "state": "invalid",
        "template": refused.source,
        "problems": list(refused.problems),
    }
