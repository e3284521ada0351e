"""hypha_rpc, loaded fast; by `localhost` it means this instance's own dockscale, and all share one connection to it."""

import asyncio
import functools
import importlib
import inspect
import os
import sys
import types
from urllib.parse import urlsplit

LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0"}
"""In a container nothing else is there, so whoever connects to one of these means dockscale."""


class _Late(types.ModuleType):
    """A module that is loaded when something of it is used."""

    def __getattr__(self, name):
        return getattr(importlib.import_module(self.__name__), name)


def _load():
    """Load hypha_rpc without what it seldom uses, which is half of a boot: a transport, munch's version, and models."""
    unused = {
        "httpx": types.SimpleNamespace(AsyncClient=None),
        "importlib.metadata": types.SimpleNamespace(version=lambda name: "0.0.0"),
        "pydantic": None,
    }
    sys.modules.update(unused)
    importlib.import_module("hypha_rpc.http_client").httpx = _Late("httpx")
    for name in unused:
        del sys.modules[name]


_load()
import hypha_rpc  # noqa: E402  # it is loaded above
from hypha_rpc import rpc, websocket_client  # noqa: E402  # likewise


def _know_models():
    """Have pydantic's models be sent, if the program has any."""
    if "pydantic" in sys.modules and not rpc.HAS_PYDANTIC:
        known = importlib.import_module("hypha_rpc.utils.pydantic")
        rpc.BaseModel = known.BaseModel
        rpc.pydantic_encoder, rpc.pydantic_decoder = known.pydantic_encoder, known.pydantic_decoder
        rpc.HAS_PYDANTIC = True


# --- the connection ------------------------------------------------------------------------------


def _is_dockscale(url):
    return not url or url == os.environ["HYPHA_SERVER_URL"] or urlsplit(url).hostname in LOCAL


def _filled(config):
    """Fill in what leads to dockscale, where it is absent. A client with another id has no use for our token."""
    known = {name: os.environ[f"HYPHA_{name.upper()}"] for name in ("workspace", "client_id", "token", "app_id")}
    given = {name: value for name, value in config.items() if value is not None}
    if given.get("client_id", known["client_id"]) != known["client_id"]:
        del known["token"]
    return known | given | {"server_url": os.environ["HYPHA_SERVER_URL"]}


class _Shared:
    """The connection of one event loop, since the instance's client id cannot be connected twice."""

    def __init__(self):
        self.lock = asyncio.Lock()
        self.server = None

    @property
    def is_open(self):
        return self.server is not None and not self.server.rpc._connection._closed


_shared_in = {}
"""By event loop. A program that waits (`hypha_rpc.sync`) connects in a loop of its own."""


class _Server(websocket_client.ServerContextManager):
    """What `connect_to_server` gives. It is awaited, or entered; leaving it does not end what others share."""

    def __init__(self, config=None, service_id=None, **more):
        config = {**(config or {}), **more}
        ours = _is_dockscale(config.get("server_url"))
        super().__init__(_filled(config) if ours else config, service_id)
        self._is_shared = ours and self.config["client_id"] == os.environ["HYPHA_CLIENT_ID"]

    async def __aenter__(self):
        _know_models()
        if not self._is_shared:
            return await super().__aenter__()
        shared = _shared_in.setdefault(asyncio.get_running_loop(), _Shared())
        async with shared.lock:
            if not shared.is_open:
                found = await super().__aenter__()
                shared.server = self.wm
                return found
        self.wm = shared.server
        return await self.wm.get_service(self._service_id) if self._service_id else self.wm

    async def __aexit__(self, *error):
        if not self._is_shared:
            await super().__aexit__(*error)


websocket_client.ServerContextManager = _Server

# --- services ------------------------------------------------------------------------------------

_offering = set()
"""The clients that have registered a service."""
_register_service = rpc.RPC.register_service


@functools.wraps(_register_service)
async def register_service(self, api, config=None, **more):
    """Register a service, and remember that. An error of its `setup`, which the server calls, is raised as it was."""
    errors = []
    if isinstance(api, dict) and callable(api.get("setup")):
        api = {**api, "setup": _once(errors, api["setup"])}
    try:
        info = await _register_service(self, api, config, **more)
    except Exception:
        if errors:
            raise errors[0] from None
        raise
    _offering.add(self)
    return info


def _once(errors, setup):
    """Return a function that does the same, once: a client that comes back registers again. Its error is noted."""
    called = False

    @functools.wraps(setup)
    async def set_up(*args, **more):
        nonlocal called
        if called:
            return None
        called = True
        try:
            result = setup(*args, **more)
            return await result if inspect.isawaitable(result) else result
        except Exception as error:
            errors.append(error)
            raise

    return set_up


rpc.RPC.register_service = register_service


def serves():
    """Tell whether a service is registered which can be called."""
    main = asyncio.get_event_loop()
    return any(each.loop is main or each.loop.is_running() for each in _offering)


def service_of(exported, config=None):
    """Make a service of what a program exports: a map, an object, or a class that is made one."""
    if isinstance(exported, type):
        exported = exported()
    if not isinstance(exported, dict):
        exported = {name: getattr(exported, name) for name in dir(exported)}
    members = {name: value for name, value in exported.items() if not name.startswith("_")}
    return {**members, "id": "default", "config": {**members.get("config", {}), **(config or {})}}


class Api(hypha_rpc.API):
    """What `from hypha_rpc import api` gives: `api.export`, and what the server has, which connects when it is used."""

    def __getattr__(self, name):
        if name in self or name.startswith("_"):
            return super().__getattr__(name)

        async def call(*args, **more):
            return await (await hypha_rpc.connect_to_server())[name](*args, **more)

        return call


api = hypha_rpc.api = Api()


def export_by(kind, failed):
    """Have `api.export` register services of a type. `failed` is told of the error if one cannot be."""

    async def offer(service, more):
        await api.register_service(service, **{"overwrite": True, **more})

    def ended(task):
        if not task.cancelled() and task.exception():
            failed(task.exception())

    def export(exported, config=None, skip_wait=False, **more):
        """Register it as `default`. One of type `python` waits for that here, and serves, as it does elsewhere."""
        service = service_of(exported, config)
        api.get_registry()[service["id"]] = exported
        if kind == "functions":
            service["type"] = kind
            service["config"].setdefault("visibility", "public")
        loop = asyncio.get_event_loop()
        if kind == "python" and not loop.is_running():
            loop.run_until_complete(offer(service, more))
            return None if skip_wait else loop.run_forever()
        task = loop.create_task(offer(service, more))
        task.add_done_callback(ended)
        return task

    api.set_export_handler(export)
