"""Which clients are the instances of apps: what their programs need to connect, and whether they have."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from dockscale.core.app import App
from dockscale.core.pool import Instance, client_id
from dockscale.hub.clients import Client, Peer
from dockscale.hub.tokens import Tokens, User

TOKEN_S = 365 * 86400.0
"""Life of an instance's token. A copy made ahead may be started much later, and it serves for this one client alone."""
SUFFIX = client_id("")


class Instances:
    """`url` finds where instances reach the main port; `unplugged` is told of one that is connected no more."""

    def __init__(
        self,
        apps: Mapping[str, App],
        peers: Mapping[str, Peer],
        tokens: Tokens,
        url: Callable[[], Awaitable[str]],
        unplugged: Callable[[App, Instance], object],
    ) -> None:
        self._apps = apps
        self._peers = peers
        self._tokens = tokens
        self._url = url
        self._unplugged = unplugged
        self.closing = False
        """dockscale ends: instances are meant to come back to the next one."""
        self._changed: dict[str, asyncio.Event] = {}
        """By full id, of those that are waited for."""

    async def env(self, app: App, instance_name: str) -> Mapping[str, str]:
        """The environment in which an ordinary program finds its way here."""
        workspace, own_id = app.spec.workspace, client_id(instance_name)
        user = User(own_id, {workspace: "rw"}, current_workspace=workspace, client_id=own_id)
        return {
            "HYPHA_SERVER_URL": await self._url(),
            "HYPHA_WORKSPACE": workspace,
            "HYPHA_CLIENT_ID": own_id,
            "HYPHA_TOKEN": self._tokens.issue(user, TOKEN_S),
            "HYPHA_APP_ID": app.app_id,
        }

    async def registered(self, app: App, instance: Instance) -> None:
        """Wait until the instance's program is connected and has registered the service that makes it ready."""
        full_id = f"{app.spec.workspace}/{instance.client_id}"
        changed = self._changed.setdefault(full_id, asyncio.Event())
        try:
            while True:
                client = self._peers.get(full_id)
                if isinstance(client, Client) and _is(client.user, instance):
                    client.become(app, instance)
                    wanted, has = app.spec.startup_config.wait_for_service, self.services(app, instance)
                    if wanted in has or (has and not wanted):
                        return
                changed.clear()
                await changed.wait()
        finally:
            self._changed.pop(full_id, None)

    def services(self, app: App, instance: Instance) -> list[str]:
        """Names of the services that an instance has registered, in order."""
        client = self._peers.get(f"{app.spec.workspace}/{instance.client_id}")
        return [name for name in client.services if name != "built-in"] if isinstance(client, Client) else []

    def place_of(self, workspace: str, client_id: str, user: User) -> tuple[App, Instance] | None:
        """The instance that connects as this client, if it is one.

        Raises:
            PermissionError: the id is an instance's, and `user` is not that.
        """
        if not client_id.endswith(SUFFIX):
            return None
        for app in self._apps.values():
            instance = app.pool.instances.get(client_id.removesuffix(SUFFIX))
            if instance is not None and app.spec.speaks_rpc and app.spec.workspace == workspace:
                if not _is(user, instance):
                    raise PermissionError(f"the client id {client_id} is an instance's, which has a token for it")
                return app, instance
        return None

    def joined(self, client: Client) -> None:
        """A client has connected, or registered a service."""
        changed = self._changed.get(client.full_id)
        if changed is not None:
            changed.set()

    def left(self, client: Client) -> None:
        """A client is gone."""
        if client.place is not None and not self.closing:
            self._unplugged(*client.place)


def _is(user: User, instance: Instance) -> bool:
    """Whoever made a container by hand may have given it no token."""
    return user.client_id == instance.client_id or (not instance.managed and not user.client_id)
