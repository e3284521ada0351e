"""An app as a manifest, the way it is installed and told of. Its fields have the names of the labels."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from dockscale.core.catalog import Template
from dockscale.core.spec import INSTALLED, OWN_LABELS, PREFIX, SOURCE_HASH, AppSpec, SpecError

IMAGE = "image"
"""No label: what the app's image is made from."""
SOURCE, FILES = "source", "files"
"""No labels either: a program, and files beside it."""
RUNTIME = "runtime"
IMAGE_TYPES = frozenset({"asgi", "docker", "http", "rpc"})
"""Types of apps whose `source` may be the name of an image."""

Tell = Callable[[str, str], object]
"""Told how an installation goes: `info`, `success` or `warning`, and a sentence."""

ONLY_TOLD = frozenset(
    {
        "api_version", "attachments", "authors", "badges", "covers", "documentation", "format_version", "git_repo",
        "icon", "id", "license", "links", "maintainers", "source_hash", "tags",
    }
)  # fmt: skip
"""Fields of Hypha's manifests that change nothing. They are accepted and not kept."""


def labels_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Write a manifest as labels. They are not judged here: a field that does not exist becomes such a label.

    Fields without a value are left out. Of Hypha's own fields, so are those that are off.

    Raises:
        SpecError: it would set what dockscale writes itself.
    """
    kept = {
        field: value
        for field, value in manifest.items()
        if field not in ONLY_TOLD | {IMAGE} and (value or field in AppSpec.model_fields)
    }
    labels = dict(_flat(kept, PREFIX))
    if own := sorted(OWN_LABELS & labels.keys()):
        raise SpecError([f"{label.removeprefix(PREFIX)} is set by dockscale itself; leave it out" for label in own])
    return labels


def split(manifest: Mapping[str, Any]) -> tuple[str, Sequence[Mapping[str, Any]], dict[str, Any]]:
    """Take the program out of a manifest: its source, its files, and the rest.

    Raises:
        SpecError: there is an image as well.
    """
    rest = dict(manifest)
    source, files = rest.pop(SOURCE, None), rest.pop(FILES, None) or ()
    if isinstance(source, str) and len(source.split()) == 1 and rest.get("type") in IMAGE_TYPES:
        rest[IMAGE], source = rest.get(IMAGE) or source, None
    if source and rest.get(RUNTIME):
        rest.pop(IMAGE, None)  # it is a program's manifest as it is told: there, the image is its runtime's
    if (source or files) and rest.get(IMAGE):
        raise SpecError(["source and image are two ways to say what runs: give one of them"])
    return source or "", files, rest


def _flat(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    for field, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{field}.")
        elif value is not None:
            yield f"{prefix}{field}", _text(value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def warnings(manifest: Mapping[str, Any]) -> list[str]:
    """Say which fields change nothing."""
    return [f"{field} is accepted and not kept" for field in sorted(ONLY_TOLD & manifest.keys()) if manifest[field]]


def by_field(problems: Iterable[str]) -> list[str]:
    """Turn sentences about labels into sentences about the fields of a manifest."""
    return [problem.removeprefix("label ").replace(PREFIX, "") for problem in problems]


def manifest_of(spec: AppSpec, template: Template) -> dict[str, Any]:
    """Tell of an app, all fields filled in. `image` is empty if it was not installed but labelled by hand.

    For a program, it is the runtime's, and `source_hash` tells which program it is.
    """
    made_of = {IMAGE: template.labels.get(INSTALLED, ""), "source_hash": template.labels.get(SOURCE_HASH, "")}
    return {"id": spec.app_id, **spec.model_dump(mode="json"), **made_of}
