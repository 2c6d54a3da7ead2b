"""Vaults made of real files in a temp folder, and databases beside them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import resonance
from resonance.model import Space
from resonance.vault.embed import CallableEmbedder
from resonance.vault.ingest import ingest
from resonance.vault.report import IngestReport
from resonance.vault.settings import VaultSettings, load_settings

Files = Mapping[str, str | bytes]


def write(root: Path, files: Files) -> Path:
    """Write files below ``root``; text as UTF-8."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def embed_by_hash(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Eight floats that depend on every byte of a text."""
    rows = [hashlib.sha256(text.encode()).digest()[:8] for text in texts]
    return np.array([[byte - 127.5 for byte in row] for row in rows], dtype=np.float32)


def hash_embedder(name: str = "by-hash") -> CallableEmbedder:
    return CallableEmbedder(embed_by_hash, Space(name, 8))


def dump(db: resonance.ResonanceDB) -> dict[str, list[tuple[Any, ...]]]:
    """All that a vault puts into a database, but for row numbers and what the disk decides."""
    return {
        name: db.query(sql)
        for name, sql in {
            "nodes": "SELECT id, type, title, domain, layer, hex(embedding), hash, meta, date, summary "
            "FROM nodes ORDER BY id",
            "edges": "SELECT * FROM edges ORDER BY source, target, type",
            "links": "SELECT source, kind, type, raw, name, fragment, span_start, span_end, state, "
            "target, candidates, mark FROM links ORDER BY source, span_start, span_end, kind, name",
            "sections": "SELECT node, document, ordinal, heading, span_start, span_end, hash, "
            "text_hash FROM sections ORDER BY document, ordinal",
            "files": "SELECT path, node, size, hash, body_hash FROM files ORDER BY path",
        }.items()
    }


class Vault:
    """A vault in a folder and its database."""

    def __init__(self, root: Path, database: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self.db = resonance.ResonanceDB(os.fspath(database), root=root)
        self.options: dict[str, Any] = {"model": "none"}
        self.database = database

    def write(self, files: Files) -> None:
        write(self.root, files)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.root / name).unlink()

    @property
    def settings(self) -> VaultSettings:
        return load_settings(self.root, database=self.database, **self.options)

    def ingest(self, **options: Any) -> IngestReport:
        report = ingest(self.db, self.settings, **options)
        failed = {problem.path for problem in report.problems}
        assert report.files == report.indexed + report.unchanged + len(failed)
        return report

    def edges(self) -> set[tuple[str, str, str]]:
        return set(self.db.query("SELECT source, target, type FROM edges"))

    def ids(self) -> dict[str, str]:
        return dict(self.db.query("SELECT path, node FROM files"))
