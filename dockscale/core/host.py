"""What all apps together may take of this host, who has how much of it, and who gives way when it is short."""

from collections.abc import Iterable

from dockscale.core.app import App
from dockscale.core.load import UNBOUNDED
from dockscale.core.pool import Instance, State


class Host:
    """The instances of all apps against one budget. Every one counts from when it was decided on until it is gone.

    `max_instances` and `memory` (bytes, the sum of the containers' limits) are bounds; 0 means none.
    """

    def __init__(self, max_instances: int = 0, memory: int = 0) -> None:
        self._max_instances = max_instances
        self._memory = memory
        self._held: dict[Instance, App] = {}
        self._used = 0

    def take(self, app: App, instance: Instance) -> None:
        """Count an instance."""
        self._held[instance] = app
        self._used += instance.memory

    def give_back(self, instance: Instance) -> None:
        """Count an instance no more."""
        if self._held.pop(instance, None) is not None:
            self._used -= instance.memory

    def room(self, memory: int) -> int:
        """How many more instances of `memory` bytes each there may be."""
        return self._room(len(self._held), self._used, memory)

    def give_way(self, app: App, missing: int) -> list[tuple[App, Instance]]:
        """Choose who ends so that `app` can have `missing` more instances, as far as that can be had.

        Spares of other apps go first, those of the least important app before others; then instances that serve nobody,
        of apps that are less important than this one. What is leaving already counts as gone. Nobody ends in vain.
        """
        leaving = [instance for instance in self._held if instance.state is State.DRAINING]
        count = len(self._held) - len(leaving)
        used = self._used - sum(instance.memory for instance in leaving)
        chosen = []
        for owner, instance in self._expendable(app):
            if self._room(count, used, app.template.memory) >= missing:
                break
            chosen.append((owner, instance))
            count, used = count - 1, used - instance.memory
        enough = min(missing, self._room(count, used, app.template.memory))
        for owner, instance in reversed(list(chosen)):
            if self._room(count + 1, used + instance.memory, app.template.memory) >= enough:
                chosen.remove((owner, instance))
                count, used = count + 1, used + instance.memory
        return chosen

    def _expendable(self, app: App) -> Iterable[tuple[App, Instance]]:
        others = [(owner, instance) for instance, owner in self._held.items() if owner is not app]
        others.sort(key=lambda each: each[0].spec.priority)
        for owner, instance in others:
            if instance.spare and instance.state is not State.DRAINING:
                yield owner, instance
        for owner, instance in others:
            less_important = owner.spec.priority < app.spec.priority
            idle = instance.state is State.READY and not (instance.in_flight or owner.pool.waiting or instance.pinned)
            if less_important and idle and not instance.spare:
                yield owner, instance

    def _room(self, count: int, used: int, memory: int) -> int:
        by_count = self._max_instances - count if self._max_instances else UNBOUNDED
        by_memory = (self._memory - used) // memory if self._memory and memory else UNBOUNDED
        return max(0, min(by_count, by_memory))

    def __repr__(self) -> str:
        return f"<Host instances={len(self._held)} memory={self._used}>"
