"""What a source and its manifest mean: the runtime that runs it, its files and the packages it needs."""

import ast
import base64
import datetime
import difflib
import hashlib
import json
import re
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import yaml

from dockscale.core.spec import SpecError

MOST_SOURCE_BYTES = 10 * 2**20
"""Bytes of a source and all files given with it."""
_MOST_FILES = 1000
_MOST_CONFIG = 64 * 2**10  # characters
_MOST_PARSED = 128 * 2**10  # characters that are looked at for the language; Python takes 400 bytes of memory for each

JAVASCRIPT, PYTHON, PAGES = "javascript", "python", "pages"
ENTRIES = {JAVASCRIPT: "main.js", PYTHON: "main.py", PAGES: "index.html"}
"""Runtime → the file that it runs."""
ABOUT = "app.json"
"""The file beside them that tells the runtime of the app; no program brings its own."""

FUNCTIONS = "functions"
TYPES = {
    "asgi": (PYTHON,),
    FUNCTIONS: (JAVASCRIPT, PYTHON),
    "javascript": (JAVASCRIPT,),
    "python": (PYTHON,),
    "web-python": (PYTHON, PAGES),
    "web-worker": (JAVASCRIPT, PYTHON, PAGES),
    "window": (JAVASCRIPT, PYTHON, PAGES),
}
"""Types of programs → runtimes for them. Plain source is for the first, but that of `functions` is judged."""

_CALLED = {JAVASCRIPT: "JavaScript", PYTHON: "Python", PAGES: "a page"}
_LANGUAGES = {"javascript": JAVASCRIPT, "js": JAVASCRIPT, "python": PYTHON, "py": PYTHON}
_ATTRIBUTES = {"config": {"lang"}, "manifest": {"lang"}, "script": {"lang"}, "file": {"name", "format"}}

_URL = re.compile(r"\s*[a-z][a-z0-9+.-]*://\S*\s*", re.I)
_BLANK = re.compile(r"(?>\s+|<!--.*?-->)*+", re.S)
_PAGE = re.compile(r"<(?:!doctype\s+html|html)\b", re.I)
_OPENING = re.compile(r"""<([a-z]+)\b((?:[^>"']|"[^"]*"|'[^']*')*+)>""", re.I)
_ATTRIBUTE = re.compile(r"""([\w-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"']+)))?""")

_TELLING = re.compile(
    r"""^(?:
        (?P<python> (?:async[ ])?def[ ]\w | class[ ]\w[^{\n]*: | from[ ][\w.]+[ ]import\b
          | import[ ][\w.]+[ \t\r]*(?:$|,|;|\#|as[ ]) | @\w | \#(?!!))
      | (?P<javascript> (?:const|let|var|export)[ ] | (?:async[ ])?function\b | class[ ]\w[^:\n]*\{
          | import[ ]*["'{*(] | import[ ]\w+[ ]from\b | //|/\*)
    )""",
    re.M | re.X,
)
"""Beginnings of lines that only one of the two languages has."""
_ONLY_PYTHON = (ast.Lambda, ast.comprehension, ast.JoinedStr)

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VERSION = r"(?:===?|[!~<>]=|[<>])[ \t]*[A-Za-z0-9.*+!_-]+"
_VERSIONS = rf"{_VERSION}(?:[ \t]*,[ \t]*{_VERSION})*"
_REQUIREMENT = re.compile(
    rf"""({_NAME})[ \t]*
    (?:\[[ \t]*{_NAME}(?:[ \t]*,[ \t]*{_NAME})*[ \t]*\][ \t]*)?
    (?:{_VERSIONS}|\([ \t]*{_VERSIONS}[ \t]*\)|@[ \t]*https?://[^\s;]+)?
    (?:[ \t]*;[ \t]*[A-Za-z("'][\w \t."'<>=!~()-]*)?""",
    re.A | re.X,
)
_MOST_REQUIREMENT = 500  # characters
_BETWEEN_REQUIREMENTS = re.compile(r"[\r\n]+|,(?![^\[\n]*\])(?!\s*[<>=!~])")
_REMARK = re.compile(r"^[ \t]*(?://|#).*", re.M)
_ASKING = re.compile(
    r"""(?:\bmicropip\.install|\bloadPackage)\s*\(\s*(?:requirements\s*=\s*)?
    (\[(?:[\s,]|"[^"\n]*"|'[^'\n]*')*+\]|"[^"\n]*"|'[^'\n]*')""",
    re.X,
)
_LITERAL = re.compile(r""""([^"\n]*)"|'([^'\n]*)'""")
_OF_THE_RUNTIME = frozenset({"distutils", "hashlib", "lzma", "micropip", "pyodide", "pyodide-http", "sqlite3", "ssl"})
"""What pages ask for that CPython has, or that the runtime plays itself."""
_CLIENT = "hypha-rpc"


@dataclass(frozen=True)
class Program:
    runtime: str
    """`javascript`, `python` or `pages`."""
    entry: str
    files: Mapping[str, bytes]
    """The entry and all other files, by their paths in the app's folder."""
    requirements: tuple[str, ...]
    """For pip."""
    env: Mapping[str, str]
    """For its environment."""
    manifest: Mapping[str, Any]
    """What the source says of itself, under what was given with it. `type` is filled in; what is told above is not."""


@dataclass(frozen=True)
class _Source:
    """A source taken apart. `runtime` is empty if it does not say what it is written in."""

    text: str
    runtime: str = ""
    manifest: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class _Element:
    name: str
    attributes: Mapping[str, str]
    body: str
    line: int

    def __str__(self) -> str:
        return f"<{self.name}> in line {self.line}"

    def text(self) -> str:
        """Give what is between its tags, without the indentation of the whole and the rest of the tags' lines."""
        return re.sub(r"\n[ \t]*\Z", "\n", textwrap.dedent(re.sub(r"\A[ \t]*\r?\n", "", self.body)))


def read(source: str, manifest: Mapping[str, Any], files: Sequence[Mapping[str, Any]] = ()) -> Program:
    """Read a source. `files` are maps of `name`, `content` and `format`, which is `text`, `base64` or `json`.

    Raises:
        SpecError: with a sentence for all that is wrong.
    """
    _judge(source)
    given = _plain(manifest, "the manifest")
    parts = _taken_apart(source.removeprefix("\ufeff"))
    said = _under(parts.manifest, given)
    kind, runtime = _kind_and_runtime(said.pop("type", None), parts)
    entry = ENTRIES[runtime]
    if len(parts.files) + len(files) > _MOST_FILES:
        raise SpecError([f"there are more than {_MOST_FILES} files"])
    contents, problems = _contents([*parts.files, *files], entry)
    requirements, wrong = _requirements(said.pop("requirements", None), runtime, parts.text)
    env, unfit = _environment(said.pop("env", None))
    contents[entry] = _utf8(parts.text)
    if sum(map(len, contents.values())) > MOST_SOURCE_BYTES:
        problems.append(_too_large())
    if problems or wrong or unfit:
        raise SpecError(problems + wrong + unfit)
    return Program(runtime, entry, contents, requirements, env, {**said, "type": kind})


def outline(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a manifest says of a program that is not there, as `Program.manifest` has it, and its runtime.

    Raises:
        SpecError: its type, its requirements or its environment cannot be.
    """
    said = _plain(manifest, "the manifest")
    kind, runtime = _kind_and_runtime(said.pop("type", None), _Source(""))
    _, problems = _requirements(said.pop("requirements", None), runtime, "")
    _, unfit = _environment(said.pop("env", None))
    if problems or unfit:
        raise SpecError(problems + unfit)
    return {**said, "type": kind, "runtime": runtime}


def digest(program: Program) -> str:
    """Name a program by its content: two that are equal have one name, in whatever order their parts came."""
    content = {
        "runtime": program.runtime,
        "entry": program.entry,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in program.files.items()},
        "requirements": sorted(program.requirements),
        "env": program.env,
        "manifest": program.manifest,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _judge(source: str) -> None:
    """Refuse what is no source at all."""
    if not isinstance(source, str) or not source.strip():
        raise SpecError(["there is no source: give the program itself, as text"])
    if len(source) > MOST_SOURCE_BYTES:
        raise SpecError([_too_large()])
    if _URL.fullmatch(source):
        raise SpecError(["the source is a URL; give the source itself"])
    try:
        _utf8(source)
    except ValueError as error:
        raise SpecError([f"the source {error}"]) from None


def _too_large() -> str:
    return f"the source and its files are larger than {MOST_SOURCE_BYTES // 2**20} MiB"


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"is no Unicode text: half a character at position {error.start}") from None


def _plain(manifest: object, what: str) -> dict[str, Any]:
    """Make a manifest of what JSON knows; YAML's dates become text."""
    if not isinstance(manifest, Mapping):
        raise SpecError([f"{what} must be a map of fields, such as name and type"])
    try:
        text = json.dumps(dict(manifest), default=_date, ensure_ascii=False)
        return dict(json.loads(_utf8(text)))
    except (TypeError, ValueError, RecursionError):
        raise SpecError([f"{what} must hold plain values only: text, numbers, true, false, lists and maps"]) from None


def _date(value: object) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise TypeError


def _under(said: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Lay what was given over what the source says, section by section."""
    merged = dict(said)
    for name, value in given.items():
        below = merged.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[name] = below | value
        elif value is not None:
            merged[name] = value
    return merged


def _kind_and_runtime(given: object, source: _Source) -> tuple[str, str]:
    kind = str(given or "").strip().lower()
    if kind and kind not in TYPES:
        near = difflib.get_close_matches(kind, TYPES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise SpecError([f"type = {given!r} is unknown; {hint}Known are {', '.join(TYPES)}"])
    judged = kind in ("", FUNCTIONS)
    runtime = source.runtime or (_language(source.text) if judged else TYPES[kind][0])
    kind = kind or ("python" if runtime == PYTHON else "window")
    if runtime not in TYPES[kind]:
        fitting = ", ".join(name for name, runtimes in TYPES.items() if runtime in runtimes)
        raise SpecError([f"type = {kind!r} does not fit: the source is {_CALLED[runtime]}, whose types are {fitting}"])
    return kind, runtime


def _language(text: str) -> str:
    """Tell Python from JavaScript. Where both could be, it is JavaScript: `api.export({"a": b})` is no whole Python."""
    tree = _as_python(text)
    if tree is None:
        # So that who made an error is told of it in the language they wrote in.
        telling = _TELLING.search(text, 0, _MOST_PARSED)
        return PYTHON if telling and telling["python"] else JAVASCRIPT
    only_python = any(not isinstance(statement, ast.Expr) for statement in tree.body) or any(
        isinstance(node, _ONLY_PYTHON) for node in ast.walk(tree)
    )
    return PYTHON if only_python else JAVASCRIPT


def _as_python(text: str) -> ast.Module | None:
    if len(text) > _MOST_PARSED:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the program's own strings and comparisons
            return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _taken_apart(source: str) -> _Source:
    start = _after_blank(source, 0)
    if _PAGE.match(source, start):
        return _Source(source, PAGES)
    if not source.startswith("<", start):
        return _Source(source)
    elements = list(_elements(source))
    about = _only([each for each in elements if each.name in ("config", "manifest")])
    script = _only([each for each in elements if each.name == "script"])
    if script is None or not script.body.strip():
        raise SpecError([f"{script} is empty" if script else "the source has no <script>"])
    files = [{**each.attributes, "content": each.text()} for each in elements if each.name == "file"]
    return _Source(script.text(), _said_language(script), _config(about) if about else {}, files)


def _after_blank(source: str, at: int) -> int:
    blank = _BLANK.match(source, at)
    return blank.end() if blank else at


def _elements(source: str) -> Iterator[_Element]:
    """Find the elements at the top. What is in them is only searched for their end."""
    at, line, counted = 0, 1, 0
    while (at := _after_blank(source, at)) < len(source):
        line, counted = line + source.count("\n", counted, at), at
        opening = _OPENING.match(source, at)
        if opening is None or (name := opening[1].lower()) not in _ATTRIBUTES:
            found = f"<{opening[1]}>" if opening else repr(source[at : at + 20])
            known = "<config>, <manifest>, <script> and <file>"
            raise SpecError([f"line {line} begins with {found}, where {known} are known; a page begins with <html>"])
        closing = re.compile(rf"</{name}\s*>", re.I).search(source, opening.end())
        if closing is None:
            raise SpecError([f"<{name}> in line {line} has no </{name}>"])
        attributes = {each[1].lower(): each[2] or each[3] or each[4] or "" for each in _ATTRIBUTE.finditer(opening[2])}
        element = _Element(name, attributes, source[opening.end() : closing.start()], line)
        if unknown := attributes.keys() - _ATTRIBUTES[name]:
            raise SpecError([f"{element} has an attribute that is unknown: {min(unknown)}"])
        if name == "file" and not attributes.get("name"):
            raise SpecError([f"{element} has no name"])
        yield element
        at = closing.end()


def _only(elements: Sequence[_Element]) -> _Element | None:
    if len(elements) > 1:
        raise SpecError([f"{elements[1]} is one too many: there is {elements[0]} already"])
    return elements[0] if elements else None


def _said_language(script: _Element) -> str:
    said = script.attributes.get("lang", "")
    if said and said.lower() not in _LANGUAGES:
        raise SpecError([f"{script}: lang = {said!r} is unknown; write javascript or python"])
    return _LANGUAGES.get(said.lower(), "")


def _config(element: _Element) -> dict[str, Any]:
    said = element.attributes.get("lang", "").lower()
    if said not in ("", "json", "yaml"):
        raise SpecError([f"{element}: lang = {said!r} is unknown; write json or yaml"])
    if len(element.body) > _MOST_CONFIG:
        raise SpecError([f"{element} is larger than {_MOST_CONFIG // 2**10} KiB"])
    try:
        value = _yaml(element.body) if said == "yaml" else _json(element.body, or_yaml=not said)
    except json.JSONDecodeError as error:
        raise SpecError([f"{element} is no JSON: line {element.line + error.lineno - 1}: {error.msg}"]) from None
    except yaml.MarkedYAMLError as error:
        line = element.line + (error.problem_mark.line if error.problem_mark else 0)
        raise SpecError([f"{element} is no YAML: line {line}: {error.problem}"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError([f"{element} cannot be read: {str(error).partition(chr(10))[0]}"]) from None
    return _plain(value, str(element))


def _json(text: str, or_yaml: bool) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if not or_yaml:
            raise
        return _yaml(text)


def _yaml(text: str) -> object:
    for event in yaml.parse(text, yaml.SafeLoader):
        # A few lines of aliases can be billions of values, and tags make values that are not plain.
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise ValueError("aliases (*) and tags (!) are not read")
    return yaml.safe_load(text)


def _contents(files: Sequence[Mapping[str, Any]], entry: str) -> tuple[dict[str, bytes], list[str]]:
    """Read files, and say what is wrong with each that cannot be read."""
    contents: dict[str, bytes] = {}
    problems: list[str] = []
    for number, file in enumerate(files, 1):
        name = file.get("name") if isinstance(file, Mapping) else None
        if not isinstance(name, str):
            problems.append(f"file {number} must have a name and content")
            continue
        try:
            _judge_name(name, {entry, ABOUT})
            if name in contents:
                raise ValueError("is given twice")
            contents[name] = _content(file)
        except ValueError as error:
            problems.append(f"file {name!r} {error}")
    taken = {*contents, entry, ABOUT}
    for name in contents:
        if above := {str(folder) for folder in PurePosixPath(name).parents} & taken:
            problems.append(f"file {name!r} cannot be below {min(above)}, which is a file")
    return contents, problems


def _judge_name(name: str, taken: set[str]) -> None:
    if name in taken:
        raise ValueError("is dockscale's own; give it another name")
    if {"", ".", ".."} & set(name.split("/")) or "\\" in name or not name.isprintable() or len(name.encode()) > 255:
        raise ValueError("must be named by a path such as data/x.txt: relative, without . and .., at most 255 bytes")


def _content(file: Mapping[str, Any]) -> bytes:
    if unknown := file.keys() - {"name", "content", "format"}:
        raise ValueError(f"has a field that is unknown: {min(map(str, unknown))}")
    content, form = file.get("content"), file.get("format") or "text"
    match form, content:
        case "json", None:
            raise ValueError("has no content")
        case "json", _:
            return _as_json(content)
        case "text", str():
            return _utf8(content)
        case "base64", str():
            return _from_base64(content)
        case "text" | "base64", _:
            raise ValueError("must have text as its content")
        case _:
            raise ValueError(f"has an unknown format {form!r}; write text, base64 or json")


def _as_json(content: object) -> bytes:
    """Write a value as JSON; text is taken for JSON already."""
    try:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, indent=2)
        json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON: {error}") from None
    return _utf8(text)


def _from_base64(content: str) -> bytes:
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except ValueError as error:
        raise ValueError(f"is no base64: {error}") from None


def _requirements(given: object, runtime: str, text: str) -> tuple[tuple[str, ...], list[str]]:
    """Give what pip shall install, and say what of it is no requirement."""
    listed = _BETWEEN_REQUIREMENTS.split(given) if isinstance(given, str) else given or []
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        return (), ["requirements must be a list of texts such as fastapi>=0.110"]
    asked = [stripped for each in listed if (stripped := each.strip()) and not stripped.startswith("#")]
    if asked and runtime == JAVASCRIPT:
        return (), ["only Python programs have requirements; this one is JavaScript"]
    wrong = [each for each in asked if _required(each) is None]
    if runtime == PAGES:
        asked += _asked_by(text)
    return tuple(dict.fromkeys(asked)), [
        f"requirement {each!r} cannot be followed; write name, name==1.2 or name[extra]>=1,<2" for each in wrong
    ]


def _environment(given: object) -> tuple[dict[str, str], list[str]]:
    """Give the variables for a program's environment, and say which of them cannot be."""
    if given is None:
        return {}, []
    if not isinstance(given, dict):
        return {}, ["env must be a map of names and texts"]
    variables = {name: str(value) for name, value in given.items() if value is not None}
    return variables, [
        f"env {name!r} cannot be set: a name is letters, digits and _, not HYPHA_…, and a value has no zero bytes"
        for name, value in variables.items()
        if not re.fullmatch(r"(?!HYPHA_)[A-Za-z_]\w*", name, re.A) or "\0" in value
    ]


def _required(requirement: str) -> str | None:
    """Give the name of the package that is required, in the form in which names are compared."""
    match = _REQUIREMENT.fullmatch(requirement) if len(requirement) <= _MOST_REQUIREMENT else None
    return re.sub(r"[-_.]+", "-", match[1]).lower() if match else None


def _asked_by(page: str) -> Iterator[str]:
    """Find what a page's scripts install when they start, so that it is there already.

    What is no requirement is left to the scripts, as is what they ask for by variables.
    """
    for asking in _ASKING.finditer(_REMARK.sub("", page)):
        for literal in _LITERAL.finditer(asking[1]):
            requirement = (literal[1] or literal[2] or "").strip()
            name = _required(requirement)
            bare = re.fullmatch(_NAME, requirement) is not None
            if name and name not in _OF_THE_RUNTIME and not (name == _CLIENT and bare) and "://" not in requirement:
                yield requirement
