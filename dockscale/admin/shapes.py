"""What the admin port answers, as schemas. `Control` and `Watch` make the values; tests hold them against these."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from dockscale.core.load import Load
from dockscale.core.policy import Held, Reason
from dockscale.core.pool import State
from dockscale.core.spec import AppSpec


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


AppState = Literal["ready", "starting", "failing", "asleep"]


class Counts(_Shape):
    """Instances by state."""

    starting: int
    ready: int
    draining: int
    standby: int


class Busy(_Shape):
    requests_per_minute: int
    per_instance: float
    in_flight: int
    waiting: int


class BusyOrNot(Busy):
    """Load, and the lines that it is held against."""

    target: float
    scale_up_above: float
    scale_down_below: float
    idle_s: float


class Member(_Shape):
    """An instance as events tell of it."""

    name: str
    client_id: str
    state: State
    address: str
    """`host:port`, or the client's id over RPC; empty before there is one."""
    container_id: str
    managed: bool
    """dockscale made it, and removes it."""
    in_flight: int
    requests_per_minute: int
    started_at: str
    """ISO 8601, in UTC."""
    why: str
    """Why it leaves, if it does."""


class Instance(Member):
    age_s: float


class Decision(_Shape):
    at: str
    """ISO 8601, in UTC."""
    ago_s: float
    before: int
    wanted: int
    instances: int
    reason: Reason
    held_by: list[Held]
    gone: list[str]
    """What became of instances that died or were ejected."""
    load: Load
    explanation: str


class App(_Shape):
    """An app in short."""

    app_id: str
    workspace: str
    name: str
    state: AppState
    template: str
    """What its instances are made of."""
    urls: list[str]
    instances_by_state: Counts
    bounds: list[int]
    """Fewest and most instances."""
    load: BusyOrNot
    failure: str
    """What the last start failed of; empty if it did not."""
    rollout_failure: str
    gauge_failure: str
    decision: Decision | None
    """The latest."""


class AppInFull(App):
    instances: list[Instance]
    decisions: list[Decision]
    """The latest 200, the newest first."""
    spec: AppSpec


class Refused(_Shape):
    """What is labelled as an app and cannot be one."""

    app_id: str
    state: Literal["invalid"]
    template: str
    problems: list[str]


class History(_Shape):
    """The last hour: one number of each list for each time in `at`, in seconds since 1970."""

    app_id: str
    every_s: float
    now: float
    at: list[float]
    requests_per_minute: list[int]
    per_instance: list[float]
    ready: list[int]


class Usage(_Shape):
    used_h: float
    """Instance-hours."""
    always_one_h: float
    always_max_h: float
    wakes: int
    waited_s: float
    """Seconds that requests stood in the line, in all."""


class UsageOfApp(Usage):
    app_id: str
    watched_h: float
    max_instances: int


class Report(_Shape):
    apps: list[UsageOfApp]
    total: Usage


class Line(_Shape):
    """What an instance wrote (`log`), or how the app was scaled (`scaling`)."""

    type: Literal["log", "scaling"]
    content: str
    instance: str = ""
    at: str = ""


class Logs(_Shape):
    items: list[Line]
    total: int
    offset: int
    limit: int | None


class Status(_Shape):
    engine_up: bool
    apps: int
    invalid: int
    instances: int


class Index(_Shape):
    dockscale: Status
    see: list[str]


class Manifest(_Shape):
    """What an app is made of, and any field of its settings, named as its label without `dockscale.`."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    """What the app is called. Without `app_id`, that is made of it."""
    source: str = ""
    """A program; or `image`."""
    image: str = ""
    files: list[dict[str, Any]] = []
    """Files beside the source, each with `name` and `content`."""


class Installed(AppSpec):
    """A manifest with all fields filled in."""

    id: str
    image: str
    source_hash: str


class Decided(Decision):
    app_id: str


class InState(_Shape):
    app_id: str
    state: AppState
    instances_by_state: Counts
    failure: str


class Loaded(Busy):
    app_id: str


class Members(_Shape):
    app_id: str
    instances: list[Member]


class Removed(_Shape):
    app_id: str
    instance: str = ""
    """Only of logs: the one that was followed, if it was one."""


class Missed(_Shape):
    """The reader was too slow, and so many decisions were dropped."""

    count: int


class Step(_Shape):
    type: Literal["info", "success", "warning"]
    text: str


class Problem(_Shape):
    """Problem details (RFC 9457)."""

    type: str
    """Where its meaning is said, at this address."""
    title: str
    status: int
    detail: str
    """What happened this time, for people."""
    error: str
    """The kind's word, for programs."""
    problems: list[str] = []
    """Of a manifest: one sentence for each."""
