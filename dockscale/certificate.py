"""The certificate of the main port: read from its files, tried, and read anew when these change."""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import structlog

log = structlog.get_logger()

LOOK_S = 1.0
"""How often it is looked whether the files are others. They are read once they have stayed the same from one look to
the next: until then, whoever renews them may have replaced only one."""

_NAMED = ("DNS", "IP Address")
"""Kinds of names that clients go by."""
_Names = tuple[tuple[str, str], ...]
_Stamps = list[tuple[int, int, int] | None]


class BadCertificate(Exception):
    """The message says which file is in the way, and what to do."""


@dataclass(frozen=True, slots=True)
class _Taken:
    context: ssl.SSLContext
    names: tuple[str, ...]
    expires: datetime


class Certificate:
    """What the main port shows its clients: `context` is for the next handshake, so ask for it each time."""

    def __init__(self, certificate: str, key: str) -> None:
        """Read both PEM files.

        Raises:
            BadCertificate: they cannot be used.
        """
        self._files = certificate, key
        self._stamps = self._look()
        """Of the files that were taken."""
        self._taken = _read(certificate, key)

    @property
    def context(self) -> ssl.SSLContext:
        return self._taken.context

    @property
    def names(self) -> tuple[str, ...]:
        """The host names and addresses that it is for."""
        return self._taken.names

    @property
    def expires(self) -> datetime:
        return self._taken.expires

    async def watch(self) -> None:
        """Take what the files hold when these change; while that cannot be used, keep what was there before.

        Files that are refused are tried at each look: what is wrong may be the clock, or who may read them.
        """
        stamps, refused = self._stamps, ""
        while True:
            await asyncio.sleep(LOOK_S)
            before, stamps = stamps, await asyncio.to_thread(self._look)  # a network's files may be slow
            if stamps == self._stamps:
                refused = ""
            elif stamps == before:
                refused = await self._take(stamps, refused)

    async def _take(self, stamps: _Stamps, refused: str) -> str:
        """Return why the files cannot be used, and tell it unless it is what was told before; empty: they are taken."""
        try:
            self._taken = await asyncio.to_thread(_read, *self._files)
        except BadCertificate as error:
            if str(error) != refused:
                log.error("certificate_refused", error=str(error), hint="the one before stays in use")
            return str(error)
        self._stamps = stamps
        log.info("certificate_taken", names=self.names, expires=self.expires.isoformat())
        return ""

    def _look(self) -> _Stamps:
        return [_stamp(Path(file)) for file in self._files]


def open_certificate(certificate: str, key: str) -> Certificate | None:
    """Return what two settings name, or None if they name nothing.

    Raises:
        BadCertificate: only one is set, or the files cannot be used.
    """
    if certificate and key:
        return Certificate(certificate, key)
    if certificate or key:
        missing, there = ("KEY", "CERTIFICATE") if certificate else ("CERTIFICATE", "KEY")
        raise BadCertificate(f"DOCKSCALE_TLS_{there} is set, and DOCKSCALE_TLS_{missing} is not: set both, or neither")
    return None


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        seen = file.stat()
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def _read(certificate: str, key: str) -> _Taken:
    chain = _pem("DOCKSCALE_TLS_CERTIFICATE", certificate, "BEGIN CERTIFICATE-----")
    if "ENCRYPTED" in _pem("DOCKSCALE_TLS_KEY", key, "PRIVATE KEY-----"):
        raise BadCertificate(
            f"DOCKSCALE_TLS_KEY={key} is encrypted, and nobody is there to be asked for its password: "
            f"write it without one, as `openssl pkey -in {key} -out OTHER` does"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
        shown = _shown(context, chain)
    except ssl.SSLCertVerificationError as error:
        raise BadCertificate(
            f"DOCKSCALE_TLS_CERTIFICATE={certificate} would be refused by clients: {error.verify_message}; renew it"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadCertificate(
                f"DOCKSCALE_TLS_KEY={key} is not the key of DOCKSCALE_TLS_CERTIFICATE={certificate}: "
                "name the two that were made together, and let the server's own certificate be the first in its file"
            ) from None
        raise BadCertificate(
            f"DOCKSCALE_TLS_CERTIFICATE={certificate} or DOCKSCALE_TLS_KEY={key} is damaged or too weak ({error}): "
            "copy them anew, or make them anew"
        ) from None
    except OSError as error:
        raise BadCertificate(f"{certificate} or {key} has just gone ({error.strerror}): put it back") from None
    names = tuple(name for kind, name in cast("_Names", shown.get("subjectAltName", ())) if kind in _NAMED)
    expires = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
    return _Taken(context, names, expires)


def _pem(setting: str, file: str, mark: str) -> str:
    """Return what of the file PEM can be: what else it says, as in comments, may be in any encoding."""
    path = Path(file)
    try:
        why = "it is no file" if path.exists() and not path.is_file() else ""  # a pipe would be waited for
        text = "" if why else path.read_bytes().decode("ascii", errors="ignore")
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        raise BadCertificate(f"{setting}={file} cannot be read ({why}): name a PEM file that this user may read")
    if mark not in text:
        raise BadCertificate(f"{setting}={file} holds no `-----{mark}`: name the PEM file that does")
    return text


def _shown(context: ssl.SSLContext, chain: str) -> dict[str, object]:
    """Show the certificate to a client that trusts it, in memory, and return what that sees.

    Raises:
        ssl.SSLError: the client would not take it, as when it has expired.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(cadata=chain)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client, server = trusting.wrap_bio(down, up), context.wrap_bio(up, down, server_side=True)
    for side in (client, server, client):
        with suppress(ssl.SSLWantReadError):  # the other side has to answer first
            side.do_handshake()
    return dict(client.getpeercert() or {})
