"""The service `public/server-apps`: what operators do with apps, in the shapes that clients of Hypha know.

What is done is done by `Control`; here are only names, shapes, and who may do what in which workspace.
"""

from collections.abc import Mapping
from typing import Any

from dockscale.control import Control, UnknownApp
from dockscale.core.app import App
from dockscale.core.manifest import FILES, IMAGE, SOURCE, Tell, manifest_of, warnings
from dockscale.core.pool import State
from dockscale.core.spec import SpecError
from dockscale.hub.local import Context, Function, LocalPeer
from dockscale.hub.manager import NotSupported, unsupported
from dockscale.hub.tokens import Permission
from dockscale.hub.wire import Value

SERVICE = "server-apps"
_UNSUPPORTED = (
    "commit_app", "edit_file", "edit_worker", "list_files", "list_workers", "publish", "read_file", "remove_file",
)  # fmt: skip
"""Functions of Hypha's controller that need what dockscale has not: files of apps, and workers that run them."""
_SERVING = (State.STARTING, State.READY)


class Controller:
    """Answers at `peer`, which calls back in its own name."""

    def __init__(self, peer: LocalPeer, apps: Mapping[str, App], control: Control) -> None:
        self._peer = peer
        self._apps = apps
        self._control = control
        functions: dict[str, Function] = {
            name: getattr(self, name)
            for name in (
                "edit_app", "get_app_info", "get_logs", "get_session_info", "install", "list_apps", "list_running",
                "start", "stop", "uninstall", "validate_app_manifest",
            )
        }  # fmt: skip
        peer.serve(
            SERVICE,
            functions | {name: unsupported(name) for name in _UNSUPPORTED},
            lasts=True,
            name="Server Apps",
            type=SERVICE,
            description="Install apps, start and stop them, and see what runs",
            config={"workspace": "public"},
        )

    def describe(self) -> dict[str, Value]:
        """The service as a value."""
        return self._peer.describe(SERVICE) | {"id": f"public/{SERVICE}"}

    # Apps.

    async def install(
        self, context: Context, source: str | None = None, manifest: Mapping[str, Value] | None = None,
        config: Mapping[str, Value] | None = None, app_id: str | None = None, image: str | None = None,
        workspace: str | None = None, overwrite: bool = False, version: str | None = None,
        wait_for_service: str | None = None, stop_after_inactive: float | None = None, files: Value = None,
        progress_callback: Value = None, timeout: float | None = None, **others: Value,
    ) -> dict[str, Value]:  # fmt: skip
        """Install an app of a program's source or of an image, and return its manifest.

        The image is `image`, that of the manifest, or `source` if that is the name of one and the type is one of asgi,
        docker, http and rpc. A program is started once; `timeout` is what it may take, in seconds.
        """
        _refuse(others)
        if manifest and config:
            raise ValueError("manifest and config are the same: give one of them")
        whole: Mapping[str, Value] = manifest or config or {}
        where = self._workspace(context, workspace or whole.get("workspace"), "rw")
        given = {"app_id": app_id, "version": version, "workspace": where}
        whole = {**whole, **{field: value for field, value in given.items() if value}}
        startup = {
            "wait_for_service": wait_for_service, "stop_after_inactive": stop_after_inactive, "timeout": timeout,
        }  # fmt: skip
        whole = _over(whole, "startup_config", {field: each for field, each in startup.items() if each is not None})
        what = {IMAGE: image, SOURCE: source, FILES: files}
        whole = {**whole, **{field: value for field, value in what.items() if value}}
        tell = self._tell(context, progress_callback)
        for warning in warnings(whole):
            tell("warning", warning)
        return await self._control.install(whole, overwrite=overwrite, tell=tell)

    async def edit_app(
        self, context: Context, app_id: str, manifest: Mapping[str, Value] | None = None,
        autoscaling_config: Mapping[str, Value] | None = None, startup_config: Mapping[str, Value] | None = None,
        workspace: str | None = None, **others: Value,
    ) -> dict[str, Value]:  # fmt: skip
        """Change fields of an installed app's manifest, and return it. What is not named stays as it is."""
        _refuse(others)
        app = self._app(context, app_id, "rw", workspace)
        changes = _over(manifest or {}, "autoscaling", autoscaling_config or {})
        return await self._control.edit(app.app_id, _over(changes, "startup_config", startup_config or {}))

    async def uninstall(self, context: Context, app_id: str, workspace: str | None = None, **others: Value) -> None:
        """Remove an installed app, with its instances once they have finished what they have."""
        _refuse(others)
        await self._control.uninstall(self._app(context, app_id, "rw", workspace).app_id)

    def list_apps(self, context: Context, workspace: str | None = None) -> list[dict[str, Value]]:
        """List the manifests of the workspace's apps."""
        return [manifest_of(app.spec, app.template) for app in self._of(self._workspace(context, workspace, "r"))]

    def get_app_info(self, context: Context, app_id: str, workspace: str | None = None) -> dict[str, Value]:
        """Get an app's manifest, all fields filled in."""
        app = self._app(context, app_id, "r", workspace)
        return manifest_of(app.spec, app.template)

    async def validate_app_manifest(self, context: Context, manifest: Mapping[str, Value]) -> dict[str, Value]:
        """Tell whether an app could be installed by a manifest: `valid`, `errors` and `warnings`, as sentences."""
        errors: list[str] = []
        try:
            workspace = self._workspace(context, manifest.get("workspace"), "r")
            await self._control.validate({**manifest, "workspace": workspace})
        except SpecError as error:
            errors = error.problems
        return {"valid": not errors, "errors": errors, "warnings": warnings(manifest)}

    # Instances, which are sessions here.

    async def start(
        self, context: Context, app_id: str, timeout: float = 60.0, wait_for_service: str | None = None,
        workspace: str | None = None, progress_callback: Value = None, **others: Value,
    ) -> dict[str, Value]:  # fmt: skip
        """Wake an app, and return an instance that is ready. One that is awake stays as it is."""
        _refuse(others)
        app = self._app(context, app_id, "rw", workspace)
        if wait_for_service not in (None, app.spec.startup_config.wait_for_service):
            raise NotSupported(
                f"{app_id} is ready with its service {app.spec.startup_config.wait_for_service!r}; "
                "another one must be set by startup_config.wait_for_service of its manifest"
            )
        tell = self._tell(context, progress_callback)
        tell("info", f"starting {app_id}")
        instance = await self._control.start(app.app_id, timeout)
        tell("success", f"{app_id} is ready")
        return _session(app, instance)

    def stop(self, context: Context, session_id: str, raise_exception: bool = True) -> None:
        """Let an instance finish what it has and go. If it was the last one, the app sleeps until it is asked for."""
        try:
            app, instance = self._find(context, session_id, "rw")
        except KeyError:
            if raise_exception:
                raise
            return
        self._control.stop(app.app_id, instance["name"])

    def list_running(self, context: Context, workspace: str | None = None) -> list[dict[str, Value]]:
        """List the instances of the workspace's apps that serve, or are about to."""
        return [
            _session(app, instance)
            for app in self._of(self._workspace(context, workspace, "r"))
            for instance in self._control.instances(app.app_id)
            if instance["state"] in _SERVING
        ]

    def get_session_info(self, context: Context, session_id: str) -> dict[str, Value]:
        """Get one instance, as `list_running` has it."""
        return _session(*self._find(context, session_id, "r"))

    async def get_logs(
        self, context: Context, session_id: str, type: str | None = None,  # noqa: A002  # Hypha's name for it
        offset: int = 0, limit: int | None = None,
    ) -> dict[str, Value]:  # fmt: skip
        """Get what an instance wrote (type `log`) and how its app was scaled (type `scaling`)."""
        app, instance = self._find(context, session_id, "r")
        return await self._control.logs(app.app_id, instance["name"], kind=type or "", offset=offset, limit=limit)

    # Whose they are.

    def _workspace(self, context: Context, workspace: str | None, permission: Permission) -> str:
        workspace = workspace or context.workspace
        if not context.user.may(workspace, permission):
            raise PermissionError(f"{context.user.id} has no permission for the apps of the workspace {workspace}")
        return workspace

    def _of(self, workspace: str) -> list[App]:
        return [app for app in self._apps.values() if app.spec.workspace == workspace]

    def _app(self, context: Context, app_id: str, permission: Permission, workspace: str | None = None) -> App:
        """An app of a workspace; those of others are as if they were not there."""
        workspace = self._workspace(context, workspace, permission)
        app = self._apps.get(app_id)
        if app is None or app.spec.workspace != workspace:
            raise UnknownApp(f"App not found: no app is called {app_id!r} in the workspace {workspace}")
        return app

    def _find(self, context: Context, session_id: str, permission: Permission) -> tuple[App, dict[str, Any]]:
        """The instance of a session, whose id is its client's: `workspace/client`, or `client` in one's own."""
        named, _, client_id = session_id.rpartition("/")
        for app in self._of(self._workspace(context, named or None, permission)):
            for instance in self._control.instances(app.app_id):
                if instance["client_id"] == client_id:
                    return app, instance
        raise KeyError(f"Server app instance not found: {session_id}")

    def _tell(self, context: Context, callback: Value) -> Tell:
        """What tells a client how its call goes."""
        call = self._peer.callback(context, callback)
        return lambda kind, message: call({"type": kind, "message": message})


def _over(manifest: Mapping[str, Value], name: str, section: Mapping[str, Value]) -> Mapping[str, Value]:
    """Put fields of a section on top of those that a manifest has."""
    return {**manifest, name: {**(manifest.get(name) or {}), **section}} if section else manifest


def _refuse(others: Mapping[str, Value]) -> None:
    """Refuse arguments of Hypha's that would change something there; those that are off do not."""
    if wanted := sorted(name for name, value in others.items() if value):
        raise NotSupported(f"{', '.join(wanted)} is not supported by dockscale")


def _session(app: App, instance: Mapping[str, Any]) -> dict[str, Value]:
    spec, client_id = app.spec, instance["client_id"]
    full_id = f"{spec.workspace}/{client_id}"
    service = f"{full_id}:{spec.startup_config.wait_for_service}@{spec.app_id}"
    return {
        "id": full_id,
        "session_id": full_id,
        "client_id": client_id,
        "app_id": spec.app_id,
        "workspace": spec.workspace,
        "app_type": spec.type,
        "name": spec.name or spec.app_id,
        "description": spec.description,
        "version": spec.version,
        "services": [service] if spec.speaks_rpc else [],
        **({"service_id": service} if spec.speaks_rpc else {}),
        "state": instance["state"],
        "load": instance["requests_per_minute"],
        "in_flight": instance["in_flight"],
        "started_at": instance["started_at"],
    }
