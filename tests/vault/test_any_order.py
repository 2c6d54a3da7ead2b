"""Properties of resolution, in every dialect: an obvious oracle, and any history of edits."""

from __future__ import annotations

import tempfile
import unicodedata
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vaults import Vault, dump, write

from resonance.vault.dialect import DIALECTS
from resonance.vault.ids import assign_ids
from resonance.vault.links import RawLink
from resonance.vault.resolve import Resolver

PARTS = st.sampled_from(["a", "A", "b", "c d", "é", "E\u0301".lower(), "n.v", "x___y"])
PLACES = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
EXTENSIONS = st.sampled_from([".md", ".md", ".md", ".MD", ".markdown"])
PATHS = st.sets(st.tuples(PLACES, EXTENSIONS).map("".join), min_size=1, max_size=12)


def composed(paths: set[str]) -> dict[str, str]:
    """As a scan gives them: NFC, each once."""
    return assign_ids({unicodedata.normalize("NFC", path) for path in paths})


def fold(path: str) -> str:
    stem = _stem(path) if path.lower().endswith((".md", ".markdown")) else path
    return unicodedata.normalize("NFC", stem).casefold()


@settings(max_examples=300)
@given(PATHS, PLACES)
def test_a_name_finds_what_looking_at_every_note_finds(paths: set[str], name: str) -> None:
    """From the root, where no relative path can come first."""
    ids = composed(paths)
    found = Resolver(ids).resolve("start.md", RawLink("wikilink", "CITES", "", name, None, 0, 0))
    to_the_letter = [path for path in ids if path.startswith(_nfc(name) + ".")]
    exact = [path for path in to_the_letter if path in (_nfc(name) + ".md", _nfc(name) + ".markdown")]
    ending = {path for path in ids if ("/" + fold(path)).endswith("/" + fold(name))}
    if exact:
        assert found.state == "resolved"
        assert found.target in {ids[path] for path in exact}
        assert found.mark is None
        return
    if not any(("/" + _stem(path)).endswith("/" + _nfc(name)) for path in ending):
        # Only the case is wrong: a whole path decides as an exact one does.
        ending = {path for path in ending if fold(path) == fold(name)} or ending
    if len(ending) == 1:
        (path,) = ending
        assert (found.state, found.target) == ("resolved", ids[path])
        assert (found.mark == "case") == (not ("/" + _stem(path)).endswith("/" + _nfc(name)))
    elif ending:
        assert found.state == "ambiguous"
        assert sorted(found.candidates) == sorted(ids[path] for path in ending)
    else:
        assert found.state == "unresolved"


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


@given(
    PATHS,
    PLACES,
    st.sampled_from(DIALECTS),
    st.sampled_from(["wikilink", "link", "relation", "tag", "block"]),
)
def test_a_note_that_has_nothing_to_do_with_it_changes_no_link(
    paths: set[str], name: str, dialect: str, kind: str
) -> None:
    link = RawLink(kind, "CITES", "", name, None, 0, 0)
    ids = composed(paths) | {"start.md": "start"}
    before = Resolver(ids, dialect=dialect).resolve("start.md", link)  # type: ignore[arg-type]
    more = ids | {"far/zz/unrelated.md": "far-zz-unrelated"}
    assert Resolver(more, dialect=dialect).resolve("start.md", link) == before  # type: ignore[arg-type]
    if before.state == "resolved" and before.mark != "page" and kind != "tag":
        assert before.target in ids.values()


NAMES = [
    "a.md", "A.md", "b.md", "x/a.md", "x/n___m.md", "y/N.md", "pages/tags.t.md", "journals/2021_01_12.md",
    "p.png", "x/P.png", "data",
]  # fmt: skip
BLOCK = "634fae2e-edab-42e0-8385-59df3fc3da0e"
TEXTS = st.lists(
    st.sampled_from(
        [
            "[[a]] ", "[[A|n]] ", "[[n|b]] ", "[[x/a]] ", "[[n/m]] ", "[[Al]] ", "[[AL]] ", "[[data]] ",
            "![[p.png]] ", "![t](x/p.png) ", "[t](x/a.md) ", "[t](../b.md) ", "[t](..\\b.md) ", "#t ",
            "#[[Nobody]] ", "[[nobody]] ", "[[Nobody]] ", f"(({BLOCK})) ", "[tag: b] ", "[[Jan 12th, 2021]] ",
            "<!-- tags: [REL: b] --> ", "text ", "\n", "\n\n",
        ]
    ),
    max_size=6,
).map("".join)  # fmt: skip
HEADS = st.sampled_from(
    [
        "", "", "---\naliases: Al\n---\n", "---\nid: 7\nrequires: [b, 7]\n---\n", "title:: Nobody\n\n",
        "---\nrelated: '[[a]]'\nauthor: '[[N]]'\n---\n", "alias:: Al, [[nobody]]\ntags:: t, [[a]]\n\n",
        f"- x\n  id:: {BLOCK}\n- ", "---\ntags: [t, Nobody]\n---\n",
    ]
)  # fmt: skip
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(NAMES), st.tuples(HEADS, TEXTS).map("".join)),
        st.tuples(st.just("write"), st.sampled_from(NAMES), st.tuples(HEADS, TEXTS).map("".join)),
        st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just("")),
        st.tuples(st.just("move"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.just("ingest"), st.just(""), st.just("")),
        st.tuples(st.just("dialect"), st.just(""), st.sampled_from(DIALECTS)),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(DIALECTS), EDITS)
def test_in_any_dialect_any_history_ends_where_a_fresh_start_does(
    dialect: str, edits: list[tuple[str, str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        vault = Vault(Path(place) / "vault", Path(place) / "x.db")
        vault.options["dialect"] = dialect
        for action, name, value in edits:
            file = vault.root / name
            if action == "ingest":
                vault.ingest(yes=True)
            elif action == "dialect":
                vault.options["dialect"] = value
            elif action == "write":
                write(vault.root, {name: value})
            elif file.exists():
                if action == "remove":
                    file.unlink()
                else:
                    (vault.root / value).parent.mkdir(exist_ok=True)
                    file.replace(vault.root / value)
        vault.ingest(yes=True)
        fresh = Vault(vault.root, Path(place) / "fresh.db")
        fresh.options.update(vault.options)
        fresh.ingest()
        found, expected = dump(vault.db), dump(fresh.db)
        check = vault.db.query("SELECT * FROM pragma_foreign_key_check")
        vault.db.close()
        fresh.db.close()
    assert found == expected
    assert check == []
