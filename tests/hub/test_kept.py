"""The signing secret and the revoked tokens in real files, and what is said where that does not work."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dockscale.config import Settings
from dockscale.hub import kept
from dockscale.hub.kept import CannotKeep, Damaged, NoFolder, Revoked, open_kept, read_secret


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without a `.env` of whoever runs the tests, and no settings of theirs."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("DOCKSCALE_", "XDG_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "dockscale"


def settings(folder: Path | str, **more: object) -> Settings:
    return Settings.model_validate({"data_dir": str(folder), **more})


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_secret_is_made_once_and_only_its_owner_may_read_it(folder: Path) -> None:
    first = read_secret(settings(folder))
    second = read_secret(settings(folder))

    assert len(first) == 64
    assert second == first
    assert (mode(folder), mode(folder / "secret")) == (0o700, 0o600)
    assert [path.name for path in folder.iterdir()] == ["secret"]


def test_two_places_have_two_secrets(tmp_path: Path) -> None:
    assert read_secret(settings(tmp_path / "a")) != read_secret(settings(tmp_path / "b"))


def test_those_who_make_it_at_the_same_time_have_the_same_one(folder: Path) -> None:
    start = threading.Barrier(8)

    def make() -> bytes:
        start.wait()
        return read_secret(settings(folder))

    with ThreadPoolExecutor(8) as threads:
        made = {future.result() for future in [threads.submit(make) for _ in range(8)]}

    assert made == {(folder / "secret").read_bytes().strip()}


def test_a_given_secret_goes_before_the_kept_one_and_is_not_written_down(folder: Path) -> None:
    assert read_secret(settings(folder, token_secret="x" * 32)) == b"x" * 32
    assert not folder.exists()


def test_a_kept_secret_can_be_given_to_another_server(folder: Path) -> None:
    secret = read_secret(settings(folder))

    assert read_secret(settings("", token_secret=(folder / "secret").read_text().strip())) == secret


@pytest.mark.parametrize(
    ("home", "state", "expected"),
    [
        ("home", "", "home/.local/state/dockscale"),
        ("home", "here", "home/.local/state/dockscale"),
        ("home", "{tmp}/xdg", "xdg/dockscale"),
    ],
    ids=["no XDG_STATE_HOME", "one that is not absolute", "one that is"],
)
def test_without_a_folder_in_the_settings_it_is_that_of_the_user(
    home: str, state: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / home))
    monkeypatch.setenv("XDG_STATE_HOME", state.format(tmp=tmp_path))

    read_secret(Settings())

    assert (tmp_path / expected / "secret").is_file()


@pytest.mark.parametrize("content", ["", "\n", "short", " " * 40])
def test_a_kept_secret_that_is_too_short_is_refused_whoever_is_let_in(content: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "secret").write_text(content)

    for auth in ("none", "token"):
        with pytest.raises(Damaged, match=rf"{folder}/secret has \d+ bytes, .* or delete it to get a new one"):
            open_kept(settings(folder, auth=auth))


@pytest.fixture(params=["below a file", "where nobody may write", "a folder in its place"])
def unusable(request: pytest.FixtureRequest, folder: Path) -> Path:
    match request.param:
        case "below a file":
            folder.parent.mkdir()
            folder.write_text("in the way")
        case "where nobody may write":
            return Path("/proc/dockscale")
        case _:
            (folder / "secret").mkdir(parents=True)
    return folder


def test_who_asks_for_tokens_needs_a_place_for_the_secret(unusable: Path) -> None:
    with pytest.raises(NoFolder, match=f"{unusable}/secret can be neither read nor made .*DOCKSCALE_DATA_DIR"):
        open_kept(settings(unusable, auth="token"))


def test_who_asks_for_no_tokens_goes_on_with_a_secret_of_this_run_and_a_warning(unusable: Path) -> None:
    with capture_logs() as logs:
        first, revoked = open_kept(settings(unusable))
        second, _ = open_kept(settings(unusable))

    assert len(first) == len(second) == 64
    assert first != second
    assert "a" not in revoked
    assert [line["event"] for line in logs] == ["secret_not_kept"] * 2
    assert logs[0]["log_level"] == "warning"
    assert str(unusable) in logs[0]["why"]


def test_what_was_revoked_is_remembered_in_the_next_run(folder: Path) -> None:
    _, revoked = open_kept(settings(folder))
    revoked.add("a", until=200.0, now=100.0)
    revoked.add("b", until=300.0, now=100.0)

    _, again = open_kept(settings(folder))

    assert [each in again for each in "abc"] == [True, True, False]
    assert mode(folder / "revoked.json") == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["revoked.json", "secret"]


def test_what_has_expired_is_forgotten_with_the_next_one() -> None:
    revoked = Revoked()
    revoked.add("a", until=200.0, now=100.0)

    revoked.add("b", until=300.0, now=201.0)

    assert ("a" in revoked, "b" in revoked) == (False, True)


def test_a_full_list_takes_no_more_and_forgets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MOST_REVOKED", 1)
    revoked = Revoked()
    revoked.add("a", until=200.0, now=100.0)

    with pytest.raises(CannotKeep, match="1 tokens are revoked already; a new secret ends all"):
        revoked.add("b", until=300.0, now=100.0)

    assert "a" in revoked


def test_a_revocation_that_cannot_be_written_holds_for_this_run_and_is_logged(tmp_path: Path) -> None:
    _, revoked = open_kept(settings(tmp_path / "gone", token_secret="x" * 32))
    (tmp_path / "gone").write_text("in the way")

    with capture_logs() as logs:
        revoked.add("a", until=200.0, now=100.0)

    assert "a" in revoked
    assert [line["event"] for line in logs] == ["revocation_not_kept"]


@pytest.mark.parametrize("content", ["", "[]", '{"a": []}', '{"a": "soon"}', "\xff"])
def test_revocations_that_cannot_be_understood_let_nobody_in(content: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "revoked.json").write_bytes(content.encode("latin-1"))

    with pytest.raises(Damaged, match=r"revoked\.json cannot be understood"):
        open_kept(settings(folder))


def test_revocations_that_cannot_be_read_let_nobody_in(folder: Path) -> None:
    (folder / "revoked.json").mkdir(parents=True)

    with pytest.raises(Damaged, match=r"revoked\.json cannot be read"):
        open_kept(settings(folder, token_secret="x" * 32))
