"""The hub as lives see it: instances are registered on command."""

import asyncio
from collections.abc import Mapping

from dockscale.core.app import App
from dockscale.core.pool import Instance, client_id
from dockscale.engine import EngineError
from tests.support.world import World


class FakeRpc:
    """An instance is registered while `everybody` is set or its client id is in `clients`."""

    def __init__(self, it: World, *, everybody: bool = True) -> None:
        self.everybody = everybody
        self.clients: set[str] = set()
        self.refusal = ""
        """If set, nobody is told where to connect to, and this is why."""
        it.dockscale.scaler.connect_to(self)

    async def env(self, app: App, instance_name: str) -> Mapping[str, str]:
        if self.refusal:
            raise EngineError(self.refusal)
        return {"HYPHA_CLIENT_ID": client_id(instance_name), "HYPHA_APP_ID": app.app_id}

    async def registered(self, app: App, instance: Instance) -> None:
        while not self.everybody and instance.client_id not in self.clients:
            await asyncio.sleep(0.003)
