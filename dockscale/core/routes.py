"""Host and path → app, or the hub. Fixed paths of dockscale itself come before an app's path prefix, never its host."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from dockscale.core.spec import RESERVED, AppSpec

SEEN_KEPT = 1024
OF_THE_HUB = frozenset({"/ws", "/rpc", "/assets/hypha-rpc-websocket.mjs"})
"""Paths of the hub, below first segments that are `RESERVED`."""
_DOT_DOT = re.compile(r"(?:\.|%2e){2}", re.IGNORECASE)
_DOT = re.compile(r"\.|%2e", re.IGNORECASE)


class Here(StrEnum):
    """What dockscale itself serves on the main port."""

    LIVENESS = "/health/liveness"
    READINESS = "/health/readiness"


@dataclass(slots=True)  # not frozen: one is made for each request, and that costs three times as much
class ToApp:
    """Forward to this app. `path` still has its query; `prefix` is what was stripped from it."""

    app_id: str
    path: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class ToSlash:
    """Redirect to the same address with a slash after the app id."""

    location: str


@dataclass(frozen=True, slots=True)
class ToList:
    """List the workspace's apps."""

    workspace: str


@dataclass(frozen=True, slots=True)
class ToHub:
    """Leave to the hub. `path` still has its query. With a `service`, only if `workspace` has one of that name."""

    path: str
    workspace: str = ""
    service: str = ""


Target = ToApp | ToSlash | ToList | ToHub | Here


class Climbs(ValueError):
    """The path leads above its own root."""


class Routes:
    """The routes of all apps. Built anew when one changes, so that a lookup is a few dict hits."""

    def __init__(self, specs: Iterable[AppSpec], domain: str) -> None:
        self._domain = "." + domain.lower()
        self._hosts: dict[str, str] = {}
        self._wildcards: dict[str, str] = {}
        self._prefixes: list[tuple[str, AppSpec]] = []
        self._apps: dict[str, AppSpec] = {}
        self._seen: dict[str, str | None] = {}
        """Hosts that were looked up before, as sent, and whose they are."""
        for spec in specs:
            self._apps[spec.app_id] = spec
            for host in spec.route.host:
                if host.startswith("*."):
                    self._wildcards[host[1:]] = spec.app_id
                else:
                    self._hosts[host] = spec.app_id
            if spec.route.path is not None:
                self._prefixes.append((spec.route.path, spec))
        self._prefixes.sort(key=lambda entry: len(entry[0]), reverse=True)
        self._workspaces = {spec.workspace for spec in self._apps.values()} | {"public"}

    def match(self, host: str, target: str) -> Target | None:
        """Find who serves `target` (origin form, query included) for the `Host` header `host`.

        Raises:
            Climbs: the path would lead above the app's own root.
        """
        path = target.partition("?")[0]
        query = target[len(path) :]
        if "." in path or "%2" in path:
            _refuse_climbing(path)
        app_id = self._by_host(host)
        if app_id is not None:
            return ToApp(app_id, target)
        return (
            self._here(path)
            or self._by_workspace(path, query)
            or self._by_prefix(path, query)
            or _to_hub(path, path + query)
        )

    def _by_host(self, host: str) -> str | None:
        found = self._seen.get(host, "")
        if found == "":
            found = self._find_host(host)
            if len(self._seen) < SEEN_KEPT:
                self._seen[host] = found
        return found

    def _find_host(self, host: str) -> str | None:
        name = host.lower()
        if not name.endswith("]"):
            name = name.rpartition(":")[0] or name
        name = name.rstrip(".")
        exact = self._hosts.get(name)
        if exact is not None:
            return exact
        dot = name.find(".") if self._wildcards else -1
        while dot != -1:
            if name[dot:] in self._wildcards:
                return self._wildcards[name[dot:]]
            dot = name.find(".", dot + 1)
        if name.endswith(self._domain):
            label = name[: -len(self._domain)]
            if label in self._apps:
                return label
        return None

    def _here(self, path: str) -> Here | None:
        return Here(path) if path.startswith("/health/") and path in Here.__members__.values() else None

    def _by_workspace(self, path: str, query: str) -> Target | None:
        parts = path.split("/", 4)
        if len(parts) < 3 or parts[2] != "apps" or parts[1] not in self._workspaces:
            return None
        if len(parts) == 3 or parts[3:] == [""]:
            return ToList(parts[1])
        spec = self._apps.get(parts[3])
        if spec is None or spec.workspace != parts[1]:
            return None
        prefix = "/".join(parts[:4])
        if len(parts) == 4:
            return ToSlash(prefix + "/" + query)
        _refuse_climbing("/" + parts[4])
        return ToApp(spec.app_id, "/" + parts[4] + query, prefix)

    def _by_prefix(self, path: str, query: str) -> Target | None:
        first, second = [*path.split("/", 3)[1:3], "", ""][:2]
        if first in RESERVED or (second in ("apps", "services") and first in self._workspaces):
            return None
        for prefix, spec in self._prefixes:
            if prefix == "/":
                return ToApp(spec.app_id, path + query)
            if path == prefix or path.startswith(prefix + "/"):
                rest = path[len(prefix) :] or "/"
                _refuse_climbing(rest)
                if not spec.route.strip_path:
                    return ToApp(spec.app_id, path + query)
                return ToApp(spec.app_id, rest + query, prefix)
        return None

    def urls(self, spec: AppSpec) -> list[str]:
        """Every address of the app, without scheme and port, most specific first."""
        hosts = [f"{host}/" for host in spec.route.host]
        path = [spec.route.path] if spec.route.path else []
        return [*hosts, f"{spec.app_id}{self._domain}/", *path, f"/{spec.workspace}/apps/{spec.app_id}/"]

    def __repr__(self) -> str:
        hosts = len(self._hosts) + len(self._wildcards)
        return f"<Routes apps={len(self._apps)} hosts={hosts} prefixes={len(self._prefixes)}>"


def _to_hub(path: str, target: str) -> ToHub | None:
    """What no app has may be the hub's: paths of its own, and services in any workspace."""
    if path in OF_THE_HUB:
        return ToHub(target)
    workspace, kind, name, rest = [*path.split("/", 4)[1:], "", "", "", ""][:4]
    if not workspace or workspace in RESERVED:
        return None
    if kind == "services":
        return ToHub(target)
    if kind != "apps" or not name:
        return None
    _refuse_climbing("/" + rest)
    return ToHub(target, workspace, name)


def _refuse_climbing(path: str) -> None:
    depth = 0
    for segment in path.split("/")[1:]:
        if _DOT_DOT.fullmatch(segment):
            depth -= 1
            if depth < 0:
                raise Climbs(f"the path {path!r} leads above its root")
        elif segment and not _DOT.fullmatch(segment):
            depth += 1
