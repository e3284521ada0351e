"""Checks of one host, one line each: what is fine, what is not, and what to do about it."""

import errno
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import docker
import requests

from dockscale.certificate import BadCertificate, open_certificate
from dockscale.config import Settings
from dockscale.core.spec import ENABLE, MANAGED, OWN_LABELS, PREFIX, SpecError, enabled, parse

API_AT_LEAST = (1, 41)
SKEW_S = 2.0
"""Clocks that differ by less are the same."""
RENEW_DAYS = 14
"""What renews certificates by itself does so a month before they end: later, it does not work."""


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
            yield _clock(client.info()["SystemTime"], time.time())
            yield from _network(client, settings.network)
            only = [settings.only] if settings.only else []
            yield from _labelled(client, [ENABLE, *only])
            yield from _misread(client, only)
    except (docker.errors.DockerException, requests.RequestException, OSError, ValueError) as error:
        yield Finding(False, f"no container engine answers: {error}", _way_to_engine(str(error)))
    yield from _certificate(settings)
    yield from _server(settings, server, why_not)


def _engine(client: docker.DockerClient) -> Iterator[Finding]:
    version = client.version()
    api = str(version["ApiVersion"])
    text = f"engine {version['Version']} answers (API {api})"
    if tuple(int(part) for part in api.split(".")) >= API_AT_LEAST:
        yield Finding(True, text)
    else:
        yield Finding(False, text, "dockscale needs API 1.41 (Docker 20.10) or newer")


def _way_to_engine(error: str) -> str:
    if "Permission denied" in error:
        return (
            "you may not use its socket: run as root, or join its group (`sudo usermod -aG docker $USER`, log in anew)"
        )
    return "start it, or say where it is in DOCKSCALE_ENGINE or DOCKER_HOST"


def _clock(engines: str, now: float) -> Finding:
    """Compare the engine's clock (ISO 8601) with this host's."""
    ahead = datetime.fromisoformat(engines).timestamp() - now
    if abs(ahead) < SKEW_S:
        return Finding(True, "the clocks of the engine and this host agree")
    told = f"the engine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this host's"
    return Finding(False, told, "set both by the same time server: cooldowns and listings go by them")


def _certificate(settings: Settings) -> Iterator[Finding]:
    try:
        certificate = open_certificate(settings.tls_certificate, settings.tls_key)
    except BadCertificate as error:
        yield Finding(False, "the main port has no certificate to show", str(error))
        return
    if certificate is not None:
        days = (certificate.expires - datetime.now(UTC)).days
        text = f"the certificate is for {', '.join(certificate.names) or 'no name'}, and good for {days} days"
        advice = "" if days >= RENEW_DAYS else "renew it: dockscale takes new files by itself"
        if not certificate.names:
            advice = "make one with its names in subjectAltName: clients look nowhere else"
        yield Finding(not advice, text, advice)


def _network(client: docker.DockerClient, name: str) -> Iterator[Finding]:
    if name and name not in [network.name for network in client.networks.list()]:
        advice = f"`docker network create {name}`, or set DOCKSCALE_NETWORK to one that is"
        yield Finding(False, f"there is no network {name}", advice)


def _labelled(client: docker.DockerClient, labels: list[str]) -> Iterator[Finding]:
    containers = client.api.containers(all=True, filters={"label": labels})
    images = client.api.images(filters={"label": labels, "dangling": False})
    if not containers and not images:
        needed = " and ".join((f"{ENABLE}=true", *labels[1:]))
        yield Finding(False, f"no container or image is labelled with {needed}", "add this to one")
        return
    yield Finding(True, f"{len(containers)} labelled containers, {len(images)} labelled images")
    for container in containers:
        for name, network in (container["NetworkSettings"]["Networks"] or {}).items():
            if container["State"] == "running" and network["IPAddress"]:
                yield _reachable(container["Names"][0].removeprefix("/"), name, network["IPAddress"])


def _misread(client: docker.DockerClient, only: list[str]) -> Iterator[Finding]:
    """Look at the labels of all containers, and of the images that opt in."""
    for container in client.api.containers(all=True, filters={"label": only}):
        name = container["Names"][0].removeprefix("/")
        if any(label.startswith(PREFIX) for label in container["Labels"]):
            with suppress(docker.errors.NotFound):  # it is gone by now
                ports = _exposed(client.containers.get(container["Id"]).attrs["Config"])
                yield from judged(f"container {name}", name, container["Labels"], ports)
    for image in client.api.images(filters={"label": [ENABLE, *only], "dangling": False}):
        name = next(iter(image["RepoTags"] or ()), image["Id"])
        with suppress(docker.errors.NotFound):
            ports = _exposed(client.images.get(image["Id"]).attrs["Config"])
            yield from judged(f"image {name}", name.rpartition("/")[2].partition(":")[0], image["Labels"] or {}, ports)


def _exposed(config: Mapping[str, Any] | None) -> tuple[int, ...]:
    """TCP ports that a container or an image exposes."""
    ports = (port.partition("/") for port in (config or {}).get("ExposedPorts") or ())
    return tuple(int(number) for number, _, kind in ports if kind == "tcp")


def judged(what: str, name: str, labels: Mapping[str, str], ports: tuple[int, ...]) -> Iterator[Finding]:
    """What is wrong with labels, each by itself. What two apps cannot both have is for the running dockscale to say."""
    own = [label for label in labels if label.startswith(PREFIX) and label not in OWN_LABELS]
    if MANAGED in labels:
        return
    if ENABLE not in labels:
        if own:
            yield Finding(False, f"{what} has {own[0]} and is ignored", f"add the label {ENABLE}=true")
        return
    try:
        if enabled(labels):
            parse(labels, app_id=name, ports=ports)
    except SpecError as error:
        for problem in error.problems:
            yield Finding(False, f"{what}: {problem}", "correct the label and make the container or the image anew")


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
    yield from _free("DOCKSCALE_", settings.host, settings.port)
    yield from _free("DOCKSCALE_ADMIN_", settings.admin_host, settings.admin_port)


def _free(prefix: str, host: str, port: int) -> Iterator[Finding]:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            yield Finding(False, f"port {port} is not free: {error.strerror}", f"free it, or set {prefix}PORT")
        else:
            told = f"nobody here can listen on {host}, port {port}: {error.strerror}"
            yield Finding(False, told, f"set {prefix}HOST to an address of this host, {prefix}PORT to a port for you")
