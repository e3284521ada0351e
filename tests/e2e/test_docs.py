"""Every block of commands in README.md and docs/, run from top to bottom as a reader does, on the stack of `make run`.

What begins with a file's name in a comment is saved as that file. `sh` has to succeed, `console` has to print what it
shows, and a fragment of Python gets a client `api`. Blocks without a language are pictures.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.support.pages import Block, blocks, run
from tests.support.process import ROOT
from tests.support.stack import running

OWNED = {
    "docs/examples/": "tests/e2e/test_examples.py",
    "docs/production.md": "tests/e2e/test_production.py",
}
"""Page, or folder of pages → the test file that runs its blocks."""
NOT_RUN = {
    ("docs/monitoring/README.md", "scripts/compose.sh --profile monitoring"): "pulls two images from a registry",
}
"""Page and how a block begins that no test can run → why."""
OF_A_TEST = "org.dockscale.test"
"""What other tests on the same engine label."""
LEFT_OUT = (".git", ".venv", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", ".env")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def owner(page: Path) -> str | None:
    return next((test for owned, test in OWNED.items() if name(page).startswith(owned)), None)


def excused(block: Block) -> bool:
    return any(page == name(block.page) and block.code.startswith(beginning) for page, beginning in NOT_RUN)


PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
"""The README comes last, since it ends with `make stop`."""
RUN = [page for page in PAGES if owner(page) is None and blocks(page)]


@pytest.fixture(scope="module")
def clone(engine_ready: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the repository whose stack runs. What its pages make is gone in the end."""
    folder = tmp_path_factory.mktemp("docs") / "dockscale"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / ".venv").symlink_to(ROOT / ".venv")
    client = docker.from_env()
    with running(folder):
        boxes, images = labelled_boxes(client), labelled_images(client)
        yield folder
    for box in labelled_boxes(client) - boxes:
        client.containers.get(box).remove(force=True)
    for image in labelled_images(client) - images:
        client.images.remove(image)
    client.close()


def labelled_boxes(client: docker.DockerClient) -> set[str]:
    found = client.containers.list(all=True, filters={"label": "dockscale.enable=true"}, ignore_removed=True)
    return {str(box.id) for box in found if OF_A_TEST not in box.labels}


def labelled_images(client: docker.DockerClient) -> set[str]:
    found = client.images.list(filters={"label": "dockscale.enable=true"})
    return {tag for image in found for tag in image.tags if OF_A_TEST not in image.labels}


@pytest.mark.engine
@pytest.mark.parametrize("page", RUN, ids=name)
def test_a_page_does_what_it_says(page: Path, clone: Path) -> None:
    for block in blocks(page):
        if not excused(block):
            run(block, clone)


@pytest.mark.parametrize("page", RUN, ids=name)
def test_every_block_of_a_page_is_run_or_used_or_excused(page: Path) -> None:
    found = blocks(page)

    assert [block.where for block in found if not (block.known or excused(block))] == []
    assert [block.where for block in found if block.saved_as and not used(block, found)] == []


def used(block: Block, among: list[Block]) -> bool:
    """Whether commands further down name the file, or the folder, that this block is saved as."""
    top = Path(block.saved_as or "").parts[0]
    return any(each.language in ("sh", "console") and each.line > block.line and top in each.code for each in among)


def test_pages_that_other_tests_run_are_named_there() -> None:
    for owned, test in OWNED.items():
        if (ROOT / owned).exists():
            assert Path(owned).name in (ROOT / test).read_text(), f"{test} does not run {owned}"


def test_all_that_is_excused_is_there() -> None:
    for page, beginning in NOT_RUN:
        assert any(block.code.startswith(beginning) for block in blocks(ROOT / page)), f"{page}: {beginning}"
