"""Runtime images, and images of apps made on them as dockscale makes them: /app/app.json, the program and its files."""

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.real import Real
from tests.support.world import ENABLED, prefixed

ROOT = Path(__file__).parent.parent.parent
LABEL = "org.dockscale.test=true"


def built(runtime: str, base: str = "$BASE_IMAGE") -> str:
    """Build a runtime's image if it is not what the engine has; its name is returned.

    Raises AssertionError with what the build wrote.
    """
    name = f"dockscale-runtime-{runtime}:test"
    build = f'docker build -q -t {name} --label {LABEL} --build-arg BASE_IMAGE="{base}" --build-arg PIP_INDEX_URL'
    command = f". scripts/build-env.sh && {build} -f images/runtime-{runtime}/Dockerfile ."
    done = subprocess.run(["bash", "-ec", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return name


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
        fileobj=_tar(context), custom_context=True, tag=tag, rm=True, buildargs={"PIP_INDEX_URL": _index()}
    )
    return tag


def _installed(requirements: Sequence[str]) -> list[str]:
    command = json.dumps(["/runtime/install", *requirements])
    return ["ARG PIP_INDEX_URL", "USER 0:0", f"RUN {command}", "USER 10001:10001"]


def _index() -> str:
    shown = "set -e; . scripts/build-env.sh; echo ${PIP_INDEX_URL:-}"
    return subprocess.run(["bash", "-c", shown], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


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
