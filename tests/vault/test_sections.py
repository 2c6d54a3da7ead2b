"""Long notes in sections: where they begin and end, what they are called, and what moves them."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonance.errors import SettingsError
from resonance.vault.ids import assign_ids, section_ids, tag_id
from resonance.vault.note import parse_note
from resonance.vault.sections import Section, SectionRules, read_rules, sections_of
from resonance.vault.settings import load_settings

RULES = SectionRules(min_chars=60, max_chars=200, overlap_chars=40)
TEXT = "Some words that fill a line up to its end, and a few more of them. "


def cut(text: str | bytes, rules: SectionRules = RULES) -> list[Section]:
    data = text.encode() if isinstance(text, str) else text
    return sections_of(parse_note("n.md", data), data, "n", rules)


def texts(text: str, rules: SectionRules = RULES) -> list[str]:
    return [text.encode()[s.start : s.end].decode() for s in cut(text, rules)]


def headings(text: str, rules: SectionRules = RULES) -> list[tuple[str, ...]]:
    return [section.heading for section in cut(text, rules)]


def test_a_short_note_has_no_sections() -> None:
    assert cut("# A\n\n" + "x" * 195) == []
    assert len(cut("# A\n\n" + "x" * 196)) == 2


def test_sections_follow_the_headings() -> None:
    text = f"# T\n\n{TEXT}\n\n## A\n\n{TEXT}\n\n### B\n\n{TEXT}\n\n## C\n\n{TEXT}"
    assert headings(text) == [("T",), ("T", "A"), ("T", "A", "B"), ("T", "C")]
    assert [s.node for s in cut(text)] == ["n#^", "n#a", "n#a/b", "n#c"]
    assert texts(text)[1] == f"## A\n\n{TEXT}\n\n"


def test_only_headings_that_no_other_block_encloses_count() -> None:
    inside = (
        f"```\n# code\n```\n\n    # indented\n\n> # quoted\n\n- # listed\n\n<div>\n# html\n</div>\n\n"
        f"%% \n\n# commented\n\n%%\n\n{TEXT}"
    )
    text = f"# T\n\n{TEXT}\n\n## A\n\n{inside}"
    assert set(headings(text, SectionRules(60, 200, 0))) == {("T",), ("T", "A")}


def test_headings_that_are_underlined_count_and_so_do_indented_ones() -> None:
    text = f"T *one*\n===\n{TEXT}\n\nA\n---\n{TEXT}\n\n  ## `B`  ##\n{TEXT}"
    assert headings(text) == [("T one",), ("T one", "A"), ("T one", "B")]
    assert texts(text)[2].startswith("  ## `B`")


def test_the_yaml_is_in_no_section() -> None:
    head = "---\ntitle: Ä\n---\n"
    text = f"{head}{TEXT}\n# A\n{TEXT}{TEXT}"
    found = cut(text)
    assert (found[0].start, found[-1].end) == (len(head.encode()), len(text.encode()))
    marked = cut(b"\xef\xbb\xbf" + text.encode())
    assert [s.start for s in marked] == [s.start + 3 for s in found]


def test_text_above_the_first_heading_is_a_section_if_it_is_long_enough() -> None:
    rest = f"# T\n\n{TEXT}\n\n# U\n\n{TEXT}"
    assert headings(f"{TEXT}\n\n{rest}") == [(), ("T",), ("U",)]
    assert [s.node for s in cut(f"{TEXT}\n\n{rest}")] == ["n#^", "n#^~2", "n#u"]
    assert headings(f"Short.\n\n{rest}{TEXT}") == [("T",), ("U",)]
    assert texts(f"Short.\n\n{rest}{TEXT}")[0].startswith("Short.")


def test_a_heading_without_text_goes_with_what_is_under_it() -> None:
    text = f"# T\n\n## A\n\n### B\n\n{TEXT}\n\n### C\n\n{TEXT}\n\n## D\n\n{TEXT}"
    assert headings(text) == [("T", "A", "B"), ("T", "A", "C"), ("T", "D")]
    assert texts(text)[0].startswith("# T")


def test_small_neighbours_become_one() -> None:
    small = "".join(f"## {name}\n\nShort.\n\n" for name in "ABCDEF")
    text = f"# T\n\n{TEXT}\n\n{small}# U\n\n{TEXT}"
    assert headings(text) == [("T",), ("T", "A"), ("U",)]
    assert min(len(piece) for piece in texts(text)) >= RULES.min_chars


def test_a_small_section_goes_where_the_lesser_heading_divides() -> None:
    before = f"# T\n\n{TEXT}\n\n## A\n\n{TEXT}\n\n### small\n\nAside.\n\n## B\n\n{TEXT}"
    assert headings(before) == [("T",), ("T", "A"), ("T", "B")]
    assert "Aside." in texts(before)[1]
    after = f"# T\n\n{TEXT}\n\n## A\n\nAside.\n\n### B\n\n{TEXT}\n\n## C\n\n{TEXT}"
    assert headings(after) == [("T",), ("T", "A", "B"), ("T", "C")]
    assert "Aside." in texts(after)[1]


def test_a_long_section_is_cut_between_blocks_and_overlaps() -> None:
    blocks = [f"{number} {TEXT}\n\n" for number in range(12)]
    text = "# T\n\n" + "".join(blocks)
    found = texts(text, SectionRules(60, 200, 80))
    assert [s.node for s in cut(text, SectionRules(60, 200, 80))][:3] == ["n#^", "n#^:2", "n#^:3"]
    for piece, following in itertools.pairwise(found):
        assert piece.endswith("\n\n")
        shared = text.index(piece) + len(piece) - text.index(following)
        assert 0 < shared <= 80
        assert following[:2].strip().isdigit()
    assert len(texts(text, SectionRules(60, 200, 0))) < len(found)
    assert "".join(texts(text, SectionRules(60, 200, 0))) == text


@pytest.mark.parametrize("text", ["line of text\n" * 100, "words " * 200, "日本" * 400, "x" * 1000])
def test_one_long_block_is_cut_at_lines_else_words_else_anywhere(text: str) -> None:
    found = texts(text)
    assert all(len(piece) <= RULES.max_chars for piece in found)
    assert all(text.startswith(piece[:5]) or " " not in text for piece in found)


def test_the_last_part_is_no_crumb() -> None:
    found = texts("x" * 410, SectionRules(60, 200, 0))
    assert [len(piece) for piece in found] == [200, 105, 105]


def test_an_edit_leaves_the_other_sections_as_they_are() -> None:
    names = ["A", "C++", "C#", "A", "日本", "D?"]
    parts = [f"## {name}\n\n{TEXT * (1 + 3 * (number == 2))}\n\n" for number, name in enumerate(names)]
    before = {(s.node, s.hash, s.text_hash) for s in cut("# T\n\n" + "".join(parts))}
    assert len(before) == 7
    for number in range(len(names)):
        edited = [*parts]
        edited[number] = f"## {names[number]}\n\nEdited. {TEXT}\n\n"
        after = {(s.node, s.hash, s.text_hash) for s in cut("# T\n\n" + "".join(edited))}
        assert len(before & after) >= len(before) - (3 if number == 2 else 1)
    inserted = "# T\n\n" + "".join(parts[:2]) + f"## New\n\n{TEXT}\n\n" + "".join(parts[2:])
    assert before < {(s.node, s.hash, s.text_hash) for s in cut(inserted)}


def test_what_a_vector_stands_for_names_the_note_and_the_headings() -> None:
    text = f"---\ntitle: Other\n---\n# T\n\n{TEXT}\n\n## A\n\n{TEXT}{TEXT}"
    last = cut(text)[-1]
    assert last.text == f"Other / T / A\n\n## A\n\n{TEXT}{TEXT}"
    renamed = cut(text.replace("Other", "Name"))[-1]
    assert renamed.hash == last.hash == hashlib.sha256(f"## A\n\n{TEXT}{TEXT}".encode()).hexdigest()
    assert renamed.text_hash != last.text_hash


LINES = st.sampled_from(
    [
        "# One",
        "## Two",
        "### Drei ß",
        "###### 日本語",
        "#",
        "Under",
        "===",
        "---",
        "```",
        "> # quoted",
        "- item",
        "    # code",
        "text text",
        "ein längerer Absatz, mit mehr Wörtern als die anderen. " * 3,
        "𝄞" * 30,
        "%%",
        "[^1]: note",
        "<div>",
        "",
        "",
    ]
)
ENDS = st.sampled_from(["\n", "\n", "\n\n", "\r\n", "\r"])
NOTES = st.lists(st.tuples(LINES, ENDS).map("".join), min_size=3, max_size=40).map("".join)
SIZES = st.integers(1, 120).flatmap(
    lambda most: st.builds(
        SectionRules,
        min_chars=st.integers(0, most),
        max_chars=st.just(most),
        overlap_chars=st.integers(0, most // 2),
    )
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["\n", "---\ntitle: é\n---\n", "\ufeff\n"]), NOTES, SIZES)
def test_every_byte_of_a_long_note_lies_in_a_section(head: str, text: str, rules: SectionRules) -> None:
    data = (head + text).encode()
    note = parse_note("a b.md", data)
    found = sections_of(note, data, "a-b", rules)
    assert bool(found) == (len(note.body) > rules.max_chars)
    end = note.body_offset
    before = -1
    for section in found:
        assert before < section.start <= end < section.end <= len(data)
        assert len(data[section.start : section.end].decode()) <= rules.max_chars
        assert section.hash == hashlib.sha256(data[section.start : section.end]).hexdigest()
        before, end = section.start, section.end
    assert end == (len(data) if found else note.body_offset)
    ids = [section.node for section in found]
    assert len(set(ids)) == len(ids)
    assert found == sections_of(note, data, "a-b", rules)


HEADING = st.text(st.sampled_from("aB1 -#~/^:+.日é"), max_size=6)
PATHS = st.lists(st.lists(HEADING, max_size=3).map(tuple), max_size=12)


def plain(path: tuple[str, ...]) -> tuple[str, ...]:
    """Headings without what does not tell them apart."""
    return tuple(" ".join(text.translate(str.maketrans("-.:/", "    ")).split()).lower() for text in path)


@given(PATHS, PATHS)
def test_ids_of_sections_are_distinct_and_no_documents(
    paths: list[tuple[str, ...]], others: list[tuple[str, ...]]
) -> None:
    ids = section_ids("doc", ((path, 1) for path in paths))
    assert len(set(ids)) == len(ids)
    files = assign_ids(f"{'/'.join(path)}.md" for path in (*paths, *others))
    tags = {tag_id(text) for path in paths for text in path}
    assert set(ids).isdisjoint({*files.values(), *tags, "doc", ""})
    assert all(node.startswith("doc#") and len(node) > 4 for node in ids)
    # What else is in the file does not matter, but for headings that are the same.
    alike = {plain(path) for path in others}
    for path, node in zip(paths, ids, strict=True):
        if plain(path) not in alike:
            assert node in section_ids("doc", ((each, 1) for each in (*others, *paths)))


def test_ids_can_be_read() -> None:
    paths = [("A b",), ("A b",), ("a B", "C"), ("Sub-items",), ("日本 語?",), ()]
    made = section_ids("d", ((path, 1) for path in paths))
    assert made == ["d#a-b", "d#a-b~2", "d#a-b/c", "d#sub-items", "d#日本-語", "d#^"]
    for path, start in ((("C++",), "d#c~"), (("C#", "x"), "d#c/x~"), (("",), "d#~"), (("x" * 99,), "d#x")):
        (node,) = section_ids("d", [(path, 1)])
        assert node.startswith(start)
        assert len(node.rpartition("~")[2]) == 8


def test_parts_are_numbered() -> None:
    made = section_ids("d", [(("A",), 1), (("A",), 2), (("A",), 1), (("A",), 2)])
    assert made == ["d#a", "d#a:2", "d#a~2", "d#a~2:2"]


def test_the_settings_name_the_lengths(root: Path) -> None:
    assert load_settings(root).sections == SectionRules()
    for told, rules in (
        ({"max_chars": 900}, SectionRules(max_chars=900)),
        ({"min_chars": 1, "max_chars": 2, "overlap_chars": 1}, SectionRules(1, 2, 1)),
        (False, SectionRules(0, 0, 0)),
    ):
        (root / "amalfa.settings.json").write_text(json.dumps({"sections": told}))
        assert load_settings(root).sections == rules
    assert cut(TEXT * 100, read_rules("x", False)) == []


@pytest.mark.parametrize(
    "told",
    [
        True,
        "x",
        {"max": 1},
        {"max_chars": "1"},
        {"max_chars": True},
        {"min_chars": -1},
        {"min_chars": 500, "max_chars": 400, "overlap_chars": 0},
        {"overlap_chars": 1001},
    ],
)
def test_settings_that_make_no_sense_are_named(told: object) -> None:
    with pytest.raises(SettingsError, match="sections"):
        read_rules("amalfa.settings.json", told)
