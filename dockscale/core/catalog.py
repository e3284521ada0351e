"""What the engine lists, read as apps: which templates, which instances, what is invalid and what belongs to nobody."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf

from dockscale.core.spec import APP_ID, INSTANCE_OF, MANAGED, AppSpec, SpecError, enabled, parse, slug

_PROJECT = "com.docker.compose.project"
_SERVICE = "com.docker.compose.service"


@dataclass(frozen=True, slots=True)
class Container:
    """A container as the engine lists it."""

    id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    state: str = "created"
    """`created`, `running`, `paused`, `restarting`, `exited`, `removing` or `dead`."""
    created: float = 0.0
    """Unix time in seconds."""
    started: float = 0.0
    """The same of its latest start, as it was when the container was first seen; 0 if it had not been started."""
    image_id: str = ""
    ports: tuple[int, ...] = ()
    """Exposed TCP ports."""
    addresses: Mapping[str, str] = field(default_factory=dict)
    """Network name → IP address, while it runs."""
    network_mode: str = "default"
    health: str = ""
    """Docker's HEALTHCHECK: `starting`, `healthy`, `unhealthy`, or empty if there is none."""
    auto_remove: bool = False
    memory: int = 0
    """Bytes that it may use at most; 0: no limit."""

    @property
    def runs(self) -> bool:
        return self.state == "running"

    @property
    def managed(self) -> bool:
        return self.labels.get(MANAGED) == "true"


@dataclass(frozen=True, slots=True)
class Image:
    """A labelled image as the engine lists it."""

    id: str
    name: str
    """Its first tag, or its id."""
    labels: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0
    ports: tuple[int, ...] = ()
    memory: int = 0
    """Bytes that its copies may use at most; 0: no limit, since images cannot say one."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All containers and images with a dockscale label, at one moment."""

    containers: tuple[Container, ...] = ()
    images: tuple[Image, ...] = ()


Template = Container | Image
"""What new instances are made from. Its id is their revision: engines never change the settings of either in place."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One app as the engine shows it."""

    spec: AppSpec
    template: Template
    members: tuple[Container, ...] = ()
    """Every container that is or could be an instance: copies, and the labelled containers themselves."""


@dataclass(frozen=True, slots=True)
class Invalid:
    """A labelled container or image that cannot be an app, and what to do about it."""

    source: str
    app_id: str
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Catalog:
    apps: Mapping[str, Entry] = field(default_factory=dict)
    invalid: tuple[Invalid, ...] = ()
    orphans: tuple[Container, ...] = ()
    """Copies whose app is gone."""


def describe(template: Template) -> str:
    kind = "container" if isinstance(template, Container) else "image"
    return f"{kind} {template.name}"


def survey(listing: Listing) -> Catalog:
    """Read a listing. Total: whatever is wrong becomes an `Invalid`, and the others go on.

    Where two want the same id or route, the older one keeps it; a container goes before an image, whose labels are
    defaults.
    """
    copies = [container for container in listing.containers if container.managed]
    templates: list[Template] = [container for container in listing.containers if not container.managed]
    templates.sort(key=lambda template: template.created)
    templates += sorted(listing.images, key=lambda image: image.created)
    reading = _Reading()
    for template in templates:
        reading.add(template)
    orphans = []
    for copy in copies:
        if not reading.join(copy, copy.labels.get(INSTANCE_OF, "")):
            orphans.append(copy)
    return Catalog(
        {app_id: Entry(e.spec, e.template, tuple(reading.members[app_id])) for app_id, e in reading.apps.items()},
        tuple(reading.invalid),
        tuple(orphans),
    )


def judge(image: Image, listing: Listing) -> AppSpec:
    """Say which app an image would be if it were listed, the newest of all, instead of the one with its name.

    Raises:
        SpecError: it would be refused.
    """
    image = replace(image, created=inf)
    others = tuple(each for each in listing.images if each.name != image.name)
    catalog = survey(Listing(listing.containers, (*others, image)))
    for refused in catalog.invalid:
        if refused.source == describe(image):
            raise SpecError(list(refused.problems))
    for entry in catalog.apps.values():
        if entry.template is image:
            return entry.spec
    raise SpecError([f"the app id {image.labels[APP_ID]!r} is that of a labelled container; choose another"])


class _Reading:
    def __init__(self) -> None:
        self.apps: dict[str, Entry] = {}
        self.members: dict[str, list[Container]] = {}
        self.invalid: list[Invalid] = []
        self._routes: dict[str, str] = {}

    def add(self, template: Template) -> None:
        try:
            if not enabled(template.labels):
                return
            spec = parse(template.labels, app_id=_default_id(template), ports=template.ports)
            _check_network(template, spec)
        except SpecError as error:
            self._refuse(template, "", error.problems)
            return
        known = self.apps.get(spec.app_id)
        if known is None:
            self._accept(template, spec)
        elif isinstance(template, Image) and isinstance(known.template, Container):
            pass
        elif _replaces(template, known.template):
            self._accept(template, spec)
        else:
            taken = f"the app id {spec.app_id!r} is taken by {describe(known.template)}; set another dockscale.app_id"
            self._refuse(template, spec.app_id, [taken])

    def join(self, container: Container, app_id: str) -> bool:
        if app_id not in self.apps:
            return False
        self.members[app_id].append(container)
        return True

    def _accept(self, template: Template, spec: AppSpec) -> None:
        wanted = [f"host {host}" for host in spec.route.host]
        wanted += [f"path {spec.route.path}"] if spec.route.path else []
        clashes = [
            f"the {route} is taken by the app {self._routes[route]!r}; choose another route"
            for route in wanted
            if self._routes.get(route, spec.app_id) != spec.app_id
        ]
        if clashes:
            self._refuse(template, spec.app_id, clashes)
            return
        others = {route: owner for route, owner in self._routes.items() if owner != spec.app_id}
        self._routes = others | dict.fromkeys(wanted, spec.app_id)
        self.apps[spec.app_id] = Entry(spec, template)
        members = self.members.setdefault(spec.app_id, [])
        if isinstance(template, Container):
            members.append(template)

    def _refuse(self, template: Template, app_id: str, problems: Iterable[str]) -> None:
        app_id = app_id or template.labels.get(APP_ID) or slug(_default_id(template))
        self.invalid.append(Invalid(describe(template), app_id, tuple(problems)))


def _default_id(template: Template) -> str:
    if isinstance(template, Container):
        return template.labels.get(_SERVICE) or template.name
    return template.name.rpartition("/")[2].partition(":")[0]


def _replaces(new: Template, old: Template) -> bool:
    """Tell whether `new` is a newer version of `old`: the same compose service, or the same image name built again."""
    if isinstance(new, Container) and isinstance(old, Container):
        service = new.labels.get(_PROJECT), new.labels.get(_SERVICE)
        return None not in service and service == (old.labels.get(_PROJECT), old.labels.get(_SERVICE))
    return isinstance(new, Image) and isinstance(old, Image) and new.name == old.name


def _check_network(template: Template, spec: AppSpec) -> None:
    mode = template.network_mode if isinstance(template, Container) else "default"
    if mode == "none" or mode.startswith("container:"):
        raise SpecError([f"its network mode is {mode}, so it has no network of its own; give it a bridge network"])
    if mode == "host" and spec.bounds[1] > 1 and not spec.speaks_rpc:
        problem = (
            "its network mode is host, so two instances would want the same port; "
            "set dockscale.autoscaling.max_instances=1 or give it a bridge network"
        )
        raise SpecError([problem])
