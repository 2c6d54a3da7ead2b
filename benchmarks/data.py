"""Seeded data: the same rows for everyone, made anew in each process, in no useful order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SEED = 20_260

_FIRST = "amber birch cedar delta ember fjord grove haven islet jetty knoll larch maple ocean plain".split()
_SECOND = "ledger method parcel memory signal border column thread lesson garden mirror engine valley".split()
_TYPES = ("note", "concept", "journal", "person", "reference")
_DOMAINS = ("biology", "computing", "cooking", "history", "music", "philosophy", "travel", "work")
_LAYERS = ("experience", "ontology", "persona")
_KINDS = ("CITES", "EXTENDS", "MENTIONS", "PART_OF", "RELATED_TO", "SUPPORTS")


@dataclass(frozen=True)
class Nodes:
    """Columns of ``nodes``: lists of ``str``, and unit vectors (n, d) as float32."""

    texts: dict[str, list[str]]
    vectors: np.ndarray[Any, np.dtype[np.float32]]

    def __len__(self) -> int:
        return len(self.texts["id"])

    @property
    def columns(self) -> dict[str, Any]:
        return {**self.texts, "embedding": self.vectors}

    @property
    def size(self) -> int:
        """Bytes of the values themselves."""
        return _bytes_of(self.texts) + self.vectors.nbytes


@dataclass(frozen=True)
class Edges:
    """Columns of ``edges``, each key once; ``ids`` are the nodes they run between."""

    texts: dict[str, list[str]]
    confidence: np.ndarray[Any, np.dtype[np.float64]]
    ids: list[str]

    def __len__(self) -> int:
        return len(self.confidence)

    @property
    def columns(self) -> dict[str, Any]:
        return {**self.texts, "confidence": self.confidence}

    @property
    def size(self) -> int:
        """Bytes of the values themselves."""
        return _bytes_of(self.texts) + self.confidence.nbytes


def make_ids(count: int) -> list[str]:
    """Names such as notes have, different from each other, in random order."""
    random = np.random.default_rng(SEED)
    numbers = random.permutation(count).tolist()
    first, second = random.integers(len(_FIRST), size=count), random.integers(len(_SECOND), size=count)
    return [
        f"{_FIRST[a]}-{_SECOND[b]}-{number:07d}"
        for a, b, number in zip(first.tolist(), second.tolist(), numbers, strict=True)
    ]


def make_nodes(count: int, dims: int, *, meta: bool = False) -> Nodes:
    """``count`` nodes with vectors of ``dims``; with ``meta`` also a JSON object each, as text."""
    random = np.random.default_rng((SEED, count, dims))
    ids = make_ids(count)
    digests = random.bytes(32 * count).hex()
    days = random.integers(1, 29, size=count).tolist()
    texts = {
        "id": ids,
        "type": _chosen(random, _TYPES, count),
        "title": [name[:-8].replace("-", " ").capitalize() + f", part {name[-4:]}" for name in ids],
        "domain": _chosen(random, _DOMAINS, count),
        "layer": _chosen(random, _LAYERS, count),
        "hash": [digests[start : start + 64] for start in range(0, 64 * count, 64)],
        "date": [f"2026-{1 + day % 12:02d}-{day:02d}" for day in days],
    }
    if meta:
        texts["meta"] = [
            f'{{"tags":["{name[:5]}","{kind}"],"words":{day * 37}}}'
            for name, kind, day in zip(ids, texts["type"], days, strict=True)
        ]
    vectors = random.standard_normal((count, dims), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Nodes(texts, vectors)


def make_edges(count: int, nodes: int) -> Edges:
    """``count`` edges between ``nodes`` nodes, every pair as likely as every other."""
    random = np.random.default_rng((SEED, count, nodes))
    kinds = len(_KINDS)
    keys = np.unique(random.integers(nodes * nodes * kinds, size=count + count // 50 + 100))
    if len(keys) < count:
        raise ValueError(f"{count} different edges do not fit between {nodes} nodes")
    random.shuffle(keys)
    keys = keys[:count]
    ids = make_ids(nodes)
    texts = {
        "source": [ids[i] for i in (keys // (nodes * kinds)).tolist()],
        "target": [ids[i] for i in (keys // kinds % nodes).tolist()],
        "type": [_KINDS[i] for i in (keys % kinds).tolist()],
    }
    return Edges(texts, random.random(count), ids)


def _chosen(random: np.random.Generator, values: tuple[str, ...], count: int) -> list[str]:
    return [values[i] for i in random.integers(len(values), size=count).tolist()]


def _bytes_of(texts: dict[str, list[str]]) -> int:
    return sum(len(text) for column in texts.values() for text in column)
