"""The demo: an ordinary FastAPI app. Each answer names the instance that gave it."""

# ruff: noqa: E402, PLC0415  # when what is loaded is what makes it boot fast
import gc
import os
import signal
import sys

# Until the server has its own handler: process number 1 would ignore SIGTERM and be killed after 10 s.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

# Boot time is what a visitor of a sleeping app waits for. These three save a third of it: no garbage collection
# while modules are loaded, no old pydantic next to the new one (FastAPI looks whether it is there), and no
# validators for the models of FastAPI's API pages, which are left out below.
gc.disable()
sys.modules["pydantic.v1"] = None
from pydantic import BaseModel

BaseModel.model_config["defer_build"] = True

import asyncio
import time

import uvicorn
from fastapi import Body, FastAPI, Query, WebSocket
from starlette.responses import HTMLResponse, StreamingResponse
from starlette.websockets import WebSocketDisconnect

INSTANCE = os.uname().nodename
STARTED = time.monotonic()
WORK_S = 0.05
"""What a status takes, as if a database were asked: a demo that answers in no time needs no second instance."""

app = FastAPI(title="hello", docs_url=None, redoc_url=None, openapi_url=None)
processed = 0


def count() -> int:
    global processed  # noqa: PLW0603  # one counter is all the state there is
    processed += 1
    return processed


@app.get("/", response_class=HTMLResponse, response_model=None)
async def page() -> str:
    # Links are relative: dockscale may serve this app below a path.
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>hello from {INSTANCE}</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40em; margin: 3em auto }}</style>
<h1>Hello from instance {INSTANCE}</h1>
<p>Up for {time.monotonic() - STARTED:.1f} s, {processed} requests processed.
Reload: with several instances, another one may answer.</p>
<ul>
<li><a href="api/status">GET api/status</a> – this instance, after 0.05 s
<li>POST api/process – any JSON object, answered after 0.1 s
<li>POST api/heavy-task – {{"iterations": 1000}}
<li><a href="api/stream">GET api/stream?count=10</a> – one event each half second
<li>WebSocket ws – an echo
</ul>
</html>"""


@app.get("/api/status", response_model=None)
async def status() -> dict:
    count()
    await asyncio.sleep(WORK_S)
    return {
        "instance_id": INSTANCE,
        "uptime": round(time.monotonic() - STARTED, 3),
        "requests_processed": processed,
        "status": "healthy",
    }


@app.post("/api/process", response_model=None)
async def process(data: dict) -> dict:
    number = count()
    await asyncio.sleep(0.1)
    result = f"{len(data)} field(s) processed"
    return {"processed_by": INSTANCE, "input": data, "result": result, "request_number": number}


@app.post("/api/heavy-task", response_model=None)
async def heavy_task(iterations: int = Body(default=1000, embed=True)) -> dict:
    number = count()
    total = 0
    for i in range(iterations):
        total += i * i
        if i % 100 == 0:
            await asyncio.sleep(0.001)  # so that others get their turn
    task = f"sum of squares below {iterations}"
    return {"processed_by": INSTANCE, "task": task, "result": total, "request_number": number}


@app.get("/api/stream", response_model=None)
async def stream(count: int = Query(default=10, ge=0)) -> StreamingResponse:
    async def events():
        for number in range(count):
            if number:
                await asyncio.sleep(0.5)
            yield f'data: {{"instance_id": "{INSTANCE}", "event": {number + 1}, "of": {count}}}\n\n'

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})


@app.websocket("/ws")
async def echo(socket: WebSocket) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_json({"instance_id": INSTANCE, "echo": await socket.receive_text()})
    except WebSocketDisconnect:
        pass


def websocket_protocol(*args, **options):
    """uvicorn's, loaded when the first WebSocket comes."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(*args, **options)


gc.freeze()  # what is loaded by now stays for good: no need to look at it again
gc.enable()
print(f"hello: instance {INSTANCE} listens on 8000", flush=True)
uvicorn.run(
    app,
    host="0.0.0.0",
    port=8000,
    http="httptools",
    loop="asyncio",
    ws=websocket_protocol,
    lifespan="off",
    log_config=None,
    access_log=False,
    server_header=False,
    headers=[("X-Instance", INSTANCE)],
    timeout_graceful_shutdown=8,  # Docker kills after 10
)
