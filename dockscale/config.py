"""What one dockscale process needs to know: `DOCKSCALE_*` environment, `.env` or flags of `dockscale serve`."""

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Auth = Literal["none", "token"]
SECRET_BYTES = 32
"""A signature with less is easier to guess than its hash (HS256)."""


def _networks(value: object) -> object:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list):
        return parts
    try:
        return [ip_network(str(part).strip()) for part in parts if str(part).strip()]
    except ValueError as error:
        raise ValueError(f"{error}; write networks such as 10.0.0.0/8, separated by commas") from None


def _url(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^\s/]+/?", value):
        raise ValueError("write an address such as http://dockscale:9527")
    return value.rstrip("/")


def _engine(value: str | None) -> str | None:
    if value and urlsplit(value).scheme not in ("unix", "tcp", "http", "https"):
        raise ValueError("write an address such as unix:///var/run/docker.sock or tcp://127.0.0.1:2375")
    return value


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def _bytes(value: object) -> object:
    """Read `512m` or `8g` as Docker does for a container's memory limit: in steps of 1024."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str):
            raise ValueError("write bytes, or a number with k, m, g or t, such as 512m or 8g")
        return value
    return round(float(match[1]) * 1024 ** _POWERS[match[2].lower()])


def _hidden(value: object) -> object:
    """Hide a secret before anything else looks at it, so that no message about it can show it."""
    return SecretStr(value) if isinstance(value, str) else value


def _long_enough(secret: SecretStr | None) -> SecretStr | None:
    if secret is not None and len(secret.get_secret_value().encode()) < SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes or more, such as `openssl rand -hex 32` prints")
    return secret


class Settings(BaseSettings):
    """Settings of one dockscale process: flags, else DOCKSCALE_* in the environment, else a line in .env."""

    model_config = SettingsConfigDict(
        env_prefix="DOCKSCALE_",
        env_file=".env",
        extra="ignore",
        use_attribute_docstrings=True,
        validate_default=True,
    )

    host: str = "0.0.0.0"
    """Address of the main port, which serves the apps."""
    port: int = Field(9527, ge=0, le=65535)
    """Main port."""
    tls_certificate: str = ""
    """PEM file of the certificate and those that lead to its root. With it the main port takes TLS only."""
    tls_key: str = ""
    """PEM file of the certificate's key, without a password."""
    admin_host: str = "127.0.0.1"
    """Address of the admin port. Anything but a loopback address needs `DOCKSCALE_ADMIN_TOKEN`."""
    admin_port: int = Field(9528, ge=0, le=65535)
    """Admin port: the dashboard, /metrics and /api."""
    admin_token: SecretStr | None = None
    """Bearer token that the admin port asks for."""
    auth: Auth = "none"
    """`none`: who comes without a token may do all there is to do over RPC. `token`: only what tokens allow."""
    token_secret: Annotated[SecretStr | None, AfterValidator(_long_enough), BeforeValidator(_hidden)] = None
    """What signs tokens, 32 bytes or more. Default: one that dockscale makes and keeps."""
    data_dir: str = ""
    """Folder for the kept secret and revoked tokens. Empty: `dockscale` in `XDG_STATE_HOME` or `~/.local/state`."""
    domain: str = "localhost"
    """Each app answers at `<app_id>.<domain>`."""
    engine: Annotated[str | None, AfterValidator(_engine)] = None
    """Docker's address, such as unix:///var/run/docker.sock. Default: DOCKER_HOST, the context, the usual socket."""
    only: str = ""
    """A label, `name` or `name=value`: nothing without it is seen, so that several dockscales can share an engine."""
    network: str = ""
    """Network on which instances are reached, and copies of images made. Empty: an instance's first network."""
    rpc_url: Annotated[str, AfterValidator(_url)] = ""
    """Main port as apps of type `rpc` reach it, such as http://dockscale:9527. Empty: found out from the network."""
    rpc_port: int = Field(9529, ge=0, le=65535)
    """With TLS and no `DOCKSCALE_RPC_URL`: port without TLS for apps of type `rpc`, at the address on their network."""
    base_image: str = "python:3.12-slim"
    """Image with Python 3.11 or newer, on which the runtimes of installed programs are made where they are missing."""
    pip_index_url: str = ""
    """Package index for programs' requirements and their runtimes. Empty: pip's own."""
    interval: float = Field(10.0, gt=0)
    """Seconds between looks at each app; what rises or breaks is acted on at once."""
    parallel_starts: int = Field(4, ge=1)
    """Containers that are started at the same time."""
    create_ahead: bool = True
    """Keep one created copy, not started, for the next start of each app that has been awake."""
    max_instances: int = Field(0, ge=0)
    """Instances of all apps together, standby included; 0: no bound."""
    memory_budget: Annotated[int, BeforeValidator(_bytes), Field(ge=0)] = 0
    """Bytes (or 512m, 8g) that the memory limits of all instances may add up to; 0: no bound."""
    shutdown_timeout: float = Field(30.0, ge=0)
    """Seconds that requests in flight may take when dockscale itself stops."""
    connect_timeout: float = Field(5.0, gt=0)
    """Seconds until a connection to an instance must stand."""
    response_timeout: float = Field(300.0, ge=0)
    """Seconds until an instance must send the next part of an answer; 0: no bound."""
    keepalive_timeout: float = Field(75.0, gt=0)
    """Seconds that a client's connection may rest between two requests."""
    header_timeout: float = Field(10.0, gt=0)
    """Seconds from the first byte of a request until its head is there; then 408."""
    client_timeout: float = Field(60.0, gt=0)
    """Seconds that a client may send nothing of a body, or take nothing of an answer; then 408 or the end."""
    max_header_bytes: int = Field(32768, ge=1024)
    """Bytes of a request's head; more get 431, or 414 if the request line alone is longer."""
    max_body_bytes: int = Field(0, ge=0)
    """Bytes of a request's body; more get 413. 0: no bound."""
    max_connections: int = Field(0, ge=0)
    """Connections of clients; more wait until there is room. 0: half as many as files may be open."""
    trusted_proxies: Annotated[list[IPv4Network | IPv6Network], NoDecode, BeforeValidator(_networks)] = []
    """Networks, separated by commas, whose X-Forwarded-* headers are believed."""
    response_headers: bool = True
    """Tell `X-Dockscale-Instance` and `Server-Timing` in answers."""
    waiting_page: str = ""
    """File of your own page for apps with `startup_config.waiting_page`; `{{name}}` and `{{app_id}}` are filled in."""
    log_format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, else JSON."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least important kind of log line to write."""
    event_loop: Literal["uvloop", "asyncio"] = "uvloop"
    """Event loop to run on."""
