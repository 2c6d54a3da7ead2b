"""What the core takes from a parser's events is what a plain loop over them takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyromark
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonance._core import outline
from resonance.vault.body import _OPTIONS, _PLAIN_OPTIONS

ROOT = Path(__file__).parents[2]
PIECES = (
    "# ", "## ", "#", "word", " ", "\n", "\n\n", "\r\n", "  \n", "===\n", "> ", "- ", "1. ", "    ", "```\n",
    "`code`", "`` ` ``", "$x$", "$$\ny\n$$", "[text](a.md)", "![alt](b.png)",
    "[[note|x]]", "![[embed]]", "[r][1]",
    "[1]: c.md\n", "<https://example.org>", "<b>", "</b>", "<!-- tags: [A: b] -->", "<div>\n", "%%", "[^1]",
    "[^1]: foot\n", "|a|b|\n|-|-|\n|c|d|\n", "**", "*", "~~", "&amp;", "\\#", "---\n", "- [x] done\n",
    "é", "日本",
)  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def told(events: Any, keep_runs: bool) -> tuple[list[Any], ...]:
    """The same, said slowly."""
    blocks: list[int] = []
    headings, links, runs, html, code, words = ([] for _ in range(6))  # type: ignore[var-annotated]
    in_link = in_code = in_heading = outermost = 0
    for event, span in events:
        start, end = span["start"], span["end"]
        ((kind, value),) = ({event: None} if isinstance(event, str) else event).items()
        tag, detail = next(iter(value.items())) if isinstance(value, dict) else (value, None)
        if kind == "Start":
            if start >= outermost:
                blocks.append(start)
                outermost = end
            if tag in ("Link", "Image"):
                in_link += 1
                links.append((tag == "Image", detail, start, end))
            elif tag == "CodeBlock":
                in_code += 1
                code.append((start, end))
            elif tag == "Heading":
                in_heading, words = 1, []
        elif kind == "End":
            in_link -= tag in ("Link", "Image")
            in_code -= tag == "CodeBlock"
            if tag == "Heading":
                in_heading = 0
                headings.append(
                    (start, int(detail[1]), " ".join("".join(words).split()), blocks[-1] == start)
                )
        elif kind in ("Html", "InlineHtml"):
            html.append((start, end))
        elif kind == "Text" and keep_runs and not in_code and not in_link:
            runs.append((start, end))
        if in_heading and kind in ("Text", "Code"):
            words.append(value)
        elif in_heading and isinstance(event, str):
            words.append(" ")
    return blocks, headings, links, joined(runs), joined(html), code


def joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, end in spans:
        if out and out[-1][1] == start:
            start = out.pop()[0]
        out.append((start, end))
    return out


def both(text: str, keep_runs: bool, options: pyromark.Options) -> tuple[Any, Any]:
    def events() -> Iterator[Any]:
        return pyromark.events_with_range(text, options=options, merge_text=not keep_runs)

    return outline(events(), keep_runs=keep_runs), told(events(), keep_runs)


@settings(deadline=None, max_examples=500)
@given(texts, st.booleans(), st.sampled_from((_OPTIONS, _PLAIN_OPTIONS)))
def test_the_outline_is_what_a_plain_loop_finds(
    text: str, keep_runs: bool, options: pyromark.Options
) -> None:
    found, expected = both(text, keep_runs, options)
    assert found == expected


@pytest.mark.parametrize("keep_runs", [False, True])
def test_the_outline_of_real_notes(keep_runs: bool) -> None:
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    assert len(paths) > 10
    for path in paths:
        found, expected = both(path.read_text(encoding="utf-8"), keep_runs, _OPTIONS)
        assert found == expected, path


def test_an_outline_holds_one_of_everything() -> None:
    text = "# One `two`\n\n> ## in a quote\n\n[a](b) <b>c</b>\n\n```\ncode\n```\n"
    blocks, headings, links, runs, html, code = outline(
        pyromark.events_with_range(text, merge_text=False), keep_runs=True
    )
    assert blocks == [text.index(each) for each in ("# One", "> ", "[a]", "```")]
    assert headings == [(0, 1, "One two", True), (text.index("## in"), 2, "in a quote", False)]
    assert [(image, detail["dest_url"], text[start:end]) for image, detail, start, end in links] == [
        (False, "b", "[a](b)")
    ]
    assert [text[start:end] for start, end in html] == ["<b>", "</b>"]
    assert "c" in [text[start:end] for start, end in runs]
    assert [text[start:end] for start, end in code] == ["```\ncode\n```"]


@pytest.mark.parametrize(
    "events",
    [
        [({}, {"start": 0, "end": 1})],
        [(None, {"start": 0, "end": 1})],
        [({"Start": {"Link": {}}}, {"start": 0})],
        [({"Start": {"Link": {}}}, None)],
        [({"Start": {}}, {"start": 0, "end": 1})],
        [({"Start": 3}, {"start": 0, "end": 1})],
        [({"Start": {"A": 1, "B": 2}}, {"start": 0, "end": 1})],
        [({"Html": "x"}, {"start": "0", "end": 1})],
        [({"Html": "x"}, {"start": 1 << 80, "end": 1})],
        [({1: "x"}, {"start": 0, "end": 1})],
        [("SoftBreak",)],
        [3],
        3,
    ],
)
def test_what_is_no_event_is_refused(events: Any) -> None:
    with pytest.raises((TypeError, ValueError, KeyError, OverflowError)):
        outline(events, keep_runs=True)


def test_what_the_parser_raises_comes_through() -> None:
    def broken() -> Iterator[Any]:
        yield "SoftBreak", {"start": 0, "end": 1}
        raise RuntimeError("the parser")

    with pytest.raises(RuntimeError, match="the parser"):
        outline(broken())
