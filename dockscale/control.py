"""Every operator verb once, as plain values that the API, the command line and the dashboard show alike."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any, Self

from dockscale.core.app import App, Watcher
from dockscale.core.catalog import Invalid, describe
from dockscale.core.explain import explain
from dockscale.core.load import Load
from dockscale.core.policy import Decision
from dockscale.core.pool import Clock, Instance, State
from dockscale.registry import Registry

MOST_NEWS = 256
"""Decisions that are kept for a reader who is slow; then the oldest are dropped."""
LOOK_S = 1.0
"""How long a change that comes without a decision may stay unseen."""

News = tuple[str, dict[str, Any]]
"""What happened (`decision`, `state`, `removed` or `missed`), and the facts."""


class UnknownApp(LookupError):
    """No app has this id."""


class Watch:
    """Some apps as one reader sees them, as it happens. A context manager: afterwards no app knows of it.

    Nobody ever waits for the reader. Decisions that it has not taken are kept, `MOST_NEWS` at most; states are not.
    """

    def __init__(
        self,
        apps: Mapping[str, App],
        only: App | None,
        describe: Callable[[Decision, App], dict[str, Any]],
        clock: Clock,
    ) -> None:
        self.ended = False
        """No more news will come."""
        self._apps = apps
        self._only = only
        self._describe = describe
        self._clock = clock
        self._first: list[News] = []
        self._decided: deque[tuple[App, Decision]] = deque()
        self._missed = 0
        self._tells: dict[App, Watcher] = {}
        self._conditions: dict[App, dict[str, Any]] = {}
        self._looked_at = clock()
        self._stirred = asyncio.Event()

    def __enter__(self) -> Self:
        self._first = [*self._look()]
        self._stirred.set()
        return self

    def __exit__(self, *_: object) -> None:
        for app in list(self._tells):
            self._leave(app)

    async def news(self) -> list[News]:
        """Wait for news, `LOOK_S` at most, and return them in order. The first tell at once how things are."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._stirred.wait()
        self._stirred.clear()
        first, self._first = self._first, []
        return [*first, *self._take(), *self._look()]

    def end(self) -> None:
        """Let the reader go."""
        self.ended = True
        self._stirred.set()

    def _note(self, app: App, decision: Decision, repeats: bool) -> None:
        self._stirred.set()
        if repeats:
            return
        if len(self._decided) == MOST_NEWS:
            self._decided.popleft()
            self._missed += 1
        self._decided.append((app, decision))

    def _take(self) -> Iterator[News]:
        if self._missed:
            yield "missed", {"count": self._missed}
            self._missed = 0
        while self._decided:
            app, decision = self._decided.popleft()
            yield self._decision(app, decision)

    def _look(self) -> Iterator[News]:
        for app in [app for app in self._tells if self._apps.get(app.app_id) is not app]:
            self._leave(app)
            self.ended = self.ended or app is self._only
            yield "removed", {"app_id": app.app_id}
        if self.ended:
            return
        for app in self._apps.values() if self._only is None else (self._only,):
            if app not in self._tells:
                yield from self._join(app)
            condition = _condition(app)
            if condition != self._conditions.get(app):
                self._conditions[app] = condition
                yield "state", {"app_id": app.app_id} | condition
        self._looked_at = self._clock()

    def _join(self, app: App) -> Iterator[News]:
        """Watch an app from now on. The latest decision is news, and so are all since the last look, if it is new."""
        self._tells[app] = partial(self._note, app)
        app.watchers.add(self._tells[app])
        newest = len(app.journal) - 1
        for number, decision in enumerate(app.journal):
            if number == newest or decision.at >= self._looked_at:
                yield self._decision(app, decision)

    def _leave(self, app: App) -> None:
        app.watchers.discard(self._tells.pop(app))
        self._conditions.pop(app, None)

    def _decision(self, app: App, decision: Decision) -> News:
        return "decision", {"app_id": app.app_id} | self._describe(decision, app)


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
                "instances": [self._instance(instance, app) for instance in app.pool],
                "decisions": [self._decision(decision, app) for decision in reversed(app.journal)],
                "spec": app.spec.model_dump(mode="json"),
            }
        for refused in self._registry.invalid:
            if refused.app_id == app_id:
                return _refused(refused)
        raise UnknownApp(f"no app is called {app_id!r}; `dockscale ps` lists them all")

    def watch(self, app_id: str = "") -> Watch:
        """Follow one app until it is removed, or all that there are and will be.

        Raises:
            UnknownApp: no valid app has this id.
        """
        apps = self._registry.apps
        if app_id and app_id not in apps:
            raise UnknownApp(f"no valid app is called {app_id!r}; `dockscale ps` lists them all")
        return Watch(apps, apps.get(app_id), self._decision, self._clock)

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
            "rollout_failure": app.rollout_failure,
            "gauge_failure": app.gauge_failure,
            "decision": self._decision(app.decision, app) if app.decision else None,
        }

    def _url(self, url: str) -> str:
        if url.startswith("/"):
            return f"http://localhost:{self._port}{url}"
        host, slash, path = url.partition("/")
        return f"http://{host}:{self._port}{slash}{path}"

    def _instance(self, instance: Instance, app: App) -> dict[str, Any]:
        now = self._clock()
        return {
            "name": instance.name,
            "state": str(instance.state),
            "address": instance.client_id if app.spec.speaks_rpc else _address(instance),
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


def _address(instance: Instance) -> str:
    host, port = instance.address
    return f"{host}:{port}" if port else ""


def _inputs(load: Load) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(load).items()}


def _condition(app: App) -> dict[str, Any]:
    """What of an app changes without a decision."""
    counts = {str(state): count for state, count in app.pool.counts().items()}
    return {"state": _state(app), "instances_by_state": counts, "failure": app.failure}


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
