"""The Docker engine, through aiodocker. The only file that knows Docker's words."""

import asyncio
import io
import json
import re
import tarfile
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network
from typing import Any

import aiodocker
import aiohttp

from dockscale.core.catalog import Container, Image, Listing, Template
from dockscale.core.spec import ENABLE, MANAGED, PREFIX
from dockscale.engine import EngineAway, EngineError, Event, NotFound

DEFAULT_URL = "unix:///var/run/docker.sock"
_COMPOSE = "com.docker.compose."
_CALL_TIMEOUT_S = 60.0
_LONGEST_LINE = 2**16
"""Characters of a line that is followed; the rest of a longer one is told as another."""
_LAST_LINES = 12
"""What is told of the output of a build that failed."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ENGINES_OWN = re.compile(r"Step \d+/\d+ : | ---> |Removing intermediate container ")
_ALIVE = ("running", "paused")
_RECONNECT_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_WATCHED = {
    "type": ["container", "image", "network"],
    # Without this, each run of a HEALTHCHECK would be an event of its own.
    "event": [
        "create", "start", "die", "destroy", "rename", "pause", "unpause", "health_status", "disconnect",
        "tag", "untag", "delete", "load", "pull", "import",
    ],
}  # fmt: skip
_ENDS = frozenset({"die", "destroy", "disconnect"})
# A copy's own business, or what two containers cannot share.
_NOT_COPIED = ("Hostname", "Domainname", "MacAddress", "Labels", "Image")
_HOST_NOT_COPIED = {
    "PortBindings": {},
    "PublishAllPorts": False,
    "RestartPolicy": {"Name": "no"},
    "AutoRemove": False,
    "ContainerIDFile": "",
}


@dataclass(frozen=True, slots=True)
class _Fixed:
    created: float
    ports: tuple[int, ...]
    started: float = 0.0
    auto_remove: bool = False
    memory: int = 0
    of_a_build: bool = False
    """A step of `docker build`: it has the labels of the image that is being built, and is no app."""


@dataclass(frozen=True, slots=True)
class _Unpausing:
    call: asyncio.Task[None]
    runs: asyncio.Event
    """Set when the engine told that the container runs again, or the call is over."""


class DockerEngine:
    """One Docker daemon.

    `network` is where copies of images are attached (default: Docker's own bridge). With `only`, a label as `name` or
    `name=value`, nothing without that label is seen.
    """

    def __init__(self, url: str | None = None, network: str = "", only: str = "") -> None:
        self._docker = _connect(url)
        self._network = network
        self._only = [only] if only else []
        # What a listing leaves out and never changes, by container or image id.
        self._fixed: dict[str, _Fixed] = {}
        # Ids whose end was told, or asked for here. Listings that are older call them running, and the engine itself
        # does for up to 50 ms, until networks are cleaned up.
        self._dead: set[str] = set()
        self._removed: set[str] = set()
        self._unpausing: dict[str, _Unpausing] = {}

    async def list(self) -> Listing:
        told = frozenset(self._dead)
        with _translated():
            summaries: dict[str, Any] = {}
            for label in (ENABLE, MANAGED):
                summaries |= {each["Id"]: each for each in await self._summaries({"label": [label, *self._only]})}
            fixed = {container_id: await self._learn(container_id) for container_id in summaries}
            labelled = await self._docker.images.list(filters={"label": [ENABLE, *self._only]})
            images = [await self._image(summary) for summary in labelled if _tags(summary)]
        # Nothing waits from here on: what has ended since the engine listed it is not to be taken for running.
        containers = [self._container(summary, fixed[key]) for key, summary in summaries.items()]
        listing = Listing(tuple(c for c in containers if c), tuple(i for i in images if i))
        known = summaries.keys() | {i.id for i in listing.images}
        self._fixed = {key: value for key, value in self._fixed.items() if key in known}
        # Of an end that was told meanwhile this listing knows nothing, and a newer one may still need to.
        self._dead -= told - {key for key, summary in summaries.items() if summary["State"] in _ALIVE}
        self._removed &= known
        return listing

    async def inspect(self, container_id: str) -> Container:
        with _translated():
            for summary in await self._summaries({"id": [container_id]}):
                container = self._container(summary, await self._learn(summary["Id"]))
                if container is not None:
                    return container
        raise NotFound(f"no container {container_id[:12]}")

    async def clone(self, template: Template, name: str, labels: Mapping[str, str], env: Mapping[str, str]) -> str:
        with _translated():
            if isinstance(template, Image):
                config: dict[str, Any] = {
                    "Image": template.id,
                    "HostConfig": {"NetworkMode": self._network or "default"},
                }
                others: tuple[str, ...] = ()
            else:
                config, others = _copied(await self._show(template.id))
            image = await self._docker.images.inspect(config["Image"])
            inherited = (image["Config"] or {}).get("Labels") or {}
            # Labels of the image come along by themselves; compose's must not, so they are emptied.
            emptied = {label: "" for label in inherited if label.startswith(_COMPOSE)}
            own = {label: value for label, value in template.labels.items() if not label.startswith(_COMPOSE)}
            config["Labels"] = {**own, **emptied, **labels}
            config["Env"] = _environment(config.get("Env") or (), env)
            copy = await self._docker.containers.create(config, name=name)
            for network in others:
                await (await self._docker.networks.get(network)).connect({"Container": copy.id})
            return copy.id

    async def start(self, container_id: str) -> None:
        self._dead.discard(container_id)
        with _translated():
            await self._docker.containers.container(container_id).start()

    async def stop(self, container_id: str, timeout: float) -> None:
        container = self._docker.containers.container(container_id)
        with _translated():
            async with asyncio.timeout(timeout + _CALL_TIMEOUT_S):
                try:
                    await container.stop(t=round(timeout))
                except aiodocker.DockerError as error:
                    if not _says(error, "paused"):
                        raise
                    # Engines before 20.10 stop nothing that is paused.
                    await container.unpause()
                    await container.stop(t=round(timeout))
        self._dead.add(container_id)

    async def pause(self, container_id: str) -> None:
        with _translated():
            try:
                await self._docker.containers.container(container_id).pause()
            except aiodocker.DockerError as error:
                if not _says(error, "already paused"):
                    raise

    async def unpause(self, container_id: str) -> None:
        """Return when the container runs again.

        The engine tells of it at once, but answers only when it has written it down, some milliseconds later.
        """
        call = asyncio.create_task(self._unpause(container_id), name=f"unpause {container_id[:12]}")
        unpausing = self._unpausing[container_id] = _Unpausing(call, asyncio.Event())
        call.add_done_callback(lambda _: self._unpaused(container_id, unpausing))
        try:
            await unpausing.runs.wait()
        except asyncio.CancelledError:
            call.cancel()
            raise
        if call.done():
            call.result()

    async def _unpause(self, container_id: str) -> None:
        with _translated():
            try:
                await self._docker.containers.container(container_id).unpause()
            except aiodocker.DockerError as error:
                if not _says(error, "is not paused") or not (await self.inspect(container_id)).runs:
                    raise

    def _unpaused(self, container_id: str, unpausing: _Unpausing) -> None:
        if self._unpausing.get(container_id) is unpausing:
            del self._unpausing[container_id]
        unpausing.runs.set()
        if not unpausing.call.cancelled():
            unpausing.call.exception()  # nobody asks for it when the container runs already

    async def remove(self, container_id: str) -> None:
        try:
            with _translated():
                await self._docker.containers.container(container_id).delete(force=True, v=True)
        except NotFound:
            pass
        self._removed.add(container_id)

    async def logs(self, container_id: str, tail: int) -> tuple[str, ...]:
        with _translated():
            container = self._docker.containers.container(container_id)
            lines = await container.log(stdout=True, stderr=True, tail=tail)
        text = "".join(lines).removesuffix("\n")  # a carriage return within it is a progress bar's, and no end
        return tuple(line.removesuffix("\r") for line in text.split("\n")) if text else ()

    async def follow(self, container_id: str, tail: int) -> AsyncGenerator[str, None]:
        with _translated():
            container = self._docker.containers.container(container_id)
            begun = ""
            async for piece in container.log(stdout=True, stderr=True, follow=True, tail=tail):
                *lines, begun = (begun + piece).split("\n")
                for line in lines:
                    yield line.removesuffix("\r")
                while len(begun) > _LONGEST_LINE:
                    yield begun[:_LONGEST_LINE]
                    begun = begun[_LONGEST_LINE:]
            if begun:
                yield begun

    async def find_image(self, name: str) -> Image:
        with _translated():
            shown = await self._docker.images.inspect(name)
        config = shown["Config"] or {}
        names = sorted(shown["RepoTags"] or ())
        return Image(
            shown["Id"],
            name if name in names or not names else names[0],
            config.get("Labels") or {},
            _unix(shown["Created"]),
            _exposed(config),
        )

    async def pull(self, name: str) -> None:
        with _translated():
            await self._docker.images.pull(name)

    async def build(self, base: Image, name: str, labels: Mapping[str, str]) -> None:
        # One instruction, since each makes a container and an image of its own.
        pairs = " ".join(f"{_quoted(label)}={_quoted(value)}" for label, value in self._mine(labels).items())
        await self._build(_packed({"Dockerfile": f"FROM {base.id}\nLABEL {pairs}\n".encode()}), name)

    async def make(
        self,
        recipe: str,
        files: Mapping[str, bytes],
        *,
        name: str = "",
        labels: Mapping[str, str],
        args: Mapping[str, str],
    ) -> Image:
        context = _packed({"Dockerfile": recipe.encode(), **files})
        return await self.find_image(await self._build(context, name, labels if name else self._mine(labels), args))

    def _mine(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Labels, and the one without which nothing is seen here."""
        return {**labels, **dict(label.partition("=")[::2] for label in self._only)}

    async def _build(
        self, context: bytes, name: str, labels: Mapping[str, str] | None = None, args: Mapping[str, str] | None = None
    ) -> str:
        """Build an image, and return its id."""
        image_id, wrote = "", deque[str](maxlen=_LAST_LINES)
        try:
            with _translated():
                async for said in self._docker.images.build(
                    fileobj=io.BytesIO(context), encoding="identity", tag=name or None, labels=labels, buildargs=args,
                    forcerm=True, stream=True,
                ):  # fmt: skip
                    wrote += filter(None, map(_written, said.get("stream", "").splitlines()))
                    image_id = (said.get("aux") or {}).get("ID", image_id)
        except EngineAway:
            raise
        except EngineError as error:
            raise EngineError("\n".join((*wrote, str(error)))) from error
        return image_id

    async def tag(self, image: Image, name: str) -> None:
        repository, _, tag = name.partition(":")
        with _translated():
            await self._docker.images.tag(image.id, repository, tag=tag)

    async def untag(self, name: str) -> None:
        with suppress(NotFound), _translated():
            await self._docker.images.delete(name, force=True)

    async def prune(self, labels: Sequence[str]) -> None:
        # One by one: the engine refuses a prune of its own while anybody else's runs.
        filters = {"dangling": ["true"], "label": [*labels, *self._only]}
        with _translated():
            for image in await self._docker.images.list(filters=filters):
                await self._remove_unused(str(image["Id"]))

    async def _remove_unused(self, image_id: str) -> None:
        try:
            await self._docker.images.delete(image_id)
        except aiodocker.DockerError as error:
            if error.status not in (404, 409):  # gone, or something was made from it
                raise

    async def gateway(self) -> str:
        network = self._network or "bridge"
        with _translated():
            shown = await (await self._docker.networks.get(network)).show()
        for pool in shown["IPAM"]["Config"] or ():
            subnet = ip_network(pool["Subnet"])
            if subnet.version == 4:
                # Docker does not tell the one that it chose for a given subnet, nor that of its own bridge before
                # the daemon's second start: it is the first address.
                return str(pool.get("Gateway") or subnet[1])
        raise EngineError(f"the network {network} has no gateway")

    async def events(self) -> AsyncIterator[Event]:
        attempt = 0
        while True:
            try:
                # Asked first, so that what happens until the stream stands is told by the stream.
                since = int(time.time()) - 1
                with _translated():
                    await self._docker.version()
                attempt = 0
                yield Event.RESYNC
                async for event in self._stream(since):
                    yield event
            except EngineError:
                pass
            yield Event.AWAY
            await asyncio.sleep(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
            attempt += 1

    async def close(self) -> None:
        await self._docker.close()

    async def _stream(self, since: int) -> AsyncIterator[Event]:
        """Tell of changes until the connection breaks.

        aiodocker's own background task cannot be started a second time, so each connection is one `run()` of ours.
        """
        told = self._docker.events.subscribe(create_task=False)  # type: ignore[no-untyped-call]  # aiodocker's events are
        run = asyncio.create_task(
            self._docker.events.run(since=since, filters=json.dumps(_WATCHED)), name="docker-events"
        )
        try:
            while (event := await told.get()) is not None:
                if self._concerns(event):
                    if event["Action"] in ("pause", "unpause"):
                        await self._written_down(event["Actor"]["ID"])
                    yield Event.ENDED if event["Action"] in _ENDS else Event.CHANGED
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)

    def _concerns(self, event: dict[str, Any]) -> bool:
        if event.get("Type") == "image":
            return True
        if event.get("Type") == "network":
            return event["Actor"]["Attributes"].get("container") in self._fixed
        if event["Action"] == "die":
            self._dead.add(event["Actor"]["ID"])
        elif event["Action"] == "start":
            self._dead.discard(event["Actor"]["ID"])
        elif event["Action"] == "unpause" and event["Actor"]["ID"] in self._unpausing:
            self._unpausing[event["Actor"]["ID"]].runs.set()
        labels: dict[str, str] = event["Actor"]["Attributes"]
        said = {*labels, *(f"{name}={value}" for name, value in labels.items())}
        return said.issuperset(self._only) and any(label.startswith(PREFIX) for label in labels)

    async def _written_down(self, container_id: str) -> None:
        """Wait until listings show a pause that was told.

        The engine tells of it a little before, and keeps the container locked in between: so a look at it waits.
        """
        with suppress(EngineError), _translated():
            await self._show(container_id)

    async def _summaries(self, filters: dict[str, Any]) -> tuple[dict[str, Any], ...]:
        run_again = {key for key, unpausing in self._unpausing.items() if unpausing.runs.is_set()}
        listed = await self._docker.containers.list(all=True, filters=json.dumps(filters))
        summaries = tuple(container._container for container in listed)
        for summary in summaries:
            if summary["Id"] in run_again and summary["State"] == "paused":  # not written down yet
                summary["State"] = "running"
        return summaries

    async def _show(self, container_id: str) -> dict[str, Any]:
        return await self._docker.containers.container(container_id).show()

    async def _learn(self, container_id: str) -> _Fixed | None:
        """Look once at what listings leave out; None if the container was removed since it was listed."""
        if container_id not in self._fixed:
            try:
                shown = await self._show(container_id)
            except aiodocker.DockerError as error:
                if error.status == 404:
                    return None
                raise
            self._fixed[container_id] = _Fixed(
                _unix(shown["Created"]),
                _exposed(shown["Config"]),
                _unix(shown["State"]["StartedAt"]),
                bool(shown["HostConfig"].get("AutoRemove")),
                int(shown["HostConfig"].get("Memory") or 0),
                _of_a_build(shown["Config"]),
            )
        return self._fixed[container_id]

    def _container(self, summary: dict[str, Any], fixed: _Fixed | None) -> Container | None:
        container_id = summary["Id"]
        if fixed is None or fixed.of_a_build or container_id in self._removed:
            return None
        networks = (summary.get("NetworkSettings") or {}).get("Networks") or {}
        dead = container_id in self._dead and summary["State"] in _ALIVE
        mode = (summary.get("HostConfig") or {}).get("NetworkMode", "default")
        return Container(
            id=container_id,
            name=_own_name(summary),
            labels=summary.get("Labels") or {},
            state="exited" if dead else summary["State"],
            created=fixed.created,
            started=max(0.0, fixed.started),
            image_id=summary.get("ImageID", ""),
            ports=fixed.ports,
            addresses={} if dead else {"host": "127.0.0.1"} if mode == "host" else _addresses(networks),
            network_mode=mode,
            health=_health(summary.get("Status", "")),
            auto_remove=fixed.auto_remove,
            memory=fixed.memory,
        )

    async def _image(self, summary: dict[str, Any]) -> Image | None:
        image_id = summary["Id"]
        if image_id not in self._fixed:
            try:
                shown = await self._docker.images.inspect(image_id)
            except aiodocker.DockerError as error:
                if error.status == 404:
                    return None
                raise
            self._fixed[image_id] = _Fixed(_unix(shown["Created"]), _exposed(shown["Config"] or {}))
        return Image(
            id=image_id,
            name=_tags(summary)[0],
            labels=summary.get("Labels") or {},
            created=self._fixed[image_id].created,
            ports=self._fixed[image_id].ports,
        )


def _connect(url: str | None) -> aiodocker.Docker:
    timeout = aiohttp.ClientTimeout(total=_CALL_TIMEOUT_S)
    if url is None:
        try:
            return aiodocker.Docker(timeout=timeout)  # DOCKER_HOST, the docker context, or the usual sockets
        except (AssertionError, ValueError):
            url = DEFAULT_URL  # not there yet: `events` waits for it
    return aiodocker.Docker(url, timeout=timeout)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn aiodocker's errors into ours."""
    try:
        yield
    except aiodocker.DockerError as error:
        if error.status == 900:  # aiodocker's own number for "cannot connect"
            raise EngineAway(error.message) from error
        if error.status == 404:
            raise NotFound(error.message) from error
        raise EngineError(error.message) from error
    except TimeoutError as error:
        raise EngineAway("the engine did not answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise EngineAway(f"{type(error).__name__}: {error}") from error


def _packed(files: Mapping[str, bytes]) -> bytes:
    """Put files into an archive that looks the same each time, so that the engine knows what it has built before."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _written(line: str) -> str:
    """What a step of a build wrote, without the colours; empty if the engine itself did."""
    line = _COLOUR.sub("", line).rstrip()
    return "" if _ENGINES_OWN.match(line) else line


def _quoted(text: str) -> str:
    """Text as a Dockerfile takes it literally. It cannot have line breaks there, which become spaces."""
    escaped = text.translate({ord(each): f"\\{each}" for each in '\\"$'})
    return f'"{" ".join(escaped.splitlines())}"'


def _says(error: aiodocker.DockerError, words: str) -> bool:
    """Tell whether the engine's own words are these: it has one number for all refusals."""
    return error.status in (409, 500) and words in error.message.lower()


def _copied(shown: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Make the settings of a copy out of what `docker inspect` shows, and name the networks to join afterwards."""
    config = {key: value for key, value in shown["Config"].items() if key not in _NOT_COPIED}
    config["Image"] = shown["Image"]  # its id: the name may have moved on to a newer build
    config["HostConfig"] = {**shown["HostConfig"], **_HOST_NOT_COPIED}
    mode = config["HostConfig"].get("NetworkMode", "default")
    networks = shown["NetworkSettings"]["Networks"] or {}
    first = "bridge" if mode == "default" else mode
    return config, tuple(name for name in networks if name != first)


def _environment(own: Iterable[str], more: Mapping[str, str]) -> list[str]:
    """Put variables on top of a container's own. Those of its image come along by themselves."""
    kept = [line for line in own if line.partition("=")[0] not in more]
    return kept + [f"{name}={value}" for name, value in more.items()]


def _of_a_build(config: dict[str, Any]) -> bool:
    """Between its steps a build has only image ids, and it runs each step by a shell."""
    by_shell = (config.get("Cmd") or [])[:2] == ["/bin/sh", "-c"]
    return by_shell and config["Image"].startswith("sha256:") and MANAGED not in config["Labels"]


def _tags(summary: dict[str, Any]) -> list[str]:
    """An image's names; none if it is a step of a build, or has been replaced by a newer one."""
    return sorted(tag for tag in summary.get("RepoTags") or () if tag != "<none>:<none>")


def _unix(created: str) -> float:
    """Time of creation, finer than the whole seconds of a listing; images may have none."""
    try:
        return datetime.fromisoformat(created).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _exposed(config: dict[str, Any]) -> tuple[int, ...]:
    ports = (config.get("ExposedPorts") or {}).keys()
    return tuple(sorted(int(port.partition("/")[0]) for port in ports if not port.endswith(("/udp", "/sctp"))))


def _own_name(summary: dict[str, Any]) -> str:
    """The name without links, which are listed as `/other/alias`."""
    names: list[str] = [name.removeprefix("/") for name in summary.get("Names") or ()]
    return next((name for name in names if "/" not in name), str(summary["Id"])[:12])


def _addresses(networks: dict[str, Any]) -> dict[str, str]:
    found = {name: (network or {}).get("IPAddress", "") for name, network in networks.items()}
    return {name: address for name, address in found.items() if address}


def _health(status: str) -> str:
    for health in ("unhealthy", "healthy", "health: starting"):
        if f"({health})" in status:
            return health.removeprefix("health: ")
    return ""
