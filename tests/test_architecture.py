"""What docs/architecture.md promises about the code, checked on the code itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockscale import cli

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dockscale"
DOCS = ROOT / "docs"

EVERYTHING = ("*",)
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "certificate": (),
    "config": (),
    "logs": (),
    "core.schedule": (),
    "core.load": (),
    "core.spec": ("core.schedule",),
    "core.routes": ("core.spec",),
    "core.balance": ("core.spec",),
    "core.catalog": ("core.spec",),
    "core.policy": ("core.spec", "core.load"),
    "core.explain": ("core.spec", "core.load", "core.policy"),
    "core.manifest": ("core.spec", "core.catalog"),
    "core.program": ("core.spec",),
    "core.pool": ("core.spec", "core.load", "core.balance"),
    "core.history": ("core.load",),
    "core.app": (
        "core.spec",
        "core.load",
        "core.balance",
        "core.catalog",
        "core.history",
        "core.policy",
        "core.pool",
    ),
    "core.host": ("core.app", "core.load", "core.pool"),
    "engine": ("core.catalog",),
    "engine.*": ("core.catalog", "core.spec", "engine"),
    "probe": (),
    "reach": ("engine",),
    "scrape": (),
    "claim": ("core",),
    "registry": ("core", "engine"),
    "watch": ("core",),
    "follow": ("core", "engine", "watch"),
    "runtimes": ("core", "engine"),
    "programs": ("claim", "core", "engine", "runtimes"),
    "life": ("core", "engine", "probe"),
    "scaler": ("core", "engine", "life", "scrape"),
    "control": ("claim", "core", "engine", "follow", "programs", "registry", "watch"),
    "proxy.*": ("core", "claim", "registry", "proxy"),
    "admin.*": ("", "admin", "claim", "control", "core", "engine", "follow", "programs", "watch"),
    "hub.kept": ("config",),
    "hub.tokens": ("config", "hub.kept"),
    "hub.controller": ("control", "core", "hub"),
    "hub.rpc": ("claim", "config", "control", "core", "hub"),
    "hub.*": ("core", "claim", "config", "hub"),
    "metrics": ("core", "registry", ""),
    "reference": ("core.spec", "config"),
    "doctor": ("certificate", "config", "core.spec"),
    "cli": ("", "cli.show"),
    "cli.*": ("cli", "config", "core.spec", "doctor", "hub.kept", "hub.tokens", "logs", "reference", "server"),
    "server": EVERYTHING,
}
"""Module → what it may import from dockscale, itself and what is below it. "" is the package: its `__version__`."""

ONLY_IN = {
    "aiodocker": {"engine.docker"},
    "cronsim": {"core.schedule"},
    "docker": {"doctor"},
    "jwt": {"hub.tokens"},
    "msgpack": {"hub.wire"},
    "websockets": {"hub.frames", "hub.socket"},
    "prometheus_client": {"scrape"},
    "yaml": {"core.program"},
}
NOT_IN_CORE = {"asyncio", "time", "random", "aiohttp", "structlog"}
OWN_TASKS = {
    "proxy.exchange": "a request's wait for a place or a connection, cancelled when its client goes",
    "proxy.local": "the answer to a request, cancelled when its client goes",
    "hub.socket": "the question whether another client is still alive, cancelled when the connection ends",
    "proxy.waiting": "who stands in line for a page, cancelled when dockscale ends",
    "proxy.listener": "one connection's acceptance; the listener keeps it until it is done",
    "admin.api": "an install whose steps are told, which the request for it waits for",
    "follow": "the lines of one instance, cancelled when the reader goes",
    "engine.docker": "one connection's event stream, cancelled in the same function",
    "engine.memory": "a container's boot and end, which outlive the calls that begin them, as those of a container do",
}
SEEN_FROM_OUTSIDE = {
    "admin.api": "test_admin.py",
    "admin.guards": "test_admin.py",
    "admin.page": "test_admin.py",
    "certificate": "test_tls.py",
    "admin.shapes": "test_openapi.py",
    "cli.act": "test_cli.py",
    "cli.chosen": "test_config.py",
    "cli.follow": "test_verbs.py",
    "cli.host": "test_cli.py",
    "cli.install": "test_cli.py",
    "cli.logs": "test_cli.py",
    "cli.look": "test_cli.py",
    "cli.names": "test_cli.py",
    "cli.serve": "test_server.py",
    "cli.top": "test_terminal.py",
    "hub.apps": "hub/test_calls.py",
    "hub.asgi": "hub/test_asgi.py",
    "hub.browser": "hub/test_gateway.py",
    "hub.calls": "hub/test_calls.py",
    "hub.clients": "hub/test_hub.py",
    "hub.collected": "hub/test_asks.py",
    "hub.controller": "hub/test_controller.py",
    "hub.gateway": "hub/test_gateway.py",
    "hub.http_apps": "hub/test_http_apps.py",
    "hub.hub": "hub/test_hub.py",
    "hub.instances": "hub/test_calls.py",
    "hub.local": "hub/test_hub.py",
    "hub.manager": "hub/test_manager.py",
    "hub.rpc": "hub/test_calls.py",
    "hub.services": "hub/test_manager.py",
    "hub.socket": "hub/test_socket.py",
    "hub.stream": "hub/test_stream.py",
    "hub.web": "hub/test_gateway.py",
    "life": "test_scaler.py",
    "logs": "test_logs.py",
    "proxy.entry": "test_proxy.py",
    "proxy.exchange": "test_proxy.py",
    "proxy.fields": "test_framing.py",
    "proxy.listener": "test_slow_and_broken.py",
    "proxy.newcomer": "test_registry.py",
    "proxy.peer": "test_slow_and_broken.py",
    "proxy.replies": "test_proxy.py",
    "proxy.tls": "test_tls.py",
    "proxy.tunnel": "test_proxy.py",
    "proxy.upstream": "test_slow_and_broken.py",
    "proxy.waiting": "test_waiting.py",
    "proxy.wire": "test_framing.py",
    "registry": "test_registry.py",
    "scaler": "test_scaler.py",
}
"""Modules that are tested through a running dockscale, and where."""


def module_of(path: Path) -> str:
    """Name a file as the tables do: without `dockscale.`, a package as itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


CODE = {module_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = [module for module in CODE if module]


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that a file imports, wherever in the file and whenever."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix("dockscale.") in CODE else node.module


def of_dockscale(tree: ast.AST) -> set[str]:
    names = {name for name in imported(tree) if name.partition(".")[0] == "dockscale"}
    return {name.removeprefix("dockscale").removeprefix(".") for name in names}


def is_within(module: str, prefix: str) -> bool:
    prefix = prefix.removesuffix(".*")
    return module == prefix or (bool(prefix) and module.startswith(f"{prefix}."))


def row_of(module: str, rows: dict[str, tuple[str, ...]]) -> str | None:
    """The row about a module: its own, else that of what it is in."""
    wildcard = f"{module.rpartition('.')[0]}.*"
    return next((name for name in (module, wildcard, f"{module}.*") if name in rows), None)


def table(heading: str, text: str) -> list[list[str]]:
    """Cells of the rows below a table's head, or below a heading, up to the next line that is no row."""
    lines = text.splitlines()
    at = next((number for number, line in enumerate(lines) if heading in line), None)
    if at is None:
        return []
    if not lines[at].startswith("|"):
        at = next(number for number, line in enumerate(lines[at:], at) if line.startswith("|"))
    rows = []
    for line in lines[at + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def quoted(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def defined(tree: ast.AST) -> set[str]:
    """Names that a file defines at its top, and `Class.member` of its classes."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.ClassDef(name=name):
                found |= {name} | {f"{name}.{member}" for member in defined(node)}
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Assign(targets=targets):
                found |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


@pytest.fixture(scope="module")
def architecture() -> str:
    return (DOCS / "architecture.md").read_text()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_row_allows(module: str) -> None:
    tree = CODE[module]
    if not of_dockscale(tree):
        return
    row = row_of(module, MAY_IMPORT)

    assert row is not None, f"{module} imports from dockscale and has no row in MAY_IMPORT"
    allowed = MAY_IMPORT[row]
    wrong = {name for name in of_dockscale(tree) if not any(is_within(name, prefix) for prefix in allowed)}
    assert allowed == EVERYTHING or not wrong


def test_no_row_allows_what_nobody_needs() -> None:
    used: dict[str, set[str]] = {}
    for module in MODULES:
        used.setdefault(row_of(module, MAY_IMPORT) or module, set()).update(of_dockscale(CODE[module]))

    unneeded = {
        (row, prefix)
        for row, allowed in MAY_IMPORT.items()
        if allowed != EVERYTHING
        for prefix in allowed
        if not any(is_within(name, prefix) for name in used[row])
    }
    assert unneeded == set()


def test_imports_make_no_circle() -> None:
    done: set[str] = set()
    rest = {module: of_dockscale(CODE[module]) - {""} for module in MODULES}
    while free := [module for module, needs in rest.items() if needs <= done]:
        done.update(free)
        rest = {module: needs for module, needs in rest.items() if module not in done}

    assert rest == {}


def test_the_documents_import_table_says_what_the_code_does(architecture: str) -> None:
    rows = {name: row[1] for row in table("| Module | May import", architecture) for name in quoted(row[0])}
    cells = {name: quoted(cell) for name, cell in rows.items()}
    assert rows, "docs/architecture.md has a table `| Module | May import from dockscale |`"

    unknown = {name for name in cells if not any(is_within(module, name) for module in MODULES)}
    assert unknown == set()
    for module in MODULES:
        needs = of_dockscale(CODE[module]) - {""}
        if not needs:
            continue
        row = row_of(module, cells)
        assert row is not None, f"{module} has a row"
        if re.search(r"\b(everything|anything)\b", rows[row]):
            continue
        own = row.removesuffix(".*")
        wrong = {name for name in needs if not any(is_within(name, prefix) for prefix in (*cells[row], own))}
        assert wrong == set(), f"{module} imports only what {row!r} may"


@pytest.mark.parametrize("module", [module for module in MODULES if is_within(module, "core")])
def test_the_core_neither_waits_nor_asks_the_clock_or_chance(module: str) -> None:
    tree = CODE[module]

    waits = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, waits)] == []
    assert {name.partition(".")[0] for name in imported(tree)} & NOT_IN_CORE == set()


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_known_in_one_place_only(library: str) -> None:
    knowing = {
        module for module, tree in CODE.items() if library in {name.partition(".")[0] for name in imported(tree)}
    }

    assert knowing == ONLY_IN[library]


def test_only_the_server_chooses_docker() -> None:
    assert {module for module, tree in CODE.items() if "engine.docker" in of_dockscale(tree)} == {"server"}


def test_the_command_line_imports_the_server_only_when_it_serves() -> None:
    modules = [module for module in MODULES if is_within(module, "cli")]
    top = [node for module in modules for node in CODE[module].body if isinstance(node, ast.Import | ast.ImportFrom)]

    assert {module for module in modules if "server" in of_dockscale(CODE[module])} == {"cli.serve"}
    assert "server" not in of_dockscale(ast.Module([*top], []))


def test_every_task_has_an_owner() -> None:
    bare = set()
    for module, tree in CODE.items():
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(value=owner, attr="create_task" | "ensure_future")):
                    if ast.unparse(owner) not in ("tasks", "self._tasks"):
                        bare.add(module)

    assert bare == set(OWN_TASKS)


@pytest.mark.parametrize("page", ["labels", "settings"])
def test_a_reference_page_is_what_the_code_prints(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([page, "--markdown"])

    assert (DOCS / f"{page}.md").read_text() == capsys.readouterr().out, "run `make docs`"


def test_each_name_in_the_where_is_table_is_there(architecture: str) -> None:
    rows = table("Where is", architecture)
    assert rows, "docs/architecture.md has a table under `Where is`"

    missing = []
    for _, files, names in rows:
        paths = [path for file in quoted(files) for path in (ROOT / file, PACKAGE / file) if path.is_file()]
        known = {name for path in paths if path.suffix == ".py" for name in defined(ast.parse(path.read_text()))}
        missing += [file for file in quoted(files) if not ((ROOT / file).exists() or (PACKAGE / file).exists())]
        missing += [f"{files} {name}" for name in quoted(names) if name.removesuffix("()") not in known]
    assert missing == []


def test_every_module_has_a_test_that_imports_it_or_is_seen_from_outside() -> None:
    files = [*(ROOT / "tests").rglob("test_*.py")]
    tested = {name for path in files for name in of_dockscale(ast.parse(path.read_text()))}

    untested = {module for module in MODULES if module not in tested and defined(CODE[module])}
    assert untested <= set(SEEN_FROM_OUTSIDE)
    assert {name for name in SEEN_FROM_OUTSIDE.values() if not (ROOT / "tests" / name).is_file()} == set()
