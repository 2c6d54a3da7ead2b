"""What the search benchmark asks about: vectors, queries, a filter; and the truth, by float64 brute force."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resonance import to_fafcas

SEED = 20_261
QUERIES = 64
FEW = 16
"""Queries, where not so many are asked at once."""
MOST = 10_000
"""The largest k that is asked for."""

RARE = 100
"""One of so many rows passes the filter."""

CORPORA = Path(os.environ.get("RESONANCE_CORPORA") or "absent")


@dataclass(frozen=True)
class Case:
    """One set of vectors and what is asked about it.

    Attributes:
        questions: names, see ``search_child.QUESTIONS``.
        only: names of contenders; None: everybody.
        each_thread: queries of each of the threads that ask while one writes; 0: that is not asked.
    """

    kind: str
    rows: int
    dims: int
    questions: tuple[str, ...]
    only: tuple[str, ...] | None = None
    each_thread: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.rows}x{self.dims}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Given:
    """The files of a case, as every process reads them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        """``vectors`` (n, d), ``queries`` (q, d), ``rare``: row numbers; ``truth*``: see :func:`make`."""
        try:
            return np.load(self._folder / f"{name}.npy")
        except FileNotFoundError:
            raise AttributeError(name) from None

    @property
    def rows(self) -> int:
        return int(np.load(self._folder / "vectors.npy", mmap_mode="r").shape[0])


def ids(rows: int) -> list[str]:
    """Ids in the order of the rows, so that a tie that ids decide is decided by row numbers."""
    return [f"n{number:07d}" for number in range(rows)]


def domains(given: Given) -> list[str]:
    """``"rare"`` for the rows that the filter keeps."""
    found = ["common"] * given.rows
    for row in given.rare.tolist():
        found[row] = "rare"
    return found


def make(case: Case, folder: Path) -> Given:
    """Write the vectors and queries, and the truth: for each query the best rows and their scores.

    ``truth`` and ``truth_scores`` are (q, min(n, MOST)), ``rare_truth`` and ``rare_scores`` the same
    among the rows that pass the filter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng((SEED, case.rows, case.dims))
    made = _paragraphs(case.rows, random) if case.kind == "real" else _made(case, random)
    # Unit vectors to the last bit, so that what is stored is what the truth is about.
    vectors, queries = (to_fafcas(array) for array in made)
    queries = queries if "many" in case.questions else queries[:FEW]
    rare = np.sort(random.choice(len(vectors), max(1, len(vectors) // RARE), replace=False))
    for name, array in (("vectors", vectors), ("queries", queries), ("rare", rare)):
        np.save(folder / name, array)
    best, scores = truth(vectors, queries, min(len(vectors), MOST))
    np.save(folder / "truth", best)
    np.save(folder / "truth_scores", scores)
    best, scores = truth(vectors[rare], queries, min(len(rare), 10))
    np.save(folder / "rare_truth", rare[best])
    np.save(folder / "rare_scores", scores)
    return Given(folder)


def truth(vectors: Any, queries: Any, k: int) -> tuple[Any, Any]:
    """(q, k) row numbers and float64 scores, best first, ties by row number."""
    exact = queries.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    best = np.empty((len(queries), k), np.int64)
    kept = np.empty((len(queries), k))
    for number in range(0, len(queries), 16):
        few = exact[number : number + 16]
        scores = np.empty((len(few), len(vectors)))
        for start in range(0, len(vectors), 16384):
            scores[:, start : start + 16384] = few @ vectors[start : start + 16384].astype(np.float64).T
        for row, found in enumerate(scores, number):
            least = np.partition(found, len(found) - k)[len(found) - k]
            among = np.flatnonzero(found >= least)
            order = among[np.lexsort((among, -found[among]))][:k]
            best[row], kept[row] = order, found[order]
    return best, kept


def _made(case: Case, random: np.random.Generator) -> tuple[Any, Any]:
    return tuple(random.standard_normal((n, case.dims), dtype=np.float32) for n in (case.rows, QUERIES))


# --- real texts -------------------------------------------------------------------------------------


def absent(case: Case) -> str | None:
    """Why the case cannot be asked about here, or None."""
    if case.kind != "real":
        return None
    if not CORPORA.is_dir():
        return "RESONANCE_CORPORA names no folder of vaults"
    return None if _embedder() is not None else "the embedding model is not on this machine"


def _embedder() -> Any:
    from resonance.vault.embed import choose_embedder
    from resonance.vault.settings import load_settings

    return choose_embedder(load_settings(CORPORA))[0]


def _paragraphs(most: int, random: np.random.Generator) -> tuple[Any, Any]:
    """Vectors of the paragraphs of all vaults; the queries are headings."""
    texts, headings = [], []
    for path in sorted(CORPORA.rglob("*.md")):
        for part in path.read_text(encoding="utf-8", errors="replace").split("\n\n"):
            text = part.strip()
            if text.startswith("#"):
                headings.append(text.splitlines()[0].lstrip("# "))
            elif len(text) >= 40:
                texts.append(text)
    if len(texts) > most:
        texts = [texts[number] for number in np.sort(random.choice(len(texts), most, replace=False))]
    headings = sorted(set(headings))
    asked = [headings[number] for number in random.choice(len(headings), 2 * QUERIES, replace=False)]
    embedder = _embedder()
    vectors, queries = (embedder.embed(some) for some in (texts, asked))
    return _not_zero(vectors), _not_zero(queries)[:QUERIES]


def _not_zero(vectors: Any) -> Any:
    return vectors[vectors.any(axis=1)]
