"""Where every request on the main port arrives: found is who serves it, an app, the hub, or dockscale itself."""

import re
from collections import Counter
from collections.abc import Mapping

import structlog

from dockscale.core.app import App
from dockscale.core.routes import Climbs, Here, Target, ToApp, ToHub, ToList, ToSlash
from dockscale.core.spec import Visibility
from dockscale.proxy import fields
from dockscale.proxy.exchange import Exchange, Ways, new_id
from dockscale.proxy.listener import Client
from dockscale.proxy.local import Hub, LocalRequest
from dockscale.proxy.newcomer import Newcomer
from dockscale.proxy.replies import NOTHING_MORE, reply, reply_failure, reply_json
from dockscale.proxy.waiting import WaitingRoom
from dockscale.proxy.wire import Malformed, RequestHead
from dockscale.registry import Registry

log = structlog.get_logger()

WEBSOCKET = b"websocket"
# Naming a member costs more than the comparison (Python 3.11).
_PROTECTED = Visibility.PROTECTED
_REQUEST_ID = re.compile(rb"[\w.:+/=-]{1,128}", re.ASCII)


class Entry:
    """Handles every request on the main port."""

    def __init__(self, registry: Registry, ways: Ways, waiting: WaitingRoom, hub: Hub | None = None) -> None:
        self._registry = registry
        self._ways = ways
        self._waiting = waiting
        self.hub = hub
        """Serves what is RPC; without one, its addresses lead nowhere."""
        self.closing = False
        self.refused: Counter[int] = Counter()
        """Answers by status to requests that reached no app."""
        self.answered: Counter[int] = Counter()
        """Answers by status that the hub gave."""

    def close_tunnels(self) -> None:
        """Tell every open WebSocket to reconnect elsewhere."""
        for say_goodbye in list(self._ways.goodbyes):
            say_goodbye()

    def handle(self, client: Client, request: RequestHead) -> None:
        """Answer a request, now or when its instance does."""
        self._handle(client, request, _request_id(request), waits=True)

    def _handle(self, client: Client, request: RequestHead, request_id: bytes, waits: bool) -> None:
        try:
            self._route(client, request, request_id, waits)
        except Climbs as error:
            self._fail(client, request, 400, "bad_path", str(error), request_id)
        except Exception:
            log.exception("request_failed", request_id=request_id.decode())
            client.keep_alive = False
            self._fail(client, request, 500, "internal", "a bug in dockscale", request_id)

    def _route(self, client: Client, request: RequestHead, request_id: bytes, waits: bool) -> None:
        route = self._match(request)
        if type(route) is ToApp:
            app = self._registry.apps[route.app_id]
            if app.spec.visibility is _PROTECTED and (refusal := self._refusal(app, request)):
                self._fail(client, request, *refusal, request_id, {"app_id": app.app_id})
            elif app.shows_waiting and self._waiting.takes(client, request, app):
                pass
            elif self.hub is not None and app.spec.speaks_rpc:
                self._to_rpc_app(self.hub, client, request, request_id, app, route)
            else:
                Exchange(self._ways, client, request, request_id, app, route).begin()
            return
        if self.hub is not None and self._to_hub(self.hub, client, request, request_id, route):
            return
        match route:
            case ToSlash(location):
                reply(client, request, 307, b"", b"Location: " + location.encode("latin-1"))
            case ToList(workspace):
                reply_json(client, request, 200, self._listed(request, workspace))
            case Here() as here:
                self._health(client, request, here)
            case _:
                self._to_nobody(client, request, request_id, waits)
                return
        client.next()

    def _match(self, request: RequestHead) -> Target | None:
        return self._registry.routes.match(request.host.decode("latin-1"), request.target.decode("latin-1"))

    def _to_nobody(self, client: Client, request: RequestHead, request_id: bytes, waits: bool) -> None:
        """Say that nobody has this address, but not before a listing that is due has told whether that is still so."""
        if waits and self._registry.is_due:
            Newcomer(
                client,
                self._registry,
                is_known=lambda: type(self._match(request)) is ToApp,
                go_on=lambda: self._handle(client, request, request_id, waits=False),
            )
        elif not self._registry.synced.is_set():
            told = "the container engine has not answered yet, so no app is known"
            self._fail(client, request, 503, "engine_away", told, request_id, lines=(b"Retry-After: 1",))
        else:
            more = {"apps": [each["url"] for each in self._listed(request)]}
            self._fail(client, request, 404, "no_such_app", "no app has this address", request_id, more)

    def _to_rpc_app(
        self, hub: Hub, client: Client, request: RequestHead, request_id: bytes, app: App, route: ToApp
    ) -> None:
        if request.upgrade.lower() == WEBSOCKET:
            told = "WebSockets to apps of type rpc are not proxied; connect to /ws"
            self._fail(client, request, 501, "not_implemented", told, request_id, {"app_id": app.app_id})
        else:
            LocalRequest(self._ways, client, request, request_id, self._count, route.prefix, app).begin(hub, route)

    def _to_hub(self, hub: Hub, client: Client, request: RequestHead, request_id: bytes, route: Target | None) -> bool:
        """Leave to the hub what is its to answer, and tell whether it is."""
        path = request.target.partition(b"?")[0]
        if request.upgrade.lower() == WEBSOCKET and path in (b"/", b"/ws"):
            head = fields.request_head(
                request, request.target, b"", request_id, client.address, client.scheme, self._ways.trusted
            )
            address = fields.client_of(request, client.address, self._ways.trusted)
            client.hand_over(hub.socket(head, address))
        elif not isinstance(route, ToHub) or (route.service and not hub.has_service(route.workspace, route.service)):
            return False
        elif path == b"/ws":
            told = "this address is for WebSockets: connect with hypha_rpc, or another client that speaks its protocol"
            lines = (b"Connection: Upgrade\r\nUpgrade: websocket",)
            self._fail(client, request, 426, "upgrade_required", told, request_id, lines=lines)
        else:
            prefix = f"/{route.workspace}/apps/{route.service}" if route.service else ""
            LocalRequest(self._ways, client, request, request_id, self._count, prefix).begin(hub, route)
        return True

    def _count(self, status: int) -> None:
        self.answered[status] += 1

    def _refusal(self, app: App, request: RequestHead) -> tuple[int, str, str] | None:
        """Why a request may not use a protected app; None if it may. Without a hub there are no tokens to ask for."""
        if self.hub is None:
            return None
        return self.hub.refusal(app, request.first(b"authorization"), request.first(b"cookie"))

    def _listed(self, request: RequestHead, workspace: str = "") -> list[dict[str, str]]:
        apps = [app for app in self._registry.apps.values() if workspace in ("", app.spec.workspace)]
        specs = [
            app.spec
            for app in apps
            if app.spec.visibility is Visibility.PUBLIC
            or (app.spec.visibility is _PROTECTED and self._refusal(app, request) is None)
        ]
        return [
            {
                "app_id": spec.app_id,
                "name": spec.name or spec.app_id,
                "description": spec.description,
                "url": f"/{spec.workspace}/apps/{spec.app_id}/",
            }
            for spec in sorted(specs, key=lambda spec: spec.app_id)
        ]

    def _health(self, client: Client, request: RequestHead, here: Here) -> None:
        status, word = 200, "ok"
        if here is Here.READINESS:
            if self.closing:
                status, word = 503, "shutting down"
            elif not self._registry.synced.is_set():
                status, word = 503, "the container engine has not answered yet"
        reply_json(client, request, status, {"status": word})

    def refuse(self, client: Client, error: Malformed) -> None:
        """Answer what could not be read as a request. The client's connection ends with that."""
        self.refused[error.status] += 1
        request = client.request
        request_id = new_id() if request is None else _request_id(request)
        reply_failure(client, request, error.status, error.word, str(error), request_id)

    def _fail(
        self,
        client: Client,
        request: RequestHead,
        status: int,
        word: str,
        message: str,
        request_id: bytes,
        more: Mapping[str, object] = NOTHING_MORE,
        lines: tuple[bytes, ...] = (),
    ) -> None:
        self.refused[status] += 1
        reply_failure(client, request, status, word, message, request_id, more=more, lines=lines)
        client.next()


def _request_id(request: RequestHead) -> bytes:
    sent = request.request_id
    return sent if sent and _REQUEST_ID.fullmatch(sent) else new_id()
