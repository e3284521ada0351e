"""HTTP to RPC: services are listed, described and called, and those that answer HTTP are reached below an address."""

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote

from dockscale.config import Auth
from dockscale.core.app import App
from dockscale.hub import asgi, browser
from dockscale.hub.apps import AppServices
from dockscale.hub.asgi import Carrier, Target
from dockscale.hub.calls import virtual_id
from dockscale.hub.clients import Client
from dockscale.hub.hub import SHARED, Hub
from dockscale.hub.local import CallTimeout, Context, RemoteError
from dockscale.hub.manager import Manager
from dockscale.hub.services import may_reach, parse_id
from dockscale.hub.stream import Streams
from dockscale.hub.tokens import BadToken, Tokens, User, anonymous, from_header
from dockscale.hub.web import CORS, Request, last_error, preflight, tell, to_json
from dockscale.hub.wire import Value, pack, unpack, vouch

MOST_ARGS_BYTES = 2**26
"""Bytes of arguments that a call over HTTP may have."""
MSGPACK = "application/msgpack"
_WORD = 2**63
"""Whole numbers below this can be sent, whatever their sign."""
_Arguments = tuple[list[Value], dict[str, Value]]


class Gateway:
    """Answers HTTP requests that are about services. Calls go out in the manager's name."""

    def __init__(
        self, hub: Hub, carrier: Carrier, manager: Manager, apps: AppServices, tokens: Tokens, auth: Auth
    ) -> None:
        self._hub = hub
        self._peer = carrier.peer
        self._carrier = carrier
        self._manager = manager
        self._apps = apps
        self._tokens = tokens
        self._auth: Auth = auth
        self._streams = Streams(hub)

    def close(self) -> None:
        """End what would not end by itself."""
        self._streams.close()

    async def serve(self, request: Request, path: str, app: App | None = None) -> None:
        """Answer a request. `path` has its query; for an app, it is what comes after the app's own address."""
        try:
            if app is not None:
                await self._visit_app(request, app, path)
            else:
                await self._route(request, path)
        except Exception as error:
            tell(request, error)

    async def _route(self, request: Request, path: str) -> None:
        plain, _, query = path.partition("?")
        _, workspace, kind, *rest = [*plain.split("/", 4), ""]
        if kind == "apps":
            await self._visit(request, workspace, unquote(rest[0]), rest[1:-1], query)
            return
        request.lines = CORS
        if preflight(request):
            return
        if plain == "/rpc":
            await self._streams.serve(request, query)
        elif workspace == "assets":
            browser.serve(request)
        else:
            await self._services(request, workspace, unquote(rest[0]), "".join(rest[1:-1]), query)

    # Who asks.

    def _user(self, request: Request) -> User:
        """Who sends a request.

        Raises:
            BadToken: its token is not valid.
        """
        token = from_header(request.first(b"authorization"), request.first(b"cookie"))
        return self._tokens.read(token) if token else anonymous(SHARED, self._auth)

    def _visitor(self, request: Request) -> User:
        """Who sends a request to a service that answers HTTP: what is no token of ours may well be the service's."""
        try:
            return self._user(request)
        except BadToken:
            return anonymous(SHARED, self._auth)

    def _context(self, user: User, workspace: str) -> Context:
        """Who comes over HTTP is in no workspace: what is protected needs a permission for where it is."""
        return Context(f"{workspace}/http", "", user, None)

    # Services that answer HTTP.

    async def _visit_app(self, request: Request, app: App, path: str) -> None:
        user = self._visitor(request)
        context = self._context(user, app.spec.workspace)
        service = await self._apps.first(app, lambda each: str(each.info.get("type")).lower() in asgi.TYPES, context)
        target = Target(virtual_id(app), service.name, app.spec.workspace, service.info)
        await self._carrier.answer(request, target, path, user)

    async def _visit(self, request: Request, workspace: str, name: str, rest: list[str], query: str) -> None:
        more = f"?{query}" if query else ""
        if not rest:
            location = f"{request.target.partition('?')[0]}/{more}"
            request.reply(307, b"", "text/plain", (b"Location", location.encode("latin-1")))
            return
        user = self._visitor(request)
        try:
            target = await self._find(request, workspace, name, query, user)
        except PermissionError:
            self._user(request)  # a token that is not valid explains it better
            raise
        if target.kind not in asgi.TYPES:
            raise KeyError(f"the service {name} answers no HTTP: its type is {target.kind}, not asgi or functions")
        await self._carrier.answer(request, target, f"/{rest[0]}{more}", user)

    def refusal(self, app: App, authorization: bytes, cookie: bytes) -> tuple[int, str, str] | None:
        """Why a request may not use a protected app, as status, word and sentence; None if it may."""
        if self._auth == "none":
            return None
        try:
            token = from_header(authorization, cookie)
            user = self._tokens.read(token) if token else anonymous(SHARED, self._auth)
        except BadToken as error:
            return 401, "bad_token", str(error)
        if may_reach(app.spec, user, ""):
            return None
        told = f"{app.app_id} is protected: send a token that may read the workspace {app.spec.workspace}"
        return (401, "bad_token", told) if user.anonymous else (403, "not_permitted", told)

    def has_service(self, workspace: str, name: str) -> bool:
        """Tell whether there is such a service, or an app that may have it."""
        try:
            query = parse_id(f"{workspace}/{unquote(name)}", workspace)
        except ValueError:
            return False
        return self._apps.meant(query) is not None or any(self._hub.services.meant(query))

    async def _find(self, request: Request, workspace: str, name: str, query: str, user: User) -> Target:
        """The service that a path names, which `user` may call; an app that sleeps is started for it.

        Raises: as `Manager.choose` and `AppServices.target`.
        """
        asked = parse_id(f"{workspace}/{name}", workspace)
        context = self._context(user, workspace)
        mode = _mode(query)
        app = self._apps.meant(asked) if not asked.client_id else None
        if app is None:
            service = await self._manager.choose(asked, mode, context)
            return Target(service.client.full_id, service.name, workspace, service.info)
        request.app = app
        return await self._apps.target(app, asked.name, mode, context)

    # Functions.

    async def _services(self, request: Request, workspace: str, name: str, function: str, query: str) -> None:
        """List a workspace's services, tell about one, or call it."""
        user = self._user(request)
        context = self._context(user, workspace)
        if not name:
            found = self._manager.list_services(context, {"workspace": workspace})
            request.reply(200, to_json(found), "application/json")
        elif not function:
            info = self._manager.get_service_info(context, f"{workspace}/{name}")
            request.reply(200, to_json(info), "application/json")
        elif request.method in ("GET", "POST"):
            target = await self._find(request, workspace, name, query, user)
            name = unquote(function).strip("/").replace("/", ".")
            given = await _arguments(request, query)
            asked = None if request.app is None else self._apps.functions(request.app, target, _mode(query)).get(name)
            if asked is not None:
                _give(request, await asked(context, *given[0], **given[1]))
            else:
                await self._call(request, target, name, given, user)
        else:
            request.lines += (b"Allow: GET, POST, OPTIONS",)
            request.fail(405, "method_not_allowed", f"functions are called by GET or POST, not by {request.method}")

    async def _call(self, request: Request, target: Target, name: str, given: _Arguments, user: User) -> None:
        with self._peer.session(target.address) as session:
            vouched = vouch(target.workspace, user.shown())
            self._peer.ask(session, f"services.{target.name}.{name}", *given, vouched=vouched)
            value = await session.answer
        if isinstance(value, dict) and value.get("_rtype") == "generator":
            await self._stream(request, value, target)
        else:
            _give(request, value)

    async def _stream(self, request: Request, generator: Mapping[str, Value], target: Target) -> None:
        """Send what a generator gives as server-sent events, each as soon as it comes."""
        where, following, closing = self._generator(generator, target)
        request.start(200, [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-cache")])
        done = False
        try:
            while not done:
                item = await self._peer.call(where, following)
                done = isinstance(item, dict) and item.get("_rtype") == "stop_iteration"
                await request.write(b"data: %b\n\n" % (b"[DONE]" if done else to_json(item)))
        except (RemoteError, CallTimeout) as error:
            done = True
            told = last_error(error)[1] if isinstance(error, RemoteError) else str(error)
            await request.write(b"event: error\ndata: %b\n\n" % to_json(told))
        finally:
            if not done and closing:
                self._peer.tell(where, closing)
        request.end()

    def _generator(self, value: Mapping[str, Value], target: Target) -> tuple[str, str, str]:
        """Whom to ask for the next item, and the methods that give it and close the generator.

        Whatever a service says, only the client that it is of is asked, and no service: dockscale may call more than
        whoever asks it to.

        Raises:
            RemoteError: the generator is not the service's own.
        """
        where, following = str(value.get("_rtarget") or ""), str(value.get("_rmethod") or "")
        closing = str(value.get("_rclose_method") or "")
        where = where if "/" in where else f"{target.workspace}/{where}"
        client = self._hub.peers.get(where)
        place = client.place if isinstance(client, Client) else None
        of_app = place is not None and f"{target.address}_".startswith(f"{virtual_id(place[0])}_")
        if (
            not (where == target.address or of_app)
            or following.startswith("services.")
            or closing.startswith("services.")
        ):
            raise RemoteError(f"the service {target.name} returned a generator that is not its own")
        return where, following, closing


def _mode(query: str) -> str:
    """The selection mode that a query asks for; empty: none."""
    return dict(parse_qsl(query)).get("_mode", "")


def _give(request: Request, value: Value) -> None:
    """Answer with what a function gave."""
    if _wants_msgpack(request):
        request.reply(200, pack(value), MSGPACK)
    elif isinstance(value, bytes):
        request.reply(200, value, "application/octet-stream")
    else:
        request.reply(200, to_json(value), "application/json")


async def _arguments(request: Request, query: str) -> _Arguments:
    """The arguments of a call: the query's of a GET, else the body's. A map is keywords, a list positions.

    Raises:
        ValueError: the body is not what its type says.
    """
    given = {name: _number(value) for name, value in parse_qsl(query, keep_blank_values=True) if name != "_mode"}
    body = await request.read_all(MOST_ARGS_BYTES)
    if request.method == "GET" or not body:
        return [], given
    value = unpack(body) if _is_msgpack(request, b"content-type") else _from_json(body)
    if isinstance(value, dict):
        return [], given | {str(name): each for name, each in value.items()}
    return (value if isinstance(value, list) else [value]), given


def _from_json(body: bytes) -> Value:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is no JSON: {error}") from None


def _number(text: str) -> Value:
    """What a query's value most likely means: a number or a truth value, if it is written like one in JSON."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, int):
        return value if -_WORD <= value < _WORD else text
    return value if isinstance(value, float) or value is None else text


def _is_msgpack(request: Request, field: bytes) -> bool:
    return MSGPACK in request.first(field).decode("latin-1").lower()


def _wants_msgpack(request: Request) -> bool:
    """Who sends msgpack gets it as well, unless JSON is asked for."""
    asked = _is_msgpack(request, b"accept")
    return asked or (_is_msgpack(request, b"content-type") and b"json" not in request.first(b"accept"))
