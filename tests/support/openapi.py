"""What the admin port answers, held against its OpenAPI document."""

import re
from typing import Any

from jsonschema import Draft202012Validator

from dockscale.admin.openapi import document
from dockscale.admin.problems import MEDIA_TYPE

_DOCUMENT = document(asks_for_token=True)


def operation(method: str, path: str) -> dict[str, Any]:
    """The operation that a request is. Empty: it is none."""
    for template, operations in _DOCUMENT["paths"].items():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
        if re.fullmatch(pattern, path.partition("?")[0]):
            found: dict[str, Any] = operations.get(method.lower(), {})
            return found
    return {}


def check_answer(method: str, path: str, status: int, media: str, body: Any) -> None:
    """Fail unless the document says that this may be answered."""
    known = operation(method, path)
    if not known:
        assert (status in (401, 404, 405, 421), media) == (True, MEDIA_TYPE)
        check({"$ref": "#/components/schemas/Problem"}, body)
    elif content := known["responses"][str(status)].get("content"):
        check(content.get(media, content.get("*/*"))["schema"], body)
    else:
        assert body is None


def check_event(method: str, path: str, name: str, facts: Any) -> None:
    """Fail unless the document says that this may be told."""
    stream = operation(method, path)["responses"]["200"]["content"]["text/event-stream"]
    check(stream["x-events"][name], facts)


def check(schema: dict[str, Any], value: Any) -> None:
    Draft202012Validator(schema | {"components": _DOCUMENT["components"]}).validate(value)
