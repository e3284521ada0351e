"""Every operator verb once, as plain values that the API, the command line and the dashboard show alike."""

import asyncio
import difflib
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Protocol
from weakref import WeakValueDictionary

from dockscale.claim import TooLate, claim
from dockscale.core.app import App
from dockscale.core.catalog import Image, Invalid, describe, judge
from dockscale.core.explain import explain
from dockscale.core.history import EVERY_S
from dockscale.core.load import Load
from dockscale.core.manifest import FILES, IMAGE, SOURCE, Tell, by_field, labels_of, manifest_of, split
from dockscale.core.policy import Decision, usual_bounds
from dockscale.core.pool import Clock, Instance, State
from dockscale.core.program import Program, digest, outline, read
from dockscale.core.spec import APP_ID, ENABLE, INSTALLED, PREFIX, SOURCE_HASH, AppSpec, SpecError, slug
from dockscale.engine import Engine, EngineError, NotFound
from dockscale.follow import MOST_LINES, Follow
from dockscale.programs import DEFAULT_SERVICE, Programs
from dockscale.registry import Registry
from dockscale.watch import Views, Watch, state_of

START_S = 60.0
_NOTHING = Image("", "")
"""What a program's image is judged on before there is one."""
WAIT_FOR_SERVICE = f"{PREFIX}startup_config.wait_for_service"

_MADE_BY_INSTALL = frozenset({IMAGE, SOURCE, FILES, "app_id", "env", "requirements", "runtime", "workspace"})

Rows = list[dict[str, Any]]


class UnknownApp(LookupError):
    """No app has this id."""


class UnknownInstance(LookupError):
    """The app has no instance of this name."""


class OutOfBounds(ValueError):
    """The app may not have so many instances, or so few."""


class AppExists(Exception):
    """An app has this id already."""


class ByHand(Exception):
    """What was labelled by hand is for its owner to change."""


class Tender(Protocol):
    """Who looks after instances."""

    def tick(self, app: App) -> object: ...
    def rest(self, app: App, instances: Iterable[Instance]) -> None: ...
    def drain(self, app: App, instance: Instance) -> None: ...
    def scale(self, app: App, instances: int) -> None: ...
    def restart(self, app: App) -> None: ...
    async def ended(self, app: App) -> None: ...


class Control:
    def __init__(
        self, registry: Registry, engine: Engine, tender: Tender, programs: Programs, clock: Clock, only: str,
        *, scheme: str, domain: str, port: int,
    ) -> None:  # fmt: skip
        self._registry = registry
        self._engine = engine
        self._tender = tender
        self._programs = programs
        self._clock = clock
        self._scheme = scheme
        self._domain = domain
        self._port = "" if (scheme, port) in (("http", 80), ("https", 443)) else f":{port}"
        self._tag = slug(only) or "latest"
        """Of installed apps' images: several dockscales on one engine may have apps of one name."""
        self._epoch = time.time() - clock()
        """Unix time at the clock's zero. Asked once: a decision keeps its time when the machine's is set."""
        self._changing = asyncio.Lock()
        """Held from the look at which apps there are until one more or less is."""
        self._installing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By app: held while it is made or removed, which for a program takes as long as it takes to start."""
        self._swept = False

    # What is.

    async def caught_up(self) -> None:
        """Wait for what was done to the engine a moment ago to be known here, a second at the most."""
        await self._registry.caught_up()

    def status(self) -> dict[str, Any]:
        """The whole: is the engine there, and how many apps are."""
        registry = self._registry
        return {
            "engine_up": registry.engine_up,
            "apps": len(registry.apps),
            "invalid": len(registry.invalid),
            "instances": sum(len(app.pool.instances) for app in registry.apps.values()),
        }

    def list(self) -> Rows:
        """Every app in short, invalid ones included."""
        apps = [self._short(app) for app in self._registry.apps.values()]
        return sorted(apps + [_refused(each) for each in self._registry.invalid], key=lambda app: str(app["app_id"]))

    def explain(self, app_id: str) -> dict[str, Any]:
        """One app in full: instances, load, settings and the latest decisions with their reasons.

        Raises:
            UnknownApp: no app, valid or not, has this id.
        """
        app = self._registry.apps.get(app_id)
        if app is not None:
            return self._short(app) | {
                "instances": [self._instance(instance, app) for instance in app.pool],
                "decisions": [self._decision(decision, app) for decision in reversed(app.journal)],
                "spec": app.spec.model_dump(mode="json"),
            }
        for refused in self._registry.invalid:
            if refused.app_id == app_id:
                return _refused(refused)
        raise UnknownApp(f"no app is called {app_id!r}{self._hint(app_id)}")

    def instances(self, app_id: str) -> Rows:
        """The instances of an app.

        Raises:
            UnknownApp: no valid app has this id.
        """
        app = self._app(app_id)
        return [self._instance(instance, app) for instance in app.pool]

    def history(self, app_id: str) -> dict[str, Any]:
        """How busy an app was, and how many instances were ready, over the last hour: one number of each for each time.

        Times are seconds since 1970, `EVERY_S` apart but for those at which nobody looked.

        Raises:
            UnknownApp: no valid app has this id.
        """
        now = self._clock()
        points = [*self._app(app_id).history.points(now)]
        return {
            "app_id": app_id,
            "every_s": EVERY_S,
            "now": round(self._epoch + now, 1),
            "at": [round(self._epoch + point.at, 1) for point in points],
            "requests_per_minute": [point.requests for point in points],
            "per_instance": [round(point.per_instance, 3) for point in points],
            "ready": [point.ready for point in points],
        }

    def report(self) -> dict[str, Any]:
        """What scaling has saved since dockscale started, by app and in all: instance-hours, and what waking cost."""
        apps = sorted(self._registry.apps.values(), key=lambda app: app.app_id)
        rows = [_usage(app) for app in apps]
        hours = ("used_h", "always_one_h", "always_max_h", "waited_s", "wakes")
        return {"apps": rows, "total": {name: round(sum(row[name] for row in rows), 4) for name in hours}}

    async def logs(
        self,
        app_id: str,
        name: str = "",
        *,
        kind: str = "",
        tail: int = MOST_LINES,
        offset: int = 0,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """What an app's instances wrote (kind `log`), all or one of them, and how it was scaled (kind `scaling`).

        Each is in order, of an instance the last `tail` lines, `MOST_LINES` at most.
        `offset` and `limit` cut out of it all.

        Raises:
            UnknownApp: no valid app has this id.
            UnknownInstance: it has no such instance.
        """
        app = self._app(app_id)
        items = [item for instance in self._members(app, name) for item in await self._lines(instance, tail)]
        for decision in app.journal:
            told = self._decision(decision, app)
            items.append({"type": "scaling", "at": told["at"], "content": told["explanation"]})
        if kind:
            items = [item for item in items if item["type"] == kind]
        end = len(items) if limit is None else offset + limit
        return {"items": items[offset:end], "total": len(items), "offset": offset, "limit": limit}

    def follow(self, app_id: str, name: str = "", *, kind: str = "", tail: int = 0) -> Follow:
        """Follow what an app's instances write (kind `log`) and how it is scaled (kind `scaling`).

        `tail` lines before that are told of each instance, or of the one that is named.

        Raises:
            UnknownApp: no valid app has this id.
            UnknownInstance: it has no such instance.
        """
        app = self._app(app_id)
        self._members(app, name)
        return Follow(self.watch(app_id), app, self._engine, name, kind, min(max(tail, 0), MOST_LINES))

    async def _lines(self, instance: Instance, tail: int) -> Rows:
        try:
            lines = (
                await self._engine.logs(instance.container_id, min(max(tail, 1), MOST_LINES))
                if instance.container_id
                else ()
            )
        except NotFound:
            lines = ()
        return [{"type": "log", "instance": instance.name, "content": line} for line in lines]

    def watch(self, app_id: str = "") -> Watch:
        """Follow one app until it is removed, or all that there are and will be.

        Raises:
            UnknownApp: no valid app has this id.
        """
        only = self._app(app_id) if app_id else None
        views: Views = {"load": _load} if only is None else {"instances": self._census, "load": _load}
        return Watch(self._registry.apps, only, self._decision, views, self._clock)

    # What changes.

    async def start(self, app_id: str, timeout: float = START_S) -> dict[str, Any]:
        """Wake an app, unless it is awake, and return an instance that is ready. `timeout` is in seconds.

        Raises:
            UnknownApp: no valid app has this id.
            NoPlace: none got ready, or not in time.
        """
        app = self._app(app_id)
        ready = next((instance for instance in app.pool if instance.state is State.READY), None)
        if ready is None:
            try:
                async with asyncio.timeout(timeout):
                    with await claim(app, self._tender.tick) as lease:
                        ready = lease.instance
            except TimeoutError:
                raise TooLate(f"no instance of {app_id} was ready within {timeout:g} s") from None
            finally:
                app.leave()
        return self._instance(ready, app)

    def stop(self, app_id: str, name: str = "") -> None:
        """Let an app's instances finish what they have and go, all or one. With none left, it sleeps until asked for.

        Raises:
            UnknownApp: no valid app has this id.
            UnknownInstance: it has no such instance.
            ByHand: the container was made with `--rm`, so it would be gone.
        """
        app = self._app(app_id)
        instances = self._stoppable(app, name)
        self._tender.rest(app, [each for each in instances if each.state in (State.STARTING, State.READY)])

    def drain(self, app_id: str, name: str) -> dict[str, Any]:
        """Let one instance finish what it has and go, and return the app in short.

        It takes nothing new from now on. Another one is started at once where the minimum or the load asks for it.

        Raises:
            UnknownApp: no valid app has this id.
            UnknownInstance: it has no such instance.
            ByHand: the container was made with `--rm`, so it would be gone.
        """
        app = self._app(app_id)
        if not name:
            raise UnknownInstance(f"say which instance of {app_id} is to go: {', '.join(app.pool.instances) or 'none'}")
        [instance] = self._stoppable(app, name)
        self._tender.drain(app, instance)
        return self._short(app)

    def restart(self, app_id: str) -> dict[str, Any]:
        """Have a new instance for each that there is, and return the app in short. A sleeping app sleeps on.

        It is a rollout of the same template: new ones are ready before old ones drain, as far as `max_instances` leaves
        room, and no request is lost.

        Raises:
            UnknownApp: no valid app has this id.
            ByHand: a container was made with `--rm`, so it would be gone.
        """
        app = self._app(app_id)
        self._stoppable(app)
        self._tender.restart(app)
        return self._short(app)

    def scale(self, app_id: str, instances: int) -> dict[str, Any]:
        """Have so many instances now, and return the app in short, whose decision tells what holds that back.

        Load may ask for more at any time, and for fewer once a `scale_down_cooldown` has passed. 0 is asleep.

        Raises:
            UnknownApp: no valid app has this id.
            OutOfBounds: it may not have so many, or so few.
        """
        app = self._app(app_id)
        low, high = usual_bounds(app.spec, app.scheduled)
        if instances > high:
            raise OutOfBounds(f"{app_id} may have {high} at most ({_limit(app, 'max_instances')}), not {instances}")
        if instances < low:
            name = "schedule" if low != app.spec.bounds[0] else "min_instances"
            hint = "" if instances else f"; `dockscale sleep {app_id}` lets all go"
            raise OutOfBounds(f"{app_id} must have {low} at least ({_limit(app, name)}), not {instances}{hint}")
        self._tender.scale(app, instances)
        return self._short(app)

    async def install(
        self, manifest: Mapping[str, Any], *, overwrite: bool = False, tell: Tell = lambda *_: None
    ) -> dict[str, Any]:
        """Make an app of the image or the program's `source` in a manifest, and return that with all fields filled in.

        Without `app_id`, it is made of the name. With `overwrite`, an app that was installed before gets this as its
        new template. The engine is the only store: what is installed is a small image with labels.
        A program is started once to see that it works; one that is installed already is left as it is.

        Raises:
            SpecError: what the manifest says cannot be followed.
            AppExists: an app has this id, and may not be overwritten.
            ByHand: that app was labelled by hand.
            ProgramFailed: the program does not work.
            EngineError: there is no such image, or the engine could not make one of it.
        """
        source, files, rest = split(manifest)
        if not source and not rest.get(IMAGE):
            raise SpecError(["source or image is missing: say what the app is made of"])
        if source:
            # In a thread, since large ones take seconds.
            return await self._install_program(await asyncio.to_thread(read, source, rest, files), overwrite, tell)
        labels = _labelled(rest) | {INSTALLED: str(rest[IMAGE])}
        base = await self._image(labels[INSTALLED], tell)
        async with self._alone(labels[APP_ID]), self._changing:
            self._check_free(labels, overwrite)
            return await self._make(base, labels, tell)

    async def _install_program(self, program: Program, overwrite: bool, tell: Tell) -> dict[str, Any]:
        runtime = self._programs.runtimes.name_of(program.runtime)
        labels = _labelled({**program.manifest, "runtime": program.runtime})
        labels |= {INSTALLED: runtime, SOURCE_HASH: digest(program)}
        async with self._alone(labels[APP_ID]):
            if (app := self._same(labels)) is not None:
                tell("success", f"{app.app_id} is installed already, from the same source")
                return manifest_of(app.spec, app.template)
            self._check_free(labels, overwrite)
            await self._sweep()
            image, labels = await self._proved(program, labels, tell)
            async with self._changing:
                self._check_free(labels, overwrite)
                return await self._make(image, labels, tell)

    def _alone(self, app_id: str) -> asyncio.Lock:
        """The lock of one app, which is forgotten with its last holder."""
        return self._installing.setdefault(app_id, asyncio.Lock())

    async def _sweep(self) -> None:
        """Once, before the first program's image is made: remove those that a dockscale left which ended meanwhile."""
        async with self._changing:
            if not self._swept:
                await self._prune((INSTALLED,))
                self._swept = True

    async def _proved(self, program: Program, labels: Mapping[str, str], tell: Tell) -> tuple[Image, dict[str, str]]:
        """Make a program's image and try it; return it with its labels, which say when it is ready."""
        wanted = labels.get(WAIT_FOR_SERVICE, "")
        labels = {**labels, WAIT_FOR_SERVICE: wanted or DEFAULT_SERVICE}  # as for most, it will turn out
        planned, spec = await self._judge(_NOTHING, labels)
        try:
            image = await self._programs.make(program, spec, planned.labels, tell)
            tell("info", f"trying {spec.app_id}")
            service = await self._programs.prove(spec, image, wanted)
        except BaseException:
            await self._prune(_installed_as(spec.app_id))
            raise
        return image, {**labels, WAIT_FOR_SERVICE: service}

    def _same(self, labels: Mapping[str, str]) -> App | None:
        """The app that was installed from the same program, if it is as it was installed."""
        app = self._registry.apps.get(labels[APP_ID])
        made_of = (INSTALLED, SOURCE_HASH)
        same = app is not None and all(app.template.labels.get(name) == labels[name] for name in made_of)
        return app if same else None

    async def validate(self, manifest: Mapping[str, Any]) -> None:
        """Check that an app could be installed by a manifest, or installed anew, if its image is here.

        Raises:
            SpecError: it could not.
            EngineError: the engine does not say.
        """
        _, _, rest = split(manifest)
        if not rest.get(IMAGE):
            await self._judge(_NOTHING, _labelled(outline(rest)))
            return
        labels = _labelled(rest) | {INSTALLED: str(rest[IMAGE])}
        try:
            base = await self._engine.find_image(labels[INSTALLED])
        except NotFound as error:
            raise SpecError([f"image = {labels[INSTALLED]!r}: it is not on this engine ({error})"]) from None
        await self._judge(base, labels)

    async def edit(self, app_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change fields of an installed app's manifest, and return it. What is not named stays; empty is the default.

        It is a new template of the same content: its instances take over from the old ones.

        Raises:
            UnknownApp: no valid app has this id.
            ByHand: it was labelled by hand.
            SpecError: what the manifest would say then cannot be followed.
            EngineError: the engine could not make the image.
        """
        fixed = _MADE_BY_INSTALL | ({"type"} if self._app(app_id).spec.runtime else set())
        if changed := sorted(fixed & changes.keys()):
            raise SpecError([f"{field} cannot be changed; install the app anew" for field in changed])
        async with self._alone(app_id), self._changing:
            base = self._installed(app_id)
            labels = {label: value for label, value in base.labels.items() if label.startswith(PREFIX)}
            return await self._make(base, labels | {SOURCE_HASH: ""} | labels_of(changes))

    async def uninstall(self, app_id: str) -> None:
        """Remove an installed app, with its instances once they have finished what they have.

        Raises:
            UnknownApp: no valid app has this id.
            ByHand: it was labelled by hand, or its image was given another name by hand.
            EngineError: the engine could not remove the image.
        """
        async with self._alone(app_id):
            async with self._changing:
                self._installed(app_id)
                app = self._app(app_id)
                await self._engine.untag(self._image_name(app_id))
                await self._registry.refresh()
            if not app.retired and app.template.labels.get(INSTALLED):
                raise ByHand(
                    f"{app_id} is still there, since {describe(app.template)} is the same; remove that by hand"
                )
            await self._tender.ended(app)
            await self._prune(_installed_as(app_id))

    def _check_free(self, labels: Mapping[str, str], overwrite: bool) -> None:
        app_id = labels[APP_ID]
        app = self._registry.apps.get(app_id)
        if app is None:
            return
        if labels.get(f"{PREFIX}workspace", "public") != app.spec.workspace:
            raise AppExists(f"the app id {app_id!r} is taken; choose another")
        if not overwrite:
            raise AppExists(f"the app {app_id!r} already exists; install it with overwrite to replace it")
        self._installed(app_id)

    async def _image(self, name: str, tell: Tell) -> Image:
        try:
            return await self._engine.find_image(name)
        except NotFound:
            tell("info", f"pulling the image {name}")
            await self._engine.pull(name)
            return await self._engine.find_image(name)

    async def _make(self, base: Image, labels: Mapping[str, str], tell: Tell = lambda *_: None) -> dict[str, Any]:
        """Make an app's image, so that it is the app's template, and return its manifest."""
        image, spec = await self._judge(base, labels)
        tell("info", f"making the image {image.name}")
        if image.labels.items() <= base.labels.items():
            await self._engine.tag(base, image.name)
        else:
            await self._engine.build(base, image.name, image.labels)
        await self._registry.refresh()
        await self._prune(_installed_as(spec.app_id))  # what nobody runs of the one before
        tell("success", f"{spec.app_id} is installed")
        return manifest_of(spec, image)

    async def _prune(self, labels: Sequence[str]) -> None:
        """Remove images that have no name and that nobody runs. What the engine does not remove now, it does later."""
        with suppress(EngineError):
            await self._engine.prune(labels)

    async def _judge(self, base: Image, labels: Mapping[str, str]) -> tuple[Image, AppSpec]:
        """The image that an app would get, and what that says."""
        inherited = {label: "" for label in base.labels if label.startswith(PREFIX)}  # empty is not set
        own = {**inherited, **labels, ENABLE: "true"}
        image = Image("", self._image_name(labels[APP_ID]), own, ports=base.ports)
        try:
            return image, judge(image, await self._engine.list())
        except SpecError as error:
            raise SpecError(by_field(error.problems)) from None

    def _image_name(self, app_id: str) -> str:
        """The name of an installed app's image. App ids are unique over all workspaces."""
        return f"dockscale/{app_id}:{self._tag}"

    def _app(self, app_id: str) -> App:
        app = self._registry.apps.get(app_id)
        if app is None:
            raise UnknownApp(f"no valid app is called {app_id!r}{self._hint(app_id)}")
        return app

    def _hint(self, app_id: str) -> str:
        near = difflib.get_close_matches(app_id, self._registry.apps)
        return f"; did you mean {' or '.join(near)}?" if near else "; `dockscale ps` lists them all"

    def _installed(self, app_id: str) -> Image:
        template = self._app(app_id).template
        if not (isinstance(template, Image) and template.labels.get(INSTALLED)):
            raise ByHand(f"{app_id} was not installed: {describe(template)} was labelled by hand, so change that")
        return template

    def _members(self, app: App, name: str) -> tuple[Instance, ...]:
        if name and name not in app.pool.instances:
            has = ", ".join(app.pool.instances) or "none"
            raise UnknownInstance(f"{app.app_id} has no instance {name!r}, it has {has}")
        return tuple(instance for instance in app.pool if name in ("", instance.name))

    def _stoppable(self, app: App, name: str = "") -> tuple[Instance, ...]:
        instances = self._members(app, name)
        for instance in instances:
            if instance.pinned:
                raise ByHand(f"{instance.name} was made with --rm: stopping would remove it; do so by hand")
        return instances

    # How it is told.

    def _short(self, app: App) -> dict[str, Any]:
        load, scaling = app.load(), app.spec.autoscaling
        counts = app.pool.counts()
        return {
            "app_id": app.app_id,
            "workspace": app.spec.workspace,
            "name": app.spec.name or app.app_id,
            "state": state_of(app),
            "template": describe(app.template),
            "urls": [self._url(url) for url in self._registry.routes.urls(app.spec)],
            "instances_by_state": {str(state): counts[state] for state in State},
            "bounds": list(app.spec.bounds),
            "load": _measured(load)
            | {
                "target": scaling.target_requests_per_instance,
                "scale_up_above": scaling.up_line,
                "scale_down_below": scaling.down_line,
                "idle_s": round(load.idle_s, 1),
            },
            "failure": app.failure,
            "rollout_failure": app.rollout_failure,
            "gauge_failure": app.gauge_failure,
            "decision": self._decision(app.decision, app) if app.decision else None,
        }

    def _census(self, app: App) -> dict[str, Any]:
        """The instances without their ages, which `started_at` tells: those change all the time."""
        instances = [self._instance(instance, app) for instance in app.pool]
        for told in instances:
            del told["age_s"]
        return {"instances": instances}

    def _url(self, url: str) -> str:
        host, slash, path = url.partition("/")
        return f"{self._scheme}://{host or self._domain}{self._port}{slash}{path}"

    def _instance(self, instance: Instance, app: App) -> dict[str, Any]:
        now = self._clock()
        return {
            "name": instance.name,
            "client_id": instance.client_id,
            "state": str(instance.state),
            "address": instance.client_id if app.spec.speaks_rpc else _address(instance),
            "container_id": instance.container_id[:12],
            "managed": instance.managed,
            "in_flight": instance.in_flight,
            "requests_per_minute": instance.per_minute(now),
            "started_at": self._time(instance.started_at),
            "age_s": round(now - instance.started_at, 1),
            "why": instance.why,
        }

    def _decision(self, decision: Decision, app: App) -> dict[str, Any]:
        return {
            "at": self._time(decision.at),
            "ago_s": round(self._clock() - decision.at, 1),
            "before": decision.load.have,
            "wanted": decision.wanted,
            "instances": decision.instances,
            "reason": str(decision.reason),
            "held_by": [str(held) for held in decision.held_by],
            "gone": list(decision.gone),
            "load": _inputs(decision.load),
            "explanation": explain(decision, app.spec),
        }

    def _time(self, at: float) -> str:
        return datetime.fromtimestamp(self._epoch + at, UTC).isoformat(timespec="microseconds")


def _labelled(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The labels of a manifest. Without `app_id`, that is made of the name."""
    labels = labels_of({"app_id": slug(str(manifest.get("name") or "")), **manifest})
    if not labels[APP_ID]:
        named = f"nothing of the name {manifest['name']!r} can be one" if manifest.get("name") else "there is no name"
        raise SpecError([f"app_id is missing, and {named}: give an id of a-z, 0-9 and -"])
    return labels


def _limit(app: App, name: str) -> str:
    """The label by which an app has its bounds."""
    return f"{PREFIX}autoscaling.{name if app.spec.autoscaling.enabled else 'enabled'}"


def _installed_as(app_id: str) -> tuple[str, str]:
    """Labels by which the images of an app that was installed are known, with or without a name."""
    return INSTALLED, f"{APP_ID}={app_id}"


def _usage(app: App) -> dict[str, Any]:
    hours, (_, most) = app.watched_s / 3600, app.spec.bounds
    return {
        "app_id": app.app_id,
        "watched_h": round(hours, 4),
        "used_h": round(app.pool.used_s() / 3600, 4),
        "always_one_h": round(hours, 4),
        "always_max_h": round(hours * most, 4),
        "max_instances": most,
        "wakes": app.stats.wakes,
        "waited_s": round(app.stats.queue_wait.sum, 1),
    }


def _address(instance: Instance) -> str:
    host, port = instance.address
    return f"{host}:{port}" if port else ""


def _load(app: App) -> dict[str, Any]:
    return _measured(app.load())


def _measured(load: Load) -> dict[str, Any]:
    return {
        "requests_per_minute": load.requests,
        "per_instance": load.per_instance,
        "in_flight": load.in_flight,
        "waiting": load.waiting,
    }


def _inputs(load: Load) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(load).items()}


def _refused(refused: Invalid) -> dict[str, Any]:
    return {
        "app_id": refused.app_id,
        "state": "invalid",
        "template": refused.source,
        "problems": list(refused.problems),
    }
