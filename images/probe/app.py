"""An app for tests: it answers at once, shows what it was asked, and misbehaves on demand.

Routes: /  /slow?ms=  /stream?n=&ms=&size=  /sse?n=&ms=  /echo  /big?size=  /status?code=  /exit?code=
        /healthz  /ws
Environment: PORT  BOOT_DELAY=seconds  NEVER_LISTEN=1  EXIT_AT_ONCE=code  IGNORE_TERM=1  UNHEALTHY=1
"""

# ruff: noqa: PLC0415  # what is not needed to boot is loaded where it is used, or once the port is open

import os
import signal
import sys
import time

# First of all: a process with number 1 ignores SIGTERM unless it says otherwise.
if os.environ.get("IGNORE_TERM") == "1":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

if code := os.environ.get("EXIT_AT_ONCE"):
    print(f"probe: leaving with code {code}", file=sys.stderr, flush=True)
    sys.exit(int(code))

sys.modules["ssl"] = None  # asyncio then goes without it: 10 ms less until the first answer
import asyncio  # noqa: E402  # after what makes it quick

INSTANCE = os.uname().nodename
NO_BODY = {204, 304}


class Request:
    """One request, its body, and ways to answer it."""

    def __init__(self, reader, writer, *, method, target, version, headers):
        self.reader, self.writer = reader, writer
        self.method, self.target, self.version, self.headers = method, target, version, headers
        self.path, _, query = target.partition("?")
        self.query = dict(pair.partition("=")[::2] for pair in query.split("&"))
        self.chunked = "chunked" in self.header("transfer-encoding").lower()
        self.length = int(self.header("content-length") or 0)
        self.body_read = not (self.chunked or self.length)
        self.invited = False
        self.keep_alive = version == "HTTP/1.1" and self.header("connection").lower() != "close"

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name), "")

    def number(self, name, default):
        return int(self.query.get(name) or default)

    def invite_body(self):
        """Some clients send their body only when asked to; that must come before the answer's head."""
        if self.header("expect").lower() == "100-continue" and not self.invited:
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.invited = True

    async def body(self):
        """The pieces of the request's body, as they come in."""
        if self.body_read:
            return
        self.body_read = True
        self.invite_body()
        if not self.chunked:
            left = self.length
            while left and (piece := await self.reader.read(min(left, 65536))):
                left -= len(piece)
                yield piece
            return
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        while (await self.reader.readuntil(b"\r\n")) != b"\r\n":
            pass  # trailers

    async def head(self, status=200, kind="text/plain", length=None, extra=()):
        """The answer's head. Without a length, the body is sent in chunks by `chunk`."""
        lines = [f"HTTP/1.1 {status} Probe", f"X-Probe-Instance: {INSTANCE}", *extra]
        if status not in NO_BODY and status >= 200:
            lines.append(f"Content-Type: {kind}")
            lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
        if not self.keep_alive:
            lines.append("Connection: close")
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self.writer.drain()

    async def piece(self, data):
        if self.method != "HEAD":
            self.writer.write(data)
            await self.writer.drain()

    async def chunk(self, data):
        await self.piece(b"%x\r\n%b\r\n" % (len(data), data))

    async def answer(self, data, status=200, kind="text/plain"):
        await self.head(status, kind, len(data))
        if status not in NO_BODY:
            await self.piece(data)


async def show(request):
    import json

    shown = {
        "instance": INSTANCE,
        "path": request.target,
        "method": request.method,
        "headers": [list(header) for header in request.headers],
    }
    await request.answer(json.dumps(shown).encode(), kind="application/json")


async def slow(request):
    await asyncio.sleep(request.number("ms", 1000) / 1000)
    await request.answer(b"slow\n")


async def stream(request):
    await request.head()
    for _ in range(request.number("n", 10)):
        await request.chunk(b"x" * request.number("size", 10))
        await asyncio.sleep(request.number("ms", 100) / 1000)
    await request.chunk(b"")


async def events(request):
    await request.head(kind="text/event-stream", extra=["Cache-Control: no-cache"])
    for number in range(request.number("n", 10)):
        await request.chunk(f'data: {{"n": {number}, "instance": "{INSTANCE}"}}\n\n'.encode())
        await asyncio.sleep(request.number("ms", 100) / 1000)
    await request.chunk(b"")


async def echo(request):
    request.invite_body()
    kind = request.header("content-type") or "application/octet-stream"
    await request.head(kind=kind, length=None if request.chunked else request.length)
    async for data in request.body():
        await (request.chunk(data) if request.chunked else request.piece(data))
    if request.chunked:
        await request.chunk(b"")


async def big(request):
    left = request.number("size", 1_000_000)
    await request.head(kind="application/octet-stream", length=left)
    block = b"x" * 65536
    while left:
        await request.piece(block[:left])
        left -= min(left, len(block))


async def status(request):
    await request.answer(b"as asked\n", request.number("code", 200))


async def leave(request):
    os._exit(request.number("code", 1))


async def health(request):
    if os.environ.get("UNHEALTHY") == "1":
        await request.answer(b"unhealthy\n", 503)
    else:
        await request.answer(b"ok\n")


async def websocket(request):
    """Echoes each frame as it came (RFC 6455), so the sender's fragments stay as they are."""
    from base64 import b64encode
    from hashlib import sha1

    key = request.header("sec-websocket-key")
    if not key:
        await request.answer(b"this is a WebSocket\n", 426)
        return
    accept = b64encode(sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()  # noqa: S324  # RFC 6455 asks for it
    lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
    if offered := request.header("sec-websocket-protocol"):
        lines.append(f"Sec-WebSocket-Protocol: {offered.split(',')[0].strip()}")
    request.keep_alive = True  # the head must not say "Connection: close"
    await request.head(101, extra=lines)
    request.keep_alive = False

    read = request.reader.readexactly
    while True:
        first, second = await read(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(await read(2 if size == 126 else 8), "big")
        mask = await read(4)
        masked = await read(size)
        whole = int.from_bytes((mask * (size // 4 + 1))[:size], "big") ^ int.from_bytes(masked, "big")
        payload = whole.to_bytes(size, "big")
        kind = first & 15
        if kind == 10:  # a pong nobody waits for
            continue
        if kind == 9:  # ping -> pong
            first += 1
        if size < 126:
            head = bytes((first, size))
        elif size < 65536:
            head = bytes((first, 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((first, 127)) + size.to_bytes(8, "big")
        await request.piece(head + payload)
        if kind == 8:  # close, answered with the same code
            return


ROUTES = {
    "/": show, "/slow": slow, "/stream": stream, "/sse": events, "/echo": echo, "/big": big,
    "/status": status, "/exit": leave, "/healthz": health, "/ws": websocket,
}  # fmt: skip


async def serve(reader, writer):
    """One connection: its requests, one after the other."""
    try:
        keep_alive = True
        while keep_alive:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, version = head[0].split(" ")
            headers = [tuple(part.strip() for part in line.split(":", 1)) for line in head[1:] if line]
            request = Request(reader, writer, method=method, target=target, version=version, headers=headers)
            await ROUTES.get(request.path, show)(request)
            if request.header("expect") and not request.invited:
                break  # its body was never asked for, so nobody knows whether it still comes
            async for _ in request.body():
                pass  # what the route did not want; the next request comes after it
            keep_alive = request.keep_alive
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the other side has gone
    finally:
        writer.close()


async def main():
    port = int(os.environ.get("PORT", "8000"))
    server = await asyncio.start_server(serve, "0.0.0.0", port, limit=1 << 20, backlog=1024)
    print(f"probe: {INSTANCE} listens on {port}", flush=True)
    import json  # noqa: F401  # so that no answer has to

    await server.serve_forever()


time.sleep(float(os.environ.get("BOOT_DELAY", "0")))
while os.environ.get("NEVER_LISTEN") == "1":
    signal.pause()
asyncio.run(main())
