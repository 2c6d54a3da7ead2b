"""``search``, ``read``, ``explore``, ``links``: asking a database."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resonance.cli import place
from resonance.cli.output import FINDINGS, Answer, answering, one_line, safe
from resonance.cli.place import Database, Json, Model, Place, Root, RootOption
from resonance.errors import ContentError, EmbedderError, UnknownNodeError
from resonance.model import Hit, Link, LinkState, Node
from resonance.words import counted

if TYPE_CHECKING:
    from resonance.database import ResonanceDB
    from resonance.vault.embed import Embedder

# Spaces whose vectors came without the name of their model.
_NAMELESS = frozenset({"unnamed", "unknown"})

NodeId = Annotated[str, typer.Argument(metavar="ID", help="A node: its id, its path, or its title.")]
Count = Annotated[int, typer.Option("-k", "--count", min=1, help="How many.")]


def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for, in your own words.")],
    count: Count = 10,
    type: Annotated[
        str | None, typer.Option("--type", help="Only nodes of this type.", show_default=False)
    ] = None,
    root: RootOption = None,
    database: Database = None,
    model: Model = None,
    as_json: Json = False,
) -> None:
    """Find the notes nearest in meaning."""
    with answering(as_json) as answer:
        where = place.find(None, root, database, model=model)
        with place.open_for_reading(where) as db:
            embedder = embedder_of(db, where, model)
            hits = db.search(_vector(embedder, text), count, type=type)
            found = [(hit, *_state(db, hit.id)) for hit in hits]
        if as_json:
            answer.document(
                [
                    {
                        "id": hit.id,
                        "score": hit.score,
                        "title": hit.title,
                        "path": path or hit.path,
                        "state": state,
                    }
                    for hit, state, path in found
                ]
            )
            return
        if answer.on_terminal:
            _show_hits(answer, found)
        else:
            answer.table(
                ("score", "id", "title", "path", "state"),
                [
                    (f"{hit.score:.3f}", hit.id, hit.title or "", path or hit.path or "", state or "")
                    for hit, state, path in found
                ],
            )
        if not found:
            answer.note("nothing found")


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
                "node": _card(found) | {"path": path, "state": state},
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
            help="Only those that lead nowhere, to a file that is not there, or to several notes; "
            "exit code 1 if any.",
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
            chosen = [
                link
                for link in db.links(
                    source=None if source is None else _resolve(db, source),
                    target=None if target is None else _resolve(db, target),
                    state=state,
                )
                if (not broken or link.is_broken) and kind in (None, link.kind)
            ]
            lines = _lines(db, chosen)
        if as_json:
            answer.document([{"line": line, **_link(link)} for link, line in zip(chosen, lines, strict=True)])
        else:
            _show_links(answer, chosen, lines)
            if broken:
                answer.note(counted(len(chosen), "broken link") if chosen else "every link leads somewhere")
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
    for node_id, title in db.query("SELECT id, title FROM nodes"):
        names.setdefault(node_id.casefold(), node_id)
        if title:
            names.setdefault(title.casefold(), node_id)
    near = difflib.get_close_matches(text.casefold(), names, n=6, cutoff=0.6)
    return list(dict.fromkeys(names[name] for name in near))[:3]


# --- the model ----------------------------------------------------------------------------------------


def embedder_of(db: ResonanceDB, where: Place, asked: str | None) -> Embedder:
    """The model whose space the vectors belong to.

    Raises:
        EmbedderError: there are no vectors, or the model cannot be had.
    """
    from resonance.vault.embed import choose_embedder

    space = db.space
    if space is None or not db.query("SELECT 1 FROM nodes WHERE embedding IS NOT NULL LIMIT 1"):
        raise EmbedderError(
            f"{db.path} holds no vectors, so there is no search by meaning; `resonance ingest` makes them"
        )
    why = None
    for name in dict.fromkeys((where.settings.model, None if asked else space.name)):
        settings = dataclasses.replace(where.settings, model=name, dims=None)
        embedder, why = choose_embedder(settings)
        if embedder is None:
            continue
        nameless = space.name in _NAMELESS and asked is not None and embedder.space.dims == space.dims
        if embedder.space == space or nameless:
            return embedder
        why = f"this model is {embedder.space.name}, revision {embedder.space.revision or 'unknown'}"
    revision = f", revision {space.revision}" if space.revision else ""
    raise EmbedderError(
        f"the vectors of {db.path} are by {space.name} ({space.dims} dimensions{revision}), which is not "
        f"here: {why}. Name it with --model, or make the vectors anew with `resonance ingest`"
    )


def _vector(embedder: Embedder, text: str) -> Any:
    from resonance.vault.embed import checked_embed

    vector = checked_embed(embedder, [text])[0]
    if not vector.any():
        raise EmbedderError(f"{embedder.space.name} knows no word of {text!r}; ask in other words")
    return vector


# --- what is told -------------------------------------------------------------------------------------


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


def _nearest(db: ResonanceDB, node: Node, count: int) -> list[dict[str, Any]]:
    if node.embedding is None or not count:
        return []
    hits = db.search(node.embedding, count + 1)
    others = [hit for hit in hits if hit.id != node.id][:count]
    return [{"id": hit.id, "score": hit.score, "title": hit.title, "path": hit.path} for hit in others]


def _link(link: Link) -> dict[str, Any]:
    return link._asdict() | {"candidates": list(link.candidates)}


def _leads(link: Link) -> str:
    leads = link.target or ", ".join(link.candidates) or (link.name if link.state == "external" else "")
    return f"{leads} ({_MARKS[link.mark]})".lstrip() if link.mark else leads


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


def _show_hits(answer: Answer, found: Sequence[tuple[Hit, str | None, str | None]]) -> None:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for hit, state, path in found:
        told = Text.assemble(
            (safe(one_line(hit.title or hit.id)), "bold"), "\n", (safe(one_line(path or hit.id)), "dim")
        )
        if state not in (None, "fresh"):
            told.append(f"  {state}", "yellow")
        grid.add_row(f"{hit.score:.3f}", told)
    answer.console.print(grid)


def _show_links(answer: Answer, chosen: Sequence[Link], lines: Sequence[int | None]) -> None:
    """By note on a terminal; else a line for each, which begins as those of a compiler do."""
    if not answer.on_terminal:
        answer.table(
            ("where", "link", "state", "leads to"),
            [
                (f"{path}:{line}" if line else path, link.raw, link.state, _leads(link))
                for link, line in zip(chosen, lines, strict=True)
                if (path := link.path or link.source)
            ],
        )
        return
    from rich.table import Table
    from rich.text import Text

    styles = {"unresolved": "red", "ambiguous": "yellow", "resolved": "green", "external": "dim"}
    rows = zip(chosen, lines, strict=True)
    for path, group in itertools.groupby(rows, key=lambda row: row[0].path or row[0].source):
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", justify="right", min_width=6, no_wrap=True)
        grid.add_column(no_wrap=True, width=10)
        grid.add_column(overflow="fold")
        for link, line in group:
            told = Text(safe(one_line(link.raw)))
            if leads := _leads(link):
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
            ("path", node["path"] or ""),
            ("state", node["state"] or ""),
            ("date", node["date"] or ""),
            ("tags", ", ".join(map(str, node["tags"]))),
            ("aliases", ", ".join(map(str, node["aliases"]))),
            ("summary", node["summary"] or ""),
        )
    )
    for heading, rows in (
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
