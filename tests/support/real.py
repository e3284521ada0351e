"""A real Docker engine in tests: makes what is labelled for one test, and witnesses what the daemon really did."""

import asyncio
import io
from collections.abc import Callable, Mapping
from typing import Any

import docker
from docker.models.containers import Container as Box

from tests.support.world import ENABLED

PROBE = "dockscale-probe:test"
HELLO = "dockscale-hello:local"


class Real:
    def __init__(self, client: docker.DockerClient, label: str) -> None:
        self.client = client
        self.label = label

    @property
    def labels(self) -> dict[str, str]:
        name, _, value = self.label.partition("=")
        return {name: value}

    def create(self, name: str, labels: Mapping[str, str] | None = None, image: str = PROBE, **more: Any) -> Box:
        """Create (not start) a container that carries the test's label."""
        return self.client.containers.create(
            image, name=self.named(name), labels={**ENABLED, **self.labels, **(labels or {})}, **more
        )

    def build(
        self, name: str, labels: Mapping[str, str], base: str = PROBE, environment: Mapping[str, str] | None = None
    ) -> str:
        """Build an image that carries the test's label; its name is returned."""
        lines = [f"FROM {base}", *(f"ENV {key}={value}" for key, value in (environment or {}).items())]
        lines += [f"LABEL {key}={value!r}" for key, value in {**ENABLED, **self.labels, **labels}.items()]
        tag = self.named(name)
        self.client.images.build(fileobj=io.BytesIO("\n".join(lines).encode()), tag=tag, rm=True)
        return tag

    def named(self, name: str) -> str:
        """A name that no other test has."""
        return f"{name}-{self.label[-6:]}"

    def containers(self) -> list[Box]:
        found: list[Box] = self.client.containers.list(all=True, filters={"label": self.label}, ignore_removed=True)
        return found

    def running(self) -> list[str]:
        return sorted(str(box.name) for box in self.containers() if box.status == "running")

    def clean(self) -> None:
        sweep(self.client, self.label)
        for network in self.client.networks.list(filters={"label": self.label}):
            network.remove()
        for image in self.client.images.list(filters={"label": self.label}):
            self.client.images.remove(str(image.id), force=True)
        self.client.close()


def sweep(client: docker.DockerClient, label: str) -> None:
    """Remove every container with this label, those that somebody else is removing included."""
    for box in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
        try:
            box.remove(force=True, v=True)
        except docker.errors.APIError as error:
            if error.status_code not in (404, 409):
                raise


async def in_thread(call: Callable[[], Any]) -> Any:
    """The docker SDK waits; the proxy must go on meanwhile."""
    return await asyncio.to_thread(call)
