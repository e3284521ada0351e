"""The measured proxies: how each is configured, started on one core, read while it runs, and ended.

All have one worker process or thread, keep-alive to client and instance, no access log, nothing buffered to disk, and
add X-Forwarded-For, -Proto and -Host and X-Request-Id to what they forward. Beyond that each peer has what its own
documentation recommends for speed:

- nginx: HTTP/1.1 with an empty Connection to the upstream, 128 idle connections kept to it, no bound on requests per
  connection, bodies streamed both ways through 64 KiB buffers (which took less CPU here than buffering whole answers in
  memory, and much less than the default sizes). WebSockets have a location of their own.
- HAProxy: idle connections to the server kept and always reused, 64 KiB buffers (the default took six times the CPU for
  uploads; splicing made no difference here).
- Caddy: `GOMAXPROCS=1`, HTTP/1.1 only, 128 idle connections kept, no transparent compression, no admin endpoint.
- dockscale: `dockscale serve` with its default settings, on uvloop, compiled (scripts/compile.sh); dockscale-source is
  the same, not compiled.

CPU and memory are those of the process and its children, all threads included, as /proc tells.
"""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.process import free_port

HOST = "bench.localhost"
"""What every request names as its host: dockscale finds the app by it."""
READY_S = 60.0
COMPILED = Path(__file__).parent.parent / "build" / "compiled"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")

Address = tuple[str, int]

NGINX = """
worker_processes 1;
worker_rlimit_nofile 16384;
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 120s;
    keepalive_requests 100000000;
    client_max_body_size 0;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream origin {{
        server {host}:{origin_port};
        keepalive 128;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_http_version 1.1;
        proxy_request_buffering off;
        proxy_buffering off;
        proxy_buffer_size 64k;
        proxy_buffers 4 64k;
        proxy_busy_buffers_size 64k;
        client_body_buffer_size 64k;
        location / {{
            proxy_pass http://origin;
            proxy_set_header Connection "";
            {headers}
        }}
        location /ws {{
            proxy_pass http://origin;
            proxy_set_header Connection "upgrade";
            proxy_set_header Upgrade $http_upgrade;
            {headers}
        }}
    }}
}}
"""
NGINX_HEADERS = """
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Request-Id $request_id;
"""

HAPROXY = """
global
    nbthread 1
    tune.bufsize 65536
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 120s
    timeout server 120s
    timeout tunnel 1h
    option http-keep-alive
    http-reuse always
frontend main
    bind 127.0.0.1:{port} backlog 4096
    default_backend origin
backend origin
    option forwardfor
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(Host)]
    http-request set-header X-Request-Id %[uuid()]
    server one {host}:{origin_port} pool-max-conn 128
"""

CADDY = """
{{
    admin off
    auto_https off
    persist_config off
    log {{
        level ERROR
    }}
    servers {{
        protocols h1
    }}
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy {host}:{origin_port} {{
        header_up X-Request-Id {{http.request.uuid}}
        transport http {{
            versions 1.1
            keepalive_idle_conns_per_host 128
            compression off
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Command:
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy is to run: its files, its port, what it stands in front of, what dockscale may see."""

    folder: Path
    port: int
    origin: Address
    only: str

    def write(self, name: str, template: str, **more: str) -> str:
        path = self.folder / name
        host, origin_port = self.origin
        path.write_text(template.format(folder=self.folder, port=self.port, host=host, origin_port=origin_port, **more))
        return str(path)


def nginx(place: Place) -> Command:
    user = "user root;" if os.getuid() == 0 else ""
    path = place.write("nginx.conf", NGINX, user=user, headers=NGINX_HEADERS.strip())
    return Command(("nginx", "-e", "stderr", "-p", str(place.folder), "-c", path))


def haproxy(place: Place) -> Command:
    return Command(("haproxy", "-db", "-q", "-f", place.write("haproxy.cfg", HAPROXY)))


def caddy(place: Place) -> Command:
    path = place.write("Caddyfile", CADDY)
    home = {"XDG_DATA_HOME": str(place.folder), "XDG_CONFIG_HOME": str(place.folder)}
    return Command((_caddy(), "run", "--adapter", "caddyfile", "--config", path), {"GOMAXPROCS": "1", **home})


def dockscale(place: Place) -> Command:
    return _dockscale(place, {"PYTHONPATH": str(COMPILED)})


def dockscale_source(place: Place) -> Command:
    return _dockscale(place, {})


def _dockscale(place: Place, env: Mapping[str, str]) -> Command:
    settings = {
        "DOCKSCALE_ONLY": place.only,
        "DOCKSCALE_HOST": "127.0.0.1",
        "DOCKSCALE_PORT": str(place.port),
        "DOCKSCALE_ADMIN_PORT": str(free_port()),
        "DOCKSCALE_DATA_DIR": str(place.folder),
    }
    # -P: not this folder's source, unless that is what is installed.
    return Command((sys.executable, "-P", "-m", "dockscale.cli", "serve"), {**settings, **env})


PROXIES = {
    "dockscale": dockscale,
    "dockscale-source": dockscale_source,
    "nginx": nginx,
    "haproxy": haproxy,
    "caddy": caddy,
}


def versions() -> dict[str, str]:
    """What each peer calls itself."""
    asked = {
        "nginx": ["nginx", "-v"],
        "HAProxy": ["haproxy", "-v"],
        "Caddy": [_caddy(), "version"],
        "wrk": ["wrk", "-v"],
    }
    told = {}
    for name, argv in asked.items():
        done = subprocess.run(argv, check=False, capture_output=True, text=True, env=_environment({}))
        words = (done.stderr + done.stdout).replace("/", " ").split()
        told[name] = next(word.lstrip("v") for word in words if word.lstrip("v")[:1].isdigit())
    return told


def _caddy() -> str:
    return str(Path(sys.executable).parent / "caddy")


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DOCKSCALE_")}
    return {**inherited, "PATH": os.environ["PATH"] + ":/usr/sbin", **more}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy."""

    address: Address
    pids: tuple[int, ...]

    def cpu(self) -> float:
        """Seconds of CPU used so far, user and system."""
        return sum(_cpu(pid) for pid in self.pids)

    def memory(self) -> int:
        """Bytes resident now."""
        return sum(_status(pid, "VmRSS") for pid in self.pids)

    def peak(self) -> int:
        """The most bytes resident since `forget_peak`."""
        return sum(_status(pid, "VmHWM") for pid in self.pids)

    def forget_peak(self) -> None:
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")


@contextmanager
def running(name: str, folder: Path, origin: Address, only: str, core: int) -> Iterator[Proxy]:
    """Start a proxy on one core, wait until it answers, and end it."""
    here = folder / f"{name}-{time.monotonic_ns()}"
    here.mkdir()
    place = Place(here, free_port(), origin, only)
    with started(name, PROXIES[name](place), place, core, answers) as proxy:
        yield proxy


@contextmanager
def started(
    name: str, command: Command, place: Place, core: int, answering: Callable[[Address], bool]
) -> Iterator[Proxy]:
    """Start a server on one core, wait until it answers on its port, and end it."""
    output = place.folder / "output"
    with output.open("wb") as told:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command.argv], env=_environment(command.env), cwd=place.folder,
            stdin=subprocess.DEVNULL, stdout=told, stderr=told, start_new_session=True,
        )  # fmt: skip
    try:
        address = ("127.0.0.1", place.port)
        _await_ready(name, process, lambda: answering(address), output)
        yield Proxy(address, (process.pid, *_children(process.pid)))
    finally:
        _end(process)


def _await_ready(name: str, process: "subprocess.Popen[bytes]", ready: Callable[[], bool], output: Path) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        if ready():
            return
        time.sleep(0.02)
    told = output.read_text(errors="replace")[-2000:]
    raise SystemExit(f"bench: {name} does not answer. What it said:\n{told}")


def answers(address: Address, path: str = "/12", host: str = HOST) -> bool:
    """Whether a request through this address comes back well."""
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: "subprocess.Popen[bytes]") -> None:
    children = _children(process.pid)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        for pid in children:  # a killed parent cannot end them
            if f" {process.pid} " in _stat(pid):
                os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _children(parent: int) -> tuple[int, ...]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name)).rpartition(")")[2].split()
        if fields and int(fields[1]) == parent:
            found += [int(path.name), *_children(int(path.name))]
    return tuple(found)


def _cpu(pid: int) -> float:
    fields = _stat(pid).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)
