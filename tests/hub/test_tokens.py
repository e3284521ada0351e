"""Who is let in as whom: tokens given, read, changed, revoked and narrowed."""

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockscale.config import Auth
from dockscale.hub.kept import Revoked
from dockscale.hub.tokens import (
    LIFE_S,
    PERMISSIONS,
    RECONNECTION_S,
    BadToken,
    Permission,
    Tokens,
    User,
    anonymous,
    from_header,
    narrow,
)
from tests.support.clock import ManualClock

SECRET = b"0123456789abcdef0123456789abcdef"
NOW = 1_800_000_000.0
ANN = User(
    "ann", {"lab": "a", "shop": "r"}, "lab", roles=("staff",), extra_scopes=("read:logs",), email="ann@example.org"
)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


def tokens(clock: ManualClock | None = None, auth: Auth = "token", file: Path | None = None) -> Tokens:
    return Tokens(SECRET, clock or ManualClock(NOW), auth, Revoked(file))


def signed(claims: dict[str, Any], secret: bytes = SECRET, **more: Any) -> str:
    return jwt.encode({"sub": "ann", "exp": NOW + 60} | claims, secret, **{"algorithm": "HS256"} | more)


@pytest.mark.parametrize(
    ("granted", "workspace", "permissions"),
    [
        ({}, "lab", ""),
        ({"lab": "r"}, "lab", "r"),
        ({"lab": "rw"}, "lab", "r rw"),
        ({"lab": "a"}, "lab", "r rw a"),
        ({"lab": "a"}, "shop", ""),
        ({"lab": "a"}, "*", ""),
        ({"*": "rw"}, "lab", "r rw"),
        ({"*": "r", "lab": "rw"}, "lab", "r rw"),
        ({"*": "rw", "lab": "r"}, "lab", "r rw"),
        ({"lab": "all"}, "lab", ""),
    ],
)
def test_a_permission_includes_the_lesser_ones_and_a_star_every_workspace(
    granted: dict[str, str], workspace: str, permissions: str
) -> None:
    user = User("ann", granted)

    assert [each for each in PERMISSIONS.values() if user.may(workspace, each)] == permissions.split()


@pytest.mark.parametrize(("auth", "may"), [("none", True), ("token", False)])
def test_who_comes_without_a_token_may_all_or_nothing(auth: Auth, may: bool) -> None:
    user = anonymous("public", auth)

    assert (user.anonymous, user.current_workspace) == (True, "public")
    assert (user.may("public", "a"), user.may("lab", "a"), user.may("public", "r")) == (may, may, may)


def test_a_user_is_shown_as_clients_of_the_hub_expect_it() -> None:
    assert ANN.shown() == {
        "id": "ann",
        "roles": ["staff"],
        "is_anonymous": False,
        "scope": {
            "current_workspace": "lab",
            "workspaces": {"lab": "a", "shop": "r"},
            "client_id": None,
            "extra_scopes": ["read:logs"],
        },
        "email": "ann@example.org",
        "parent": None,
        "expires_at": None,
        "current_workspace": "lab",
    }


def test_a_token_tells_all_about_its_user() -> None:
    user = User("ann", {"lab": "a", "*": "r"}, "lab", "cli#1", ("staff",), ("a:b", "c"), "ann@example.org", "bob")

    read = tokens().read(tokens().issue(user))

    assert read.shown() == user.shown() | {"expires_at": NOW + LIFE_S}


def test_a_token_has_the_claims_that_clients_look_for() -> None:
    claims = jwt.decode(tokens().issue(ANN), options={"verify_signature": False})

    assert (claims["sub"], claims["iat"], claims["exp"]) == ("ann", NOW, NOW + 3600)
    assert claims["scope"] == "ws:lab#a ws:shop#r wid:lab read:logs"
    assert tokens().issue(ANN) != tokens().issue(ANN)


def test_a_token_of_a_like_server_is_read() -> None:
    token = signed(
        {
            "iss": "https://example.org/", "aud": "https://example.org/api", "gty": "client-credentials",
            "iat": NOW + 5, "nbf": NOW + 5, "scope": "ws:lab#rw openid", "https://example.org/roles": ["staff"],
            "https://example.org/email": None, "https://example.org/parent": "bob", "colour": {"red": 1},
        },
        headers={"kid": "1"},
    )  # fmt: skip

    user = tokens().read(token)

    assert (user.workspaces, user.roles, user.parent) == ({"lab": "rw"}, ("staff",), "bob")
    assert (user.email, user.current_workspace, user.extra_scopes) == ("", "", ("openid",))


@given(at=st.integers(min_value=0), byte=st.integers(1, 255))
def test_a_token_with_any_byte_changed_is_refused(at: int, byte: int) -> None:
    raw = bytearray(tokens().issue(ANN).encode())
    raw[at % len(raw)] ^= byte

    with pytest.raises(BadToken):
        tokens().read(raw.decode("latin-1"))


@pytest.mark.parametrize("extra", ["=", "==", "\n", " ", "!", "A", "."])
def test_a_token_with_anything_added_is_refused(extra: str) -> None:
    token = tokens().issue(ANN)

    for changed in (token + extra, extra + token, token[:-9] + extra + token[-9:]):
        with pytest.raises(BadToken):
            tokens().read(changed)


@given(st.text(st.characters(), max_size=200) | st.from_regex(r"\A[\w-]*\.[\w-]*\.[\w-]*\Z"))
def test_what_is_no_token_is_refused_whatever_it_is(text: str) -> None:
    with pytest.raises(BadToken):
        tokens().read(text)
    with pytest.raises(BadToken):
        tokens().read_reconnection(text)


def unsigned(header: object, payload: object = None) -> str:
    parts = (header, payload or {"sub": "ann", "exp": NOW + 60, "scope": "ws:*#a"})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


DEEP = base64.urlsafe_b64encode(b"[" * 100_000).decode()


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "no token"),
        ("a.b.c", "no token"),
        (f"{DEEP}.{DEEP}.{DEEP}", "no token"),
        (unsigned({"alg": "none"}), "not signed with HS256"),
        (unsigned({"alg": "None"}), "not signed with HS256"),
        (unsigned({"alg": "RS256"}) + "AAAA", "not signed with HS256"),
        (unsigned({"alg": ["HS256"]}) + "AAAA", "not signed with HS256"),
        (unsigned({"alg": "HS256"}), "changed, or signed with another secret"),
        (unsigned([]), "no token"),
        (signed({}, algorithm="HS512", secret=SECRET * 2), "not signed with HS256"),
        (signed({}, secret=b"another secret of 32 bytes, also."), "signed with another secret"),
        (signed({"exp": NOW}), "expired"),
        (signed({"exp": NOW - 1}), "expired"),
        (signed({"exp": float("nan")}), "expired"),
        (signed({"exp": str(NOW + 60)}), "no end"),
        (signed({"kind": "reconnection"}), "coming back only"),
    ],
)
def test_a_token_that_is_not_accepted_says_why(token: str, why: str) -> None:
    with pytest.raises(BadToken, match=why):
        tokens().read(token)


@pytest.mark.parametrize("missing", ["sub", "exp"])
def test_a_token_without_a_user_or_an_end_is_refused(missing: str) -> None:
    claims = {name: value for name, value in {"sub": "ann", "exp": NOW + 60}.items() if name != missing}

    with pytest.raises(BadToken, match="no token of this server"):
        tokens().read(jwt.encode(claims, SECRET))


def test_a_token_ends_with_its_time(clock: ManualClock) -> None:
    token = tokens(clock).issue(ANN, 10)
    clock.advance(9.9)
    before = tokens(clock).read(token)
    clock.advance(0.1)

    assert before.id == "ann"
    with pytest.raises(BadToken, match="expired"):
        tokens(clock).read(token)


@pytest.mark.parametrize("expires_in", [0, -1, float("nan"), float("inf"), 1e12])
def test_a_time_that_makes_no_sense_is_refused(expires_in: float) -> None:
    with pytest.raises(ValueError, match="a token lives for more than 0"):
        tokens().issue(ANN, expires_in)


@pytest.mark.parametrize(
    "user",
    [
        User("ann", {"lab ws:*#a": "r"}),
        User("ann", client_id="a ws:*#a"),
        User("ann", current_workspace="lab\tws:*#a"),
        User("ann", extra_scopes=("ws:*#a",)),
        User("ann", extra_scopes=("x ws:*#a",)),
        User("ann", extra_scopes=("cid:other",)),
        User("ann", extra_scopes=("wid",)),
        User("ann", extra_scopes=("",)),
    ],
)
def test_no_name_can_bring_more_rights_into_a_token(user: User) -> None:
    with pytest.raises(ValueError, match="cannot be part of a token"):
        tokens().issue(user)
    with pytest.raises(ValueError, match="cannot be part of a token"):
        tokens().reconnection(user, "lab", "a")


# Revoking


def test_a_revoked_token_is_refused_and_others_are_not() -> None:
    it = tokens()
    lost, other = it.issue(ANN), it.issue(ANN)

    it.revoke(lost)

    assert it.read(other).id == "ann"
    with pytest.raises(BadToken, match="revoked"):
        it.read(lost)


def test_a_revoked_token_stays_so_after_a_restart(tmp_path: Path) -> None:
    before = tokens(file=tmp_path / "revoked.json")
    lost, other = before.issue(ANN), before.issue(ANN)
    before.revoke(lost)

    after = tokens(file=tmp_path / "revoked.json")

    assert after.read(other).id == "ann"
    with pytest.raises(BadToken, match="revoked"):
        after.read(lost)


def test_what_is_no_token_cannot_be_revoked() -> None:
    with pytest.raises(BadToken):
        tokens().revoke("a.b.c")


def test_who_came_with_a_token_that_was_revoked_cannot_come_back(clock: ManualClock) -> None:
    it = tokens(clock)
    token = it.issue(ANN)
    user = it.read(token)
    back = it.reconnection(user, "lab", "a")
    it.revoke(token)
    clock.advance(LIFE_S + 1)
    it.revoke(it.issue(ANN))  # forgets what need not be remembered any more

    with pytest.raises(BadToken, match="revoked"):
        it.read_reconnection(back)
    with pytest.raises(BadToken, match="revoked"):
        it.reconnection(user, "lab", "a")


def test_who_is_still_connected_with_an_expired_token_can_be_kept_from_coming_back(clock: ManualClock) -> None:
    it = tokens(clock)
    token = it.issue(ANN)
    user = it.read(token)
    clock.advance(10 * LIFE_S)
    back = it.reconnection(user, "lab", "a")
    it.revoke(token)
    clock.advance(RECONNECTION_S - 1)
    it.revoke(it.issue(ANN))  # forgets what need not be remembered any more

    with pytest.raises(BadToken, match="revoked"):
        it.read_reconnection(back)


# Coming back


def test_who_comes_back_is_who_it_was_also_after_its_token_has_expired(clock: ManualClock) -> None:
    it = tokens(clock)
    user = it.read(it.issue(ANN))
    back = it.reconnection(user, "shop", "a")
    clock.advance(RECONNECTION_S - 1)

    assert it.read_reconnection(back) == (user, "shop", "a")


def test_nobody_comes_back_after_too_long(clock: ManualClock) -> None:
    back = tokens(clock).reconnection(ANN, "lab", "a")
    clock.advance(RECONNECTION_S)

    with pytest.raises(BadToken, match="expired"):
        tokens(clock).read_reconnection(back)


def test_one_kind_of_token_is_never_taken_for_the_other() -> None:
    it = tokens()

    with pytest.raises(BadToken, match="coming back only"):
        it.read(it.reconnection(ANN, "lab", "a"))
    with pytest.raises(BadToken, match="not for coming back"):
        it.read_reconnection(it.issue(ANN))


def test_rights_that_all_had_end_when_tokens_are_asked_for() -> None:
    before, after = tokens(auth="none"), tokens(auth="token")
    user = anonymous("public", "none")
    back, given_on = before.reconnection(user, "public", "a"), before.issue(narrow(user, "lab", "admin"), 1e6)

    assert before.read_reconnection(back)[0].may("public", "a")
    assert before.read(given_on).may("lab", "a")
    assert not after.read_reconnection(back)[0].may("public", "r")
    assert not after.read(given_on).may("lab", "r")


# Handing on


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_an_admin_gives_any_permission_for_its_workspace_and_for_that_only(permission: str) -> None:
    child = narrow(ANN, "lab", permission, "worker", ["read:logs"])

    assert child.workspaces == {"lab": PERMISSIONS[permission]}
    assert (child.current_workspace, child.client_id, child.extra_scopes) == ("lab", "worker", ("read:logs",))
    assert (child.parent, child.roles) == ("ann", ("staff",))
    assert child.id not in ("ann", narrow(ANN, "lab").id)


@pytest.mark.parametrize(
    ("parent", "wanted", "why"),
    [
        (ANN, {"workspace": "shop", "permission": "read"}, "only an admin of the workspace 'shop'"),
        (ANN, {"workspace": "home"}, "only an admin of the workspace 'home'"),
        (ANN, {"workspace": "*"}, r"only an admin of the workspace '\*'"),
        (User("bob", {"lab": "rw"}), {"workspace": "lab", "permission": "read"}, "only an admin"),
        (anonymous("public", "token"), {"workspace": "public", "permission": "read"}, "only an admin"),
        (User("bob", {"lab": "a"}, client_id="b"), {"workspace": "lab", "client_id": "c"}, "for another client"),
        (ANN, {"workspace": "lab", "extra_scopes": ["write:logs"]}, "only give extra scopes that it has"),
    ],
)
def test_nobody_gives_what_it_has_not_got(parent: User, wanted: dict[str, Any], why: str) -> None:
    with pytest.raises(PermissionError, match=why):
        narrow(parent, **wanted)


def test_an_unknown_permission_is_told_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'all'; write one of read, read_write, admin"):
        narrow(ANN, "lab", "all")


def test_who_is_bound_to_a_client_gives_only_what_is_bound_to_it() -> None:
    assert narrow(User("bob", {"lab": "a"}, client_id="b"), "lab").client_id == "b"


def test_who_may_all_gives_any_scope_in_any_workspace() -> None:
    child = narrow(anonymous("public", "none"), "lab", "admin", extra_scopes=["write:logs"])

    assert (child.may("lab", "a"), child.may("public", "r"), child.extra_scopes) == (True, False, ("write:logs",))


names = st.sampled_from(["lab", "shop", "*"])
grants = st.dictionaries(names, st.sampled_from(["r", "rw", "a"]))


@given(grants, names, st.sampled_from(list(PERMISSIONS)), st.sampled_from(["", "b", "c"]), st.sampled_from(["", "b"]))
def test_what_is_given_is_never_more_than_who_gives_has(
    granted: dict[str, str], workspace: str, permission: str, client_id: str, bound: str
) -> None:
    parent = User("bob", granted, client_id=bound)
    try:
        child = narrow(parent, workspace, permission, client_id)
    except PermissionError:
        return

    letters: list[Permission] = ["r", "rw", "a"]
    more = [(w, p) for w in ("lab", "shop", "*") for p in letters if child.may(w, p) and not parent.may(w, p)]
    assert more == []
    assert bound in ("", child.client_id)


def test_a_token_given_on_ends_with_the_one_it_came_from_even_after_coming_back(clock: ManualClock) -> None:
    it = tokens(clock)
    user = it.read(it.issue(ANN, 100))
    again, _, _ = it.read_reconnection(it.reconnection(user, "lab", "a"))

    for each in (user, again):
        assert it.read(it.issue(narrow(each, "lab"), 1000)).expires_at == NOW + 100
        assert it.read(it.issue(narrow(each, "lab"), 10)).expires_at == NOW + 10
    clock.advance(100)
    with pytest.raises(PermissionError, match="expired"):
        it.issue(narrow(again, "lab"))


# Where a token stands in a request


def basic(credentials: str) -> bytes:
    return b"Basic " + base64.b64encode(credentials.encode())


@pytest.mark.parametrize(
    ("authorization", "cookie", "token"),
    [
        (b"", b"", ""),
        (b"Bearer a.b.c", b"", "a.b.c"),
        (b"bearer  a.b.c ", b"", "a.b.c"),
        (b"a.b.c", b"", "a.b.c"),
        (basic("ann:a.b.c"), b"", "a.b.c"),
        (basic(":a:b"), b"", "a:b"),
        (b"Bearer a.b.c", b"access_token=d.e.f", "a.b.c"),
        (b"", b"access_token=a.b.c", "a.b.c"),
        (b"", b'x=1; access_token="a.b.c"; y=2', "a.b.c"),
        (b"", b"my_access_token=a.b.c", ""),
        (b"", b"access_token", ""),
        (b"Bearer", b"access_token=a.b.c", "Bearer"),
        (b"Basic ?", b"", "Basic ?"),
        (b"Basic \xff", b"", "Basic \xff"),
        (basic("ann"), b"", basic("ann").decode()),
        (b"Digest x=1", b"", "Digest x=1"),
    ],
)
def test_a_token_is_found_in_the_request_or_what_is_wrong_there_is_left_to_be_refused(
    authorization: bytes, cookie: bytes, token: str
) -> None:
    assert from_header(authorization, cookie) == token


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_whatever_a_request_has_there_is_text(authorization: bytes, cookie: bytes) -> None:
    assert isinstance(from_header(authorization, cookie), str)
