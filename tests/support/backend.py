"""A backend with knobs: what containers of the memory engine run."""

import asyncio
import json

from aiohttp import WSMsgType, web

GARBAGE = b"this is no HTTP\r\n\r\n"


def backend(instance: str) -> web.Application:  # noqa: C901  # one small function per knob
    """An app that says which instance answers, and misbehaves on demand."""

    async def show(request: web.Request) -> web.Response:
        body = await request.read()
        shown = {
            "instance": instance,
            "method": request.method,
            "target": request.raw_path,
            "headers": [[name, value] for name, value in request.headers.items()],
            "body": body.decode("latin-1"),
        }
        return web.json_response(shown, headers=[("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

    async def slow(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query["s"]))
        return web.Response(text=instance)

    async def stream(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for number in range(int(request.query.get("n", "3"))):
            await answer.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(float(request.query.get("s", "0")))
        return answer

    async def echo(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        async for part in request.content.iter_any():
            await answer.write(part)
        return answer

    async def status(request: web.Request) -> web.Response:
        return web.Response(status=int(request.query["code"]), text=instance)

    async def big(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * int(request.query["size"]))

    async def garbage(request: web.Request) -> web.StreamResponse:
        _transport(request).write(GARBAGE)
        _transport(request).close()
        return web.Response()

    async def hang_up(request: web.Request) -> web.StreamResponse:
        _transport(request).close()
        return web.Response()

    async def break_off(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b"only this")
        _transport(request).close()
        return answer

    async def socket(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=("chat", "rpc"), compress=False)
        await ws.prepare(request)
        await ws.send_str(json.dumps({"instance": instance, "protocol": ws.ws_protocol}))
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application(client_max_size=2**30)
    app.router.add_get("/slow", slow)
    app.router.add_get("/stream", stream)
    app.router.add_post("/echo", echo)
    app.router.add_get("/status", status)
    app.router.add_get("/big", big)
    app.router.add_route("*", "/garbage", garbage)
    app.router.add_route("*", "/hang-up", hang_up)
    app.router.add_get("/break-off", break_off)
    app.router.add_get("/ws", socket)
    app.router.add_route("*", "/{rest:.*}", show)
    return app


def _transport(request: web.Request) -> asyncio.Transport:
    assert request.transport is not None
    return request.transport
