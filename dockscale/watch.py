"""Apps as one reader sees them, as it happens."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, Self

from dockscale.core.app import App, Watcher
from dockscale.core.policy import Decision
from dockscale.core.pool import Clock, State

MOST_NEWS = 256
"""Decisions that are kept for a reader who is slow; then the oldest are dropped."""
LOOK_S = 1.0
"""How long a change that comes without a decision may stay unseen."""

News = tuple[str, dict[str, Any]]
"""What happened (`decision`, `state`, `removed`, `missed` or the name of a view), and the facts."""
Views = Mapping[str, Callable[[App], dict[str, Any]]]
"""What else changes of an app without a decision: each is told when it is another than it was."""


class Watch:
    """Some apps as one reader sees them, as it happens. A context manager: afterwards no app knows of it.

    Nobody ever waits for the reader. Decisions that it has not taken are kept, `MOST_NEWS` at most; states are not.
    """

    def __init__(
        self,
        apps: Mapping[str, App],
        only: App | None,
        describe: Callable[[Decision, App], dict[str, Any]],
        views: Views,
        clock: Clock,
    ) -> None:
        self.ended = False
        """No more news will come."""
        self._apps = apps
        self._only = only
        self._describe = describe
        self._views = views
        self._clock = clock
        self._first: list[News] = []
        self._decided: deque[tuple[App, Decision]] = deque()
        self._missed = 0
        self._tells: dict[App, Watcher] = {}
        self._seen: dict[App, dict[str, dict[str, Any]]] = {}
        """What of each app was told last, by the name of the news."""
        self._looked_at = clock()
        self._view_from = -inf
        """Views are taken from then on. They change with each request, and cost more than states."""
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
        now = self._clock()
        views = {**(self._views if now >= self._view_from else {}), "state": _condition}
        if len(views) > 1:
            self._view_from = now + LOOK_S
        for app in self._apps.values() if self._only is None else (self._only,):
            if app not in self._tells:
                yield from self._join(app)
            seen = self._seen.setdefault(app, {})
            for name, view in views.items():
                facts = view(app)
                if facts != seen.get(name):
                    seen[name] = facts
                    yield name, {"app_id": app.app_id} | facts
        self._looked_at = now

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
        self._seen.pop(app, None)

    def _decision(self, app: App, decision: Decision) -> News:
        return "decision", {"app_id": app.app_id} | self._describe(decision, app)


def _condition(app: App) -> dict[str, Any]:
    """What of an app changes without a decision."""
    counts = {str(state): count for state, count in app.pool.counts().items()}
    return {"state": state_of(app), "instances_by_state": counts, "failure": app.failure}


def state_of(app: App) -> str:
    counts = app.pool.counts()
    if counts[State.READY]:
        return "ready"
    if counts[State.STARTING]:
        return "starting"
    return "failing" if app.failure else "asleep"
