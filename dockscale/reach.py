"""Where instances reach dockscale: the main port's address on the network that they are on."""

import socket

from dockscale.engine import Engine, EngineError

_ANY_PORT = 9


async def main_url(engine: Engine, chosen: str, port: int) -> str:
    """Return the URL under which instances reach the main port `port`: `chosen` if that is not empty, else found out.

    Raises:
        EngineError: the engine does not say where its network is, or there is no way there.
    """
    return chosen or f"http://{_own_address(await engine.gateway())}:{port}"


def _own_address(other: str) -> str:
    """Return the address that this machine, or the container that it is, has on the way to `other`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect((other, _ANY_PORT))  # of a datagram socket: nothing is sent
        except OSError as error:
            raise EngineError(f"there is no way to {other} ({error.strerror}); set DOCKSCALE_RPC_URL") from error
        return str(way.getsockname()[0])
