"""What the admin port refuses, as problem details (RFC 9457): each kind of problem once."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from dockscale.claim import TooLate
from dockscale.control import AppExists, ByHand, OutOfBounds, UnknownApp, UnknownInstance
from dockscale.core.pool import NoPlace
from dockscale.core.spec import SpecError
from dockscale.engine import EngineAway, EngineError
from dockscale.programs import ProgramFailed

MEDIA_TYPE = "application/problem+json"
TYPES = "/api/openapi.json#/components/schemas/"
"""Where the type of a problem leads: to its schema in the document, which says what it means."""

log = structlog.get_logger()


class Kind(NamedTuple):
    """A kind of problem: its status, its word, and what it means."""

    status: int
    word: str
    title: str


BAD_REQUEST = Kind(400, "bad_request", "A parameter or the body cannot be read")
UNAUTHORIZED = Kind(401, "unauthorized", "The token is missing or another one")
FORBIDDEN = Kind(403, "forbidden", "Pages of other sites may change nothing")
NOT_FOUND = Kind(404, "not_found", "There is nothing at this path")
METHOD_NOT_ALLOWED = Kind(405, "method_not_allowed", "The path does not have this method")
TOO_LARGE = Kind(413, "too_large", "The body is too large")
MISDIRECTED = Kind(421, "misdirected", "The host is no name of this machine")
INTERNAL = Kind(500, "internal", "A bug in dockscale, whose log has more")

STATUS: dict[type[Exception], Kind] = {
    UnknownApp: Kind(404, "no_such_app", "No app has this id"),
    UnknownInstance: Kind(404, "no_such_instance", "The app has no instance of this name"),
    AppExists: Kind(409, "app_exists", "An app has this id already"),
    ByHand: Kind(409, "labelled_by_hand", "What was made by hand is for its owner to change"),
    SpecError: Kind(422, "invalid", "The manifest cannot be followed"),
    OutOfBounds: Kind(422, "out_of_bounds", "The app may not have so many instances, or so few"),
    ValueError: BAD_REQUEST,
    TooLate: Kind(504, "no_instance_ready", "No instance was ready in time"),
    NoPlace: Kind(503, "no_place", "No instance could be started, or the line is full"),
    ProgramFailed: Kind(422, "program_failed", "The program does not work"),
    EngineAway: Kind(503, "engine_away", "The engine cannot be reached"),
    EngineError: Kind(502, "engine_refused", "The engine refused"),
}
"""What happened → which kind it is. The first that fits counts: kinds are before what they are kinds of."""
_WITHOUT_A_CAUSE = (UNAUTHORIZED, FORBIDDEN, NOT_FOUND, METHOD_NOT_ALLOWED, TOO_LARGE, MISDIRECTED, INTERNAL)
KINDS = (*dict.fromkeys(STATUS.values()), *_WITHOUT_A_CAUSE)


def details(error: Exception) -> dict[str, Any]:
    """What is told of one of the errors in `STATUS`."""
    kind = next(kind for cause, kind in STATUS.items() if isinstance(error, cause))
    return _members(kind, str(error)) | ({"problems": error.problems} if isinstance(error, SpecError) else {})


def refuse(kind: Kind, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with a problem of this kind."""
    return _answer(_members(kind, detail), headers)


@web.middleware
async def in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell what was refused, and why."""
    try:
        return await handler(request)
    except tuple(STATUS) as error:
        return _answer(details(error))
    except web.HTTPNotFound:
        return refuse(NOT_FOUND, f"there is nothing at {request.path}")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return refuse(METHOD_NOT_ALLOWED, f"{request.path} has {allowed}, not {error.method}", {"Allow": allowed})
    except web.HTTPRequestEntityTooLarge:
        return refuse(TOO_LARGE, f"the manifest is larger than {request.client_max_size // 2**20} MiB")
    except Exception:
        if request.writer.output_size:
            raise  # within an answer there is no place for another one
        log.exception("admin_failed", method=request.method, path=request.path)
        return refuse(INTERNAL, "this is a bug; dockscale's log says what happened")


def _members(kind: Kind, detail: str) -> dict[str, Any]:
    return {
        "type": TYPES + kind.word,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "error": kind.word,
    }


def _answer(members: dict[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(members, status=members["status"], content_type=MEDIA_TYPE, headers=headers)
