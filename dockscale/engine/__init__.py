"""A container engine as dockscale sees it: twenty verbs and the ways they fail."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from dockscale.core.catalog import Container, Image, Listing, Template


class EngineError(Exception):
    """The engine said no, and why."""


class EngineAway(EngineError):
    """The engine cannot be reached, or did not answer in time."""


class NotFound(EngineError):
    """There is no such container or image (any more)."""


class Event(StrEnum):
    RESYNC = "resync"
    """The connection stands (again); anything may have changed."""
    CHANGED = "changed"
    """Something with a dockscale label changed."""
    ENDED = "ended"
    """Something with a dockscale label ended, was removed, or lost its network."""
    AWAY = "away"
    """The connection is lost; it will be tried again until it stands."""


class Engine(Protocol):
    """Runs containers. Every verb may raise `EngineError`; those on a container raise `NotFound` when it is gone."""

    async def list(self) -> Listing:
        """List every container and image with a dockscale label."""

    async def inspect(self, container_id: str) -> Container:
        """Look at one container."""

    async def clone(self, template: Template, name: str, labels: Mapping[str, str], env: Mapping[str, str]) -> str:
        """Create (not start) a copy of `template`, `labels` and `env` on top of its own, and return the copy's id.

        A copy has the template's image, command, environment, mounts, networks, limits, user and health check; not its
        published ports, fixed name, address or host name, restart policy, or compose's labels.
        """

    async def start(self, container_id: str) -> None:
        """Start a container; one that runs already is left as it is."""

    async def stop(self, container_id: str, timeout: float) -> None:
        """Ask a container to end, and kill it after `timeout` seconds."""

    async def pause(self, container_id: str) -> None:
        """Freeze a running container; its memory and addresses stay. One that is paused already is left as it is."""

    async def unpause(self, container_id: str) -> None:
        """Let a paused container run on; one that runs is left as it is."""

    async def remove(self, container_id: str) -> None:
        """Kill and remove a container with its anonymous volumes; one that is gone already is fine."""

    async def logs(self, container_id: str, tail: int) -> tuple[str, ...]:
        """Return the last `tail` lines that a container wrote."""

    def follow(self, container_id: str, tail: int) -> AsyncGenerator[str, None]:
        """Tell the last `tail` lines that a container wrote, and then each as it is written, until it ends."""

    async def find_image(self, name: str) -> Image:
        """Look at an image, labelled or not.

        Raises:
            NotFound: it is not here. It may be in a registry.
        """

    async def pull(self, name: str) -> None:
        """Fetch an image from its registry, however long it takes."""

    async def build(self, base: Image, name: str, labels: Mapping[str, str]) -> None:
        """Make an image that is `base` with more labels, and give it a name, which any other image loses.

        An engine that sees only what has a certain label adds that one.
        """

    async def make(
        self,
        recipe: str,
        files: Mapping[str, bytes],
        *,
        name: str = "",
        labels: Mapping[str, str],
        args: Mapping[str, str],
    ) -> Image:
        """Make an image by a Dockerfile, `args` for its ARGs, and files that it may copy; it takes as long as it takes.

        Without a name it is never listed: `tag` it, or `prune` it. With one, it gets no label that is not given.

        Raises:
            EngineError: a step failed. Its last lines are told.
        """

    async def tag(self, image: Image, name: str) -> None:
        """Give an image a name, which any other image loses."""

    async def untag(self, name: str) -> None:
        """Take the name from an image, which is removed unless containers run that were made from it."""

    async def prune(self, labels: Sequence[str]) -> None:
        """Remove the images without a name that nothing was made from and that have all labels: `name[=value]`."""

    async def gateway(self) -> str:
        """Return the IPv4 address by which copies of images reach the machine that the engine is on."""

    def events(self) -> AsyncIterator[Event]:
        """Tell of changes for ever, beginning with `RESYNC`. Broken connections are made anew here."""

    async def close(self) -> None:
        """Let go of the engine. Containers run on."""
