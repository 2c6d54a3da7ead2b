"""``search``, ``read``, ``explore``, ``links``: asking a database."""

from __future__ import annotations

import difflib
import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from resonance.cli import place
from resonance.cli.output import FINDINGS, Answer, answering, one_line, safe
from resonance.cli.place import Database, Json, Model, Place, Root, RootOption
from resonance.errors import ContentError, SettingsError, UnknownNodeError
from resonance.model import Anchor, Hit, Hits, Link, LinkState, Node
from resonance.words import counted

if TYPE_CHECKING:
    from resonance.database import ResonanceDB


class Mode(StrEnum):
    """What a search goes by."""

    vector = "vector"
    text = "text"
    hybrid = "hybrid"


NodeId = Annotated[str, typer.Argument(metavar="ID", help="A node: its id, its path, or its title.")]
Count = Annotated[int, typer.Option("-k", "--count", min=1, help="How many.")]


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for, in your own words.")],
    count: Count = 10,
    type: Annotated[
        str | None, typer.Option("--type", help="Only notes of this type.", show_default=False)
    ] = None,
    mode: Annotated[
        Mode, typer.Option("--mode", help="By meaning, by words, or both as far as they are there.")
    ] = Mode.hybrid,
    explain: Annotated[bool, typer.Option("--explain", help="Tell the rank in each list.")] = False,
    root: RootOption = None,
    database: Database = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Find notes by meaning and by words, each once, with the section that fits best."""
    with answering(as_json) as answer:
        where = place.find(None, root, database, model=model)
        with place.open_for_reading(where) as db:
            hits = _hits(db, where, text, count, mode, model, type)
            found = _looked_up(db, hits)
            if answer.on_terminal:
                _show_hits(answer, db, found, explain)
        if as_json:
            told = [each.document() for each in found]
            answer.document(
                told if not explain else [t | _ranks(f.hit) for t, f in zip(told, found, strict=True)]
            )
        elif not answer.on_terminal:
            answer.table(
                ("score", "id", "title", "path", "state", "heading", *(["ranks"] if explain else [])),
                [
                    (
                        f"{each.hit.score:.3f}",
                        each.hit.id,
                        each.hit.title or "",
                        each.path or "",
                        each.state or "",
                        each.heading,
                        *([each.ranks] if explain else []),
                    )
                    for each in found
                ],
            )
        for note in hits.notes:
            answer.note(note)
        if not found and not as_json:
            answer.note("nothing found")


def _hits(
    db: ResonanceDB, where: Place, text: str, count: int, mode: Mode, model: str | None, type: str | None
) -> Hits:
    """One hit a note. A model that was asked for must be there; of one that was not, a note tells."""
    from resonance.vault.embed import embedder_of, question_vector

    if mode is Mode.text:
        return db.search_text(text, count, type=type, group_by="document")
    if mode is Mode.vector or model is not None:
        vector = question_vector(embedder_of(db, where.settings, asked=model), text)
        if mode is Mode.vector:
            return db.search(vector, count, type=type, group_by="document")
        return db.search_hybrid(text, count, vector=vector, type=type, group_by="document")

    def embedded(asked: str) -> Any:
        return question_vector(embedder_of(db, where.settings), asked)

    return db.search_hybrid(text, count, vector=embedded, type=type, group_by="document")


def _ranks(hit: Hit) -> dict[str, Any]:
    ranks = {name: rank._asdict() for name, rank in (hit.ranks or {}).items()}
    return {"ranks": ranks}


def read(
    node: NodeId,
    root: RootOption = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Print the text of a note, read from its file now.

    Whether it is still the text that was indexed goes to stderr; the exit code is 1 if not.
    """
    with answering(as_json) as answer:
        where = place.find(None, root, database)
        with place.open_for_reading(where) as db:
            content = db.content(_resolve(db, node))
        if as_json:
            answer.document(content._asdict())
        else:
            if content.text is not None:
                answer.text(content.text if content.text.endswith("\n") else content.text + "\n")
            told = f"{content.path}: {content.state}"
            answer.note(f"{told} ({content.reason})" if content.reason else told)
        if content.state not in ("fresh", "moved"):
            raise typer.Exit(FINDINGS)


def explore(
    node: NodeId,
    count: Annotated[int, typer.Option("-k", "--count", min=0, help="How many nearest notes.")] = 5,
    max_degree: Annotated[
        int | None,
        typer.Option(
            "--max-degree", min=0, help="Leave out neighbours with more edges than this.", show_default=False
        ),
    ] = None,
    root: RootOption = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """Show a node: what it links to, what links to it, and what is near in meaning."""
    with answering(as_json) as answer:
        where = place.find(None, root, database)
        with place.open_for_reading(where) as db, db.snapshot():
            node_id = _resolve(db, node)
            found = db.get_node(node_id)
            assert found is not None
            state, path = _state(db, node_id)
            told = {
                "node": _card(found) | {"path": path, "state": state} | _belonging(db, node_id),
                "sections": _sections(db, node_id),
                "outgoing": _neighbours(db, node_id, "out", max_degree),
                "incoming": _neighbours(db, node_id, "in", max_degree),
                "broken": [_link(link) for link in db.links(source=node_id) if link.is_broken],
                "nearest": _nearest(db, found, count),
            }
        if as_json:
            answer.document(told)
        else:
            _show(answer, told)


def links(
    root: Root = None,
    root_option: RootOption = None,
    broken: Annotated[
        bool,
        typer.Option(
            "--broken",
            help="Only those that lead nowhere, to a file or heading that is not there, to several notes, "
            "or to a heading of a note that is not as it was indexed; exit code 1 if any.",
        ),
    ] = False,
    source: Annotated[
        str | None, typer.Option("--from", metavar="ID", help="Only links in this note.", show_default=False)
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", metavar="ID", help="Only links to this note.", show_default=False)
    ] = None,
    state: Annotated[
        LinkState | None,
        typer.Option("--state", help="Only links in this state.", show_default=False),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="Only links of this kind: wikilink, link, tag ...", show_default=False),
    ] = None,
    database: Database = None,
    as_json: Json = False,
) -> None:
    """List the links of the vault: where each stands, and where it leads."""
    with answering(as_json) as answer:
        where = place.find(root, root_option, database)
        with place.open_for_reading(where) as db:
            found = [
                link
                for link in db.links(
                    source=None if source is None else _resolve(db, source),
                    target=None if target is None else _resolve(db, target),
                    state=state,
                )
                if kind in (None, link.kind) and not (broken and link.fragment is None and not link.is_broken)
            ]
            told = [
                (link, anchor)
                for link, anchor in zip(found, db.anchors(found), strict=True)
                if not broken or link.is_broken or (anchor is not None and anchor.state != "found")
            ]
            chosen, anchors = [link for link, _ in told], [anchor for _, anchor in told]
            lines = _lines(db, chosen)
        rows = list(zip(chosen, anchors, lines, strict=True))
        if as_json:
            answer.document([{"line": line, **_link(link), **_anchor(anchor)} for link, anchor, line in rows])
        else:
            _show_links(answer, rows)
            if broken:
                unknown = sum(_is(anchor, "unknown") and not link.is_broken for link, anchor in told)
                certain = len(chosen) - unknown
                if certain or not unknown:
                    answer.note(counted(certain, "broken link") if certain else "every link leads somewhere")
                if unknown:
                    answer.note(
                        f"{counted(unknown, 'link')} to a place in a note that cannot be read or is not as "
                        "it was indexed: ingest, then ask again"
                    )
        if broken and chosen:
            raise typer.Exit(FINDINGS)


_MARKS = {
    "case": "but for the case of letters",
    "missing": "not there",
    "outside": "outside of the vault",
    "page": "no file yet",
    "backslash": "with / for \\ it would fit",
}


# --- from what was typed to a node --------------------------------------------------------------------


def _resolve(db: ResonanceDB, text: str) -> str:
    """The id of the node that ``text`` names: its id, its path, or its title.

    Raises:
        UnknownNodeError: none, or several; with a note that says which ones come near.
    """
    for sql in (
        "SELECT id FROM nodes WHERE id = ?",
        "SELECT node FROM files WHERE path = ?",
        "SELECT id FROM nodes WHERE title = ? AND layer IS NOT 'section' ORDER BY id LIMIT 10",
        "SELECT id FROM nodes WHERE title = ? ORDER BY id LIMIT 10",
    ):
        found = [row[0] for row in db.query(sql, (text,))]
        if len(found) == 1:
            return str(found[0])
        if found:
            error = UnknownNodeError(text)
            error.add_note(f"{len(found)} nodes have this title; give an id: {', '.join(found)}")
            raise error
    error = UnknownNodeError(text)
    if near := _close(db, text):
        error.add_note(f"did you mean {' or '.join(near)}?")
    raise error


def _close(db: ResonanceDB, text: str) -> list[str]:
    names: dict[str, str] = {}
    # Sections have titles like notes; who means one names it with its note.
    found = db.query(
        "SELECT id, iif(layer IS 'section', NULL, title) FROM nodes "
        "WHERE layer IS NOT 'section' OR instr(?, '#')",
        (text,),
    )
    for node_id, title in found:
        names.setdefault(node_id.casefold(), node_id)
        if title:
            names.setdefault(title.casefold(), node_id)
    near = difflib.get_close_matches(text.casefold(), names, n=6, cutoff=0.6)
    return list(dict.fromkeys(names[name] for name in near))[:3]


# --- what is told -------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """A hit, and what its text looks like now: of its section, if it has one."""

    hit: Hit
    state: str | None
    path: str | None
    span: tuple[int, int] | None

    @property
    def heading(self) -> str:
        """Where in the note, for people."""
        heading = self.hit.heading
        return "" if heading == (self.hit.title,) else _path(heading, self.hit.title)

    @property
    def ranks(self) -> str:
        """Its place in each list, for people."""
        return ", ".join(f"{name} {rank.rank}" for name, rank in (self.hit.ranks or {}).items())

    def document(self) -> dict[str, Any]:
        return {
            "id": self.hit.id,
            "score": self.hit.score,
            "title": self.hit.title,
            "path": self.path,
            "state": self.state,
            "section": self.hit.section,
            "heading": list(self.hit.heading),
            "span": self.span,
        }


def _path(heading: Sequence[str], title: str | None) -> str:
    """A heading path for people, without a first heading that is the note's title."""
    return " / ".join(heading[1:] if len(heading) > 1 and heading[0] == title else heading)


def _looked_up(db: ResonanceDB, hits: Hits) -> list[_Found]:
    """What the texts of hits look like now, each file that moved looked for once."""
    try:
        db.hydrate(hits)
    except ContentError:
        pass  # no vault is known
    except SettingsError as error:
        hits.notes += (f"not known whether the texts are as they were indexed: {error}",)
    found = []
    for hit in hits:
        text = hit.content
        path = (text.path if text else None) or hit.path
        state = text.state if text and path else None
        span = (text.span if text else None) or hit.span
        found.append(_Found(hit, state, path, span if hit.section else None))
    return found


def _state(db: ResonanceDB, node_id: str) -> tuple[str | None, str | None]:
    """The state of a node's text and where it is; None for a node that stands for no file."""
    try:
        content = db.content(node_id)
    except ContentError:
        return None, None
    return content.state, content.path


def _card(node: Node) -> dict[str, Any]:
    meta = dict(node.meta or {})
    return {
        "id": node.id,
        "title": node.title,
        "type": node.type,
        "date": node.date,
        "summary": node.summary,
        "tags": meta.pop("tags", []),
        "aliases": meta.pop("aliases", []),
        "meta": meta,
    }


def _neighbours(
    db: ResonanceDB, node_id: str, direction: str, max_degree: int | None
) -> list[dict[str, Any]]:
    edges = db.get_edges(node_id, direction=direction, max_degree=max_degree)
    # A document's sections are told apart.
    parts = {(section["id"], node_id) for section in _sections(db, node_id)}
    edges = [edge for edge in edges if edge[:2] not in parts]
    ends = [(edge, edge.target if direction == "out" else edge.source) for edge in edges]
    chosen = json.dumps([other for _, other in ends])
    titles = dict(
        db.query("SELECT id, title FROM nodes WHERE id IN (SELECT value FROM json_each(?))", (chosen,))
    )
    return sorted(
        (
            {"type": edge.type, "id": other, "title": titles[other], "confidence": edge.confidence}
            for edge, other in ends
        ),
        key=lambda neighbour: (neighbour["type"], neighbour["id"]),
    )


def _sections(db: ResonanceDB, node_id: str) -> list[dict[str, Any]]:
    return [
        {"id": node, "heading": json.loads(heading), "span": [start, end]}
        for node, heading, start, end in db.query(
            "SELECT node, heading, span_start, span_end FROM sections WHERE document = ? ORDER BY ordinal",
            (node_id,),
        )
    ]


def _belonging(db: ResonanceDB, node_id: str) -> dict[str, Any]:
    """Of a section: its document, and its place in it."""
    found = db.query(
        "SELECT document, heading, span_start, span_end FROM sections WHERE node = ?", (node_id,)
    )
    return {
        key: value
        for document, heading, start, end in found
        for key, value in (("document", document), ("heading", json.loads(heading)), ("span", [start, end]))
    }


def _nearest(db: ResonanceDB, node: Node, count: int) -> list[dict[str, Any]]:
    if node.embedding is None or not count:
        return []
    own = {node.id, *(d for (d,) in db.query("SELECT document FROM sections WHERE node = ?", (node.id,)))}
    hits = db.search(node.embedding, count + 1, group_by="document")
    others = [hit for hit in hits if hit.id not in own][:count]
    return [{"id": hit.id, "score": hit.score, "title": hit.title, "path": hit.path} for hit in others]


def _link(link: Link) -> dict[str, Any]:
    return link._asdict() | {"candidates": list(link.candidates)}


def _anchor(anchor: Anchor | None) -> dict[str, Any]:
    return {"anchor": anchor and anchor.state, "section": anchor and anchor.section}


def _is(anchor: Anchor | None, state: str) -> bool:
    return anchor is not None and anchor.state == state


def _leads(link: Link, anchor: Anchor | None) -> str:
    section = anchor.section if anchor is not None else None
    elsewhere = link.name if link.state == "external" else ""
    leads = section or link.target or ", ".join(link.candidates) or elsewhere
    notes = [_MARKS[link.mark]] if link.mark else []
    if _is(anchor, "missing"):
        notes.append(f"no such place: #{link.fragment}")
    if _is(anchor, "unknown"):
        notes.append(f"not as it was indexed: #{link.fragment} may be there or not")
    return f"{leads} ({'; '.join(notes)})".lstrip() if notes else leads


def _lines(db: ResonanceDB, chosen: Sequence[Link]) -> list[int | None]:
    """The line of each link, for files that are still what was indexed."""
    from resonance.vault.note import file_hash
    from resonance.vault.root import Root as Folder

    by_source: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for index, link in enumerate(chosen):
        if link.start is not None and link.path is not None:
            by_source[link.source, link.path].append(index)
    lines: list[int | None] = [None] * len(chosen)
    if db.root is None or not by_source or not db.root.is_dir():
        return lines
    with Folder(db.root) as folder:
        for (source, path), indexes in by_source.items():
            try:
                data, _ = folder.read(path)
            except ContentError:
                continue
            if file_hash(data) == db.get_node_hash(source):
                for index in indexes:
                    lines[index] = data.count(b"\n", 0, chosen[index].start) + 1
    return lines


def _show_hits(answer: Answer, db: ResonanceDB, found: Sequence[_Found], explain: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for each in found:
        told = Text(safe(one_line(each.hit.title or each.hit.id)), "bold")
        if each.heading:
            told.append(f"  {safe(one_line(each.heading))}", "not bold green")
        line = _line(db, each)
        place = safe(one_line(each.path or each.hit.id)) + (f":{line}" if line else "")
        told.append(f"\n{place}", "not bold dim")
        if each.state not in (None, "fresh"):
            told.append(f"  {each.state}", "not bold yellow")
        if explain and each.ranks:
            told.append(f"  {each.ranks}", "not bold dim")
        grid.add_row(f"{each.hit.score:.3f}", told)
    answer.console.print(grid)


def _line(db: ResonanceDB, found: _Found) -> int | None:
    """The line a section begins at, as an editor counts; None if that is not known."""
    from resonance.vault.root import Root as Folder

    if found.path is None or found.span is None or found.state == "missing" or db.root is None:
        return None
    try:
        with Folder(db.root) as folder:
            data, _ = folder.read(found.path)
    except (ContentError, SettingsError):
        return None
    start = found.span[0]
    # The white space above a heading belongs to its section.
    start += len(data[start:]) - len(data[start:].lstrip())
    return data.count(b"\n", 0, start) + 1


def _show_links(answer: Answer, rows: Sequence[tuple[Link, Anchor | None, int | None]]) -> None:
    """By note on a terminal; else a line for each, which begins as those of a compiler do."""
    if not answer.on_terminal:
        answer.table(
            ("where", "link", "state", "leads to"),
            [
                (f"{path}:{line}" if line else path, link.raw, link.state, _leads(link, anchor))
                for link, anchor, line in rows
                if (path := link.path or link.source)
            ],
        )
        return
    from rich.table import Table
    from rich.text import Text

    styles = {"unresolved": "red", "ambiguous": "yellow", "resolved": "green", "external": "dim"}
    for path, group in itertools.groupby(rows, key=lambda row: row[0].path or row[0].source):
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right", min_width=6, no_wrap=True)
        grid.add_column(no_wrap=True, width=10)
        grid.add_column(overflow="fold")
        for link, anchor, line in group:
            told = Text(safe(one_line(link.raw)))
            if leads := _leads(link, anchor):
                told.append(f"  {safe(leads)}", "dim")
            grid.add_row(str(line or ""), Text(link.state, styles[link.state]), told)
        answer.line(path, "bold")
        answer.console.print(grid)


def _show(answer: Answer, told: dict[str, Any]) -> None:
    node = told["node"]
    if answer.on_terminal:
        answer.line(node["title"] or node["id"], "bold")
    answer.facts(
        (
            ("id", node["id"]),
            ("type", node["type"] or ""),
            ("of", node.get("document", "")),
            ("heading", " / ".join(node.get("heading", ()))),
            ("path", node["path"] or ""),
            ("state", node["state"] or ""),
            ("date", node["date"] or ""),
            ("tags", ", ".join(map(str, node["tags"]))),
            ("aliases", ", ".join(map(str, node["aliases"]))),
            ("summary", node["summary"] or ""),
        )
    )
    for heading, rows in (
        ("sections", (("", _path(s["heading"], node["title"]), s["id"]) for s in told["sections"])),
        ("links to", _grouped(told["outgoing"])),
        ("linked from", _grouped(told["incoming"])),
        (
            "broken links",
            ((link["state"], link["raw"], ", ".join(link["candidates"])) for link in told["broken"]),
        ),
        ("nearest", ((f"{near['score']:.3f}", near["title"] or "", near["id"]) for near in told["nearest"])),
    ):
        _section(answer, heading, list(rows))


def _grouped(neighbours: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(n["type"], n["title"] or "", n["id"]) for n in neighbours]


def _section(answer: Answer, heading: str, rows: list[tuple[str, str, str]]) -> None:
    if not rows:
        return
    if not answer.on_terminal:
        answer.table(("", "", "", ""), [(heading, *row) for row in rows])
        return
    answer.line()
    answer.line(f"{heading} ({len(rows)})", "bold cyan")
    from rich.table import Table

    from resonance.cli.output import cell

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_column(style="dim", overflow="fold")
    before = ""
    for label, title, node_id in rows:
        grid.add_row(cell(f"  {label}" if label != before else ""), cell(title), cell(node_id))
        before = label
    answer.console.print(grid)
