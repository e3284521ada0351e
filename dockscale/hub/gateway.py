"""HTTP to RPC: services are listed, described and called, and those that answer HTTP are reached below an address."""

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote

from dockscale.config import Auth
from dockscale.core.app import App
from dockscale.core.pool import NoPlace
from dockscale.hub import asgi
from dockscale.hub.apps import AppServices
from dockscale.hub.asgi import Target
from dockscale.hub.calls import virtual_id
from dockscale.hub.hub import SHARED, Hub
from dockscale.hub.local import CallTimeout, Context, LocalPeer, RemoteError
from dockscale.hub.manager import Manager
from dockscale.hub.services import parse_id
from dockscale.hub.stream import Streams
from dockscale.hub.tokens import BadToken, Tokens, User, anonymous, from_header
from dockscale.hub.web import Request, status_for, to_json
from dockscale.hub.wire import Value, pack, unpack, vouch

MOST_ARGS_BYTES = 2**26
"""Bytes of arguments that a call over HTTP may have."""
CALL_S = 30.0
"""Seconds without an answer or a heartbeat until a call over HTTP has failed."""
MSGPACK = "application/msgpack"


class Gateway:
    """Answers HTTP requests that are about services. Calls go out in the manager's name."""

    def __init__(
        self, hub: Hub, peer: LocalPeer, manager: Manager, apps: AppServices, tokens: Tokens, auth: Auth
    ) -> None:
        self._hub = hub
        self._peer = peer
        self._manager = manager
        self._apps = apps
        self._tokens = tokens
        self._auth: Auth = auth
        self._streams = Streams(hub)

    async def serve(self, request: Request, path: str, app: App | None = None) -> None:
        """Answer a request. `path` has its query; for an app, it is what comes after the app's own address."""
        try:
            user = self._user(request)
            if app is not None:
                await self._app(request, app, path, user)
            else:
                await self._route(request, path, user)
        except (
            RemoteError,
            CallTimeout,
            BadToken,
            NoPlace,
            LookupError,
            ValueError,
            TypeError,
            PermissionError,
        ) as error:
            if request.status:
                raise
            status, word = status_for(error)
            message = error.args[0] if error.args else word
            request.fail(status, word, str(message))

    def _user(self, request: Request) -> User:
        token = from_header(request.first(b"authorization"), request.first(b"cookie"))
        return self._tokens.read(token) if token else anonymous(SHARED, self._auth)

    async def _route(self, request: Request, path: str, user: User) -> None:
        plain, _, query = path.partition("?")
        if plain == "/rpc":
            await self._streams.serve(request, query, user)
            return
        _, workspace, kind, *rest = plain.split("/", 4)
        name = unquote(rest[0]) if rest else ""
        if kind == "apps":
            await self._service(request, workspace, name, rest[1:], query, user)
        elif not name:
            context = self._context(user, workspace)
            request.reply(
                200, to_json(self._manager.list_services(context, {"workspace": workspace})), "application/json"
            )
        elif len(rest) == 1 or not rest[1]:
            info = self._manager.get_service_info(self._context(user, workspace), f"{workspace}/{name}")
            request.reply(200, to_json(info), "application/json")
        else:
            await self._call(request, await self._find(workspace, name, query, user), rest[1], query, user)

    def _context(self, user: User, workspace: str) -> Context:
        """Who comes over HTTP is in no workspace: what is protected needs a permission for where it is."""
        return Context(f"{workspace}/http", user.current_workspace, user, None)

    # Services that answer HTTP.

    async def _app(self, request: Request, app: App, path: str, user: User) -> None:
        context = self._context(user, app.spec.workspace)
        service = await self._apps.first(app, lambda each: str(each.info.get("type")).lower() in asgi.TYPES, context)
        target = Target(virtual_id(app), service.name, app.spec.workspace, service.info)
        await asgi.answer(self._peer, request, target, path, user)

    async def _service(
        self, request: Request, workspace: str, name: str, rest: list[str], query: str, user: User
    ) -> None:
        more = f"?{query}" if query else ""
        if not rest:
            location = f"/{workspace}/apps/{name}/{more}"
            request.reply(307, b"", "text/plain", (b"Location", location.encode("latin-1")))
            return
        target = await self._find(workspace, name, query, user)
        if target.kind not in asgi.TYPES:
            raise KeyError(f"the service {name} answers no HTTP: its type is {target.kind}, not asgi or functions")
        await asgi.answer(self._peer, request, target, f"/{rest[0]}{more}", user)

    def has_service(self, workspace: str, name: str) -> bool:
        """Tell whether there is such a service, or an app that may have it."""
        try:
            query = parse_id(f"{workspace}/{unquote(name)}", workspace)
        except ValueError:
            return False
        return self._apps.meant(query) is not None or any(self._hub.services.meant(query))

    async def _find(self, workspace: str, name: str, query: str, user: User) -> Target:
        """The service that a path names, which `user` may call; an app that sleeps is started for it."""
        asked = parse_id(f"{workspace}/{name}", workspace)
        context = self._context(user, workspace)
        mode = dict(parse_qsl(query)).get("_mode", "")
        app = self._apps.meant(asked) if not asked.client_id else None
        if app is None:
            service = await self._manager.choose(asked, mode, context)
            return Target(service.client.full_id, service.name, workspace, service.info)
        if not app.spec.speaks_rpc:
            return self._http_app(app)
        service = await self._apps.first(app, lambda each: each.name == asked.name, context, asked.name)
        return Target(self._apps.address(app, mode), service.name, workspace, service.info)

    def _http_app(self, app: App) -> Target:
        described = self._apps.http(app)
        address = str(described["get"]["_rtarget"])
        return Target(address, app.app_id, app.spec.workspace, {"type": "http"})

    # Functions.

    async def _call(self, request: Request, target: Target, function: str, query: str, user: User) -> None:
        args, kwargs = await _arguments(request, query)
        name = unquote(function).strip("/").replace("/", ".")
        with self._peer.session(target.address, CALL_S) as session:
            vouched = vouch(target.workspace, user.shown())
            self._peer.ask(session, f"services.{target.name}.{name}", args, kwargs, vouched=vouched)
            value = await session.answer
        if isinstance(value, dict) and value.get("_rtype") == "generator":
            await self._stream(request, value, target)
        elif MSGPACK in request.first(b"accept").decode("latin-1"):
            request.reply(200, pack(value), MSGPACK)
        elif isinstance(value, bytes):
            request.reply(200, value, "application/octet-stream")
        else:
            request.reply(200, to_json(value), "application/json")

    async def _stream(self, request: Request, generator: Mapping[str, Value], target: Target) -> None:
        """Send what a generator gives as server-sent events, each as soon as it comes."""
        where = str(generator["_rtarget"])
        where = where if "/" in where else f"{target.workspace}/{where}"
        request.start(200, [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-cache")])
        done = False
        try:
            while True:
                item = await self._peer.call(where, str(generator["_rmethod"]), timeout=CALL_S)
                if isinstance(item, dict) and item.get("_rtype") == "stop_iteration":
                    break
                await request.write(b"data: %b\n\n" % to_json(item))
            done = True
            await request.write(b"data: [DONE]\n\n")
        except (RemoteError, CallTimeout) as error:
            done = True
            await request.write(b"event: error\ndata: %b\n\n" % to_json(str(error)))
        finally:
            if not done and generator.get("_rclose_method"):
                self._peer.tell(where, str(generator["_rclose_method"]))
        request.end()


async def _arguments(request: Request, query: str) -> tuple[list[Value], dict[str, Value]]:
    """The arguments of a call: the query's of a GET, else the body's. A map is keywords, a list positions.

    Raises:
        ValueError: the body is not what its type says.
    """
    given = {name: _number(value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "_mode"}
    if request.method in ("GET", "HEAD"):
        return [], given
    body = await request.read_all(MOST_ARGS_BYTES)
    if not body:
        return [], given
    if request.first(b"content-type").startswith(MSGPACK.encode()):
        value = unpack(body)
    else:
        try:
            value = json.loads(body)
        except ValueError as error:
            raise ValueError(f"the body is no JSON: {error}") from None
    if isinstance(value, dict):
        return [], given | {str(name): each for name, each in value.items()}
    return (value if isinstance(value, list) else [value]), given


def _number(text: str) -> Value:
    """What a query's value most likely means."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, int | float | bool) or value is None else text
