"""Checks of one host, one line each: what is fine, what is not, and what to do about it."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import docker
import requests

from dockscale.config import Settings

API_AT_LEAST = (1, 41)


@dataclass(frozen=True, slots=True)
class Finding:
    good: bool
    text: str
    advice: str = ""


def examine(settings: Settings, server: dict[str, object] | None, why_not: str) -> Iterator[Finding]:
    """Look at the engine and the ports. `server`: the status of a running dockscale, else `why_not` says why none."""
    try:
        client = docker.DockerClient(base_url=settings.engine) if settings.engine else docker.from_env()
        with closing(client):
            yield from _engine(client)
            yield from _labelled(client, ["dockscale.enable", *([settings.only] if settings.only else [])])
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        advice = "start it, or say where it is in DOCKSCALE_ENGINE or DOCKER_HOST; may you read its socket?"
        yield Finding(False, f"no container engine answers: {error}", advice)
    yield from _server(settings, server, why_not)


def _engine(client: docker.DockerClient) -> Iterator[Finding]:
    version = client.version()
    api = str(version["ApiVersion"])
    text = f"engine {version['Version']} answers (API {api})"
    if tuple(int(part) for part in api.split(".")) >= API_AT_LEAST:
        yield Finding(True, text)
    else:
        yield Finding(False, text, "dockscale needs API 1.41 (Docker 20.10) or newer")


def _labelled(client: docker.DockerClient, labels: list[str]) -> Iterator[Finding]:
    containers = client.api.containers(all=True, filters={"label": labels})
    images = client.api.images(filters={"label": labels, "dangling": False})
    if not containers and not images:
        yield Finding(False, "no container or image is labelled", "add the label dockscale.enable=true to one")
        return
    yield Finding(True, f"{len(containers)} labelled containers, {len(images)} labelled images")
    for container in containers:
        for name, network in (container["NetworkSettings"]["Networks"] or {}).items():
            if container["State"] == "running" and network["IPAddress"]:
                yield _reachable(container["Names"][0].removeprefix("/"), name, network["IPAddress"])


def _reachable(container: str, network: str, address: str) -> Finding:
    """A refused connection shows that the way there is open; silence or no route that it is not."""
    try:
        socket.create_connection((address, 9), timeout=1.0).close()
    except ConnectionRefusedError:
        pass
    except OSError as error:
        advice = "run dockscale where the containers' networks are reachable: as a container with host networking"
        return Finding(False, f"{container} cannot be reached at {address} on network {network}: {error}", advice)
    return Finding(True, f"{container} can be reached at {address} on network {network}")


def _server(settings: Settings, server: dict[str, object] | None, why_not: str) -> Iterator[Finding]:
    if server is not None:
        yield Finding(True, f"dockscale runs: {server['apps']} apps, {server['instances']} instances")
        if server["invalid"]:
            yield Finding(False, f"{server['invalid']} refused for their labels", "`dockscale ps` says why")
        if not server["engine_up"]:
            yield Finding(False, "dockscale has lost the engine", "see its log; it reconnects by itself")
        return
    yield Finding(False, why_not, "run `dockscale serve`, or say where it is in DOCKSCALE_ADMIN_PORT")
    for setting, host, port in (
        ("DOCKSCALE_PORT", settings.host, settings.port),
        ("DOCKSCALE_ADMIN_PORT", settings.admin_host, settings.admin_port),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                yield Finding(False, f"port {port} is not free: {error.strerror}", f"free it, or set {setting}")
