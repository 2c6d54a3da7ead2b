"""The vectors of a vault's notes and sections: reused where the text is the same, else embedded.

A note without sections has the vector of its text; in that of one with sections the first of them weighs
as much as the mean of all. The model is loaded only when a text has to be embedded.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from resonance._core import to_fafcas
from resonance.errors import SpaceError
from resonance.model import FloatArray, Space
from resonance.spaces import NAMELESS, told
from resonance.vault.embed import NO_MODEL, Embedder, checked_embed, choose_embedder
from resonance.vault.note import ParsedNote
from resonance.vault.sections import Section
from resonance.vault.settings import VaultSettings

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

Vector = FloatArray | None

_WORTH_A_LOOK = 64
"""From so many texts on it is worth to see first whether there are any vectors."""


class NoteVectors(NamedTuple):
    """The vectors of a note and of its sections, in their order; None where there is none to be had."""

    note: Vector
    sections: tuple[Vector, ...] = ()


class Vectors:
    """Where the vectors of one ingest come from.

    Args:
        embedder: the model; None for the one the settings ask for.
        reuse_from: another database to take vectors of equal texts from.
        replace: drop vectors of another model even if this vault cannot make them again.

    Attributes:
        note: why there are no vectors, or what happened to the old ones.
        ours: path -> id of the nodes that this vault can embed.
        replaced: whether another model's space was made the active one, without whatever vectors there were.
    """

    def __init__(
        self,
        db: ResonanceDB,
        settings: VaultSettings,
        embedder: Embedder | None,
        reuse_from: ResonanceDB | None,
        *,
        replace: bool,
    ) -> None:
        self.db = db
        self.settings = settings
        self.reuse_from = reuse_from
        self.replace = replace
        self.note: str | None = None
        self.ours: Mapping[str, str] = {}
        self.replaced = False
        self._embedder = embedder
        self._ready = False
        self._saved: dict[str, FloatArray] = {}
        # Vectors of a model nobody named give way only to one that somebody did.
        self._asked = embedder is not None or settings.model is not None or replace
        self._model = settings.model or "default"
        self._any_stored: bool | None = None
        found = db.query("SELECT value FROM properties WHERE key = 'vault.vectors'")
        self._stored_signature: str = found[0][0] if found else ""
        signed = json.loads(self._stored_signature or "{}")
        if embedder is None:
            self._complete = signed.get("model") == self._model
        else:
            self._complete = signed.get("space") == list(embedder.space)

    @property
    def may_embed(self) -> bool:
        """Whether a model may be asked, as far as can be known without loading it."""
        return self._embedder is not None or (self.settings.model or "").lower() != NO_MODEL

    def signature(self) -> str:
        """What the stored vectors are complete for: empty while some are missing."""
        if self._complete and not self._ready:
            return self._stored_signature
        if self._embedder is None:
            return ""
        return json.dumps({"model": self._model, "space": self._embedder.space})

    def require_no_switch(self) -> None:
        """See that no space kept beside the one in use takes its place because settings are old.

        Raises:
            SpaceError: the model to embed with is that of a space kept beside, and nobody said to replace.
        """
        active = self.db.space
        if self.replace or active is None or not self.db.query("SELECT 1 FROM spaces WHERE active = 0"):
            return
        embedder = self._embedder
        if embedder is None and self._asked:
            embedder, _ = choose_embedder(self.settings)
        if embedder is None or embedder.space == active or not self._is_kept(embedder.space):
            return
        name = embedder.space.name
        raise SpaceError(
            f"the vectors in use are those of {told(active)}, but the model to embed with is {name}, whose "
            f"vectors are kept beside. Nothing was changed; name the model of {active.name} in the settings "
            f"(embeddings.model), or go back to {name} with `resonance spaces switch`, "
            f"db.switch_space({name!r}), or --yes"
        )

    def _is_kept(self, space: Space) -> bool:
        """Whether there are vectors of a space beside those in use."""
        return any(info.space == space and info.vectors for info in self.db.spaces())

    def save(self, nodes: Sequence[str]) -> None:
        """Keep the vectors of notes that are about to be deleted."""
        if nodes:
            chosen = json.dumps(list(nodes))
            self._saved |= _fetch(self.db, _OF_NODES, (chosen, chosen))

    def of(self, notes: Sequence[tuple[ParsedNote, Sequence[Section]]]) -> list[NoteVectors]:
        """The vectors of notes and of their sections."""
        if not notes:
            return []
        if not self._complete:
            self._load()
        texts: dict[str, ParsedNote | Section] = {}
        for note, sections in notes:
            texts |= {section.text_hash: section for section in sections}
            if not sections:
                texts[note.body_hash] = note
        known: dict[str, FloatArray] = {t: v for t, v in self._saved.items() if t in texts}
        if len(texts) < _WORTH_A_LOOK or self._had_vectors():
            known |= _of_texts(self.db, [text for text in texts if text not in known])
        missing = [text for text in texts if text not in known]
        was_complete = self._complete
        embedder = self._load() if missing else None
        if was_complete and not self._complete:
            return self.of(notes)  # the model turned out to be another one, and nothing fits it
        if missing and embedder is not None:
            if self.reuse_from is not None and self.reuse_from.space == embedder.space:
                known |= _of_texts(self.reuse_from, missing)
                missing = [text for text in missing if text not in known]
            known |= embedded(embedder, {text: texts[text] for text in missing})
        return [vectors_of(note, sections, known) for note, sections in notes]

    def _had_vectors(self) -> bool:
        """Whether there were any when first asked: a new database is not searched once a batch."""
        if self._any_stored is None:
            found = self.db.query("SELECT 1 FROM nodes WHERE embedding IS NOT NULL LIMIT 1")
            self._any_stored = bool(found)
        return self._any_stored

    def pending(self) -> list[str]:
        """Paths of finished notes without a vector, where that is because the model is another one."""
        if self._complete or self._load() is None:
            return []
        return [
            path
            for (path,) in self.db.query(
                "SELECT f.path FROM files AS f JOIN nodes AS n ON n.id = f.node "
                "WHERE f.hash <> '' AND (n.embedding IS NULL OR EXISTS (SELECT 1 FROM sections AS s "
                "JOIN nodes AS m ON m.id = s.node WHERE s.document = f.node AND m.embedding IS NULL)) "
                "ORDER BY f.path"
            )
        ]

    def _load(self) -> Embedder | None:
        """The embedder, with its space made the active one."""
        if self._ready:
            return self._embedder
        self._ready = True
        if self._embedder is None:
            self._embedder, self.note = choose_embedder(self.settings)
            if not self._asked:
                self._embedder = self._of_those_in_use() or self._embedder
        if self._embedder is not None and not self._activate(self._embedder):
            self._embedder = None
        return self._embedder

    def _of_those_in_use(self) -> Embedder | None:
        """The model of the active space, if nobody named one and it is here by that name."""
        space = self.db.space
        if self._embedder is None or space is None or space == self._embedder.space:
            return None
        if space.name in NAMELESS:
            return None
        embedder, _ = choose_embedder(dataclasses.replace(self.settings, model=space.name, dims=None))
        return embedder if embedder is not None and embedder.space == space else None

    def _activate(self, embedder: Embedder) -> bool:
        old, new = self.db.space, embedder.space
        if old == new:
            return True
        holders = {node for (node,) in self.db.query("SELECT id FROM nodes WHERE embedding IS NOT NULL")}
        ours = frozenset(self.ours.values())
        others = holders - ours - self._sections_of(ours)
        aside = self._is_kept(new)
        if old is not None and holders and not self._asked:
            self.note = (
                f"the stored vectors are by {old.name} ({old.dims} dimensions), not by {new.name}, the "
                f"default. Nothing was embedded; name the model to use in the settings (embeddings.model)"
            )
            return False
        if old is not None and others and not self.replace and not aside:
            self.note = (
                f"{len(others)} nodes that stand for no file of this vault have vectors of "
                f"{old.name} ({old.dims} dimensions), which {new.name} would replace. "
                f"Nothing was embedded; name that model in the settings, or pass --yes to drop them"
            )
            return False
        if aside:
            self.db.switch_space(new, require_complete=False)
        else:
            with self.db.transaction() as connection:
                self.db.set_space(new, replace=True)
                connection.execute("DELETE FROM properties WHERE key = 'vault.vectors'")
        self._complete, self.replaced = False, True
        self._saved.clear()
        if old is not None and aside:
            self.note = f"switched to {told(new)}, as the settings say; the vectors of {told(old)} are kept"
        elif old is not None and holders:
            self.note = f"{len(holders)} vectors of {old.name} were dropped for those of {new.name}"
        return True

    def _sections_of(self, documents: frozenset[str]) -> set[str]:
        stored = self.db.query("SELECT node, document FROM sections")
        return {node for node, document in stored if document in documents}


_OF_SECTIONS = (
    "SELECT s.text_hash, n.embedding FROM sections AS s JOIN nodes AS n ON n.id = s.node "
    "WHERE n.embedding IS NOT NULL AND "
)
# The vector of a note with sections is not that of its text.
_OF_SHORT_NOTES = (
    "SELECT f.body_hash, n.embedding FROM files AS f JOIN nodes AS n ON n.id = f.node "
    "WHERE n.embedding IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM sections AS s WHERE s.document = f.node) AND "
)
_CHOSEN = "IN (SELECT value FROM json_each(?))"
_OF_NODES = f"{_OF_SECTIONS} s.document {_CHOSEN} UNION ALL {_OF_SHORT_NOTES} f.node {_CHOSEN}"
_OF_TEXTS = f"{_OF_SECTIONS} s.text_hash {_CHOSEN} UNION ALL {_OF_SHORT_NOTES} f.body_hash {_CHOSEN}"


def _of_texts(db: ResonanceDB, texts: Sequence[str]) -> dict[str, FloatArray]:
    """The stored vectors of some texts, by their hashes."""
    chosen = json.dumps(sorted(texts))
    return _fetch(db, _OF_TEXTS, (chosen, chosen)) if texts else {}


def _fetch(db: ResonanceDB, sql: str, values: tuple[str, str]) -> dict[str, FloatArray]:
    return {text: np.frombuffer(blob, dtype="<f4") for text, blob in db.query(sql, values)}


def embedded(embedder: Embedder, texts: dict[str, ParsedNote | Section]) -> dict[str, FloatArray]:
    """New vectors, by the hashes of their texts, as they will be stored; without those of all zeros."""
    rows = checked_embed(
        embedder, [text.text if isinstance(text, Section) else text.embedding_text for text in texts.values()]
    )
    return {text: to_fafcas(row) for text, row in zip(texts, rows, strict=True) if row.any()}


def vectors_of(note: ParsedNote, sections: Sequence[Section], known: dict[str, FloatArray]) -> NoteVectors:
    """The vectors of a note and of its sections, from those of texts by their hashes."""
    if not sections:
        return NoteVectors(known.get(note.body_hash))
    if not known:
        return NoteVectors(None, (None,) * len(sections))
    found = tuple(known.get(section.text_hash) for section in sections)
    return NoteVectors(_of_document([row for row in found if row is not None]), found)


def _of_document(rows: Sequence[FloatArray]) -> Vector:
    """The vector of a document from those of its sections; None if they have no direction.

    What a document is about is said at its beginning: measured, see docs/vectors.md.
    """
    if not rows:
        return None
    mean = np.sum(rows, axis=0, dtype=np.float64)
    mean /= np.linalg.norm(mean) or 1.0
    both = mean + rows[0]
    return to_fafcas(both) if both.any() else None
