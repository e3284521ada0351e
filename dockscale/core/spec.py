"""What an app asks for: every label, its default, unit and meaning. Labels in, `AppSpec` out, or all that is wrong."""

import difflib
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dockscale.core.schedule import ScheduleField

PREFIX = "dockscale."
ENABLE = "dockscale.enable"
APP_ID = "dockscale.app_id"
# Written by dockscale on the copies it makes; never settings.
MANAGED = "dockscale.managed"
INSTANCE_OF = "dockscale.instance-of"
REVISION = "dockscale.revision"
LAST_DOWN = "dockscale.last-down"
# The same on images that `install` makes; its value is the image they were made from.
INSTALLED = "dockscale.installed-from"
# Which program is in it; empty once its app was edited.
SOURCE_HASH = "dockscale.source-hash"
OWN_LABELS = frozenset({ENABLE, MANAGED, INSTANCE_OF, REVISION, LAST_DOWN, INSTALLED, SOURCE_HASH})

RPC = "rpc"
"""The type of apps that have no port: their instances connect to dockscale and register services there."""

RESERVED = frozenset({"assets", "health", "rpc", "ws"})
"""First segments of paths on the main port that are dockscale's own."""

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|)")
_APP_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_SERVICE = re.compile(r"[^\s/:@*]+")
_HOST = re.compile(r"(?:\*\.)?[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


class SpecError(ValueError):
    """Labels that cannot be followed. `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def seconds(value: object) -> object:
    """Read `30`, `30s`, `5m`, `1h` or `250ms` as seconds; what is no text goes on to pydantic, which judges it."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("is not a duration; write 30, 30s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def _plain(path: str) -> str:
    if not path.startswith("/") or re.search(r"[\s#]", path):
        raise ValueError("must start with / and hold no spaces, such as /healthz or /metrics")
    return path


def _kind(value: str) -> str:
    """Know `rpc` however it is written; other types mean nothing here and stay as they are."""
    return RPC if value.strip().lower() == RPC else value


RequestPath = Annotated[str, AfterValidator(_plain)]
Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, allow_inf_nan=False)]


class SelectionMode(StrEnum):
    """How a request picks one of several ready instances (seed: Service Selection Mode)."""

    RANDOM = "random"
    FIRST = "first"
    LAST = "last"
    MIN_LOAD = "min_load"
    EXACT = "exact"
    ROUND_ROBIN = "round_robin"
    POWER_OF_TWO = "power_of_two"
    STICKY = "sticky"


class Visibility(StrEnum):
    """Who may use an app, and find it."""

    PUBLIC = "public"
    UNLISTED = "unlisted"
    PROTECTED = "protected"


def _hosts_of(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip().lower() for part in value.split(",") if part.strip())
    return value


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, use_attribute_docstrings=True)


class Route(_Section):
    host: Annotated[tuple[str, ...], BeforeValidator(_hosts_of)] = ()
    """Hosts that lead to the app, exact or `*.` wildcard; several are separated by commas."""
    path: str | None = None
    """Path prefix that leads to the app, such as `/shop`."""
    strip_path: bool = True
    """Take the prefix off before the app sees the path (it is told in `X-Forwarded-Prefix`)."""

    @field_validator("host")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is no host name; write web.example.org or *.example.org, without port")
        return hosts

    @field_validator("path")
    @classmethod
    def _path(cls, path: str | None) -> str | None:
        if path is None:
            return None
        if not path.startswith("/") or "//" in path or ".." in path.split("/") or re.search(r"[\s?#%]", path):
            raise ValueError("must be a plain path that starts with /, such as /shop")
        if path.split("/")[1] in RESERVED:
            raise ValueError(f"is a path of dockscale itself, as all below {', '.join(sorted(RESERVED))}")
        return path.rstrip("/") or "/"


class Autoscaling(_Section):
    enabled: bool = True
    """`false`: one instance, no scaling; it still starts with the first request and comes back when it dies."""
    min_instances: int = Field(1, ge=0, le=1000)
    """Instances kept once the app is awake; 0 lets it fall asleep when the load goes."""
    max_instances: int = Field(10, ge=1, le=1000)
    """Instances never exceeded."""
    target_requests_per_instance: float = Field(100, ge=0.01, allow_inf_nan=False)
    """Requests per minute that one instance should serve."""
    scale_up_threshold: float = Field(0.9, ge=0.01, le=10, allow_inf_nan=False)
    """Scale up when the load per instance exceeds this fraction of the target."""
    scale_down_threshold: float = Field(0.3, ge=0, le=10, allow_inf_nan=False)
    """Scale down when the load per instance falls below this fraction of the target."""
    scale_up_cooldown: Seconds = 300
    """Seconds between scale-ups; bursts and requests without a place do not wait for it."""
    scale_down_cooldown: Seconds = 600
    """Seconds between scale-downs."""
    step: Literal["proportional", "one"] = "proportional"
    """`proportional`: as many instances as the load needs; `one`: one at a time."""
    target_concurrency: float | None = Field(None, ge=0.01, allow_inf_nan=False)
    """Requests in flight or waiting per instance that scaling aims at as well; the larger wish wins. Empty: no aim."""
    max_concurrency: int | None = Field(None, ge=1)
    """Requests in flight per instance at most; more wait in the line. Empty: no bound."""
    standby_instances: int = Field(0, ge=0, le=1000)
    """Paused instances kept ready beside those that serve, within `max_instances`: going up is an unpause then."""
    standby_max_age: PositiveSeconds = 3600
    """Seconds after which a paused instance is replaced by a new one."""
    schedule: ScheduleField | None = None
    """Minimum instances by time, such as `0 8 * * mon-fri Europe/Berlin = 3; 0 20 * * * Europe/Berlin = 0`."""
    metric_path: RequestPath | None = None
    """Where instances give their gauge in Prometheus' text format. Default: `/metrics`, if a gauge is named."""
    metric_name: str | None = None
    """Gauge that is scaled by; all its samples are summed."""
    metric_target: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Average of this gauge per instance that scaling aims at."""
    max_queue: int = Field(1000, ge=0, le=1_000_000)
    """Requests that may wait for a place; the next one gets 503."""
    queue_timeout: PositiveSeconds = 60
    """Seconds a request may wait for a place; then it gets 504."""

    @cached_property
    def up_line(self) -> float:
        """Requests per minute and instance above which the app goes up."""
        return self.scale_up_threshold * self.target_requests_per_instance

    @cached_property
    def down_line(self) -> float:
        """Requests per minute and instance below which the app goes down."""
        return self.scale_down_threshold * self.target_requests_per_instance

    @field_validator("metric_name")
    @classmethod
    def _metric_name(cls, name: str | None) -> str | None:
        if name is not None and not _METRIC_NAME.fullmatch(name):
            raise ValueError("is no metric's name; write, for example, queue_length")
        return name

    @model_validator(mode="before")
    @classmethod
    def _metric_path(cls, data: Any) -> Any:
        if isinstance(data, dict) and (data.get("metric_name") or data.get("metric_target")):
            return {**data, "metric_path": data.get("metric_path") or "/metrics"}
        return data

    @model_validator(mode="after")
    def _metric_whole(self) -> Self:
        missing = [f"autoscaling.{name}" for name in ("metric_name", "metric_target") if getattr(self, name) is None]
        if missing and self.metric_path is not None:  # which it is when any of the three is given
            raise ValueError(f"{' and '.join(missing)} must be given: a gauge needs its name and its target")
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_instances > self.max_instances:
            raise ValueError(
                f"autoscaling.min_instances ({self.min_instances}) is above "
                f"autoscaling.max_instances ({self.max_instances})"
            )
        if self.scale_down_threshold >= self.scale_up_threshold:
            raise ValueError(
                f"autoscaling.scale_down_threshold ({self.scale_down_threshold:g}) must be below "
                f"autoscaling.scale_up_threshold ({self.scale_up_threshold:g})"
            )
        for entry in self.schedule.entries if self.schedule else ():
            if entry.minimum > self.max_instances:
                raise ValueError(
                    f"autoscaling.schedule ({entry.text}) is above autoscaling.max_instances ({self.max_instances})"
                )
        return self


class StartupConfig(_Section):
    timeout: PositiveSeconds = 60
    """Seconds from start to ready; later the start has failed."""
    health_path: RequestPath | None = None
    """Ready when this path answers 2xx or 3xx; without it, when the port accepts a connection."""
    wait_for_service: str = "default"
    """Apps of type `rpc`: ready when the instance has registered this service. Installed programs: found out."""
    stop_after_inactive: Seconds = 0
    """Seconds without a request or an open socket until the app sleeps; 0: never."""
    waiting_page: bool = False
    """Browsers get a page that shows how far a waking app is, and goes on by itself; programs wait as always."""

    @field_validator("wait_for_service")
    @classmethod
    def _service(cls, name: str) -> str:
        if name and not _SERVICE.fullmatch(name):
            raise ValueError("is no service's name; none has / : @ *")
        return name


class ShutdownConfig(_Section):
    drain_timeout: Seconds = 30
    """Seconds that a leaving instance may take to finish what is in flight."""
    stop_timeout: Seconds = 10
    """Seconds between SIGTERM and SIGKILL."""


class AppSpec(_Section):
    app_id: str
    """The id in URLs. Default: the compose service, else the container's or image's name."""
    workspace: str = "public"
    """The first part of `/{workspace}/apps/{app_id}/`."""
    name: str = ""
    """Name shown to people."""
    type: Annotated[str, AfterValidator(_kind)] = ""
    """`rpc`: instances connect to dockscale and register services there. All else is only shown to people."""
    runtime: str = ""
    """What runs the program of an app that was installed: its instances connect as those of type `rpc` do."""
    version: str = ""
    """Version shown to people."""
    description: str = ""
    """Description shown to people."""
    port: int = Field(ge=0, le=65535)
    """Where the app listens. Default: the image's only exposed TCP port. Apps of type `rpc` have none."""
    route: Route = Route()
    service_selection_mode: SelectionMode = SelectionMode.RANDOM
    """Who serves: `random`, `first`, `last`, `min_load`, `exact`, `round_robin`, `power_of_two` or `sticky`."""
    visibility: Visibility = Visibility.PUBLIC
    """With `DOCKSCALE_AUTH=token`: `public` is for all, `unlisted` told to none, `protected` for who may read there."""
    priority: int = Field(0, ge=-1000, le=1000)
    """Where the host's budget is short, idle instances of apps with a lower number give way to those with a higher."""
    lazy: bool = True
    """`false`: `min_instances` are started at once, not with the first request."""
    autoscaling: Autoscaling = Autoscaling()
    startup_config: StartupConfig = StartupConfig()
    shutdown_config: ShutdownConfig = ShutdownConfig()

    @field_validator("app_id", "workspace")
    @classmethod
    def _sluglike(cls, value: str) -> str:
        if not _APP_ID.fullmatch(value):
            raise ValueError("must be 1 to 63 of a-z, 0-9 and -, and neither start nor end with -")
        return value

    @field_validator("port")
    @classmethod
    def _port(cls, port: int, info: ValidationInfo) -> int:
        speaks_rpc = info.data.get("type") == RPC or bool(info.data.get("runtime"))
        if port and speaks_rpc:
            raise ValueError("apps of type rpc have no port; leave it out")
        if not port and not speaks_rpc:
            raise ValueError("must be 1 to 65535")
        return port

    @model_validator(mode="after")
    def _asked_rightly(self) -> Self:
        startup, scaling = self.startup_config, self.autoscaling
        over_http = {"startup_config.health_path": startup.health_path, "autoscaling.metric_path": scaling.metric_path}
        if self.speaks_rpc and any(over_http.values()):
            given = " and ".join(name for name, path in over_http.items() if path)
            raise ValueError(f"{given} cannot be asked for: apps of type rpc have no port")
        if startup.wait_for_service != "default" and not self.speaks_rpc:
            raise ValueError("startup_config.wait_for_service is for apps with dockscale.type=rpc only")
        return self

    @cached_property
    def speaks_rpc(self) -> bool:
        """Its instances are called over the connection that they make to dockscale."""
        return self.type == RPC or bool(self.runtime)

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """Fewest and most instances of an app that is awake."""
        scaling = self.autoscaling
        return (scaling.min_instances, scaling.max_instances) if scaling.enabled else (1, 1)


def fields(model: type[BaseModel] = AppSpec, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting as (its label without `dockscale.`, pydantic's field), in the order of the contract."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{path}{name}.")
        else:
            yield path + name, field


LABELS = tuple(PREFIX + name for name, _ in fields())


def slug(text: str) -> str:
    """Make an app id of a container's, service's or image's name; empty if nothing of it can be used."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].strip("-")


def enabled(labels: Mapping[str, str]) -> bool:
    """Tell whether the labels opt in.

    Raises:
        SpecError: `dockscale.enable` is neither true nor false.
    """
    value = labels.get(ENABLE, "false").strip().lower()
    if value not in ("true", "false"):
        raise SpecError([f"label {ENABLE} = {labels[ENABLE]!r}: must be true or false"])
    return value == "true"


def parse(labels: Mapping[str, str], *, app_id: str, ports: tuple[int, ...]) -> AppSpec:
    """Read one template's labels. `app_id` and `ports` (exposed TCP ports) are what it is when no label says otherwise.

    Raises:
        SpecError: with a sentence for every label that is unknown or cannot be followed.
    """
    problems: list[str] = []
    tree: dict[str, Any] = {"app_id": slug(app_id)}
    for label, value in labels.items():
        if not label.startswith(PREFIX) or label in OWN_LABELS or not value.strip():
            continue  # an empty value is what compose makes of a variable that is not set
        if label not in LABELS:
            problems.append(_unknown(label))
            continue
        *sections, name = label.removeprefix(PREFIX).split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[name] = value.strip()
    if "port" not in tree:
        if _kind(tree.get("type", "")) == RPC or tree.get("runtime"):
            tree["port"] = 0
        elif len(ports) == 1:
            tree["port"] = ports[0]
        else:
            exposed = f"exposes {', '.join(map(str, ports))}" if ports else "exposes no TCP port"
            problems.append(f"label dockscale.port is missing and the image {exposed}: say where the app listens")
    try:
        spec = AppSpec.model_validate(tree)
    except ValidationError as error:
        problems += [told for each in error.errors() if (told := _told(each, labels))]
    if problems:
        raise SpecError(problems)
    return spec


def _unknown(label: str) -> str:
    near = difflib.get_close_matches(label.removeprefix(PREFIX), [name for name, _ in fields()], n=1, cutoff=0.5)
    return f"label {label} is unknown" + (
        f"; did you mean {PREFIX}{near[0]}?" if near else "; `dockscale labels` lists them all"
    )


def _told(error: Any, labels: Mapping[str, str]) -> str:
    """Turn one of pydantic's errors into a sentence about a label; a missing port has been told already."""
    if error["type"] == "missing":
        return ""
    message: str = error["msg"].removeprefix("Value error, ")
    label = PREFIX + ".".join(str(part) for part in error["loc"])
    while label not in LABELS and "." in label.removeprefix(PREFIX):
        label = label.rpartition(".")[0]
    if label not in LABELS:
        return message
    value = labels.get(label, error["input"])
    return f"label {label} = {value!r}: {message[0].lower()}{message[1:]}"
