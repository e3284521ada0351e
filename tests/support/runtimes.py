"""Runtime images, and images of apps made on them as dockscale makes them: /app/app.json, the program and its files."""

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dockscale.engine.memory import MemoryEngine
from dockscale.runtimes import Runtimes
from tests.support.real import Real
from tests.support.world import ENABLED, prefixed

ROOT = Path(__file__).parent.parent.parent


@cache
def built(runtime: str) -> str:
    """The name of a runtime's image, which scripts/test-images.sh has made."""
    return Runtimes(MemoryEngine(), base_image(), "").name_of(runtime)


def base_image() -> str:
    """The image that runtimes stand on here."""
    return _said("$BASE_IMAGE")


def package_index() -> str:
    """The index of packages that builds use here; empty if it is pip's own."""
    return _said("${PIP_INDEX_URL:-}")


@cache
def _said(variable: str) -> str:
    command = f"set -e; . scripts/build-env.sh; echo {variable}"
    return subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def build_app(
    real: Real,
    runtime: str,
    files: Mapping[str, str],
    manifest: Mapping[str, Any],
    *,
    labels: Mapping[str, str] | None = None,
    requirements: Sequence[str] = (),
) -> str:
    """Build an app's image, the first of `files` being its program; its app id is the image's name."""
    app_id = str(manifest["app_id"])
    told = {"name": app_id, "version": "1", "env": {}, "entry": next(iter(files)), **manifest}
    wanted = {**ENABLED, **real.labels, **prefixed({"type": "rpc", "app_id": app_id, **(labels or {})})}
    lines = [f"FROM {runtime}", *(_installed(requirements) if requirements else ())]
    lines += ["LABEL " + " ".join(f"{key}={value!r}" for key, value in wanted.items()), "COPY app /app/"]
    context = {f"app/{name}": text for name, text in files.items()}
    context |= {"app/app.json": json.dumps(told), "Dockerfile": "\n".join(lines)}
    tag = real.named(app_id)
    real.client.images.build(
        fileobj=_tar(context), custom_context=True, tag=tag, rm=True, buildargs={"PIP_INDEX_URL": package_index()}
    )
    return tag


def _installed(requirements: Sequence[str]) -> list[str]:
    command = json.dumps(["/runtime/install", *requirements])
    return ["ARG PIP_INDEX_URL", "USER 0:0", f"RUN {command}", "USER 10001:10001"]


def _tar(files: Mapping[str, str]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, text in files.items():
            data = text.encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    stream.seek(0)
    return stream
