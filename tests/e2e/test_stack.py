"""The stack as a user starts it: `make run`, curl, `make stop`."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from tests.support.process import ROOT
from tests.support.real import PROBE
from tests.support.stack import make, names, running

pytestmark = pytest.mark.engine

HELLO = "http://localhost:9527/public/apps/hello/api/status"


def ask(url: str, host: str | None = None) -> Any:
    request = urllib.request.Request(url, headers={"Host": host} if host else {})  # noqa: S310  # a URL of our own
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # likewise
        body = answer.read().decode()
    return json.loads(body) if body.startswith(("{", "[")) else body


@pytest.fixture
def stack(engine_ready: None) -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    with running() as printed:
        assert "http://hello.localhost:9527/" in printed
        yield client
    client.close()


def test_from_make_run_to_make_stop(stack: docker.DockerClient) -> None:
    asleep = names(stack, "dockscale.instance-of=hello", all_states=True)
    first = ask("http://127.0.0.1:9527/api/status", host="hello.localhost:9527")
    awake = names(stack, "dockscale.instance-of=hello")

    answered_by = {ask(HELLO)["instance_id"] for _ in range(60)}
    scaled = names(stack, "dockscale.instance-of=hello")

    metrics = ask("http://127.0.0.1:9528/metrics")
    explained = subprocess.run(
        [ROOT / ".venv/bin/dockscale", "explain", "hello"], capture_output=True, text=True, check=True
    ).stdout
    whoami = stack.containers.run(
        PROBE,
        detach=True,
        auto_remove=True,
        name="whoami-of-the-stack-test",
        labels={"dockscale.enable": "true", "dockscale.app_id": "whoami", "org.dockscale.test": "stack"},
    )
    end = time.monotonic() + 20
    while "whoami" not in [app["app_id"] for app in ask("http://127.0.0.1:9528/api/apps")]:
        assert time.monotonic() < end, "the labelled container is not found"
        time.sleep(0.05)
    who = ask("http://127.0.0.1:9527/", host="whoami.localhost:9527")
    make("stop")

    assert asleep == []
    assert first["status"] == "healthy"
    assert len(awake) == 1
    assert len(answered_by) > 1
    assert 1 < len(scaled) <= 4
    assert 'dockscale_requests_total{app="hello",code="200"}' in metrics
    assert "dockscale_instances{" in metrics
    assert "burst" in explained
    assert who["instance"] == str(whoami.id)[:12]
    for label in ("dockscale.enable", "dockscale.managed", "com.docker.compose.project=dockscale"):
        assert names(stack, label, all_states=True) == []
