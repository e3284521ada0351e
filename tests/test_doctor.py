"""What the doctor finds on one host, and what it advises."""

import gc
import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from dockscale import cli
from dockscale.config import Settings
from dockscale.doctor import Finding, examine, judged
from tests.support.real import Real

pytestmark = pytest.mark.usefixtures("elsewhere")

NOWHERE = "tcp://127.0.0.1:9"
RUNS: dict[str, object] = {"engine_up": True, "apps": 2, "invalid": 0, "instances": 3}


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def settings(port: int = 0, engine: str | None = NOWHERE) -> Settings:
    return Settings(host="127.0.0.1", port=port, admin_port=0, engine=engine)


def bad(findings: Iterator[Finding]) -> list[Finding]:
    return [finding for finding in findings if not finding.good]


# The docker SDK does not close a Unix socket that it could not connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("engine", [NOWHERE, "unix:///nowhere/docker.sock"])
def test_without_an_engine_it_says_where_to_tell_one(engine: str) -> None:
    first = next(examine(settings(engine=engine), RUNS, ""))
    gc.collect()

    assert not first.good
    assert first.text.startswith("no container engine answers")
    assert "DOCKSCALE_ENGINE" in first.advice


def test_a_taken_port_is_named_with_its_setting(taken: int) -> None:
    ports = [
        finding
        for finding in bad(examine(settings(port=taken), None, "no dockscale answers"))
        if str(taken) in finding.text
    ]

    assert [(finding.text, finding.advice) for finding in ports] == [
        (f"port {taken} is not free: Address already in use", "free it, or set DOCKSCALE_PORT")
    ]


@pytest.mark.parametrize("host", ["::1", "localhost"])
def test_an_address_of_any_kind_can_be_free(host: str) -> None:
    chosen = Settings(host=host, port=0, admin_port=0, engine=NOWHERE)

    assert [finding.text for finding in bad(examine(chosen, None, "none answers"))][1:] == ["none answers"]


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])  # RFC 5737 and RFC 6761: nobody has these
def test_an_address_that_is_not_this_hosts_is_told_with_its_setting(host: str) -> None:
    *_, last = examine(Settings(host=host, port=0, admin_port=0, engine=NOWHERE), None, "none answers")

    assert host in last.text
    assert "DOCKSCALE_HOST" in last.advice


def test_a_setting_that_is_misspelt_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKSCALE_ENGINE", NOWHERE)
    monkeypatch.setenv("DOCKSCALE_PROT", "80")

    assert cli.main(["doctor"]) == 1
    assert "BAD  DOCKSCALE_PROT is no setting and is ignored; did you mean DOCKSCALE_PORT?" in capsys.readouterr().out


@pytest.mark.engine
def test_of_those_that_share_an_engine_the_label_of_each_is_named(real: Real) -> None:
    chosen = Settings(host="127.0.0.1", port=0, admin_port=0, only=real.label)
    texts = [finding.text for finding in bad(examine(chosen, RUNS, ""))]

    assert texts == [f"no container or image is labelled with dockscale.enable=true and {real.label}"]


def test_a_running_dockscale_needs_its_ports_itself(taken: int) -> None:
    *_, last = examine(settings(port=taken), RUNS, "")

    assert last == Finding(True, "dockscale runs: 2 apps, 3 instances")


@pytest.mark.parametrize(
    ("trouble", "told"), [({"invalid": 1}, "1 refused"), ({"engine_up": False}, "lost the engine")]
)
def test_what_troubles_a_running_dockscale_is_told(trouble: dict[str, object], told: str) -> None:
    *_, runs, last = examine(settings(), RUNS | trouble, "")

    assert runs.good
    assert not last.good
    assert told in last.text
    assert last.advice


def test_the_verb_fails_and_prints_each_finding_with_its_advice(
    taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKSCALE_ENGINE", NOWHERE)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("DOCKSCALE_ADMIN_PORT", str(held.getsockname()[1]))
        monkeypatch.setenv("DOCKSCALE_PORT", str(taken))

        code = cli.main(["doctor"])
        shown = capsys.readouterr().out
        cli.main(["doctor", "--json"])
        findings = json.loads(capsys.readouterr().out)

    assert code == 1
    assert shown.startswith("BAD  no container engine answers")
    assert shown.count("BAD ") == shown.count("→") == len(findings) == 4
    assert {finding["good"] for finding in findings} == {False}


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({}, []),
        ({"dockscale.enable": "false", "dockscale.prot": "1"}, []),
        ({"dockscale.enable": "true"}, []),
        ({"dockscale.enable": "true", "dockscale.prot": "1"}, ["did you mean dockscale.port?"]),
        ({"dockscale.enable": "yes"}, ["must be true or false"]),
        ({"dockscale.port": "80"}, ["container shop has dockscale.port and is ignored"]),
        ({"dockscale.managed": "true", "dockscale.prot": "1"}, []),
        (
            {"dockscale.enable": "true", "dockscale.port": "0", "dockscale.lazy": "x"},
            ["dockscale.port", "dockscale.lazy"],
        ),
    ],
    ids=["none", "opted out", "fine", "unknown", "unclear", "not opted in", "a copy", "two"],
)
def test_labels_that_cannot_be_followed_are_named(labels: dict[str, str], told: list[str]) -> None:
    findings = [*judged("container shop", "shop", labels, (8000,))]

    assert len(findings) == len(told)
    assert all(part in finding.text for part, finding in zip(told, findings, strict=True))
    assert all(finding.advice and not finding.good for finding in findings)


@pytest.mark.engine
def test_labels_networks_and_the_clock_of_a_real_engine_are_looked_at(real: Real) -> None:
    box = real.create("seen", {"dockscale.prot": "80"})

    chosen = Settings(host="127.0.0.1", port=0, admin_port=0, network="nowhere", only=real.label)
    found = {finding.text: finding for finding in examine(chosen, RUNS, "")}

    assert not found["there is no network nowhere"].good
    assert not found[f"container {box.name}: label dockscale.prot is unknown; did you mean dockscale.port?"].good
    assert found["the clocks of the engine and this host agree"].good


@pytest.mark.engine
def test_a_real_engine_and_the_way_to_its_containers_are_fine(real: Real) -> None:
    box = real.create("seen")
    box.start()

    texts = {finding.text: finding for finding in examine(settings(engine=None), RUNS, "")}

    [engine] = [finding for text, finding in texts.items() if text.startswith("engine ")]
    [way] = [finding for text, finding in texts.items() if text.startswith(f"{box.name} can be reached")]
    assert engine.good
    assert way.good


@pytest.mark.parametrize("answer", [b"<h1>hello</h1>", b'{"hello": 1}'])
def test_another_server_on_the_admin_port_is_not_taken_for_dockscale(
    answer: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("DOCKSCALE_ENGINE", NOWHERE)
    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        monkeypatch.setenv("DOCKSCALE_ADMIN_PORT", str(other.server_port))
        try:
            code = cli.main(["doctor"])
        finally:
            other.shutdown()

    assert code == 1
    assert f"port {other.server_port}" in capsys.readouterr().out
