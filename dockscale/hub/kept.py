"""What must outlast a restart, in files: the secret that signs tokens, and which tokens were revoked."""

import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from dockscale.config import SECRET_BYTES, Settings

MOST_REVOKED = 10_000
"""Tokens that can be revoked at the same time, so that clients cannot fill the memory."""

log = structlog.get_logger()


class CannotKeep(Exception):
    """What is kept cannot be used. The message says what to do."""


class NoFolder(CannotKeep):
    """Nothing can be read or written where it should be kept."""


class Damaged(CannotKeep):
    """What is there cannot be read, or is not what was written."""


class Revoked:
    """Ids of revoked tokens, each with the end of the time it is remembered for, in seconds since 1970.

    Without a file they are forgotten when the process ends.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Read what earlier runs have left.

        Raises:
            Damaged: there is something, and it cannot be read.
        """
        self._file = file
        self._until = _read_revoked(file) if file else {}

    def __contains__(self, token_id: str) -> bool:
        return token_id in self._until

    def add(self, token_id: str, until: float, now: float) -> None:
        """Remember one, and write it down. Where that fails, the log says that it holds for this run only.

        Raises:
            CannotKeep: too many are remembered already.
        """
        live = {each: end for each, end in self._until.items() if end > now}
        if len(live) >= MOST_REVOKED:
            raise CannotKeep(
                f"{MOST_REVOKED} tokens are revoked already; a new secret ends all tokens at once: "
                "set DOCKSCALE_TOKEN_SECRET to another one, or delete the kept one, and restart"
            )
        self._until = live | {token_id: until}
        if self._file is None:
            return
        try:
            with _draft(self._file.parent, json.dumps(self._until)) as draft:
                os.replace(draft, self._file)
        except OSError as error:
            log.warning("revocation_not_kept", file=str(self._file), why=error.strerror, holds="until the next restart")


def open_kept(settings: Settings) -> tuple[bytes, Revoked]:
    """Return the secret that signs tokens, and the revoked tokens, for a server.

    A server that asks nobody for a token can do without a place to keep them; the log says what that means.

    Raises:
        NoFolder: there is no secret, and no place for one.
        Damaged: what is kept cannot be used.
    """
    try:
        secret = read_secret(settings)
    except NoFolder as error:
        if settings.auth == "token":
            raise
        log.warning("secret_not_kept", why=str(error), effect="clients cannot reconnect after a restart")
        return _new_secret().encode(), Revoked()
    return secret, Revoked(_folder(settings) / "revoked.json")


def read_secret(settings: Settings) -> bytes:
    """Return the secret of the settings, else the kept one, which is made if there is none.

    Raises:
        NoFolder: it can be neither read nor made.
        Damaged: it is too short to be one.
    """
    given = _given(settings)
    if given is not None:
        return given
    file = _folder(settings) / "secret"
    try:
        if not file.exists():
            # A link is there with all its bytes or not at all, and the first of several processes wins.
            with _draft(file.parent, f"{_new_secret()}\n") as draft, suppress(FileExistsError):
                os.link(draft, file)
        secret = file.read_bytes().strip()
    except OSError as error:
        raise NoFolder(
            f"{file} can be neither read nor made ({error.strerror}): let user {os.getuid()} write to its folder, "
            "or set DOCKSCALE_DATA_DIR to another one, or DOCKSCALE_TOKEN_SECRET"
        ) from error
    if len(secret) < SECRET_BYTES:
        raise Damaged(
            f"{file} has {len(secret)} bytes, and a secret has {SECRET_BYTES} or more: put it back as it was, or "
            "delete it to get a new one, which ends all tokens"
        )
    return secret


def _given(settings: Settings) -> bytes | None:
    return None if settings.token_secret is None else settings.token_secret.get_secret_value().encode()


def _new_secret() -> str:
    return secrets.token_hex(SECRET_BYTES)


def _folder(settings: Settings) -> Path:
    try:
        if settings.data_dir:
            return Path(settings.data_dir).expanduser()
        state = Path(os.environ.get("XDG_STATE_HOME", ""))
        return (state if state.is_absolute() else Path.home() / ".local/state") / "dockscale"
    except RuntimeError as error:
        raise NoFolder(f"{error}: set DOCKSCALE_DATA_DIR to a folder") from None


def _read_revoked(file: Path) -> dict[str, float]:
    try:
        return {str(each): float(end) for each, end in json.loads(file.read_bytes()).items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Damaged(f"{file} cannot be read ({error.strerror}): let user {os.getuid()} read it") from error
    except (ValueError, TypeError, AttributeError):
        raise Damaged(
            f"{file} cannot be understood: put it back as it was, or delete it, which lets revoked tokens in again"
        ) from None


@contextmanager
def _draft(folder: Path, content: str) -> Iterator[str]:
    """Write a file of mode 0600 beside the one it is to become; whatever has not been moved is removed."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder)
    try:
        with open(handle, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        yield name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)
