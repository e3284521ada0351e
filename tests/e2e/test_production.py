"""docs/production.md as somebody follows it: its files and its settings, on the real engine."""

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypha_rpc import connect_to_server

from dockscale.config import Settings
from tests.support import runtimes
from tests.support.certificates import Files, make
from tests.support.process import ROOT, Server, free_port, process
from tests.support.real import Real, in_thread
from tests.support.world import prefixed, until

pytestmark = pytest.mark.engine

PAGE = (ROOT / "docs" / "production.md").read_text()
FILES = ROOT / "docs" / "production"
HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") or "haproxy"
WEB = {"app_id": "web", "port": "8000", "autoscaling.max_instances": "2"}
DANGEROUS = [
    {"Privileged": True},
    {"Binds": ["/:/host"]},
    {"Binds": ["data:/data", "/etc:/host"]},
    {"Binds": ["data:/a]b", "/etc:/host"]},
    {"binds": ["/:/host"]},
    {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]},
    {
        "Mounts": [
            {"Type": "volume", "Target": "/host", "VolumeOptions": {"DriverConfig": {"Options": {"device": "/"}}}}
        ]
    },
    {"PidMode": "host"},
    {"CapAdd": ["SYS_ADMIN"]},
    {"Devices": [{"PathOnHost": "/dev/mem"}]},
    {"SecurityOpt": ["seccomp=unconfined"]},
]


def blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


def told(first: str) -> dict[str, str]:
    """The settings of the block that begins with one of that name."""
    [block] = [block for block in blocks() if block.startswith(f"DOCKSCALE_{first}=")]
    return dict(line.split("=", 1) for line in block.splitlines())


def command(setting: str) -> dict[str, str]:
    return {name.removeprefix("DOCKSCALE_"): value for name, value in told(setting).items()}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as it:
        yield it


def test_every_setting_it_names_is_one() -> None:
    fields = {f"DOCKSCALE_{name.upper()}" for name in Settings.model_fields}
    own = {"DOCKSCALE_GROUP", "DOCKSCALE_TLS", "DOCKSCALE_IMAGE"}  # of its files
    texts = [PAGE, *(file.read_text() for file in FILES.iterdir())]

    assert {name for text in texts for name in re.findall(r"DOCKSCALE_[A-Z_]*[A-Z]", text)} - own <= fields


# TLS.


async def test_a_certificate_that_certbots_hook_hands_on_is_the_one_that_is_shown(
    real: Real, session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    real.build("web", prefixed(WEB))
    live, to = tmp_path / "live", tmp_path / "tls"
    live.mkdir()

    def renew() -> Files:
        made = make(live)
        made.certificate.replace(live / "fullchain.pem")
        made.key.replace(live / "privkey.pem")
        more = {"RENEWED_LINEAGE": str(live), "DOCKSCALE_TLS": str(to), "DOCKSCALE_GROUP": str(os.getgid())}
        subprocess.run([FILES / "certbot-hook.sh"], env=os.environ | more, check=True)
        return Files(to / "fullchain.pem", to / "privkey.pem")

    names = command("PORT")
    files = renew()
    assert [Path(names[name]).name for name in ("TLS_CERTIFICATE", "TLS_KEY")] == [
        files.certificate.name,
        files.key.name,
    ]
    assert files.key.stat().st_mode & 0o777 == 0o640
    async with process(session, ONLY=real.label, **files.environment) as server:
        url = f"https://127.0.0.1:{server.port}/public/apps/web/"
        async with session.get(url, ssl=trust(files)) as answer:
            assert answer.status == 200

        renew()

        async with asyncio.timeout(20):
            while not await is_shown(url, files):
                await asyncio.sleep(0.2)


def trust(files: Files) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(files.certificate))


async def is_shown(url: str, files: Files) -> bool:
    """Tell whether a client that trusts nothing but what the files hold now takes what is shown."""
    try:
        async with aiohttp.ClientSession() as fresh, fresh.get(url, ssl=trust(files)) as answer:
            return answer.status == 200
    except aiohttp.ClientConnectorCertificateError:
        return False


async def test_behind_a_proxy_its_word_counts(real: Real, session: aiohttp.ClientSession) -> None:
    real.build("web", prefixed(WEB))
    async with process(session, ONLY=real.label, **command("HOST")) as server:
        sent = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "apps.example.org"}
        async with session.get(f"{server.base}/public/apps/web/headers", headers=sent) as answer:
            text = await answer.text()

    assert "https" in text
    assert "apps.example.org" in text


async def test_rpc_containers_connect_while_the_main_port_takes_tls_only(
    real: Real, session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real.build("bot", prefixed({"type": "rpc", "app_id": "bot"}), base="dockscale-rpc:test")
    files = make(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(files.certificate))
    own = {"HOST": "0.0.0.0", "RPC_PORT": str(free_port()), **files.environment}
    async with process(session, ONLY=real.label, **own) as server:
        api = await connect_to_server({"server_url": f"https://localhost:{server.port}"})
        bot = await api.get_service("default@bot")
        assert (await bot.who())["client_id"].startswith("bot-1-")
        await api.disconnect()


async def test_a_token_is_printed_by_the_command_that_is_told() -> None:
    [line] = [block for block in blocks() if block.startswith("dockscale token")]
    done = await in_thread(
        lambda: subprocess.run(
            [sys.executable, "-m", "dockscale.cli", *shlex.split(line)[1:]], capture_output=True, text=True, check=True
        )
    )

    assert done.stdout.count(".") == 2


# The engine's socket.


@dataclass
class Guarded:
    """HAProxy with docker-socket.cfg."""

    socket: Path
    log: Path

    @property
    def engine(self) -> str:
        return f"unix://{self.socket}"

    @property
    def refused(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if " 403 " in line]

    async def ask(self, method: str, path: str, body: Any = None) -> int:
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(method, f"http://docker{path}", json=body) as answer,
        ):
            return answer.status


@pytest.fixture
def guarded(haproxy_ready: None, engine_ready: None, tmp_path: Path) -> Iterator[Guarded]:
    it = Guarded(tmp_path / "docker.sock", tmp_path / "log")
    with it.log.open("wb") as log:
        running = subprocess.Popen(
            [HAPROXY, "-db", "-f", FILES / "docker-socket.cfg"], env=os.environ | {"LISTEN": f"unix@{it.socket}"},
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            wait_until_it_listens(it.socket)
            yield it
        finally:
            running.kill()
            running.wait()


def wait_until_it_listens(path: Path) -> None:
    until_s = time.monotonic() + 20.0
    with socket.socket(socket.AF_UNIX) as asks:
        while asks.connect_ex(str(path)):
            assert time.monotonic() < until_s, "HAProxy does not listen"
            time.sleep(0.02)


async def test_through_the_allow_list_dockscale_does_all_that_it_does(
    real: Real, session: aiohttp.ClientSession, guarded: Guarded, tmp_path: Path
) -> None:
    real.build("web", prefixed(WEB))
    program = tmp_path / "adder.js"
    program.write_text("api.export({ add: (a, b) => a + b })")
    assert told("ENGINE")["DOCKSCALE_ENGINE"].startswith("unix://")
    base = {"BASE_IMAGE": runtimes.base_image(), "PIP_INDEX_URL": runtimes.package_index()}
    async with process(session, ONLY=real.label, HOST="0.0.0.0", ENGINE=guarded.engine, **base) as server:
        async with session.get(f"{server.base}/public/apps/web/") as answer:
            assert answer.status == 200
        await verb(server, guarded, "scale", "web", "2")
        await until(lambda: len(real.running()) == 2)
        assert "ok" in await verb(server, guarded, "doctor", fails=True)
        await verb(server, guarded, "logs", "web")
        await verb(server, guarded, "install", str(program))
        async with session.get(f"{server.base}/public/services/default@adder/add?a=1&b=2") as answer:
            assert await answer.text() == "3"
        await verb(server, guarded, "sleep", "web")
        await verb(server, guarded, "sleep", "adder")
        await until(lambda: not real.running())
        await verb(server, guarded, "uninstall", "adder")

    assert guarded.refused == []


async def verb(server: Server, guarded: Guarded, *words: str, fails: bool = False) -> str:
    own = {"DOCKSCALE_ADMIN_PORT": str(server.admin_port), "DOCKSCALE_ENGINE": guarded.engine}
    command_line = [sys.executable, "-m", "dockscale.cli", *words]
    done = await in_thread(
        lambda: subprocess.run(
            command_line, env=os.environ | own, capture_output=True, text=True, check=False, timeout=120
        )
    )
    assert fails or done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1.41/containers/{id}/exec"),
        ("POST", "/containers/{id}/attach"),
        ("GET", "/containers/{id}/archive?path=/etc/passwd"),
        ("PUT", "/v1.41/containers/{id}/archive?path=/"),
        ("POST", "/containers/{id}/update"),
        ("POST", "/containers/{id}%2fexec"),
        ("POST", "/volumes/create"),
        ("POST", "/swarm/init"),
        ("GET", "/secrets"),
        ("POST", "/containers/prune"),
    ],
)
async def test_what_it_does_not_need_is_refused(real: Real, guarded: Guarded, method: str, path: str) -> None:
    box = real.create("there", {"dockscale.enable": "false"})

    assert await guarded.ask(method, path.format(id=box.id)) == 403


@pytest.mark.parametrize("host_config", DANGEROUS, ids=json.dumps)
async def test_a_container_that_would_have_the_host_is_refused(guarded: Guarded, host_config: dict[str, Any]) -> None:
    body = {"Image": "there-is-none", "HostConfig": {"Binds": ["data:/data"], "Privileged": False, **host_config}}

    assert await guarded.ask("POST", "/v1.41/containers/create", body) == 403
    assert await guarded.ask("POST", "/v1.41/containers/create", body | {"HostConfig": {"Binds": ["data:/x"]}}) == 404


# systemd.


def test_the_unit_is_one_and_its_command_starts_dockscale(tmp_path: Path) -> None:
    unit = (FILES / "dockscale.service").read_text()
    here = tmp_path / "dockscale.service"
    here.write_text(unit.replace("/opt/dockscale/", f"{ROOT}/").replace("=/opt/dockscale\n", f"={ROOT}\n"))
    analyze = shutil.which("systemd-analyze")
    assert analyze is not None, "systemd is there, as on any host that could run the unit"
    verified = subprocess.run([analyze, "verify", here], capture_output=True, text=True, check=False)
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if "dockscale.service" in line]) == (
        0,
        [],
    )

    [line] = re.findall(r"ExecStart=(.*)", here.read_text())
    more = {"DOCKSCALE_PORT": "0", "DOCKSCALE_ADMIN_PORT": "0", "DOCKSCALE_HOST": "127.0.0.1", "DOCKSCALE_ONLY": "none"}
    more |= dict(pair.split("=") for pair in re.findall(r"\nEnvironment=(.*)", unit)[0].split())
    more["DOCKSCALE_DATA_DIR"] = str(tmp_path / "data")
    it = subprocess.Popen(shlex.split(line), cwd=tmp_path, env=os.environ | more, stderr=subprocess.PIPE, text=True)
    assert it.stderr is not None
    events = [json.loads(it.stderr.readline())["event"]]
    while events[-1] != "serving":
        events.append(json.loads(it.stderr.readline())["event"])
    it.terminate()
    it.communicate()
    assert it.returncode == 0


# Several networks.


@pytest.fixture
def images(real: Real, haproxy_ready: None, tmp_path: Path) -> dict[str, str]:
    """dockscale's own image, and one with the HAProxy of this machine and what it needs."""
    environment = os.environ | {"TAG": real.named("own"), "LABEL": real.label}
    build = (
        "set -e; . scripts/build-env.sh; docker build -q -f images/dockscale/Dockerfile --label $LABEL -t $TAG"
        " --build-arg BASE_IMAGE --build-arg PIP_INDEX_URL --build-arg COMPILE=0 ."
    )
    subprocess.run(["bash", "-c", build], cwd=ROOT, env=environment, check=True, capture_output=True, timeout=300)
    needed = subprocess.run(["ldd", HAPROXY], capture_output=True, text=True, check=True).stdout
    for file in (HAPROXY, *re.findall(r"(/\S+)", needed)):
        target = tmp_path / "root" / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY root /\nENV PATH=/usr/sbin:/usr/bin\n")
    tag = real.named("haproxy")
    subprocess.run(
        ["docker", "build", "-q", "--label", real.label, "-t", tag, tmp_path], check=True, capture_output=True
    )
    return {"DOCKSCALE_IMAGE": real.named("own"), "HAPROXY_IMAGE": tag}


async def test_in_a_container_it_reaches_apps_on_several_networks(
    real: Real, session: aiohttp.ClientSession, images: dict[str, str], tmp_path: Path
) -> None:
    tls, port = tmp_path / "tls", free_port()
    tls.mkdir()
    files = make(tls)
    shutil.copy(files.certificate, tls / "fullchain.pem")
    shutil.copy(files.key, tls / "privkey.pem")
    for path in (tmp_path, tls, tls / "privkey.pem"):
        path.chmod(0o755)
    networks = {name: real.client.networks.create(real.named(name), labels=real.labels) for name in ("shop", "office")}
    for name in networks:
        real.create(name, prefixed(WEB | {"app_id": name}), network=real.named(name))
    settings = images | {
        "SHOP_NETWORK": real.named("shop"), "OFFICE_NETWORK": real.named("office"), "PUBLISH": f"127.0.0.1:{port}",
        "DOCKSCALE_TLS": str(tls), "DOCKSCALE_ONLY": real.label, "COMPOSE_PROJECT_NAME": real.named("production"),
    }  # fmt: skip
    try:
        await compose(settings, "up -d")
        for name in networks:
            url = f"https://127.0.0.1:{port}/public/apps/{name}/"
            async with asyncio.timeout(30):
                while (status := await asked(session, url, files)) in (0, 404):
                    await asyncio.sleep(0.2)
            assert status == 200, name
        shown = await compose(settings, "exec dockscale dockscale ps")
        assert "shop" in shown
        assert "office" in shown
        project = f"com.docker.compose.project={settings['COMPOSE_PROJECT_NAME']}"
        healthy: dict[str, Any] = {"label": project, "health": "healthy"}
        await until(lambda: real.client.containers.list(filters=healthy), "its own check takes TLS as well")
    finally:
        await compose(settings, "down -v")


async def asked(session: aiohttp.ClientSession, url: str, files: Files) -> int:
    try:
        async with session.get(url, ssl=trust(files)) as answer:
            return answer.status
    except aiohttp.ClientError:
        return 0


async def compose(settings: dict[str, str], what: str) -> str:
    """Run compose as the page does, by the script that gets it where it is missing."""
    file = "docs/production/compose.yaml"
    assert what == "down -v" or f"docker compose -f {file} {what}\n" in PAGE
    line: list[str | Path] = [ROOT / "scripts" / "compose.sh", "-f", file, *what.replace("exec ", "exec -T ").split()]
    done = await in_thread(
        lambda: subprocess.run(
            line, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=180
        )
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout)
