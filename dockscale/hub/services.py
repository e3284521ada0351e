"""What clients have registered, and who is meant by a service's id: `[workspace/][client:]service[@app]`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dockscale.core.spec import AppSpec, Visibility
from dockscale.hub.clients import MOST_SERVICES, Client, Service
from dockscale.hub.tokens import User
from dockscale.hub.wire import Value, pack

_ID = re.compile(r"(?:([^/:@]+)/)?(?:([^/:@]+):)?([^/:@]+)(?:@([^/:@]+))?")

MOST_INFO_BYTES = 2**18
"""Size of a service's description without its functions."""
_TEXTS = ("name", "type", "description", "app_id")


@dataclass(frozen=True, slots=True)
class Query:
    """A service's id, taken apart. An empty part was not given; `*` for the client means any."""

    workspace: str
    client_id: str
    name: str
    app_id: str

    def __str__(self) -> str:
        return f"{self.workspace}/{self.client_id or '*'}:{self.name}@{self.app_id or '*'}"


def parse_id(text: Value, workspace: str) -> Query:
    """Take a service's id apart; without a workspace it is `workspace`.

    Raises:
        ValueError: it is no id.
    """
    match = _ID.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is no service id; write [workspace/][client:]service[@app]")
    client_id = match[2] or ""
    return Query(
        match[1] or workspace,
        "" if client_id == "*" else client_id,
        match[3],
        "" if match[4] == "*" else match[4] or "",
    )


class Services:
    """All services of all clients. Those of one name and workspace are kept in the order they came."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], dict[Client, Service]] = {}

    def add(self, client: Client, info: Value) -> Service:
        """Keep a service, in place of one of the same name.

        Raises:
            ValueError: what was sent describes no service, or too much.
            PermissionError: it would be another client's.
        """
        _check(info)
        query = own_id(client, info["id"])
        if query.name not in client.services and len(client.services) >= MOST_SERVICES:
            raise ValueError(f"a client may register {MOST_SERVICES} services at most")
        whole = info | {"id": f"{client.full_id}:{query.name}", "app_id": query.app_id or info.get("app_id") or "*"}
        if client.place is not None:
            whole["app_id"] = client.place[0].app_id
        service = Service(client, query.name, whole)
        client.services[query.name] = service
        self._by_name.setdefault((client.workspace, query.name), {})[client] = service
        return service

    def remove(self, client: Client, name: str) -> dict[str, Value]:
        """Forget a service and return how it was described.

        Raises:
            KeyError: the client has none of that name.
        """
        if name not in client.services:
            raise KeyError(f"Service not found: {client.full_id}:{name}")
        service = client.services.pop(name)
        others = self._by_name[client.workspace, name]
        del others[client]
        if not others:
            del self._by_name[client.workspace, name]
        return service.info

    def find(self, query: Query, user: User, own_workspace: str) -> list[Service]:
        """The services that are meant, as far as `user` may use them."""
        return [service for service in self.meant(query) if may_use(service, user, own_workspace)]

    def meant(self, query: Query) -> Iterator[Service]:
        """The services that are meant, whoever may use them."""
        for client, service in self._by_name.get((query.workspace, query.name), {}).items():
            if query.client_id in ("", client.client_id) and query.app_id in ("", service.app_id):
                yield service

    def all(self, workspace: str, user: User, own_workspace: str) -> Iterator[Service]:
        """The services of a workspace (`*`: of all) that `user` may find."""
        for (where, _), services in self._by_name.items():
            if workspace in ("*", where):
                for service in services.values():
                    if (
                        service.listed
                        or (may_use(service, user, own_workspace) and not service.public)
                        or where == own_workspace
                    ):
                        yield service

    def __len__(self) -> int:
        return sum(len(services) for services in self._by_name.values())


def own_id(client: Client, text: Value) -> Query:
    """Take the id of a client's own service apart.

    Raises:
        ValueError: it is no id.
        PermissionError: it is another client's.
    """
    query = parse_id(text, client.workspace)
    if (query.workspace, query.client_id or client.client_id) != (client.workspace, client.client_id):
        raise PermissionError(f"{text} is not a service of {client.full_id}")
    return query


def _check(info: Value) -> None:
    """See that what a client sent describes a service: others will read it."""
    if not isinstance(info, dict) or not isinstance(info.get("id"), str):
        raise ValueError("a service needs an id")
    config = info.get("config") or {}
    if not isinstance(config, dict):
        raise ValueError("the config of a service must be a map")
    for name, value in [*((name, info.get(name)) for name in _TEXTS), ("visibility", config.get("visibility"))]:
        if not isinstance(value, str | None):
            raise ValueError(f"the {name} of a service must be text")
    if (size := len(pack(info))) > MOST_INFO_BYTES:
        raise ValueError(f"a service may be described by {MOST_INFO_BYTES} bytes at most, not {size}")


def may_reach(spec: AppSpec, user: User, own_workspace: str) -> bool:
    """Tell whether a user who is in `own_workspace` may use an app."""
    inside = spec.workspace == own_workspace or user.may(spec.workspace, "r")
    return inside or spec.visibility is not Visibility.PROTECTED


def may_use(service: Service, user: User, own_workspace: str) -> bool:
    """Tell whether a user who is in `own_workspace` may call it."""
    workspace = service.client.workspace
    return service.public or workspace == own_workspace or user.may(workspace, "r")
