"""Who is connected: one client and what it has registered. Its connection is a `Link`, whatever carries it."""

from dataclasses import dataclass, field
from typing import Protocol

from dockscale.core.app import App
from dockscale.core.pool import Instance
from dockscale.hub.tokens import User
from dockscale.hub.wire import Message, Value, vouch

MOST_SERVICES = 1000
"""Services of one client."""
PUBLIC = frozenset({"public", "unlisted"})
"""Visibilities that let other workspaces in; `unlisted` ones are not shown to them."""


class Link(Protocol):
    """A client's connection."""

    def send(self, frame: bytes) -> None: ...
    def tell(self, said: dict[str, Value]) -> None:
        """Say something that is no RPC message, such as an answer to a ping."""

    def throttle(self, sender: "Link") -> None:
        """Read nothing from `sender` while this one has too much to take already."""

    def hold(self) -> None: ...
    def release(self) -> None: ...
    def close(self, code: int, why: str) -> None: ...
    async def answers(self) -> bool:
        """Tell whether the client is still there; this alone waits."""


class Peer(Protocol):
    """Who messages are for: a client, or one of dockscale's own."""

    @property
    def full_id(self) -> str: ...
    def deliver(self, message: Message, sender: "Peer") -> None: ...


@dataclass(slots=True, eq=False)
class Service:
    """What a client registered, as far as it told: its functions are asked for with `get_service`."""

    client: "Client"
    name: str
    info: dict[str, Value]
    """As it was registered, with the id made whole."""
    described: dict[str, Value] | None = None
    """Its functions as values, once the client was asked."""

    @property
    def full_id(self) -> str:
        return f"{self.client.full_id}:{self.name}"

    @property
    def app_id(self) -> str:
        app_id: str = self.info.get("app_id") or "*"
        return app_id

    @property
    def public(self) -> bool:
        """Other workspaces may use it."""
        return (self.info.get("config") or {}).get("visibility") in PUBLIC

    @property
    def listed(self) -> bool:
        """Other workspaces may find it."""
        return (self.info.get("config") or {}).get("visibility") == "public"


@dataclass(slots=True, eq=False)
class Client:
    workspace: str
    client_id: str
    user: User
    link: Link
    since: float
    place: tuple[App, Instance] | None = None
    """The app and its instance, if the client is one."""
    services: dict[str, Service] = field(default_factory=dict)
    topics: set[str] = field(default_factory=set)
    """Events that it subscribed to."""
    acquainted: set[str] = field(default_factory=set)
    """Clients of other workspaces that may answer it, or that it may answer."""
    vouched: bytes = b""
    """What receivers are told of it, packed."""

    def __post_init__(self) -> None:
        self.vouched = vouch(self.workspace, self.user.shown())

    @property
    def full_id(self) -> str:
        return f"{self.workspace}/{self.client_id}"

    def become(self, app: App, instance: Instance) -> None:
        """Be known as this instance; what it registered before is its app's."""
        self.place = (app, instance)
        for service in self.services.values():
            service.info["app_id"] = app.app_id

    def deliver(self, message: Message, sender: Peer) -> None:
        self.link.send(message.frame())
        if isinstance(sender, Client):
            self.link.throttle(sender.link)

    def __repr__(self) -> str:
        return f"<Client {self.full_id} services={len(self.services)}>"
