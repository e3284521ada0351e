"""A client of the RPC worker: calls it once, many times at once, and item by item."""

import asyncio
import os

from hypha_rpc import connect_to_server


async def main() -> None:
    api = await connect_to_server({"server_url": os.environ["SERVER_URL"]})
    worker = await api.get_service("default@primes")
    print("360 is", (await worker.factors(360))["factors"])
    answers = await asyncio.gather(*(worker.factors(number) for number in range(1000, 1060)))
    print(len(answers), "calls at once were answered by", len({each["instance"] for each in answers}), "instances")
    print("below 20:", [prime async for prime in await worker.primes(20)])
    try:
        await worker.factors(1)
    except Exception as error:  # whatever the worker raised
        print("1 is refused:", str(error).strip().splitlines()[-1])
    await api.disconnect()


asyncio.run(main())
