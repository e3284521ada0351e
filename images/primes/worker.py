"""An RPC worker: an ordinary hypha_rpc program, whose functions anybody calls at `default@primes`."""

import asyncio
import os
from collections.abc import Iterator

from hypha_rpc import connect_to_server

CLIENT_ID = os.environ["HYPHA_CLIENT_ID"]


def factors(number: int) -> dict[str, object]:
    """Return the prime factors of a number, and which instance found them."""
    if not isinstance(number, int) or not 1 < number < 10**12:
        raise ValueError("number: a whole number from 2 to 10^12 is needed")
    found, divisor, rest = [], 2, number
    while divisor * divisor <= rest:
        while rest % divisor == 0:
            found.append(divisor)
            rest //= divisor
        divisor += 1
    return {"factors": found + [rest] * (rest > 1), "instance": CLIENT_ID}


def primes(below: int) -> Iterator[int]:
    """Give the primes below a number, one by one."""
    for number in range(2, below):
        if factors(number)["factors"] == [number]:
            yield number


async def main() -> None:
    api = await connect_to_server(
        {
            "server_url": os.environ["HYPHA_SERVER_URL"],
            "workspace": os.environ["HYPHA_WORKSPACE"],
            "client_id": CLIENT_ID,
            "token": os.environ["HYPHA_TOKEN"],
        }
    )
    await api.register_service(
        {"id": "default", "config": {"visibility": "public"}, "factors": factors, "primes": primes}
    )
    await api.serve()


asyncio.run(main())
