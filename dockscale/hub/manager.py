"""The manager service: what a client's `api` object does on the server. Each function here is one of its functions."""

import asyncio
import random
from collections.abc import Callable, Mapping
from math import isnan
from typing import Protocol

from dockscale.hub.clients import Client, Service
from dockscale.hub.hub import Hub
from dockscale.hub.local import CALL_S, CallTimeout, Context, Function, LocalPeer, RemoteError
from dockscale.hub.services import Query, own_id, parse_id
from dockscale.hub.tokens import LIFE_S, Permission, Tokens, User, narrow
from dockscale.hub.wire import Value, retarget, vouch

_UNSUPPORTED = (
    "bookmark", "cleanup", "create_workspace", "delete_workspace", "get_env", "get_event_stats", "get_events",
    "get_summary", "list_service_types", "log_event", "register_service_type", "search_services", "set_env",
    "unbookmark",
)  # fmt: skip
"""Functions of Hypha's manager that need what dockscale has not: a place to keep things for each workspace."""
SELECT_S = 10.0
"""For this long `select:…` waits for what a service's function says."""
MOST_TOPICS = 100
MOST_TOPIC_LENGTH = 200
MOST_TIMEOUT_S = 86400.0


class NotSupported(Exception):
    """A function of Hypha that dockscale has not."""


class AppServices(Protocol):
    """Who knows the services of apps."""

    async def get(
        self, query: Query, mode: str, context: Context, timeout: float, manager: "Manager"
    ) -> dict[str, Value] | None: ...

    def infos(self, workspace: str, user: User) -> list[dict[str, Value]]: ...


class Manager:
    """Answers at `*/<manager id>`, and asks clients in that name."""

    def __init__(self, hub: Hub, peer: LocalPeer, tokens: Tokens, apps: AppServices) -> None:
        self._hub = hub
        self._peer = peer
        self._tokens = tokens
        self._apps = apps
        self._hosted: dict[str, Callable[[], dict[str, Value]]] = {}
        functions: dict[str, Function] = {
            name: getattr(self, name)
            for name in (
                "check_status", "echo", "generate_token", "get_service", "get_service_info", "get_service_type",
                "get_workspace_info", "list_clients", "list_services", "list_workspaces", "log", "parse_token", "ping",
                "register_service", "revoke_token", "subscribe", "unregister_service", "unsubscribe",
            )
        }  # fmt: skip
        peer.serve(
            "default",
            functions | {name: unsupported(name) for name in _UNSUPPORTED},
            name="Workspace Manager",
            description="Services and clients of this workspace",
            config={"workspace": "*"},
        )

    def host(self, full_id: str, describe: Callable[[], dict[str, Value]]) -> None:
        """Offer a service of dockscale's own under an id such as `public/server-apps`."""
        self._hosted[full_id] = describe

    # Services.

    async def get_service(
        self, context: Context, service_id: str, config: Mapping[str, Value] | None = None, **more: Value
    ) -> Value:
        """Get a service by [workspace/][client:]service[@app], with its functions."""
        config = _options(config, more)
        mode, timeout = str(config.get("mode") or ""), _seconds(config.get("timeout") or CALL_S)
        if service_id in ("~", f"{context.workspace}/~"):
            return self._peer.describe("default")
        query = parse_id(service_id, context.workspace)
        hosted = self._hosted.get(f"{query.workspace}/{query.name}")
        if hosted is not None and not query.client_id:
            return hosted()
        if not query.client_id:
            found = await self._apps.get(query, mode, context, timeout, self)
            if found is not None:
                return found
        return await self.describe(await self.choose(query, mode, context), timeout)

    async def choose(self, query: Query, mode: str, context: Context) -> Service:
        """Choose one of the services of clients that a query means."""
        found = self._hub.services.find(query, context.user, context.workspace)
        if not found:
            raise KeyError(f"Service not found: {query}")
        if len(found) == 1:
            return found[0]
        match mode or ("random" if query.workspace == "public" else "exact"):
            case "random" | "native:random":
                return random.choice(found)
            case "first":
                return found[0]
            case "last":
                return found[-1]
            case "min_load":
                return min(found, key=lambda service: len(service.client.services))
            case str(chosen) if chosen.startswith("select:"):
                return await self._select(found, chosen, context)
            case "exact":
                raise ValueError(
                    f"Multiple services found for {query}: {', '.join(each.full_id for each in found)}; give a mode"
                )
            case unknown:
                raise ValueError(
                    f"{unknown!r} is no selection mode; give random, first, last, min_load, exact or select:…"
                )

    async def _select(self, found: list[Service], mode: str, context: Context) -> Service:
        """Ask each what its function says: `select:min:get_load`, `select:max:…`, `select:first_success:…`."""
        _, how, function = [*mode.split(":", 2), "", ""][:3]
        if how not in ("min", "max", "first_success") or not function:
            raise ValueError(
                f"{mode!r} is no selection; write select:min:<function>, select:max:… or select:first_success:…"
            )
        if how == "first_success":
            for service in found:
                if await self._told(service, function, context) is not None:
                    return service
            raise ValueError(f"no service answered {function}()")
        told = await asyncio.gather(*(self._told(service, function, context) for service in found))
        numbers = [(value, service) for value, service in zip(told, found, strict=True) if _is_number(value)]
        if not numbers:
            raise ValueError(f"no service answered {function}() with a number")
        return (min if how == "min" else max)(numbers, key=lambda each: each[0])[1]

    async def _told(self, service: Service, function: str, context: Context) -> Value:
        """What a service's function says to a caller; None if it fails, or true if it says nothing."""
        vouched = vouch(context.workspace, context.user.shown())
        method = f"services.{service.name}.{function}"
        try:
            value = await self._peer.call(service.client.full_id, method, timeout=SELECT_S, vouched=vouched)
        except (RemoteError, CallTimeout):
            return None
        return True if value is None else value

    async def describe(self, service: Service, timeout: float = CALL_S) -> dict[str, Value]:
        """Ask a client for a service once, and return it as a value."""
        if service.described is None:
            client = service.client
            got = await self._peer.call(client.full_id, "services.built-in.get_service", service.name, timeout=timeout)
            if not isinstance(got, dict):
                raise RemoteError(f"{client.full_id} described its service {service.name} by no map")
            retarget(got, client.workspace)
            config = got["config"] if isinstance(got.get("config"), dict) else {}
            got |= {"id": service.full_id, "config": config | {"workspace": client.workspace}}
            service.described = got
        return service.described

    async def register_service(self, context: Context, info: Value, *_: Value, **__: Value) -> Value:
        """Register a service of the caller. The `setup` of one called `default` is run first, once."""
        client = _client(context)
        name = own_id(client, info.get("id")).name if isinstance(info, dict) else ""
        if name != "built-in" and not context.user.may(client.workspace, "rw"):
            raise PermissionError(f"{context.user.id} may not register services in the workspace {client.workspace}")
        if name == "default" and name not in client.services and "setup" in (info.get("service_schema") or ()):
            await self._peer.call(client.full_id, "services.default.setup")
        self._hub.keep_service(client, info)
        return info

    def unregister_service(self, context: Context, service_id: str, *_: Value) -> None:
        """Unregister a service of the caller."""
        client = _client(context)
        self._hub.drop_service(client, own_id(client, service_id).name)

    def get_service_info(self, context: Context, service_id: str, config: Value = None, **_: Value) -> dict[str, Value]:
        """Get what a service is, without its functions."""
        query = parse_id(service_id, context.workspace)
        found = self._hub.services.find(query, context.user, context.workspace)
        if not found:
            raise KeyError(f"Service not found: {query}")
        return found[0].info

    def list_services(self, context: Context, query: Value = None, *_: Value, **more: Value) -> list[dict[str, Value]]:
        """List services: all of the workspace, those of an id's pattern, or those with the given properties."""
        asked = _options({"id": query} if isinstance(query, str) else query, more)
        workspace = str(asked.pop("workspace", context.workspace) or context.workspace)
        wanted = None
        if (text := asked.pop("id", None)) and text != "*":
            wanted = parse_id(text, workspace)
            workspace = wanted.workspace
        found = [each.info for each in self._hub.services.all(workspace, context.user, context.workspace)]
        found += self._apps.infos(workspace, context.user)
        found += [_info(describe()) for full_id, describe in self._hosted.items() if _is_in(full_id, workspace)]
        return [info for info in found if _matches(info, asked) and (wanted is None or _is_meant(info, wanted))]

    def get_service_type(self, context: Context, type_id: str) -> None:
        """Service types are not kept here."""
        raise KeyError(f"no service type is called {type_id!r}: dockscale keeps none")

    # Clients.

    def list_clients(self, context: Context, workspace: str | None = None) -> list[dict[str, Value]]:
        """List the clients of a workspace."""
        workspace = workspace or context.workspace
        _check(context, workspace, "r")
        return [
            {"id": client.full_id, "user": client.user.shown(), "services": len(client.services)}
            for client in self._hub.clients(workspace).values()
        ]

    async def ping(self, context: Context, client_id: str, timeout: float = 5.0) -> Value:
        """Ask a client whether it is there."""
        if not isinstance(client_id, str):
            raise TypeError("the id of a client is text")
        full_id = client_id if "/" in client_id else f"{context.workspace}/{client_id}"
        _check(context, full_id.partition("/")[0], "r")
        return await self._peer.call(full_id, "services.built-in.ping", "ping", timeout=_seconds(timeout))

    def subscribe(self, context: Context, topics: Value) -> bool:
        """Get events of these types from now on."""
        wanted = _topics(topics)
        client = _client(context)
        if len(client.topics | wanted) > MOST_TOPICS:
            raise ValueError(f"a client may subscribe to {MOST_TOPICS} types of events")
        client.topics |= wanted
        return True

    def unsubscribe(self, context: Context, topics: Value) -> bool:
        """Get events of these types no longer."""
        _client(context).topics -= _topics(topics)
        return True

    # Workspaces and tokens.

    def get_workspace_info(self, context: Context, workspace: str | None = None) -> dict[str, Value]:
        """Tell about a workspace."""
        name = workspace or context.workspace
        _check(context, name, "r")
        return {
            "id": name, "name": name, "description": "", "persistent": True, "read_only": False,
            "status": {"ready": True}, "clients": len(self._hub.clients(name)),
        }  # fmt: skip

    def list_workspaces(self, context: Context, *_: Value) -> list[dict[str, Value]]:
        """List the workspaces that the caller may use."""
        return [{"id": name, "name": name} for name in sorted({context.workspace, *context.user.workspaces} - {"*"})]

    def generate_token(self, context: Context, config: Mapping[str, Value] | None = None, **more: Value) -> str:
        """Make a token: `workspace`, `permission` (read, read_write, admin), `expires_in` (s), `client_id`."""
        config = _options(config, more)
        workspace = str(config.get("workspace") or context.workspace)
        scopes = config.get("extra_scopes") or []
        if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
            raise TypeError("extra_scopes must be a list of texts")
        user = narrow(
            context.user, workspace, str(config.get("permission") or "read_write"), str(config.get("client_id") or ""),
            tuple(scopes),
        )  # fmt: skip
        return self._tokens.issue(user, float(config.get("expires_in") or LIFE_S))

    def parse_token(self, context: Context, token: str) -> dict[str, Value]:
        """Tell who a token is for."""
        return self._tokens.read(token).shown()

    def revoke_token(self, context: Context, token: str) -> str:
        """Make a token worthless before it expires, and cut off who came with it."""
        user = self._tokens.read_ended(token)
        _check(context, user.current_workspace or context.workspace, "a")
        self._tokens.revoke(token)
        self._hub.cut_off_token(user.token_id)
        return "Token revoked successfully"

    # The rest.

    def check_status(self, context: Context) -> str:
        """Tell whether the workspace is ready."""
        return "ready"

    def echo(self, context: Context, data: Value = None) -> Value:
        """Return what was sent."""
        return data

    def log(self, context: Context, message: Value) -> None:
        """Take a message for the log. It is not kept: what instances log is in their containers' logs."""


def unsupported(name: str) -> Function:
    """A function that refuses, for one of Hypha's that dockscale has not."""

    def refuse(context: Context, *_: Value, **__: Value) -> None:
        raise NotSupported(f"{name} is not supported by dockscale")

    return refuse


def _client(context: Context) -> Client:
    if context.client is None:
        raise ValueError("only a connected client can do this")
    return context.client


def _options(given: Value, more: Mapping[str, Value]) -> dict[str, Value]:
    """Options as a map, by name, or both."""
    if not isinstance(given, dict | None):
        raise TypeError(f"options must be a map, not {given!r:.100}")
    return {**(given or {}), **more}


def _seconds(value: Value) -> float:
    if not isinstance(value, int | float) or not 0 < value <= MOST_TIMEOUT_S:
        raise ValueError(f"a timeout is more than 0 and at most {MOST_TIMEOUT_S:.0f} seconds, not {value!r:.100}")
    return float(value)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not isnan(value)


def _check(context: Context, workspace: str, permission: Permission) -> None:
    if not context.user.may(workspace, permission):
        raise PermissionError(f"{context.user.id} has no permission for the workspace {workspace}")


def _topics(topics: Value) -> set[str]:
    names = [topics] if isinstance(topics, str) else topics
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("give a list of types of events, such as client_connected")
    if any(len(name) > MOST_TOPIC_LENGTH for name in names):
        raise ValueError(f"the type of an event has {MOST_TOPIC_LENGTH} characters at most")
    return set(names)


def _matches(info: dict[str, Value], asked: Mapping[str, Value]) -> bool:
    visibility = asked.get("visibility")
    if visibility and (info.get("config") or {}).get("visibility") != visibility:
        return False
    return all(info.get(name) == value for name, value in asked.items() if name in ("name", "type", "app_id") and value)


def _is_in(full_id: str, workspace: str) -> bool:
    return workspace in ("*", full_id.partition("/")[0])


def _info(described: Mapping[str, Value]) -> dict[str, Value]:
    """What a service is, without its functions."""
    return {name: value for name, value in described.items() if not (isinstance(value, dict) and "_rtype" in value)}


def _is_meant(info: dict[str, Value], query: Query) -> bool:
    meant = parse_id(str(info["id"]), query.workspace)
    return (
        query.name in ("*", meant.name)
        and query.client_id in ("", meant.client_id)
        and query.app_id in ("", info.get("app_id"))
    )
