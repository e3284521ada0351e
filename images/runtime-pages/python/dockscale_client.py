"""The Python client as programs in an instance see it: nothing but the dockscale of this instance is at 'localhost'."""

import inspect
import os
import re
import sys
import types

_stands_in = "httpx" not in sys.modules  # it is for a transport that is rarely used, and large; programs may load it
if _stands_in:
    sys.modules["httpx"] = types.SimpleNamespace(AsyncClient=None)
from hypha_rpc.rpc import RPC  # noqa: E402  # now that httpx is stood in for
from hypha_rpc.websocket_client import ServerContextManager  # noqa: E402  # likewise

if _stands_in:
    del sys.modules["httpx"]

LOCAL = re.compile(r"^\w+://(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(:\d+)?(/|$)")
NAMES = {
    "workspace": "HYPHA_WORKSPACE",
    "client_id": "HYPHA_CLIENT_ID",
    "token": "HYPHA_TOKEN",
    "app_id": "HYPHA_APP_ID",
}

_connect = ServerContextManager.__init__
_register = RPC.register_service
_hooks = []


def directed(config):
    """What the environment says fills in what the program has left out, unless it means another server."""
    here = os.environ["HYPHA_SERVER_URL"]
    asked = config.get("server_url")
    if asked and asked != here and not LOCAL.match(asked):
        return config
    return (
        config | {"server_url": here} | {name: config.get(name) or os.environ.get(key) for name, key in NAMES.items()}
    )


def connect(self, config=None, service_id=None, **kwargs):
    _connect(self, directed({**(config or {}), **kwargs}), service_id)


async def register(self, service, *args, **kwargs):
    failed = []
    if isinstance(service, dict) and callable(service.get("setup")):
        service = service | {"setup": remembering(service["setup"], failed)}
    try:
        registered = await _register(self, service, *args, **kwargs)
    except Exception as error:
        raise (failed or [error])[-1] from None
    for hook in _hooks:
        hook()
    return registered


def remembering(setup, failed):
    """A `setup` that runs once, and whose errors are kept.

    dockscale calls it whenever the service is registered, also after a lost connection, and tells only an error's text.
    """
    called = False

    async def remembered(*args, **kwargs):
        nonlocal called
        if called:
            return None
        called = True
        try:
            result = setup(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result
        except Exception as error:
            failed.append(error)
            raise

    return remembered


def when_registered(hook):
    """Call this whenever a service has been registered."""
    _hooks.append(hook)


ServerContextManager.__init__ = connect
RPC.register_service = register
