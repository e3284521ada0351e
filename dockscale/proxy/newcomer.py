"""A request at an address that nobody has, while a listing is due that may tell of somebody: it waits for that."""

from collections.abc import Callable

from dockscale.proxy.listener import Client
from dockscale.registry import LISTED_S, Registry


class Newcomer:
    """Calls `go_on` as soon as the address is known, or no listing is due any more, or `LISTED_S` have passed."""

    __slots__ = ("_client", "_go_on", "_is_known", "_registry", "_timer")

    def __init__(
        self, client: Client, registry: Registry, is_known: Callable[[], bool], go_on: Callable[[], None]
    ) -> None:
        self._client = client
        self._registry = registry
        self._is_known = is_known
        self._go_on = go_on
        self._timer = client.loop.call_later(LISTED_S, self._end)
        registry.told.add(self._look)
        client.occupation = self

    def _look(self) -> None:
        if self._is_known() or not self._registry.is_due:
            self._end()

    def _end(self) -> None:
        self.abandon()
        self._client.occupation = None
        self._go_on()

    def abandon(self) -> None:
        """Wait no longer."""
        self._timer.cancel()
        self._registry.told.discard(self._look)
