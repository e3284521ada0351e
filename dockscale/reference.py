"""Reference tables, printed from the two models that hold all configuration."""

from collections.abc import Iterable
from typing import Any

from dockscale.config import Settings
from dockscale.core.spec import PREFIX, fields

Row = tuple[str, str, str]


def labels() -> list[Row]:
    """Every label: name, default, meaning."""
    first = (f"{PREFIX}enable", "–", "`true` opts in; nothing without it is ever touched.")
    return [first, *((PREFIX + name, _default(field), field.description) for name, field in fields())]


def settings() -> list[Row]:
    """Every setting of the process: environment variable, default, meaning."""
    return [
        (f"DOCKSCALE_{name.upper()}", _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def plain(rows: Iterable[Row]) -> str:
    """Rows for a terminal."""
    rows = list(rows)
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}}  {meaning.replace('`', '')} [{default}]" for name, default, meaning in rows)


def markdown(title: str, intro: str, rows: Iterable[Row]) -> str:
    """Rows as a page of the documentation."""
    lines = [
        f"| `{name}` | {f'`{default}`' if default != '–' else '–'} | {meaning} |" for name, default, meaning in rows
    ]
    return "\n".join([f"# {title}", "", intro, "", "| Name | Default | Meaning |", "|---|---|---|", *lines])


def _default(field: Any) -> str:
    default = None if field.is_required() else field.default
    if default in (None, "", (), []):
        return "–"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)
