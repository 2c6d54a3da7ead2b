"""Frontmatter: values as written, limits before values, and errors with the line of the file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from resonance.errors import FrontmatterError
from resonance.vault import frontmatter
from resonance.vault.frontmatter import parse_frontmatter, split


def parse(block: str) -> dict[str, Any]:
    return parse_frontmatter("note.md", f"---\n{block}\n---\nbody\n").data


def problem(block: str) -> FrontmatterError:
    with pytest.raises(FrontmatterError) as caught:
        parse(block)
    assert caught.value.path == "note.md"
    return caught.value


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("a: 1", {"a": 1}),
        ("", {}),
        ("# only a comment", {}),
        ("a:", {"a": None}),
        ("a: [1, two, 'three', null, true]", {"a": [1, "two", "three", None, True]}),
        ("a:\n  b:\n  - c: d", {"a": {"b": [{"c": "d"}]}}),
        ("a: |\n  x\n  y\nb: >\n  x\n  y", {"a": "x\ny\n", "b": "x y\n"}),
        ("1: one\ntrue: two\nnull: three", {"1": "one", "true": "two", "null": "three"}),
        ("é: 'ü'", {"é": "ü"}),
        ("a: 1.5e3", {"a": 1500.0}),
        ("a: -0", {"a": 0}),
    ],
)
def test_plain_values(block: str, expected: object) -> None:
    assert parse(block) == expected


@pytest.mark.parametrize(
    "written",
    [
        "no",
        "yes",
        "on",
        "2024-01-31",
        "2024-02-30",
        "2024-13-45",
        "2024-01-31T10:00:00Z",
        "12:30:45",
        "010",
        "0x1F",
        "1_000",
        ".nan",
        "-.inf",
        "1e999",
        "1" * 5000,
        "12345678901234567890",
        "<<",
        "=",
    ],
)
def test_what_json_or_a_reader_would_take_for_something_else_stays_text(written: str) -> None:
    data = parse(f"a: {written}")
    assert data == {"a": written}
    assert json.loads(json.dumps(data, allow_nan=False)) == data


@pytest.mark.parametrize(
    ("block", "reason", "line"),
    [
        ("a: &x 1\nb: *x", "anchors", 2),
        ("a: 1\nb: *x", "aliases", 3),
        ("a: 1\nb: 2\na: 3", "'a' occurs twice", 4),
        ("a:\n  b: 1\n  b: 2", "'b' occurs twice", 4),
        ("a: !!python/object/apply:os.system [true]", "tags", 2),
        ("a: !!str 1", "tags", 2),
        ("a: 1\n? [b]\n: c", "plain text", 3),
        ("title: x\ncreated: {{date}}", "plain text", 3),
        ("- a\n- b", "mapping", 2),
        ("just words", "mapping", 2),
        ("a: [1, 2", "", 3),
        ("a: 1\n\tb: 2", "", 3),
        ("a: 'x", "", 3),
        ("a: b: c", "", 2),
        ("a: @x", "", 2),
        ("a: 1\nb: \x01", "", 3),
        ('a: "\\0"', "no character", 2),
        ('a: "\\ud800"', "", 2),
        ('"\\0": a', "no character", 2),
    ],
)
def test_what_is_refused_is_named_with_its_line(block: str, reason: str, line: int) -> None:
    error = problem(block)
    assert reason in error.reason
    assert error.line == line


def test_a_second_document_is_refused() -> None:
    assert "more than one" in problem("a: 1\n...\n--- b").reason


def test_python_objects_are_never_made(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    for tag in ("object/apply:os.mkdir", "object/new:os.mkdir", "name:os.mkdir", "module:os"):
        problem(f"a: !!python/{tag} ['{witness}']")
    assert not witness.exists()


@pytest.mark.parametrize("bracket", ["[", "{", "- ", "? ", "{a: ", "[["])
def test_deep_nesting_is_refused_at_once(bracket: str) -> None:
    started = time.monotonic()
    error = problem("a: 1\nb:\n  " + bracket * 25_000)
    assert error.line is not None
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(("depth", "fits"), [(63, True), (64, False)])
def test_the_limit_of_nesting(depth: int, fits: bool) -> None:
    block = "a: " + "[" * depth + "]" * depth
    if fits:
        parse(block)
    else:
        assert "levels deep" in problem(block).reason


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefg", "bcdefgh", strict=True)]
    assert "anchors" in problem("\n".join(lines)).reason


def test_a_recursive_alias_is_refused() -> None:
    assert "anchors" in problem("a: &a [*a]").reason


@pytest.mark.parametrize(("count", "fits"), [(9_997, True), (9_998, False)])
def test_the_limit_of_values(count: int, fits: bool) -> None:
    block = "a: [" + ",".join("1" * count) + "]"
    if fits:
        assert len(parse(block)["a"]) == count
    else:
        assert "10,000 values" in problem(block).reason


def test_the_limit_of_size() -> None:
    assert parse("a: " + "x" * 250_000)
    assert "256 KiB" in problem("a: " + "x" * 50_000_000).reason


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_end(newline: str) -> None:
    text = newline.join(["---", "a: 1", "b: [x, y]", "---", "body"])
    found = parse_frontmatter("note.md", text)
    assert found.data == {"a": 1, "b": ["x", "y"]}
    assert text[found.body :] == "body"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_the_line_is_right_with_every_kind_of_line_end(newline: str) -> None:
    with pytest.raises(FrontmatterError) as caught:
        parse_frontmatter("note.md", newline.join(["---", "a: 1", "b: 2", "a: 3", "---", ""]))
    assert caught.value.line == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "body",
        "---",
        "---\n",
        "---\nno closing fence\n\nbody\n",
        "----\na: 1\n----\n",
        "--- a: 1 ---",
        "\n---\na: 1\n---\n",
        " ---\na: 1\n---\n",
        "---\na: 1\n --- \n",
        "---\na: 1\n---x\n",
    ],
)
def test_without_two_fences_all_is_body(text: str) -> None:
    assert split(text) is None
    found = parse_frontmatter("note.md", text)
    assert (found.data, found.body) == ({}, 0)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("---\n---\nbody", "body"),
        ("---  \na: 1\n---\t\nbody", "body"),
        ("---\na: 1\n---", ""),
        ("---\na: '\n ---\n'\n---\nb\n---\nc", "b\n---\nc"),
    ],
)
def test_the_body_begins_behind_the_second_fence(text: str, body: str) -> None:
    found = parse_frontmatter("note.md", text)
    assert text[found.body :] == body


def test_texts_are_placed_in_the_file() -> None:
    text = '---\né: [ü, "[[a]]"]\nrelated: [[b c]]\nx: |\n  [[d]]\n---\n'
    found = parse_frontmatter("note.md", text)
    places = {(t.key, t.value.strip(), text[t.start : t.end].strip("|\n ")) for t in found.texts}
    assert places == {
        ("é", "ü", "ü"),
        ("é", "[[a]]", '"[[a]]"'),
        ("related", "b c", "b c"),
        ("related", "[[b c]]", "[[b c]]"),
        ("x", "[[d]]", "[[d]]"),
    }


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cn", "Co", "Zl", "Zp")), max_size=20)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", min_size=1), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text("abcxyz", min_size=1, max_size=5), VALUES, max_size=5))
def test_what_yaml_writes_is_read_back(data: dict[str, Any]) -> None:
    block = yaml.safe_dump(data, allow_unicode=True)
    assert parse(block) == data


@settings(max_examples=300)
@given(st.text(st.sampled_from("ab: -[]{}'\"\n|>#&*!?,\té1.~"), max_size=40))
def test_anything_is_read_or_refused_and_is_json(block: str) -> None:
    try:
        data = parse_frontmatter("note.md", f"---\n{block}\n---\n").data
    except FrontmatterError as error:
        line = error.line
    else:
        assert json.loads(json.dumps(data, allow_nan=False)) == data
        return
    assert line is not None
    assert 2 <= line <= block.count("\n") + 4


@pytest.fixture
def pure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(frontmatter, "_Loader", yaml.SafeLoader)
    return frontmatter


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="PyYAML was built without libyaml")
@pytest.mark.parametrize(
    "block",
    [
        "a: 1\nb: [x, {y: z}]\nc: |\n  t\n  u\nd: 'it''s'\ne: \"a\\tb\"\nf: [[x y]]",
        "g: é ü\nh: >-\n  a\n\n  b",
        "a: {b: [1, 2], c: }\n# comment\n'd e': x # y",
        "tags:\n- a\n- '#b'\n- c/d\naliases: x, y\ndate: 2024-01-01",
    ],
)
def test_both_of_yamls_parsers_agree(block: str, pure: ModuleType) -> None:
    text = f"---\n{block}\n---\nbody"
    slow = parse_frontmatter("note.md", text)
    pure._Loader = yaml.CSafeLoader
    assert parse_frontmatter("note.md", text) == slow


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="PyYAML was built without libyaml")
@pytest.mark.parametrize("bracket", ["[", "{", "- ", "[["])
def test_the_slow_parser_keeps_the_limits_too(bracket: str, pure: ModuleType) -> None:
    assert problem("a:\n  " + bracket * 2_000)


# --- the easy lines are what YAML says they are -----------------------------------------------------

PIECES = """a|key|b.c|: |:| |  |"|"x y"|""|["a"]|["a", "b"]|["a","b" ]|[]|[[x]]|true|null|~|1|2.5|1e5|08|-|- x
#|# c| #c|/|(a)|a-b|.|...|---x|é|\t|\\|{|}|&a|*a|!t|%|@|`|>|+1|0x1F|a  b|y z|k2: v|a: "b"|1_0|_|'|C++|a:b"""
PIECE = st.sampled_from(["\n", "\r\n", "\r", *PIECES.replace("\n", "|").split("|")])


def read(text: str) -> object:
    try:
        found = parse_frontmatter("note.md", text)
    except FrontmatterError as error:
        return str(error)
    return found, [(key, type(value)) for key, value in found.data.items()]


def read_by_yaml(text: str) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frontmatter._Builder, "_easy", lambda _: None)
        return read(text)


@settings(deadline=None, max_examples=2_000)
@given(st.lists(PIECE, max_size=12).map("".join))
def test_easy_lines_are_read_as_yaml_reads_them(block: str) -> None:
    text = f"---\n{block}\n---\nbody\n"
    assert read(text) == read_by_yaml(text)


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_block_of_easy_lines_needs_no_yaml(newline: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "title: A plain title (2nd)",
        'description: "Learn more: C++, é is not easy"'.replace("é", "e"),
        "ms.date: 11/04/2016",
        'f1_keywords: ["a.b", "c d",  ""]',
        "number: 12",
        "nothing: null  ",
    ]
    text = newline.join(["---", *lines, "---", "body"])
    expected = read_by_yaml(text)
    monkeypatch.setattr(frontmatter, "yaml", None)
    assert read(text) == expected
    assert parse_frontmatter("note.md", text).data["f1_keywords"] == ["a.b", "c d", ""]


def test_a_key_that_easy_lines_repeat_is_refused() -> None:
    error = problem('title: a\nother: "b"\ntitle: c')
    assert error.line == 4
    assert "the key 'title' occurs twice" in error.reason
