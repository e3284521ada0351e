"""Where settings come from, and what is said about bad ones."""

import os
import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest
from pydantic import ValidationError

from dockscale import cli
from dockscale.cli.client import server
from dockscale.config import Settings

pytestmark = pytest.mark.usefixtures("elsewhere")


def with_flags(*flags: str) -> Settings:
    return Settings(_cli_parse_args=flags, _cli_kebab_case=True)


def test_a_flag_goes_before_the_environment_which_goes_before_the_env_file(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / ".env").write_text("DOCKSCALE_DOMAIN=file\nDOCKSCALE_ONLY=file\nDOCKSCALE_NETWORK=file\n")
    monkeypatch.setenv("DOCKSCALE_ONLY", "environment")
    monkeypatch.setenv("DOCKSCALE_NETWORK", "environment")

    settings = with_flags("--network", "flag")

    assert (settings.domain, settings.only, settings.network) == ("file", "environment", "flag")


def test_networks_are_listed_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKSCALE_TRUSTED_PROXIES", "10.0.0.0/8, ::1,")

    assert Settings().trusted_proxies == [ip_network("10.0.0.0/8"), ip_network("::1")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1048576", 2**20),
        ("512m", 2**29),
        ("8g", 2**33),
        ("1.5G", 3 * 2**29),
        ("2GiB", 2**31),
        (" 64 kb", 2**16),
    ],
)
def test_memory_is_written_as_for_docker(monkeypatch: pytest.MonkeyPatch, text: str, expected: int) -> None:
    monkeypatch.setenv("DOCKSCALE_MEMORY_BUDGET", text)

    assert Settings().memory_budget == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", ""), ("http://dockscale:9527/", "http://dockscale:9527"), ("https://x.org", "https://x.org")],
)
def test_instances_can_be_told_where_to_connect_to(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv("DOCKSCALE_RPC_URL", text)

    assert Settings().rpc_url == expected


@pytest.mark.parametrize("text", ["dockscale:9527", "ws://dockscale:9527", "http://dockscale/ws", "http://"])
def test_where_to_connect_to_is_the_address_of_a_port(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DOCKSCALE_RPC_URL", text)

    with pytest.raises(ValidationError, match="write an address such as http://dockscale:9527"):
        Settings()


def test_the_admin_port_is_for_this_machine_unless_told_otherwise() -> None:
    assert Settings().admin_host == "127.0.0.1"


def test_the_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKSCALE_ADMIN_TOKEN", "hunter2")

    settings = Settings()

    assert settings.admin_token is not None
    assert settings.admin_token.get_secret_value() == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


@pytest.mark.parametrize("secret", ["", "hunter2", "x" * 31])
def test_a_secret_that_is_too_short_is_refused_and_not_shown(
    secret: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKSCALE_TOKEN_SECRET", secret)

    code = cli.main(["token"])

    told = capsys.readouterr().err
    assert code == 2
    assert told == (
        "dockscale: DOCKSCALE_TOKEN_SECRET = SecretStr('" + "**********" * bool(secret) + "'): "
        "a secret has 32 bytes or more, such as `openssl rand -hex 32` prints\n"
    )


def test_the_bytes_of_a_secret_count_not_its_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKSCALE_TOKEN_SECRET", "ü" * 16)

    secret = Settings().token_secret

    assert secret is not None
    assert secret.get_secret_value() == "ü" * 16


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("ADMIN_PORT", "70000"),
        ("INTERVAL", "0"),
        ("MEMORY_BUDGET", "lots"),
        ("MEMORY_BUDGET", "-1g"),
        ("MAX_INSTANCES", "-1"),
        ("LOG_LEVEL", "loud"),
        ("AUTH", "maybe"),
        ("TRUSTED_PROXIES", "home"),
        ("ENGINE", "docker.sock"),
        ("ENGINE", "http://[bad"),
    ],
)
@pytest.mark.parametrize("verb", ["serve", "token"])
def test_a_bad_value_ends_who_needs_it_with_its_name_and_value(
    name: str, value: str, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"DOCKSCALE_{name}", value)

    code = cli.main([verb])

    told = capsys.readouterr().err
    assert code == 2
    assert told.startswith(f"dockscale: DOCKSCALE_{name} = ")
    assert value in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("port", ["", "http", "70000", "-1"])
def test_a_bad_admin_port_ends_whoever_asks_there(
    port: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKSCALE_ADMIN_PORT", port)

    code = cli.main(["ps"])

    told = capsys.readouterr().err
    assert code == 2
    assert told.startswith(f"dockscale: DOCKSCALE_ADMIN_PORT = {port!r}: ")


@pytest.mark.parametrize(
    ("environment", "lines"),
    [
        ({}, []),
        ({"DOCKSCALE_ADMIN_PORT": "1234", "DOCKSCALE_ADMIN_HOST": "::1"}, []),
        ({"dockscale_admin_port": "1234"}, []),
        ({}, ["DOCKSCALE_ADMIN_PORT=1234", "DOCKSCALE_ADMIN_TOKEN='of the file'"]),
        ({"DOCKSCALE_ADMIN_PORT": "4321"}, ["dockscale_admin_port=1234", "DOCKSCALE_ADMIN_TOKEN="]),
    ],
    ids=["nothing set", "set", "in small letters", "in a file", "both"],
)
def test_verbs_ask_where_the_settings_say(
    environment: dict[str, str], lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("\n".join(lines))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    settings, found = Settings(), server()

    token = settings.admin_token.get_secret_value() if settings.admin_token else ""
    assert found == (settings.admin_host, settings.admin_port, token)


@pytest.mark.parametrize("verb", ["serve", "doctor", "ps"])
def test_an_env_file_that_is_no_text_ends_whoever_reads_it(
    verb: str, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / ".env").write_bytes(b"\xff\xfe")

    assert cli.main([verb]) == 2
    err = capsys.readouterr().err
    assert err.startswith("dockscale: .env cannot be read: ")
    assert len(err.splitlines()) == 1


def test_serve_tells_what_is_nearly_a_setting_and_leaves_other_names_alone(
    elsewhere: Path,
) -> None:
    others = {"DOCKSCALE_PROT": "80", "DOCKSCALE_SERVICE_HOST": "10.0.0.1"}  # Kubernetes sets the latter
    (elsewhere / ".env").write_text("dockscale_admintoken=x\nDOCKSCALE_WAITING_PAGE=/nowhere\nDOCKSCALE_PORT=0\n")

    command = [sys.executable, "-m", "dockscale.cli", "serve"]
    done = subprocess.run(command, env=os.environ | others, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stderr.splitlines()[:-1] == [
        "dockscale: DOCKSCALE_PROT is no setting and is ignored; did you mean DOCKSCALE_PORT?",
        "dockscale: dockscale_admintoken is no setting and is ignored; did you mean DOCKSCALE_ADMIN_TOKEN?",
    ]


def test_a_bad_flag_ends_serve_as_a_bad_variable_does(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["serve", "--admin-port", "no"])

    assert code == 2
    assert "DOCKSCALE_ADMIN_PORT = 'no'" in capsys.readouterr().err


def test_an_unknown_flag_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["serve", "--prot", "1"])

    assert "--prot" in capsys.readouterr().err


def test_help_shows_every_setting_as_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["serve", "--help"])

    shown = capsys.readouterr().out
    assert [name for name in Settings.model_fields if f"--{name.replace('_', '-')}" not in shown] == []
