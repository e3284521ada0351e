"""The hub as a whole: its parts put together, and the verbs that the rest of dockscale calls."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from dockscale.claim import Wake
from dockscale.config import Auth
from dockscale.control import Control
from dockscale.core.app import App
from dockscale.core.pool import Clock, Instance
from dockscale.core.routes import ToApp, ToHub
from dockscale.hub.apps import AppServices
from dockscale.hub.asgi import Carrier
from dockscale.hub.calls import Calls
from dockscale.hub.controller import SERVICE, Controller
from dockscale.hub.gateway import Gateway
from dockscale.hub.http_apps import HttpApps
from dockscale.hub.hub import SHARED, Hub
from dockscale.hub.instances import Instances
from dockscale.hub.local import LocalPeer
from dockscale.hub.manager import Manager
from dockscale.hub.services import Services
from dockscale.hub.socket import Door
from dockscale.hub.tokens import Tokens
from dockscale.hub.web import Request


class Rpc:
    """Everything that speaks RPC."""

    def __init__(
        self, apps: Mapping[str, App], tokens: Tokens, auth: Auth, clock: Clock, tasks: asyncio.TaskGroup,
        *, wake: Wake, unplugged: Callable[[App, Instance], object], url: Callable[[], Awaitable[str]],
        response_timeout: float,
    ) -> None:  # fmt: skip
        self._apps = apps
        services = Services()
        self.hub = Hub(services, tokens, auth, clock)
        self.calls = Calls(apps, self.hub, wake, clock, tasks)
        self.instances = Instances(apps, self.hub.peers, tokens, url, unplugged)
        self.hub.connect_to(self.instances, self.calls)
        peer, asked = self._own(self.hub.manager_id, tasks), self._own("http", tasks)
        # Clients let the manager, and no other peer, call what is protected.
        carrier = Carrier(peer, tasks, self.calls.answers)
        self._http = HttpApps(asked, apps, wake, clock, response_timeout)
        app_services = AppServices(apps, services, self.hub.peers, wake, self._http, asked, carrier)
        self.manager = Manager(self.hub, peer, tokens, app_services)
        self._peer = peer
        self._gateway = Gateway(self.hub, carrier, self.manager, app_services, tokens, auth)
        self.has_service = self._gateway.has_service
        self.refusal = self._gateway.refusal
        self.door = Door(self.hub)
        self.socket = self.door.socket

    def _own(self, client_id: str, tasks: asyncio.TaskGroup) -> LocalPeer:
        peer = LocalPeer("*", client_id, self.hub.post, tasks)
        self.hub.add(peer)
        return peer

    def connect_to(self, control: Control) -> None:
        """Say who does what operators want, before the first client comes."""
        controller = Controller(self._peer, self._apps, control)
        self.manager.host(f"{SHARED}/{SERVICE}", controller.describe)

    async def serve(self, request: Request, route: ToApp | ToHub) -> None:
        """Answer an HTTP request to an app that speaks RPC, or to the hub itself."""
        if isinstance(route, ToApp):
            await self._gateway.serve(request, route.path, self._apps[route.app_id])
        else:
            await self._gateway.serve(request, route.path)

    async def close(self, timeout: float) -> None:
        """Let calls end, `timeout` seconds at most, tell every client to come back later, and end what goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.calls.ended()
        self.instances.closing = True
        self.door.close()
        self._gateway.close()
        self.calls.close()
        await self._http.close()
