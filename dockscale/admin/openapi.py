"""What the admin port can be asked: its parameters, which requests are read with, and all of it as OpenAPI 3.1."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from dockscale import __version__
from dockscale.admin import problems, shapes
from dockscale.admin.page import BELOW
from dockscale.control import START_S
from dockscale.follow import MOST_LINES

T = TypeVar("T")
_SCHEMAS = "#/components/schemas/"
_TEXTUAL: dict[str, Any] = {"schema": {"type": "string"}}
_EVERYWHERE = ("unauthorized", "misdirected", "internal")


@dataclass(frozen=True)
class Query(Generic[T]):
    """A parameter after the `?`. Without `otherwise` in the request, unless it is `needed`."""

    name: str
    kind: TypeAdapter[T]
    says: str
    otherwise: Any = None
    needed: bool = False

    def of(self, request: web.Request) -> T:
        """Read it.

        Raises:
            ValueError: it is missing, or none of its kind.
        """
        text = request.query.get(self.name)
        if text is None and self.needed:
            raise ValueError(f"{self.name} is missing")
        try:
            return self.kind.validate_python(self.otherwise if text is None else text)
        except ValidationError as error:
            raise ValueError(f"{self.name} = {text!r}: {error.errors()[0]['msg']}") from None

    def told(self) -> dict[str, Any]:
        """The parameter as the document tells of it."""
        schema = self.kind.json_schema() | ({} if self.otherwise is None else {"default": self.otherwise})
        return {"name": self.name, "in": "query", "description": self.says, "required": self.needed, "schema": schema}


_Count = Annotated[int, Field(ge=0)]
_TEXT, _COUNT, _MAYBE = TypeAdapter(str), TypeAdapter(_Count), TypeAdapter[int | None](_Count | None)
TIMEOUT = Query("timeout", TypeAdapter(Annotated[float, Field(ge=0, allow_inf_nan=False)]), "Seconds to wait.", START_S)
OVERWRITE = Query("overwrite", TypeAdapter(bool), "Replace the app that has this id.", False)
INSTANCE = Query("instance", _TEXT, "One instance, by its name. Empty: all.", "")
LEAVER = Query("instance", _TEXT, "The instance that is to go, by its name.", needed=True)
INSTANCES = Query("instances", TypeAdapter(int), "How many.", needed=True)
KIND = Query(
    "type", TypeAdapter(Literal["", "log", "scaling"]), "What instances wrote, or how it was scaled. Empty: both.", ""
)
TAIL = Query("tail", _MAYBE, f"The last lines of each instance; if not given {MOST_LINES}, of a stream 0.")
OFFSET = Query("offset", _COUNT, "So many items are left out at the beginning.", 0)
LIMIT = Query("limit", _MAYBE, "So many items at most.")


Events = dict[str, type[BaseModel]]


class Operation(NamedTuple):
    id: str
    says: str
    shape: Any = None
    """What is answered: a type, as JSON; a media type; or nothing."""
    status: int = 200
    also: str = ""
    """Another media type, for who asks for that."""
    asks: tuple[Query[Any], ...] = ()
    body: type[BaseModel] | None = None
    events: Events = {}  # noqa: RUF012  # nobody changes it
    """What the stream tells, for who asks for one."""
    refuses: tuple[str, ...] = ()


_OF_ALL: Events = {
    "decision": shapes.Decided, "state": shapes.InState, "load": shapes.Loaded, "removed": shapes.Removed,
    "missed": shapes.Missed,
}  # fmt: skip
_OF_INSTALL: Events = {"step": shapes.Step, "installed": shapes.Installed, "failed": shapes.Problem}
_OF_LOGS: Events = {"line": shapes.Line, "removed": shapes.Removed}
_NO_APP = ("no_such_app",)
_NO_INSTANCE = ("no_such_app", "no_such_instance")
_ENGINE = ("engine_away", "engine_refused")
_APP = "/api/apps/{app_id}"
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/"): Operation("index", "The whole. Browsers get the dashboard.", shapes.Index, also="text/html"),
    ("GET", BELOW + "{name}"): Operation("file", "A file of the dashboard.", "*/*", refuses=("not_found",)),
    ("GET", "/api/openapi.json"): Operation("openapi", "This document.", dict[str, Any]),
    ("GET", "/metrics"): Operation("metrics", "Metrics, as Prometheus reads them.", "text/plain"),
    ("GET", "/api/report"): Operation("report", "What scaling has saved since dockscale started.", shapes.Report),
    ("GET", "/api/events"): Operation("events", "What happens to all apps.", events=_OF_ALL),
    ("GET", "/api/apps"): Operation("apps", "All apps in short.", list[shapes.App | shapes.Refused]),
    ("POST", "/api/apps"): Operation(
        "install", "Install an app. A stream tells each step.", shapes.Installed, 201,
        asks=(OVERWRITE,), body=shapes.Manifest, events=_OF_INSTALL,
        refuses=("app_exists", "labelled_by_hand", "invalid", "program_failed", "too_large", *_ENGINE),
    ),
    ("GET", _APP): Operation("app", "One app in full.", shapes.AppInFull | shapes.Refused, refuses=_NO_APP),
    ("DELETE", _APP): Operation(
        "uninstall", "Remove an installed app, and answer when nothing is left of it.", None, 204,
        refuses=(*_NO_APP, "labelled_by_hand", *_ENGINE),
    ),
    ("GET", f"{_APP}/events"): Operation(
        "app_events", "What happens to one app, until it is removed.",
        events=_OF_ALL | {"instances": shapes.Members}, refuses=_NO_APP,
    ),
    ("GET", f"{_APP}/history"): Operation("history", "Its last hour.", shapes.History, refuses=_NO_APP),
    ("GET", f"{_APP}/logs"): Operation(
        "logs", "What its instances wrote and how it was scaled. A stream goes on with it.", shapes.Logs,
        asks=(INSTANCE, KIND, TAIL, OFFSET, LIMIT), events=_OF_LOGS, refuses=(*_NO_INSTANCE, *_ENGINE),
    ),
    **{
        ("POST", f"{_APP}/{verb}"): Operation(
            verb, "Wake it, and answer with an instance that is ready.", shapes.Instance,
            asks=(TIMEOUT,), refuses=(*_NO_APP, "no_place", "no_instance_ready"),
        )
        for verb in ("wake", "start")
    },
    ("POST", f"{_APP}/sleep"): Operation(
        "sleep", "Let all instances finish and go.", list[shapes.Instance], refuses=(*_NO_APP, "labelled_by_hand")
    ),
    ("POST", f"{_APP}/stop"): Operation(
        "stop", "Let instances finish and go.", list[shapes.Instance],
        asks=(INSTANCE,), refuses=(*_NO_INSTANCE, "labelled_by_hand"),
    ),
    ("POST", f"{_APP}/drain"): Operation(
        "drain", "Let one instance finish and go.", shapes.App,
        asks=(LEAVER,), refuses=(*_NO_INSTANCE, "labelled_by_hand"),
    ),
    ("POST", f"{_APP}/scale"): Operation(
        "scale", "Have so many instances until load decides otherwise.", shapes.App,
        asks=(INSTANCES,), refuses=(*_NO_APP, "out_of_bounds"),
    ),
    ("POST", f"{_APP}/restart"): Operation(
        "restart", "Replace each instance by a new one, ready before the old one goes.", shapes.App,
        refuses=(*_NO_APP, "labelled_by_hand"),
    ),
}  # fmt: skip
"""Method and path → what it does. Tests hold the routes, and what they answer, against it."""


@cache
def document(asks_for_token: bool) -> dict[str, Any]:
    """All of it, as OpenAPI 3.1 has it."""
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _operation(method, path, operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "dockscale, the admin port", "version": __version__},
        "servers": [{"url": "/"}],
        "security": [{"token": []}] if asks_for_token else [],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _shapes() | {kind.word: _kind(kind) for kind in problems.KINDS},
        },
    }


def _operation(method: str, path: str, operation: Operation) -> dict[str, Any]:
    told: dict[str, Any] = {"operationId": operation.id, "summary": operation.says}
    if path.startswith(BELOW):
        told["security"] = []
    if parameters := [*_in_path(path), *(query.told() for query in operation.asks)]:
        told["parameters"] = parameters
    if operation.body is not None:
        told["requestBody"] = {"required": True, "content": _json(operation.body)}
    told["responses"] = {**_answers(operation), **_refusals(method, operation)}
    return told


def _in_path(path: str) -> Iterator[dict[str, Any]]:
    for name in ("app_id", "name"):
        if f"{{{name}}}" in path:
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _answers(operation: Operation) -> dict[str, Any]:
    """What is answered where nothing is refused. A stream's status is always 200."""
    media: dict[int, dict[str, Any]] = {operation.status: {}}
    if isinstance(operation.shape, str):
        media[operation.status] = {operation.shape: _TEXTUAL}
    elif operation.shape is not None:
        media[operation.status] = _json(operation.shape)
    if operation.also:
        media[operation.status][operation.also] = _TEXTUAL
    if operation.events:
        events = {name: _ref(event.__name__) for name, event in operation.events.items()}
        media.setdefault(200, {})["text/event-stream"] = _TEXTUAL | {"x-events": events}
    return {
        str(status): {"description": operation.says} | ({"content": content} if content else {})
        for status, content in media.items()
    }


def _refusals(method: str, operation: Operation) -> dict[str, Any]:
    """Problems by their status: several kinds may have the same."""
    words = {*operation.refuses, *_EVERYWHERE}
    words |= set() if method == "GET" else {"forbidden"}
    words |= {"bad_request"} if operation.asks or operation.body else set()
    told: dict[str, Any] = {}
    for status in sorted({kind.status for kind in problems.KINDS if kind.word in words}):
        kinds = [kind for kind in problems.KINDS if kind.word in words and kind.status == status]
        schema = {"oneOf": [_ref(kind.word) for kind in kinds]}
        told[str(status)] = {
            "description": "; ".join(kind.title for kind in kinds),
            "content": {problems.MEDIA_TYPE: {"schema": schema}},
        }
    return told


def _kind(kind: problems.Kind) -> dict[str, Any]:
    always = {"type": problems.TYPES + kind.word, "status": kind.status, "error": kind.word, "title": kind.title}
    fixed = {name: {"const": value} for name, value in always.items()}
    return {"title": kind.title, "allOf": [_ref(shapes.Problem.__name__)], "properties": fixed}


def _shapes() -> dict[str, Any]:
    classes = [each for each in vars(shapes).values() if isinstance(each, type) and issubclass(each, BaseModel)]
    models = [each for each in classes if each.model_fields]
    _, told = models_json_schema([(each, "serialization") for each in models], ref_template=_SCHEMAS + "{model}")
    schemas: dict[str, Any] = told["$defs"]
    return schemas


def _json(shape: Any) -> dict[str, Any]:
    schema = TypeAdapter(shape).json_schema(mode="serialization", ref_template=_SCHEMAS + "{model}")
    schema.pop("$defs", None)
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        schema = _ref(shape.__name__)
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _SCHEMAS + name}
