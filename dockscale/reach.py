"""Where instances reach dockscale: an address on the network that they are on."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from dockscale.engine import Engine, EngineError

_ANY_PORT = 9


async def main_url(engine: Engine, chosen: str, port: int) -> str:
    """Return the URL under which instances reach the main port `port`: `chosen` if that is not empty, else found out.

    Raises:
        EngineError: the engine does not say where its network is, or there is no way there.
    """
    return chosen or f"http://{_own_address(await engine.gateway())}:{port}"


class Inside:
    """A port of their own for instances while the main port takes TLS only: as they are reached, without TLS.

    It is open at this machine's address on their network and nowhere else. `listen` opens it, and returns its number.
    """

    def __init__(self, engine: Engine, listen: Callable[[str, int], Awaitable[int]], port: int) -> None:
        self._engine = engine
        self._listen = listen
        self._port = port
        self._open: dict[str, int] = {}
        """Ports by address: the engine's network may be another one some day."""
        self._opening = asyncio.Lock()

    async def url(self) -> str:
        """Return the URL under which instances reach dockscale, once the port is open.

        Raises:
            EngineError: as `main_url`, or the port is taken.
        """
        address = _own_address(await self._engine.gateway())
        async with self._opening:
            if address not in self._open:
                try:
                    self._open[address] = await self._listen(address, self._port)
                except OSError as error:
                    raise EngineError(
                        f"cannot listen on {address}:{self._port} ({error.strerror}), where apps of type rpc reach "
                        "dockscale: free it, or set DOCKSCALE_RPC_PORT or DOCKSCALE_RPC_URL"
                    ) from error
        return f"http://{address}:{self._open[address]}"


def _own_address(other: str) -> str:
    """Return the address that this machine, or the container that it is, has on the way to `other`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        try:
            way.connect((other, _ANY_PORT))  # of a datagram socket: nothing is sent
        except OSError as error:
            raise EngineError(f"there is no way to {other} ({error.strerror}); set DOCKSCALE_RPC_URL") from error
        return str(way.getsockname()[0])
