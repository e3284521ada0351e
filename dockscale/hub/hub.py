"""Who is connected, and each message on its way. Nothing here waits; what a sender says of itself is not believed."""

import re
import uuid
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from dockscale.config import Auth
from dockscale.core.app import App
from dockscale.core.pool import Clock, Instance
from dockscale.hub.calls import SUFFIX
from dockscale.hub.clients import Client, Link, Peer
from dockscale.hub.services import Services
from dockscale.hub.tokens import RECONNECTION_S, BadToken, Tokens, User, anonymous
from dockscale.hub.wire import Message, Value, body, error_value, read

log = structlog.get_logger()

MANAGER_ID = "manager-dockscale"
"""The same after a restart: what clients were given of the manager before goes on working."""
SHARED = "public"
"""The workspace of whoever names none."""
_CLIENT_ID = re.compile(r"[^\s/:@*\x00-\x1f\x7f\ud800-\udfff]{1,200}")
_VIRTUAL = re.compile(SUFFIX + "(_[a-z_]+)?$")
"""How the ids end at which apps are called."""
_WORKSPACE = re.compile(r"[A-Za-z0-9][\w.|@-]{0,127}", re.ASCII)
_EVENTS = frozenset({"client_connected", "client_disconnected", "service_added", "service_updated", "service_removed"})
_VOUCHED = ("ws", "user", "ctx")
"""What dockscale alone says of a sender."""
_OWN_TYPES = _EVENTS | {"client_updated", "force-exit", "peer_not_found"}
"""What clients believe whoever says it. So only dockscale may."""


class Refused(Exception):
    """A client that may not connect. The message says why."""


class Taken(Refused):
    """Another client has this id and may still be alive."""

    def __init__(self, holder: Client) -> None:
        super().__init__(f"the client id {holder.client_id} is connected already in workspace {holder.workspace}")
        self.holder = holder


class Instances(Protocol):
    """Who knows which clients are instances."""

    def place_of(self, workspace: str, client_id: str, user: User) -> tuple[App, Instance] | None: ...
    def joined(self, client: Client) -> None: ...
    def left(self, client: Client) -> None: ...


class Calls(Protocol):
    """Who places calls on instances."""

    def left(self, client: Client) -> None: ...
    def pass_on(self, message: Message, sender: Peer, target: Peer | None) -> bool: ...


class OwnPeer(Peer, Protocol):
    """A peer that dockscale itself plays."""

    def peer_left(self, full_id: str) -> None: ...


class Hub:
    """Clients by their full ids, and dockscale's own peers."""

    def __init__(self, services: Services, tokens: Tokens, auth: Auth, clock: Clock) -> None:
        self.peers: dict[str, Peer] = {}
        self._own: list[OwnPeer] = []
        self.services = services
        self.manager_id = MANAGER_ID
        self._tokens = tokens
        self._auth: Auth = auth
        self._clock = clock
        self._instances: Instances
        self._calls: Calls
        self._by_workspace: dict[str, dict[str, Client]] = {}

    def connect_to(self, instances: Instances, calls: Calls) -> None:
        """Say who deals with instances, before the first client comes."""
        self._instances = instances
        self._calls = calls

    # Who is there.

    def add(self, peer: OwnPeer) -> None:
        """Make one of dockscale's own peers reachable."""
        self.peers[peer.full_id] = peer
        self._own.append(peer)

    def clients(self, workspace: str) -> Mapping[str, Client]:
        """The clients of a workspace by their ids."""
        return self._by_workspace.get(workspace, {})

    @property
    def count(self) -> int:
        """How many clients there are."""
        return sum(len(clients) for clients in self._by_workspace.values())

    def connect(
        self, link: Link, hello: Mapping[str, Value], base_url: str, *, dead: Client | None = None
    ) -> tuple[Client, dict[str, Value]]:
        """Admit a client; return it and what it is told.

        A client that has the same id makes room if it is `dead`, or if the new one proves to be the same.

        Raises:
            Refused: it may not connect.
            Taken: its id is another's.
        """
        user, workspace, client_id, returns = self._identify(hello)
        client = Client(workspace, client_id, user, link, self._clock(), self._place(workspace, client_id, user))
        welcome = self._welcome(client, base_url)
        holder = self.clients(workspace).get(client_id)
        if holder is not None:
            if not (returns or holder is dead):
                raise Taken(holder)
            self.cut_off(holder, "another connection took its place")
        self.peers[client.full_id] = client
        self._by_workspace.setdefault(workspace, {})[client_id] = client
        self._instances.joined(client)
        log.debug("rpc_client_connected", client=client.full_id, user=user.id)
        self.tell(workspace, "client_connected", {"id": client_id, "workspace": workspace})
        return client, welcome

    def _identify(self, hello: Mapping[str, Value]) -> tuple[User, str, str, bool]:
        """User, workspace and client id of who connects, and whether it proves to be the one who had that id."""
        asked = {name: hello.get(name) or "" for name in ("client_id", "workspace", "token", "reconnection_token")}
        for name, value in asked.items():
            if not isinstance(value, str):
                raise Refused(f"{name} is no text")
        user, workspace, returns = self._who(asked)
        client_id = asked["client_id"] or user.client_id or uuid.uuid4().hex
        if not _CLIENT_ID.fullmatch(client_id) or _VIRTUAL.search(client_id):
            raise Refused(
                f"the client id {client_id[:100]!r} must be 1 to 200 characters without spaces, /, :, @ and *, "
                "and not an app's"
            )
        if not _WORKSPACE.fullmatch(workspace):
            raise Refused(f"the workspace {workspace[:100]!r} must be letters, digits and -_.@|")
        if not user.may(workspace, "r"):
            raise Refused(f"{user.id} has no permission for the workspace {workspace}")
        if user.client_id and user.client_id != client_id:
            raise Refused(f"the token is for the client {user.client_id}, not for {client_id}")
        return user, workspace, client_id, returns

    def _who(self, asked: Mapping[str, str]) -> tuple[User, str, bool]:
        """User and workspace that tokens tell, and whether they prove it to be the client that had its id.

        An error is the end for a client that comes back. So if it cannot prove that any more, it may come as a new one.
        """
        why = ""
        if asked["reconnection_token"]:
            try:
                user, *was = self._tokens.read_reconnection(asked["reconnection_token"])
            except BadToken as error:
                why = str(error)
            else:
                if [asked["workspace"] or was[0], asked["client_id"]] != was:
                    raise Refused(f"the reconnection token is for the client {'/'.join(was)}")
                return user, was[0], True
        try:
            user = self._tokens.read(asked["token"]) if asked["token"] else anonymous(SHARED, self._auth)
        except BadToken as error:
            raise Refused(str(error)) from None
        if why and not user.workspaces:
            raise Refused(why)
        workspace = asked["workspace"] or user.current_workspace or SHARED
        return user, workspace, user.client_id != "" and user.client_id == asked["client_id"]

    def _place(self, workspace: str, client_id: str, user: User) -> tuple[App, Instance] | None:
        try:
            return self._instances.place_of(workspace, client_id, user)
        except PermissionError as error:
            raise Refused(str(error)) from None

    def _welcome(self, client: Client, base_url: str) -> dict[str, Value]:
        return {
            "type": "connection_info",
            "hypha_version": "0.21.137",
            "public_base_url": base_url,
            "local_base_url": base_url,
            "manager_id": self.manager_id,
            "workspace": client.workspace,
            "client_id": client.client_id,
            "user": client.user.shown(),
            "reconnection_token": self.reconnection_token(client),
            "reconnection_token_life_time": int(RECONNECTION_S),
        }

    def reconnection_token(self, client: Client) -> str:
        """What lets a client come back under its id."""
        return self._tokens.reconnection(client.user, client.workspace, client.client_id)

    def disconnect(self, client: Client) -> None:
        """Forget a client and all that it had. Nothing happens if it is forgotten already."""
        if self.peers.get(client.full_id) is not client:
            return
        del self.peers[client.full_id]
        members = self._by_workspace[client.workspace]
        del members[client.client_id]
        if not members:
            del self._by_workspace[client.workspace]
        for service in list(client.services.values()):
            self.drop_service(client, service.name)
        self._instances.left(client)
        self._calls.left(client)
        for peer in self._own:
            peer.peer_left(client.full_id)
        left = {"id": client.client_id, "workspace": client.workspace}
        self.tell(client.workspace, "client_disconnected", left)
        for full_id in client.acquainted:
            other = self.peers.get(full_id)
            if isinstance(other, Client):
                other.acquainted.discard(client.full_id)
                self._tell_one(other, "client_disconnected", left)
        log.debug("rpc_client_disconnected", client=client.full_id)

    def cut_off(self, client: Client, why: str) -> None:
        """End a client's connection for good: it is told not to come back by itself."""
        self._say(client, "force-exit", client.full_id, reason=why)
        client.link.close(1008, why)
        self.disconnect(client)

    def cut_off_token(self, token_id: str) -> None:
        """Cut off every client that came with this token."""
        everybody = [client for clients in self._by_workspace.values() for client in clients.values()]
        for client in everybody:
            if client.user.token_id == token_id:
                self.cut_off(client, "its token was revoked")

    def keep_service(self, client: Client, info: Value) -> None:
        """Note what a client registered.

        Raises:
            ValueError: it describes no service, or too much.
            PermissionError: it is another client's.
            KeyError: the client is gone.
        """
        if self.peers.get(client.full_id) is not client:
            raise KeyError(f"{client.full_id} is not connected")
        known = set(client.services)
        service = self.services.add(client, info)
        self.tell(client.workspace, "service_updated" if service.name in known else "service_added", service.info)
        self._instances.joined(client)

    def drop_service(self, client: Client, name: str) -> None:
        """Forget a service of a client.

        Raises:
            KeyError: it has none of that name.
        """
        info = self.services.remove(client, name)
        self.tell(client.workspace, "service_removed", info)

    # Events.

    def tell(self, workspace: str, kind: str, data: dict[str, Value]) -> None:
        """Tell an event to the workspace's clients that subscribed to it."""
        for client in self.clients(workspace).values():
            self._tell_one(client, kind, data)

    def _tell_one(self, client: Client, kind: str, data: dict[str, Value]) -> None:
        if kind in client.topics:
            self._say(client, kind, "*", data=data)

    def _say(self, client: Client, kind: str, to: str, **more: Value) -> None:
        client.link.send(Message({"type": kind, "to": to, "from": f"*/{self.manager_id}", **more}).frame())

    # Messages.

    def receive(self, client: Client, frame: bytes) -> None:
        """Take a frame from a client.

        Raises:
            Malformed: it cannot be read, or passed on.
        """
        message = read(frame)
        message.check_body()
        match message.header["type"]:
            case "ping":
                client.link.tell({"type": "pong"})
            case "refresh_token":
                client.link.tell({"type": "reconnection_token", "reconnection_token": self.reconnection_token(client)})
            case "method":
                if message.method.startswith("services."):
                    message.vouched = client.vouched
                self.post(message, client)
            case forged if forged in _OWN_TYPES:
                log.debug("rpc_message_dropped", client=client.full_id, type=forged)
            case _:
                message.vouched = client.vouched
                self.post(message, client)

    def post(self, message: Message, sender: Peer) -> None:
        """Send a message on its way."""
        header = message.header
        header["from"] = sender.full_id
        for name in _VOUCHED:
            header.pop(name, None)
        to: str = header.get("to") or ""
        if to == "*":
            self._broadcast(message, sender)
            return
        if "/" not in to:
            header["to"] = to = f"{sender.full_id.partition('/')[0]}/{to}"
        target = self.peers.get(to)
        if isinstance(sender, Client) and (refusal := self._refusal(message, sender, target)):
            self.refuse(message, sender, refusal)
        elif not self._calls.pass_on(message, sender, target):
            if target is None:
                self.refuse(message, sender, f"Target peer {to} is not connected")
            else:
                target.deliver(message, sender)

    def refuse(self, message: Message, sender: Peer, why: str) -> None:
        """Answer a call that reaches nobody, in the name of whom it was for. Who wanted no answer gets none."""
        if message.session and message.header["type"] == "method":
            header = {
                "type": "method", "from": message.header["to"], "to": sender.full_id,
                "method": f"{message.session}.reject", "parent": message.session,
            }  # fmt: skip
            sender.deliver(Message(header, body([error_value(why)])), sender)

    def _broadcast(self, message: Message, sender: Peer) -> None:
        workspace = sender.full_id.partition("/")[0]
        if isinstance(sender, Client) and not sender.user.may(workspace, "rw"):
            return
        for client in self.clients(workspace).values():
            if message.header["type"] in client.topics and client is not sender:
                client.deliver(message, sender)

    def _refusal(self, message: Message, sender: Client, target: Peer | None) -> str:
        """Why a message may not leave its workspace; empty if it may, or need not."""
        if not isinstance(target, Client) or target.workspace == sender.workspace:
            return ""
        if message.method.startswith("services."):
            service = target.services.get(message.method.split(".")[1])
            if not (service is not None and service.public) and not sender.user.may(target.workspace, "r"):
                return (
                    f"PermissionError: {message.header['to']} is in another workspace, and what it offers is protected"
                )
            sender.acquainted.add(target.full_id)
            target.acquainted.add(sender.full_id)
            return ""
        if target.full_id in sender.acquainted:
            return ""
        return f"PermissionError: {message.header['to']} is in another workspace and has no call open with the sender"

    def __repr__(self) -> str:
        return f"<Hub clients={self.count} workspaces={len(self._by_workspace)}>"


Post = Callable[[Message, Peer], None]
