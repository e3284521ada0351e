"""What dockscale itself answers: JSON for programs, a plain page for browsers."""

import json
from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from types import MappingProxyType

from dockscale.proxy import fields
from dockscale.proxy.listener import Client
from dockscale.proxy.wire import AnswerHead, RequestHead

NOTHING_MORE: Mapping[str, object] = MappingProxyType({})


def reply(client: Client, request: RequestHead | None, status: int, body: bytes, *lines: bytes) -> None:
    """Answer a request, or what could not be read as one (None). `lines` are whole fields."""
    client.keep_alive = client.keep_alive and client.skip_body() and not client.closing
    answer = AnswerHead(status, HTTPStatus(status).phrase.encode(), 1, [(b"", b"", line) for line in lines])
    answer.told = len(body)
    minor = 1 if request is None else request.minor
    head = fields.answer_head(answer, minor=minor, keep_alive=client.keep_alive, extra=b"")
    client.answered = True
    client.transport.write(head if request is not None and request.method == b"HEAD" else head + body)


def reply_json(client: Client, request: RequestHead | None, status: int, body: object, *lines: bytes) -> None:
    text = json.dumps(body).encode() + b"\n"
    reply(client, request, status, text, b"Content-Type: application/json; charset=utf-8", *lines)


def reply_failure(
    client: Client,
    request: RequestHead | None,
    status: int,
    word: str,
    message: str,
    request_id: bytes,
    *,
    retry_after: int | None = None,
    more: Mapping[str, object] = NOTHING_MORE,
    lines: tuple[bytes, ...] = (),
) -> None:
    """Answer with an error. `word` is for programs, `message` for people; `retry_after` is in seconds."""
    if retry_after is not None:
        lines = (*lines, b"Retry-After: %d" % retry_after)
    shown = request_id.decode()
    if request is not None and b"text/html" in request.first(b"accept"):
        phrase = HTTPStatus(status).phrase
        page = (
            f"<!doctype html><meta charset=utf-8><title>{status} {phrase}</title>"
            f"<h1>{status} {phrase}</h1><p>{escape(message)}</p><p><small>request {escape(shown)}</small></p>"
        )
        reply(client, request, status, page.encode(), b"Content-Type: text/html; charset=utf-8", *lines)
    else:
        body = {"error": word, "message": message, **more, "request_id": shown}
        reply_json(client, request, status, body, *lines)
