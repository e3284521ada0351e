"""A manifest, there and back."""

from typing import Any

import pytest

from dockscale.core.catalog import Container, Image, Listing, judge
from dockscale.core.manifest import by_field, labels_of, manifest_of, warnings
from dockscale.core.spec import SpecError, parse

SEEDS: dict[str, Any] = {
    "name": "Production AI Model Server",
    "type": "rpc",
    "version": "1.0.0",
    "description": "Scalable AI model serving",
    "autoscaling": {"enabled": True, "min_instances": 2, "scale_up_threshold": 0.8, "scale_up_cooldown": 60},
    "service_selection_mode": "random",
    "startup_config": {"timeout": 30, "wait_for_service": "model", "stop_after_inactive": 3600},
}


def test_the_fields_of_a_manifest_are_the_labels() -> None:
    labels = labels_of(SEEDS | {"lazy": False, "route": {"host": ["a.example", "b.example"], "path": None}})

    assert labels["dockscale.name"] == "Production AI Model Server"
    assert labels["dockscale.autoscaling.enabled"] == "true"
    assert labels["dockscale.autoscaling.min_instances"] == "2"
    assert labels["dockscale.startup_config.wait_for_service"] == "model"
    assert labels["dockscale.lazy"] == "false"
    assert labels["dockscale.route.host"] == "a.example,b.example"
    assert "dockscale.route.path" not in labels


@pytest.mark.parametrize("more", [{}, {"type": "asgi", "port": 8000, "startup_config": {}, "route": {"path": "/shop"}}])
def test_a_manifest_that_is_told_can_be_installed_again(more: dict[str, Any]) -> None:
    spec = parse(labels_of(SEEDS | more), app_id="model", ports=())

    told = manifest_of(spec, Image("", "shop", {"dockscale.installed-from": "base:1"}))

    assert (told["id"], told["image"], told["autoscaling"]["max_instances"]) == ("model", "base:1", 10)
    assert parse(labels_of(told), app_id="", ports=()) == spec


def test_fields_of_hypha_that_change_nothing_are_not_kept_and_those_that_are_off_are_no_error() -> None:
    manifest = {"name": "x", "tags": ["a"], "documentation": "", "daemon": False, "env": {}, "image": "base:1"}

    assert labels_of(manifest) == {"dockscale.name": "x"}
    assert warnings(manifest) == ["tags is accepted and not kept"]


def test_fields_that_do_not_exist_are_told_by_their_names() -> None:
    labels = labels_of({"daemon": True, "autoscaling": {"max_instance": 3}, "port": 99999})

    with pytest.raises(SpecError) as refusal:
        parse(labels, app_id="web", ports=(80,))

    problems = by_field(refusal.value.problems)
    assert len(problems) == 3
    assert problems[0].startswith("daemon is unknown")
    assert problems[1] == "autoscaling.max_instance is unknown; did you mean autoscaling.max_instances?"
    assert problems[2].startswith("port = '99999'")


def test_what_dockscale_writes_itself_cannot_be_said() -> None:
    with pytest.raises(SpecError, match=r"installed-from is set by dockscale itself.*managed is set by"):
        labels_of({"managed": True, "installed-from": "x"})


def labelled(app_id: str, **more: str) -> dict[str, str]:
    return {"dockscale.enable": "true", "dockscale.app_id": app_id, "dockscale.port": "80", **more}


def test_an_image_is_judged_as_if_it_were_listed_last() -> None:
    route = {"dockscale.route.host": "shop.example"}
    shop = Image("sha256:1", "shop", labelled("shop", **route), created=5.0)
    box = Container("1", "box", labelled("box"))
    listing = Listing((box,), (shop,))

    assert judge(Image("", "new", labelled("new")), listing).app_id == "new"
    assert judge(Image("", "shop", labelled("other", **route)), listing).app_id == "other"
    for image in (Image("", "new", labelled("new", **route)), Image("", "new", labelled("shop"))):
        with pytest.raises(SpecError, match="is taken by"):
            judge(image, listing)
    with pytest.raises(SpecError, match="'box' is that of a labelled container"):
        judge(Image("", "new", labelled("box")), listing)
