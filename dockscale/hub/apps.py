"""The services of apps: each is called at the app's virtual client, whichever instances there are."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from dockscale.claim import Wake, claim
from dockscale.core.app import App
from dockscale.core.pool import Instance, State
from dockscale.core.spec import SelectionMode, Visibility
from dockscale.hub import asks
from dockscale.hub.asgi import Carrier, Target
from dockscale.hub.asks import Ask, Made, Told
from dockscale.hub.calls import virtual_id
from dockscale.hub.clients import Client, Service
from dockscale.hub.collected import Collected
from dockscale.hub.local import Context, Function, LocalPeer
from dockscale.hub.services import Query, Services, may_reach, may_use
from dockscale.hub.tokens import User
from dockscale.hub.wire import Value, pack, retarget, unpack


class Describes(Protocol):
    """Who asks a client for the functions of a service."""

    async def describe(self, service: Service, timeout: float) -> dict[str, Value]: ...


class Http(Protocol):
    """Who calls apps that speak HTTP."""

    def describe(self, app: App) -> dict[str, Value]: ...
    def functions(self, app_id: str) -> Mapping[str, Function]: ...


class AppServices:
    """Finds out which app a service's id means, starts it if it sleeps, and aims its functions at all instances."""

    def __init__(
        self, apps: Mapping[str, App], services: Services, clients: Mapping[str, object], wake: Wake, http: Http,
        peer: LocalPeer, carrier: Carrier,
    ) -> None:  # fmt: skip
        self._apps = apps
        self._services = services
        self._clients = clients
        self._wake = wake
        self._http = http
        self._peer = peer
        """Who has the functions by which ASGI services are asked."""
        self._carrier = carrier
        peer.serve("asgi", Made(self._functions))

    def meant(self, query: Query) -> App | None:
        """The app that a query means: the one it names, or the one whose instances offer such a service."""
        if query.app_id:
            app = self._apps.get(query.app_id)
            return app if app is not None and app.spec.workspace == query.workspace else None
        found = self._services.meant(query)
        return next((service.client.place[0] for service in found if service.client.place is not None), None)

    async def get(
        self, query: Query, mode: str, context: Context, timeout: float, manager: Describes
    ) -> dict[str, Value] | None:
        """A service of an app as a value; None if the query means no app, or one of its instances is to be chosen.

        Raises:
            NoPlace: the app has no instance now.
            KeyError: it has no such service.
            PermissionError: it is protected, and in another workspace.
        """
        app = self.meant(query)
        if app is None:
            return None
        if not app.spec.speaks_rpc:
            _check(app, context)
            return self._http.describe(app)
        service = await self.first(app, lambda each: each.name == query.name, context, query.name)
        if mode.startswith("select:") or mode == "exact":
            return None  # the manager chooses one of those that are there
        described = await manager.describe(service, timeout)
        copy: dict[str, Value] = unpack(pack(described))  # what is kept must stay as it is
        virtual = self.address(app, mode)
        retarget(copy, app.spec.workspace, old=service.client.full_id, new=virtual)
        return self._asked(app, query.name, mode, service) | copy | {"id": f"{virtual}:{query.name}"}

    async def first(
        self, app: App, fits: Callable[[Service], bool], context: Context, name: str = "one for HTTP"
    ) -> Service:
        """The service that fits of one of the app's instances; the app is started for it if it sleeps.

        Raises: as `get`.
        """
        service = self._known(app, fits)
        if service is None:
            with await claim(app, self._wake) as lease:
                app.leave()  # it was asked for
                client = self._client(app, lease.instance)
                service = self._known(app, fits)
                if service is None:
                    has = ", ".join(sorted(client.services.keys() - {"built-in"})) if client else "none"
                    raise KeyError(f"Service not found: {app.app_id} has no service {name}, only {has}")
        if not may_use(service, context.user, context.workspace):
            raise PermissionError(f"{service.name}@{app.app_id} is protected in the workspace {app.spec.workspace}")
        return service

    def _known(self, app: App, fits: Callable[[Service], bool]) -> Service | None:
        clients = [self._client(app, instance) for instance in app.pool if instance.state is State.READY]
        services = (each for client in clients if client is not None for each in client.services.values())
        return next(filter(fits, services), None)

    def _client(self, app: App, instance: Instance) -> Client | None:
        client = self._clients.get(f"{app.spec.workspace}/{instance.client_id}")
        return client if isinstance(client, Client) else None

    def address(self, app: App, mode: str) -> str:
        """Where an app's functions are called, by its own selection mode or by `mode`.

        Raises:
            ValueError: there is no such mode.
        """
        return virtual_id(app, _mode(mode))

    async def target(self, app: App, name: str, mode: str, context: Context) -> Target:
        """Where a service of an app is called.

        Raises: as `get`.
        """
        if not app.spec.speaks_rpc:
            _check(app, context)
            return Target(self._peer.full_id, f"http.{app.app_id}", app.spec.workspace, {"type": "http"})
        service = await self.first(app, lambda each: each.name == name, context, name)
        return Target(self.address(app, mode), name, app.spec.workspace, service.info)

    # Requests as calls.

    def functions(self, app: App, target: Target, mode: str) -> Mapping[str, Function]:
        """The functions by which a service of an app is asked that answers HTTP; none if it does not."""
        if not app.spec.speaks_rpc:
            return self._http.functions(app.app_id)
        own = target.info.get("service_schema") or {}
        made = self._functions(_key(app, target.name, mode)) if target.kind == "asgi" else {}
        return {name: function for name, function in made.items() if name not in own}

    def _asked(self, app: App, name: str, mode: str, service: Service) -> dict[str, Value]:
        if str(service.info.get("type")).lower() != "asgi":
            return {}
        key = _key(app, name, mode)
        return self._peer.values(self._functions(key), f"services.asgi.{key}")

    def _functions(self, key: str) -> Mapping[str, Function]:
        name, _, rest = key.partition("@")
        app_id, _, mode = rest.partition("@")
        return asks.functions(f"{name}@{app_id}", partial(self._ask, app_id, name, mode))

    async def _ask(self, app_id: str, name: str, mode: str, context: Context, ask: Ask) -> Told:
        app = self._apps.get(app_id)
        if app is None:
            raise KeyError(f"Service not found: no app is called {app_id}")
        target = await self.target(app, name, mode, context)
        request = Collected(ask, context.caller, f"{app_id}.localhost")
        return await self._carrier.collect(request, target, ask.target, context.user)

    def infos(self, workspace: str, user: User) -> list[dict[str, Value]]:
        """What apps offer, asleep or not."""
        return [
            {
                "id": f"{virtual_id(app)}:{app.spec.startup_config.wait_for_service}",
                "name": app.spec.name or app.app_id,
                "type": "app" if app.spec.speaks_rpc else "http",
                "description": app.spec.description,
                "app_id": app.app_id,
                "config": {"workspace": app.spec.workspace, "visibility": "protected"},
            }
            for app in self._apps.values()
            if workspace in ("*", app.spec.workspace) and app.spec.visibility is not Visibility.UNLISTED
            if user.may(app.spec.workspace, "r")
        ]


def _check(app: App, context: Context) -> None:
    if not may_reach(app.spec, context.user, context.workspace):
        raise PermissionError(f"{app.app_id} is protected in the workspace {app.spec.workspace}")


def _key(app: App, name: str, mode: str) -> str:
    return f"{name}@{app.app_id}@{mode}"


def _mode(mode: str) -> SelectionMode | None:
    """The selection mode that a call asked for; None: the app's own.

    Raises:
        ValueError: there is no such mode.
    """
    name = mode.removeprefix("native:")
    if name and name not in SelectionMode.__members__.values():
        raise ValueError(f"{mode!r} is no selection mode; give one of {', '.join(SelectionMode)} or select:…")
    return SelectionMode(name) if name else None
