"""Which loads make up a run."""

from __future__ import annotations

from contender import Load

# What takes long is asked of few.
_FEWEST = ("stdlib", "c", "ours", "ours-fresh")
_FEW = (*_FEWEST, "ours-arrow", "duckdb", "lancedb")
_OURS = ("ours", "ours-arrow", "c-best")


class Planned:
    """A load, and who it is for (None: everybody)."""

    def __init__(self, load: Load, only: tuple[str, ...] | None = None) -> None:
        self.load = load
        self.only = only


def _nodes(count: int, dims: int = 384, *, meta: bool = False) -> Load:
    return Load("nodes", count, dims=dims, meta=meta)


def _edges(count: int) -> Load:
    return Load("edges", count // 10, count)


def _matrix(count: int, dims: int = 384) -> Load:
    return Load("matrix", count, dims=dims)


SCALES: dict[str, list[Planned]] = {
    "tiny": [Planned(_nodes(400, 16)), Planned(_edges(2_000)), Planned(_matrix(400, 16))],
    "small": [Planned(_nodes(10_000)), Planned(_edges(100_000)), Planned(_matrix(10_000))],
    "medium": [
        Planned(_nodes(10_000)),
        Planned(_nodes(100_000)),
        Planned(_nodes(100_000, meta=True), _FEWEST),
        Planned(_nodes(100_000, 1024), _FEWEST),
        Planned(_edges(100_000)),
        Planned(_edges(1_000_000)),
        Planned(_matrix(10_000)),
        Planned(_matrix(100_000)),
        Planned(_matrix(100_000, 1024), _FEWEST),
    ],
    "large": [
        Planned(_nodes(1_000_000), _FEW),
        Planned(_edges(10_000_000), _OURS),
        Planned(_matrix(1_000_000), _FEW),
    ],
}

ROUNDS = {"tiny": 2, "small": 3, "medium": 3, "large": 2}


def planned(scale: str, question: str) -> list[Planned]:
    return [each for each in SCALES[scale] if each.load.question == question]
