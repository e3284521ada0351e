"""The tables of the reference, printed from the models."""

from dockscale import reference
from dockscale.config import Settings
from dockscale.core.spec import LABELS


def test_every_label_and_setting_has_a_row_and_every_row_a_meaning() -> None:
    labels, settings = reference.labels(), reference.settings()

    assert [name for name, _, _ in labels] == ["dockscale.enable", *LABELS]
    assert [name for name, _, _ in settings] == [f"DOCKSCALE_{name.upper()}" for name in Settings.model_fields]
    for name, default, meaning in labels + settings:
        assert default, name
        assert meaning.endswith((".", ")")), name
        assert "\n" not in meaning, name
        assert "|" not in meaning, f"{name}: it would end the cell"


def test_defaults_are_written_as_one_would_set_them() -> None:
    defaults = {name: default for name, default, _ in reference.labels() + reference.settings()}

    assert defaults["dockscale.lazy"] == "true"
    assert defaults["dockscale.autoscaling.scale_up_threshold"] == "0.9"
    assert defaults["dockscale.service_selection_mode"] == "random"
    assert defaults["dockscale.port"] == defaults["dockscale.route.host"] == defaults["DOCKSCALE_ENGINE"] == "–"
    assert defaults["DOCKSCALE_INTERVAL"] == "10"
    assert defaults["DOCKSCALE_PORT"] == "9527"


def test_a_page_has_its_title_what_it_is_about_and_a_table() -> None:
    page = reference.markdown("Things", "About things.", [("a.b", "–", "Nothing."), ("c", "1", "One.")])

    assert page.splitlines() == [
        "# Things",
        "",
        "About things.",
        "",
        "| Name | Default | Meaning |",
        "|---|---|---|",
        "| `a.b` | – | Nothing. |",
        "| `c` | `1` | One. |",
    ]


def test_plain_rows_are_aligned_and_without_markup() -> None:
    text = reference.plain([("a", "–", "Write `x`."), ("longer", "1", "One.")])

    assert text.splitlines() == ["a       Write x. [–]", "longer  One. [1]"]
