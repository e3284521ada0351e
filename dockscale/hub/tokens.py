"""Who a client is and what it may do, as a signed token (JWT, HS256) says. Times are seconds since 1970."""

import base64
import binascii
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2s
from typing import Any, Literal

import jwt

from dockscale.config import Auth
from dockscale.hub.kept import Revoked

Permission = Literal["r", "rw", "a"]
PERMISSIONS: dict[str, Permission] = {"read": "r", "read_write": "rw", "admin": "a"}
"""The words of clients for them. Each includes those before it."""
_RANK: dict[str, int] = {letter: rank for rank, letter in enumerate(PERMISSIONS.values(), 1)}

EVERY = "*"
"""Stands for every workspace."""
ANONYMOUS = "anonymous"
"""The role of who came without a token. What it may do is the server's setting, not a token's word."""

LIFE_S = 3600.0
"""Seconds a token lives unless told otherwise."""
MOST_LIFE_S = 3650 * 86400.0
RECONNECTION_S = 172800.0
"""Seconds for which a client that was connected may come back, whatever its token's own life."""

_RECONNECTION = "reconnection"
_RESERVED = ("ws", "cid", "wid")
_CHECKS: jwt.types.Options = {
    "require": ["sub", "exp"],
    "verify_exp": False,  # it and the next two would ask a clock of the library's own
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
}


class BadToken(Exception):
    """A token that is not accepted. The message says why."""


@dataclass(frozen=True, slots=True)
class User:
    """Whoever is behind a connection or a request."""

    id: str
    workspaces: Mapping[str, str] = field(default_factory=dict)
    """The permission in each workspace by name; `*` is every one."""
    current_workspace: str = ""
    client_id: str = ""
    """The only client that may use it; empty: any."""
    roles: tuple[str, ...] = ()
    extra_scopes: tuple[str, ...] = ()
    email: str = ""
    parent: str = ""
    """Id of the user who gave it its token."""
    expires_at: float | None = None
    """End of its token. What it gives to others ends then, too."""
    token_id: str = ""
    """Its token, as the revoked ones are remembered."""

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS in self.roles

    def may(self, workspace: str, permission: Permission) -> bool:
        """Tell whether it has this permission, or a higher one, in a workspace."""
        granted = (_RANK.get(self.workspaces.get(name, ""), 0) for name in (workspace, EVERY))
        return max(granted) >= _RANK[permission]

    def shown(self) -> dict[str, Any]:
        """Itself as clients of the hub expect it in a call's context."""
        return {
            "id": self.id,
            "roles": list(self.roles),
            "is_anonymous": self.anonymous,
            "scope": {
                "current_workspace": self.current_workspace or None,
                "workspaces": dict(self.workspaces),
                "client_id": self.client_id or None,
                "extra_scopes": list(self.extra_scopes),
            },
            "email": self.email or None,
            "parent": self.parent or None,
            "expires_at": self.expires_at,
            "current_workspace": self.current_workspace or None,
        }


def anonymous(workspace: str, auth: Auth) -> User:
    """Whoever comes without a token: admin of every workspace, or of none if tokens are asked for."""
    workspaces = {} if auth == "token" else {EVERY: "a"}
    return User(ANONYMOUS, workspaces, current_workspace=workspace, roles=(ANONYMOUS,))


def narrow(
    parent: User, workspace: str, permission: str = "read_write", client_id: str = "", extra_scopes: Sequence[str] = ()
) -> User:
    """Return the user that `parent` may let others be: never more than itself. `permission` is a word of a client.

    Raises:
        ValueError: there is no such permission.
        PermissionError: `parent` may not give that.
    """
    if permission not in PERMISSIONS:
        raise ValueError(f"there is no permission {permission!r}; write one of {', '.join(PERMISSIONS)}")
    if not parent.may(workspace, "a"):
        raise PermissionError(f"only an admin of the workspace {workspace!r} may give tokens for it")
    client_id = client_id or parent.client_id
    if parent.client_id not in ("", client_id):
        raise PermissionError(f"a token for the client {parent.client_id!r} cannot give one for another client")
    if not parent.may(EVERY, "a") and not set(extra_scopes) <= set(parent.extra_scopes):
        raise PermissionError(f"{parent.id!r} may only give extra scopes that it has: {list(parent.extra_scopes)}")
    return replace(
        parent, id=f"{parent.id}-{secrets.token_hex(4)}", parent=parent.id, client_id=client_id,
        workspaces={workspace: PERMISSIONS[permission]}, current_workspace=workspace, extra_scopes=tuple(extra_scopes),
    )  # fmt: skip


class Tokens:
    """Gives tokens and reads them. `clock` tells seconds since 1970."""

    def __init__(self, secret: bytes, clock: Callable[[], float], auth: Auth, revoked: Revoked | None = None) -> None:
        self._secret = secret
        self._clock = clock
        self._auth = auth
        self._revoked = Revoked() if revoked is None else revoked

    def issue(self, user: User, expires_in: float = LIFE_S) -> str:
        """Return a token for `user` that ends after `expires_in` seconds, or with the user's own if that is earlier.

        Raises:
            ValueError: the time is none, or a name cannot be part of a token.
            PermissionError: the user's own token has ended.
        """
        if not 0 < expires_in <= MOST_LIFE_S:
            raise ValueError(f"a token lives for more than 0 and at most {MOST_LIFE_S:.0f} seconds, not {expires_in}")
        now = self._clock()
        ends = now + expires_in if user.expires_at is None else min(now + expires_in, user.expires_at)
        if ends <= now:
            raise PermissionError("the token you came with has expired; connect with a new one to give others")
        return self._signed(user, ends)

    def read(self, token: str) -> User:
        """Return who a token is for.

        Raises:
            BadToken: it is not accepted.
        """
        claims = self._claims(token, kind=None)
        return self._user(claims, claims["exp"], _id(token))

    def read_ended(self, token: str) -> User:
        """Return who a token is for, or was before it expired or was revoked.

        Raises:
            BadToken: it was never one.
        """
        claims = self._signed_claims(token)
        return self._user(claims, claims["exp"], _id(token))

    def revoke(self, token: str) -> None:
        """Accept a token no longer, nor a reconnection of whoever came with it. Those that it gave to others stay.

        One that has expired can be revoked as well: who came with it may still be connected.

        Raises:
            BadToken: it was never one.
            CannotKeep: too many are revoked already.
        """
        now = self._clock()
        ends = max(self._signed_claims(token)["exp"], now)
        self._revoked.add(_id(token), ends + RECONNECTION_S, now)

    def reconnection(self, user: User, workspace: str, client_id: str) -> str:
        """Return a token with which this client may come back for `RECONNECTION_S`, and as nobody else.

        Raises:
            BadToken: the token that the user came with was revoked.
            ValueError: a name cannot be part of a token.
        """
        self._check(user.token_id)
        more = {
            "kind": _RECONNECTION, "workspace": workspace, "client_id": client_id,
            "first": user.token_id, "first_exp": user.expires_at,
        }  # fmt: skip
        return self._signed(user, self._clock() + RECONNECTION_S, more)

    def read_reconnection(self, token: str) -> tuple[User, str, str]:
        """Return who comes back, to which workspace, as which client.

        Raises:
            BadToken: it is not accepted.
        """
        claims = self._claims(token, kind=_RECONNECTION)
        self._check(claims["first"])
        user = self._user(claims, claims["first_exp"], claims["first"])
        return user, claims["workspace"], claims["client_id"]

    def _signed(self, user: User, ends: float, more: Mapping[str, object] | None = None) -> str:
        claims = {
            "sub": user.id, "iat": int(self._clock()), "exp": math.ceil(ends), "jti": secrets.token_hex(8),
            "scope": _scope(user), "roles": list(user.roles), "email": user.email, "parent": user.parent,
        }  # fmt: skip
        return jwt.encode(claims | dict(more or {}), self._secret, algorithm="HS256")

    def _claims(self, token: str, kind: str | None) -> dict[str, Any]:
        """Read a token of one kind, if it still holds."""
        claims = self._signed_claims(token)
        if claims.get("kind") != kind:
            raise BadToken("the token is for coming back only" if kind is None else "the token is not for coming back")
        if not self._clock() < claims["exp"]:
            raise BadToken("the token has expired")
        self._check(_id(token))
        return claims

    def _signed_claims(self, token: str) -> dict[str, Any]:
        """Read a token of any kind and age, if it is as it was signed."""
        try:
            whole = jwt.decode_complete(token, self._secret, algorithms=["HS256"], options=_CHECKS)
        except jwt.InvalidAlgorithmError:
            raise BadToken("the token is not signed with HS256") from None
        except jwt.InvalidSignatureError:
            raise BadToken("the token was changed, or signed with another secret") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise BadToken("this is no token of this server") from None
        # Base64 has several spellings for the same bytes; of each token only one is right.
        if base64.urlsafe_b64encode(whole["signature"]).decode().rstrip("=") != token.rpartition(".")[2]:
            raise BadToken("the token was changed")
        claims: dict[str, Any] = whole["payload"]
        if not isinstance(claims["exp"], int | float):
            raise BadToken("the token has no end")
        return claims

    def _check(self, token_id: str) -> None:
        if token_id in self._revoked:
            raise BadToken("the token was revoked")

    def _user(self, claims: Mapping[str, Any], expires_at: float | None, token_id: str) -> User:
        user = User(
            claims["sub"], roles=tuple(_claim(claims, "roles") or ()), email=_claim(claims, "email") or "",
            parent=_claim(claims, "parent") or "", expires_at=expires_at, token_id=token_id,
        )  # fmt: skip
        user = _with_scope(user, claims.get("scope") or "")
        return replace(user, workspaces={}) if user.anonymous and self._auth == "token" else user


def _id(token: str) -> str:
    return blake2s(token.encode(), digest_size=16).hexdigest()


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, whatever namespace is before it."""
    return next((value for key, value in claims.items() if key.rpartition("/")[2] == name), None)


def _scope(user: User) -> str:
    """What a user may do, in one line.

    Raises:
        ValueError: a name would be read as something else.
    """
    parts = [f"ws:{name}#{permission}" for name, permission in user.workspaces.items()]
    parts += [f"cid:{user.client_id}"] if user.client_id else []
    parts += [f"wid:{user.current_workspace}"] if user.current_workspace else []
    parts += user.extra_scopes
    wrong = [part for part in user.extra_scopes if part.partition(":")[0] in _RESERVED]
    wrong += [part for part in parts if part.split() != [part]]
    if wrong:
        raise ValueError(f"{wrong[0]!r} cannot be part of a token: it has white space, or begins as what is not free")
    return " ".join(parts)


def _with_scope(user: User, scope: str) -> User:
    workspaces, client_id, current_workspace, extra_scopes = {}, "", "", []
    for part in scope.split():
        match part.partition(":"):
            case ("ws", ":", grant):
                name, _, permission = grant.rpartition("#")
                workspaces[name] = permission
            case ("cid", ":", client_id):
                pass
            case ("wid", ":", current_workspace):
                pass
            case _:
                extra_scopes.append(part)
    return replace(
        user, workspaces=workspaces, client_id=client_id, current_workspace=current_workspace,
        extra_scopes=tuple(extra_scopes),
    )  # fmt: skip


def from_header(authorization: bytes, cookie: bytes) -> str:
    """Return the token of an `Authorization` field, else of the cookie `access_token`; "" if there is none.

    What cannot be understood is returned as it is, so that whoever reads it refuses it.
    """
    text = authorization.decode("latin-1").strip()
    scheme, _, value = text.partition(" ")
    match scheme.lower():
        case "":
            return _from_cookie(cookie.decode("latin-1"))
        case "bearer" if value:
            return value.strip()
        case "basic":
            return _password(value) or text
    return text


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""


def _from_cookie(cookies: str) -> str:
    pairs = (pair.strip().partition("=") for pair in cookies.split(";"))
    return next((value.strip('"') for name, _, value in pairs if name == "access_token"), "")
