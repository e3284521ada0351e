"""What a source and its manifest mean, and what people are told of those that mean nothing."""

import base64
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockscale.core.program import MOST_SOURCE_BYTES, TYPES, Program, digest, read
from dockscale.core.spec import SpecError

SEED = (Path(__file__).parent.parent / "seed" / "autoscaling.md").read_text()
PAGE = "<!doctype html>\n<html><body><script>{}</script></body></html>"

PIECES = [
    "<script lang='python'>",
    "<file name='a'>",
    "\n",
    *["<config>", "</config>", "</script>", "</file>", "<html>", "a:", "{", "}"],
]


def of_seed(name: str) -> str:
    """The text that the seed's scripts install."""
    found = re.search(rf'^{name} = """(.*?)"""', SEED, re.M | re.S)
    assert found is not None
    return found[1]


def refusal(source: str, manifest: dict[str, Any] | None = None, files: list[Any] | None = None) -> list[str]:
    with pytest.raises(SpecError) as error:
        read(source, manifest or {}, files or [])
    return error.value.problems


def entry_of(program: Program) -> str:
    return program.files[program.entry].decode()


@pytest.mark.parametrize(
    ("name", "kind", "runtime", "requirements"),
    [
        ("app_source", "window", "javascript", ()),
        ("function_source", "functions", "javascript", ()),
        ("ai_model_source", "window", "pages", ()),
        ("fastapi_app_source", "web-python", "pages", ("fastapi==0.104.1", "uvicorn")),
    ],
)
def test_the_seeds_programs_are_kept_to_the_byte(
    name: str, kind: str, runtime: str, requirements: tuple[str, ...]
) -> None:
    source = of_seed(name)

    program = read(source, {"name": "My App", "type": kind, "autoscaling": {"max_instances": 3}})

    assert (program.runtime, program.requirements) == (runtime, requirements)
    assert program.files == {program.entry: source.encode()}
    assert program.manifest == {"name": "My App", "type": kind, "autoscaling": {"max_instances": 3}}


@pytest.mark.parametrize(
    ("kind", "source", "entry"),
    [
        ("window", "api.export({})", "main.js"),
        ("web-worker", "api.export({})", "main.js"),
        ("javascript", "api.export({})", "main.js"),
        ("python", "print(1)", "main.py"),
        ("web-python", "print(1)", "main.py"),
        ("asgi", "app = 1", "main.py"),
        ("Web-Python ", PAGE, "index.html"),
        ("web-worker", PAGE, "index.html"),
        ("window", "\n<!-- <html> --> <!--> -->\n<HTML lang=en>", "index.html"),
        ("window", "\ufeff <!DOCTYPE  HTML>", "index.html"),
        ("", PAGE, "index.html"),
        ("", "import os", "main.py"),
        ("", "let a = 1", "main.js"),
    ],
)
def test_the_type_says_how_a_source_is_run(kind: str, source: str, entry: str) -> None:
    program = read(source, {"type": kind} if kind else {})

    assert program.entry == entry


def test_a_type_that_nobody_gave_is_found_in_the_source() -> None:
    assert read(PAGE, {}).manifest == {"type": "window"}
    assert read("import os", {"type": None}).manifest == {"type": "python"}
    assert read("let a = 1", {"type": ""}).manifest == {"type": "window"}


@pytest.mark.parametrize(
    "source",
    [
        "def hello(event):\n    return {}",
        "import json\napi.export({'a': json.loads})",
        "counter = 0\napi.export({})",
        "api.export({'default': lambda event: {'status': 200}})",
        "'''const a = 1\nfunction b() {}'''\nimport json",
        "await start()\nfrom app import x",
        "async def hello(event):\n    return {'status': 200",
        "import json, os\nconst = (",
        "import json\r\nif True print()",
        "@cached\ndef hello(event) return",
        "class Hello:\n    def world(self) -> :",
        "# what it says\nx = = 3",
        "x = '\\d'\n",
    ],
)
def test_functions_in_python_are_known_even_with_errors(source: str) -> None:
    assert read(source, {"type": "functions"}).runtime == "python"


@pytest.mark.parametrize(
    "source",
    [
        'api.export({"answer": 42})',
        'api.export({"hello": hello, "list": [1, 2]});',
        "api.export({\n  hello: async (event) => ({status: 200}),\n})",
        "// from x import y\nfunction hello() {}",
        "import { x } from 'node:fs'\nfunction hello() {",
        "import fs from 'node:fs'\napi.export({})",
        "const python = `\nimport json\ndef hello():\n    pass\n`",
        "class Hello {\n  world() {}\n}",
        "#!/usr/bin/env node\nlet a = 1",
        "console.log('hello')",
        "?",
    ],
)
def test_functions_in_javascript_are_known_even_if_they_could_be_python(source: str) -> None:
    assert read(source, {"type": "functions"}).runtime == "javascript"


def test_large_sources_are_judged_by_their_lines() -> None:
    assert read("import os\n" + "x = 1\n" * 100_000, {"type": "functions"}).runtime == "python"
    assert read("let x = 1\n" + "x = 1\n" * 100_000, {"type": "functions"}).runtime == "javascript"


DOCUMENT = """
<!-- an app -->
<config lang="yaml">
name: Calculator
type: web-python
released: 2026-01-02
startup_config: {timeout: 60, wait_for_service: calculator}
requirements: [numpy]
</config>

<script lang="python">
    from hypha_rpc import api
    if 1 < 2:
        api.export({})
</script>
<file name="data/a.txt">
    one
      <b>two</b>
</file>
<file name='b.bin' format="base64">
  AAH/
  AA==
</file>
"""


def test_a_document_holds_a_manifest_a_script_and_files() -> None:
    program = read(DOCUMENT, {})

    assert program.runtime == "python"
    assert program.files == {
        "main.py": b"from hypha_rpc import api\nif 1 < 2:\n    api.export({})\n",
        "data/a.txt": b"one\n  <b>two</b>\n",
        "b.bin": b"\0\1\xff\0",
    }
    assert program.requirements == ("numpy",)
    assert program.manifest == {
        "name": "Calculator",
        "type": "web-python",
        "released": "2026-01-02",
        "startup_config": {"timeout": 60, "wait_for_service": "calculator"},
    }


def test_what_is_given_wins_over_what_the_source_says_section_by_section() -> None:
    program = read(
        DOCUMENT, {"name": "Mine", "startup_config": {"timeout": 30}, "requirements": ["scipy"], "released": None}
    )

    assert program.manifest["name"] == "Mine"
    assert program.manifest["startup_config"] == {"timeout": 30, "wait_for_service": "calculator"}
    assert program.manifest["released"] == "2026-01-02"
    assert program.requirements == ("scipy",)


@pytest.mark.parametrize(
    "config",
    [
        '<config lang="json">{"name": "x", "lazy": true}</config>',
        "<config>{\"name\": 'x', lazy: true}</config>",
        "<manifest lang='YAML'>\n  name: x\n  lazy: yes\n</manifest>",
        "<manifest>\nname: x\nlazy: true\n</manifest>",
        '<Manifest lang=json>{"name": "x", "lazy": true}</MANIFEST >',
    ],
)
def test_a_manifest_is_json_or_yaml(config: str) -> None:
    assert read(config + "<script>let a</script>", {}).manifest == {"name": "x", "lazy": True, "type": "window"}


@pytest.mark.parametrize(
    ("kind", "script", "runtime"),
    [
        ("window", '<script lang="python">x = 1</script>', "python"),
        ("web-worker", "<script lang=js>x</script>", "javascript"),
        ("functions", '<script lang="python">x</script>', "python"),
        ("functions", "<script>x = 1</script>", "python"),
        ("asgi", "<script>x</script>", "python"),
        ("web-python", "<script lang=py>x</script>", "python"),
    ],
)
def test_the_script_says_its_language_or_the_type_does(kind: str, script: str, runtime: str) -> None:
    assert read(script, {"type": kind}).runtime == runtime


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("<config>{}</config>", "the source has no <script>"),
        ("<script>\n \n</script>", "<script> in line 1 is empty"),
        ("\n\n<script>\nlet a", "<script> in line 3 has no </script>"),
        ("<script>a</script>\n<script>b</script>", "<script> in line 2 is one too many: there is <script> in line 1"),
        ("<config>a: 1</config>\n\n<manifest>b: 1</manifest>", "<manifest> in line 3 is one too many"),
        ("<script>a</script>\nrest", "line 2 begins with 'rest', where <config>, <manifest>, <script> and <file>"),
        ("<docs>\na</docs>\n", "line 1 begins with <docs>, where"),
        ("<!-- <script>", "line 1 begins with '<!-- <script>', where"),
        ('<script src="a.js"></script>', "<script> in line 1 has an attribute that is unknown: src"),
        ('<script lang="ruby">a</script>', "<script> in line 1: lang = 'ruby' is unknown; write javascript or python"),
        ("\n<config lang=toml>a</config><script>a</script>", "<config> in line 2: lang = 'toml' is unknown"),
        ('<config lang="json">\n{"a":\n}</config><script>a</script>', "<config> in line 1 is no JSON: line 3: Expect"),
        ("\n<config>\na: 1\nb: ]\n</config><script>a</script>", "<config> in line 2 is no YAML: line 4:"),
        ("<config>a: &b [1]\nc: *b</config><script>a</script>", "<config> in line 1 cannot be read: aliases"),
        ("<config>a: !!bool maybe</config><script>a</script>", "<config> in line 1 cannot be read: aliases"),
        ("<config>a: 2026-02-31</config><script>a</script>", "<config> in line 1 cannot be read: day is out of range"),
        ("<config>[1]</config><script>a</script>", "<config> in line 1 must be a map of fields"),
        ("<config>{? [1] : 2}</config><script>a</script>", "<config> in line 1 is no YAML: line 1: found unhashable"),
        (f"<config>{'[' * 9999}</config><script>a</script>", "<config> in line 1 cannot be read"),
        (f"<config>{' ' * 70000}</config><script>a</script>", "<config> in line 1 is larger than 64 KiB"),
        ("<script>a</script>\n<file>b</file>", "<file> in line 2 has no name"),
    ],
)
def test_a_document_that_cannot_be_read_is_told_by_element_and_line(source: str, problem: str) -> None:
    problems = refusal(source)

    assert len(problems) == 1
    assert problems[0].startswith(problem)


@pytest.mark.parametrize(
    ("source", "manifest", "problem"),
    [
        ("", {}, "there is no source"),
        (" \n\t", {"type": "window"}, "there is no source"),
        ("https://example.org/app.html", {}, "the source is a URL; give the source itself"),
        ("\nhttp://localhost:8000/\n", {"type": "window"}, "the source is a URL"),
        ("x" * (MOST_SOURCE_BYTES + 1), {}, "the source and its files are larger than 10 MiB"),
        ("let a = '\ud800'", {}, "the source is no Unicode text: half a character at position 9"),
        (
            "a",
            {"type": "web-pyton"},
            "type = 'web-pyton' is unknown; did you mean web-python? Known are asgi, functions",
        ),
        ("a", {"type": 7}, "type = 7 is unknown; Known are"),
        (PAGE, {"type": "asgi"}, "type = 'asgi' does not fit: the source is a page, whose types are web-python, web-"),
        ("<script lang='python'>a</script>", {"type": "javascript"}, "type = 'javascript' does not fit: the source is"),
        ("<script lang='js'>a</script>", {"type": "python"}, "type = 'python' does not fit: the source is JavaScript"),
        ("a", {"name": b"x"}, "the manifest must hold plain values only"),
        ("a", {"name": "\ud800"}, "the manifest must hold plain values only"),
        ("a", {"env": print}, "the manifest must hold plain values only"),
    ],
)
def test_what_is_no_program_is_told_in_a_sentence(source: str, manifest: dict[str, Any], problem: str) -> None:
    problems = refusal(source, manifest)

    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_files_are_text_base64_or_json() -> None:
    files: list[dict[str, Any]] = [
        {"name": "a.txt", "content": "é"},
        {"name": "data/b.bin", "content": base64.b64encode(bytes(range(256))).decode(), "format": "base64"},
        {"name": "c.json", "content": {"é": [1]}, "format": "json"},
        {"name": "d.json", "content": "[1 ]", "format": "json"},
        {"name": "main.py", "content": "", "format": None},
    ]

    program = read("let a", {"type": "window"}, files)

    assert program.files == {
        "main.js": b"let a",
        "a.txt": "é".encode(),
        "data/b.bin": bytes(range(256)),
        "c.json": '{\n  "é": [\n    1\n  ]\n}'.encode(),
        "d.json": b"[1 ]",
        "main.py": b"",
    }


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("a.txt", "file 1 must have a name and content"),
        ({"content": "x"}, "file 1 must have a name and content"),
        ({"name": "", "content": "x"}, "file '' must be named by a path such as data/x.txt: relative"),
        ({"name": "/etc/passwd", "content": "x"}, "file '/etc/passwd' must be named by"),
        ({"name": "a/../../b", "content": "x"}, "file 'a/../../b' must be named by"),
        ({"name": "a\\b", "content": "x"}, "file 'a\\\\b' must be named by"),
        ({"name": "a/", "content": "x"}, "file 'a/' must be named by"),
        ({"name": "a\n", "content": "x"}, "file 'a\\n' must be named by"),
        ({"name": "é" * 128, "content": "x"}, "file 'é"),
        ({"name": "app.json", "content": "x"}, "file 'app.json' is dockscale's own"),
        ({"name": "main.js", "content": "x"}, "file 'main.js' is dockscale's own"),
        ({"name": "main.js/x", "content": "x"}, "file 'main.js/x' cannot be below main.js, which is a file"),
        ({"name": "a", "content": None}, "file 'a' must have text as its content"),
        ({"name": "a", "content": "\ud800"}, "file 'a' is no Unicode text: half a character at position 0"),
        ({"name": "a", "content": "x", "format": "zip"}, "file 'a' has an unknown format 'zip'; write text, base64 or"),
        ({"name": "a", "content": "x", "type": "base64"}, "file 'a' has a field that is unknown: type"),
        ({"name": "a", "content": "x y", "format": "base64"}, "file 'a' is no base64: "),
        ({"name": "a", "content": "{", "format": "json"}, "file 'a' is no JSON: Expecting property name"),
        ({"name": "a", "content": {"b": b""}, "format": "json"}, "file 'a' is no JSON: Object of type bytes"),
        ({"name": "a", "format": "json"}, "file 'a' has no content"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_by_its_name(file: Any, problem: str) -> None:
    problems = refusal("let a", {"type": "window"}, [file])

    assert len(problems) == 1
    assert problems[0].startswith(problem)


def test_all_wrong_files_and_requirements_are_told_at_once() -> None:
    document = "<script lang='python'>a</script><file name='a'>1</file>"
    twice = {"name": "a", "content": "x"}

    problems = refusal(document, {"requirements": ["-r x", "ok", "./y"]}, [twice, {"name": "a/b", "content": ""}])

    assert problems == [
        "file 'a' is given twice",
        "file 'a/b' cannot be below a, which is a file",
        "requirement '-r x' cannot be followed; write name, name==1.2 or name[extra]>=1,<2",
        "requirement './y' cannot be followed; write name, name==1.2 or name[extra]>=1,<2",
    ]


def test_more_files_than_anybody_writes_are_refused_in_one_sentence() -> None:
    files = [{"name": "a", "content": ""}] * 1001

    assert refusal("a", {"type": "window"}, files) == ["there are more than 1000 files"]


def test_the_bound_is_for_the_source_and_its_files_together() -> None:
    half = "x" * (MOST_SOURCE_BYTES // 2)

    assert read(half, {"type": "window"}, [{"name": "a", "content": half}]).runtime == "javascript"
    assert refusal(half, {"type": "window"}, [{"name": "a", "content": half + "x"}]) == [
        "the source and its files are larger than 10 MiB"
    ]


@pytest.mark.parametrize(
    ("given", "requirements"),
    [
        (["numpy", " scipy==1.* ", "numpy"], ("numpy", "scipy==1.*")),
        ("numpy>=1,<2, scipy [a, b]~=1.0,typing_extensions", ("numpy>=1,<2", "scipy [a, b]~=1.0", "typing_extensions")),
        ("# mine\nnumpy\r\n\n  a (>=1, !=1.5)\n", ("numpy", "a (>=1, !=1.5)")),
        (["a @ https://example.org/a.whl"], ("a @ https://example.org/a.whl",)),
        (["a>=1; python_version < '3.12' and (os_name == \"posix\")"],) * 2,
        (["A.b-c_d===1!2.0+local.1"],) * 2,
        ([], ()),
        ("", ()),
        (None, ()),
    ],
)
def test_requirements_are_a_list_or_one_text(given: Any, requirements: Any) -> None:
    assert read("import a", {"type": "python", "requirements": given}).requirements == tuple(requirements)


@pytest.mark.parametrize(
    "requirement",
    [
        "-r requirements.txt", "--index-url=https://example.org", "./a", "/a", "a.whl/", "a b", "a==", "a=1", "a>=1,",
        "a[", "a\nb", "a\n--pre", "a==1 --pre", "https://example.org/a.whl", "a @ file:///etc/passwd", "git+https://x",
        "a; x\n--pre", "a-", "é", "a" * 501,
    ],
)  # fmt: skip
def test_options_paths_and_line_breaks_are_no_requirements(requirement: str) -> None:
    problems = refusal("import a", {"type": "python", "requirements": [requirement]})

    assert problems == [
        f"requirement {requirement!r} cannot be followed; write name, name==1.2 or name[extra]>=1,<2",
    ]


@pytest.mark.parametrize("given", [7, {"a": 1}, ["a", 1]])
def test_requirements_of_another_form_are_told(given: Any) -> None:
    problems = refusal("import a", {"type": "python", "requirements": given})

    assert problems == ["requirements must be a list of texts such as fastapi>=0.110"]


def test_only_python_has_requirements() -> None:
    assert refusal("let a", {"type": "window", "requirements": "left-pad"}) == [
        "only Python programs have requirements; this one is JavaScript"
    ]


def test_what_a_page_installs_when_it_starts_is_required() -> None:
    script = """
        await pyodide.loadPackage(["micropip", "numpy", 'ssl']); await p.loadPackage("pandas");
        await micropip.install("a[x]>=1"); micropip.install(
            [ 'b',
              "c==2", ], keep_going=True)
        micropip.install(requirements=["d"])
        // micropip.install("old")
        # micropip.install("older")
        loadPackage(name); loadPackage(["e", name]); loadPackage("https://example.org/f.whl")
        micropip.install(["hypha-rpc", "g", "hypha_rpc", "pyodide-http", "not one", "./h.whl", "${i}"])
        reloadPackage("j"); loadPackagesFromImports("k")
    """

    program = read(PAGE.format(script), {"type": "web-python", "requirements": ["mine", "b"]})

    assert program.requirements == ("mine", "b", "numpy", "pandas", "a[x]>=1", "c==2", "d", "g")


def test_a_page_can_ask_for_a_version_of_the_client() -> None:
    page = PAGE.format("micropip.install(['hypha_rpc==0.20.1', 'micropip==0.1'])")

    assert read(page, {}).requirements == ("hypha_rpc==0.20.1",)


def test_equal_programs_have_one_digest_in_whatever_order_their_parts_came() -> None:
    files = [{"name": "a", "content": "1"}, {"name": "b", "content": "2"}]
    manifest = {"type": "python", "name": "x", "env": {"A": "1", "B": "2"}, "requirements": ["a", "b"]}
    turned: dict[str, Any] = {**dict(reversed(manifest.items())), "env": {"B": "2", "A": "1"}, "requirements": "b,a"}

    assert digest(read("x", manifest, files)) == digest(read("x", turned, files[::-1]))


@pytest.mark.parametrize(
    ("source", "manifest", "files"),
    [
        ("y", {}, []),
        ("x", {"name": "y"}, []),
        ("x", {"type": "web-python"}, []),
        ("x", {"requirements": ["a"]}, []),
        ("x", {}, [{"name": "a", "content": "1"}]),
    ],
)
def test_each_part_of_a_program_counts_for_its_digest(
    source: str, manifest: dict[str, Any], files: list[dict[str, Any]]
) -> None:
    assert digest(read(source, {"type": "python", **manifest}, files)) != digest(read("x", {"type": "python"}))


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12), st.sampled_from(["", *TYPES]))
def test_any_source_is_read_or_refused(parts: list[str], kind: str) -> None:
    with suppress(SpecError):
        program = read("".join(parts), {"type": kind})
        assert program.entry in program.files


@given(st.text(alphabet="ab:-[]{}&*!|>#%@`,?=<~0123456789._xoe'\"\n \t\0\ud800", max_size=40))
def test_any_manifest_in_a_source_is_read_or_refused(config: str) -> None:
    with suppress(SpecError):
        assert digest(read(f"<config>{config}</config><script>a</script>", {}))
