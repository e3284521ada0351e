"""The tests' app in a container, which also notes each `POST /count?id=` in a file that outlives it.

bench.storm mounts this folder at /bench, and one to write to at /counted.
"""

# mypy: ignore-errors

import asyncio
import sys

run, asyncio.run = asyncio.run, lambda main: main.close()  # the tests' app runs itself as soon as it is loaded
sys.path.append("/app")
import app  # noqa: E402  # after that

notes = open(f"/counted/{app.INSTANCE}", "a", buffering=1)  # noqa: SIM115  # it stays open until the container ends


async def count(request):
    notes.write(f"{request.query['id']}\n")
    await request.answer(b"counted\n")


app.ROUTES["/count"] = count
run(app.main())
