"""The vectors of a vault's notes: reused where the text is the same, else embedded.

The model is loaded only when a text has to be embedded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from resonance.model import FloatArray
from resonance.vault.embed import Embedder, checked_embed, choose_embedder
from resonance.vault.note import ParsedNote
from resonance.vault.settings import VaultSettings

if TYPE_CHECKING:
    from resonance.database import ResonanceDB

Vector = FloatArray | None


class Vectors:
    """Where the vectors of one ingest come from.

    Args:
        embedder: the model; None for the one the settings ask for.
        reuse_from: another database to take vectors of equal texts from.
        replace: drop vectors of another model even if this vault cannot make them again.

    Attributes:
        note: why there are no vectors, or what happened to the old ones.
        ours: ids of the nodes that this vault can embed.
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
        self.ours: frozenset[str] = frozenset()
        self._embedder = embedder
        self._ready = False
        self._saved: dict[str, FloatArray] = {}
        self._by_text: dict[str, str] | None = None
        # Vectors of a model nobody named give way only to one that somebody did.
        self._asked = embedder is not None or settings.model is not None or replace
        self._model = settings.model or "default"
        found = db.query("SELECT value FROM properties WHERE key = 'vault.vectors'")
        self._stored_signature: str = found[0][0] if found else ""
        told = json.loads(self._stored_signature or "{}")
        if embedder is None:
            self._complete = told.get("model") == self._model
        else:
            self._complete = told.get("space") == list(embedder.space)

    def signature(self) -> str:
        """What the stored vectors are complete for: empty while some are missing."""
        if self._complete and not self._ready:
            return self._stored_signature
        if self._embedder is None:
            return ""
        return json.dumps({"model": self._model, "space": self._embedder.space})

    def save(self, nodes: Sequence[str]) -> None:
        """Keep the vectors of nodes that are about to be deleted."""
        if not nodes:
            return
        for text, blob in self.db.query(
            "SELECT f.body_hash, n.embedding FROM files AS f JOIN nodes AS n ON n.id = f.node "
            "WHERE n.id IN (SELECT value FROM json_each(?)) AND n.embedding IS NOT NULL",
            (json.dumps(list(nodes)),),
        ):
            self._saved[text] = np.frombuffer(blob, dtype="<f4")

    def of(self, notes: Sequence[ParsedNote]) -> list[Vector]:
        """One vector a note, in their order; None where there is none to be had."""
        if not notes:
            return []
        if not self._complete:
            self._load()
        texts = {note.body_hash for note in notes}
        known = self._stored(self.db, texts) | {t: v for t, v in self._saved.items() if t in texts}
        missing = [note for note in notes if note.body_hash not in known]
        was_complete = self._complete
        embedder = self._load() if missing else None
        if was_complete and not self._complete:
            return self.of(notes)  # the model turned out to be another one, and nothing fits it
        if missing and embedder is not None:
            known |= self._from_elsewhere(embedder, {note.body_hash for note in missing})
            missing = [note for note in missing if note.body_hash not in known]
            rows = checked_embed(embedder, [note.embedding_text for note in missing])
            known |= {note.body_hash: row for note, row in zip(missing, rows, strict=True)}
        return [known.get(note.body_hash) for note in notes]

    def pending(self) -> list[str]:
        """Paths of finished notes without a vector, where that is because the model is another one."""
        if self._complete or self._load() is None:
            return []
        return [
            path
            for (path,) in self.db.query(
                "SELECT f.path FROM files AS f JOIN nodes AS n ON n.id = f.node "
                "WHERE n.embedding IS NULL AND f.hash <> '' ORDER BY f.path"
            )
        ]

    def _load(self) -> Embedder | None:
        """The embedder, with its space made the active one."""
        if self._ready:
            return self._embedder
        self._ready = True
        if self._embedder is None:
            self._embedder, self.note = choose_embedder(self.settings)
        if self._embedder is not None and not self._activate(self._embedder):
            self._embedder = None
        return self._embedder

    def _activate(self, embedder: Embedder) -> bool:
        old, new = self.db.space, embedder.space
        if old == new:
            return True
        holders = {node for (node,) in self.db.query("SELECT id FROM nodes WHERE embedding IS NOT NULL")}
        others = holders - self.ours
        if old is not None and holders and not self._asked:
            self.note = (
                f"the stored vectors are by {old.name} ({old.dims} dimensions), not by {new.name}, the "
                f"default. Nothing was embedded; name the model to use in the settings (embeddings.model)"
            )
            return False
        if old is not None and others and not self.replace:
            self.note = (
                f"{len(others)} nodes that stand for no file of this vault have vectors of "
                f"{old.name} ({old.dims} dimensions), which {new.name} would replace. "
                f"Nothing was embedded; name that model in the settings, or pass --yes to drop them"
            )
            return False
        with self.db.transaction() as connection:
            self.db.set_space(new, replace=True)
            connection.execute("DELETE FROM properties WHERE key = 'vault.vectors'")
        self._complete = False
        self._saved.clear()
        self._by_text = {}
        if old is not None and holders:
            self.note = f"{len(holders)} vectors of {old.name} were dropped for those of {new.name}"
        return True

    def _stored(self, db: ResonanceDB, texts: set[str]) -> dict[str, FloatArray]:
        """Vectors of equal texts in the database as it was when the run began."""
        if self._by_text is None:
            self._by_text = dict(db.query("SELECT body_hash, node FROM files"))
        return _fetch(db, {self._by_text[t]: t for t in texts if t in self._by_text})

    def _from_elsewhere(self, embedder: Embedder, texts: set[str]) -> dict[str, FloatArray]:
        other = self.reuse_from
        if other is None or other.space != embedder.space:
            return {}
        nodes = other.query(
            "SELECT node, body_hash FROM files WHERE body_hash IN (SELECT value FROM json_each(?))",
            (json.dumps(sorted(texts)),),
        )
        return _fetch(other, dict(nodes))


def _fetch(db: ResonanceDB, texts: dict[str, str]) -> dict[str, FloatArray]:
    """The vectors of some nodes, by the hash of their texts; ``texts`` maps node -> hash."""
    if not texts:
        return {}
    found = db.query(
        "SELECT id, embedding FROM nodes WHERE id IN (SELECT value FROM json_each(?)) "
        "AND embedding IS NOT NULL",
        (json.dumps(sorted(texts)),),
    )
    return {texts[node]: np.frombuffer(blob, dtype="<f4") for node, blob in found}
