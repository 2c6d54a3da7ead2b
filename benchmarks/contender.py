"""What takes part: for each question a list of contenders, each a generator that is timed in the middle.

A contender's function gets a load and an empty folder. Up to its first ``yield`` it prepares, up to the
second it does the work that is timed, after that it closes everything and checks what it made.
It returns the number of rows found there, or a dict with ``rows`` and what it measured by itself.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import data
import numpy as np

BASELINE = "stdlib"
"""The contender that all ratios are against."""

MODULES = ("ours", "standard", "peers", "limit")

Case = Generator[None, None, Any]


@dataclass(frozen=True)
class Load:
    """A question at one size."""

    question: str
    nodes: int
    edges: int = 0
    dims: int = 0
    meta: bool = False
    schema: str = ""
    page_size: int = 0

    @property
    def rows(self) -> int:
        """What a rate counts."""
        return self.edges or self.nodes

    @property
    def name(self) -> str:
        """Such as ``edges-1000000``."""
        size = str(self.edges) if self.edges else f"{self.nodes}x{self.dims}"
        return f"{self.question}-{size}{'-meta' if self.meta else ''}"

    @cache  # noqa: B019 - a process plays one load
    def make(self) -> Any:
        """The seeded data of this size, the same object each time."""
        if self.edges:
            return data.make_edges(self.edges, self.nodes)
        return data.make_nodes(self.nodes, self.dims, meta=self.meta)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Contender:
    """One way to do one thing.

    Attributes:
        name: short, unique within a question.
        label: what the table calls it.
        packages: what must be installed for it.
        at_most: rows beyond which it takes too long to be waited for.
        meta: takes part also where nodes have metadata.
        absent_because: asks for a reason why it cannot take part, or None.
    """

    question: str
    name: str
    label: str
    play: Callable[[Load, Path], Case]
    packages: tuple[str, ...] = ()
    at_most: int = 2**62
    meta: bool = False
    absent_because: Callable[[], str | None] = lambda: None

    def absent(self, load: Load) -> str | None:
        """Why it does not take part, or None."""
        for package in self.packages:
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                return f"{package} is not installed"
        if load.rows > self.at_most:
            return f"takes too long beyond {self.at_most:,} rows"
        if load.meta and not self.meta:
            return "metadata is measured with few contenders"
        return self.absent_because()


_contenders: dict[tuple[str, str], Contender] = {}


def contender(
    question: str, name: str, label: str, **options: Any
) -> Callable[[Callable[[Load, Path], Case]], Callable[[Load, Path], Case]]:
    """Register the decorated function."""

    def register(play: Callable[[Load, Path], Case]) -> Callable[[Load, Path], Case]:
        _contenders[question, name] = Contender(question, name, label, play, **options)
        return play

    return register


def contenders(question: str) -> list[Contender]:
    """Those of one question, in the order of the table."""
    for module in MODULES:
        importlib.import_module(module)
    return [each for each in _contenders.values() if each.question == question]


def find(question: str, name: str) -> Contender:
    """One of them."""
    contenders(question)
    return _contenders[question, name]


# --- checks -----------------------------------------------------------------------------------------


def check_equal(what: str, found: Any, wanted: Any) -> None:
    """Raise ValueError unless both are the same."""
    if found != wanted:
        raise ValueError(f"{what}: {found!r:.200} found, {wanted!r:.200} wanted")


def check_matrix(load: Load, ids: list[str], vectors: np.ndarray[Any, Any]) -> int:
    """The vectors of all nodes, each beside its id, in any order; returns how many."""
    nodes = load.make()
    check_equal("shape", vectors.shape, (load.nodes, load.dims))
    check_equal("ids", sorted(ids), sorted(nodes.texts["id"]))
    number = {name: row for row, name in enumerate(nodes.texts["id"])}
    order = np.array([number[name] for name in ids])
    for start in range(0, load.nodes, 8192):
        wanted = nodes.vectors[order[start : start + 8192]]
        if not np.allclose(vectors[start : start + 8192], wanted, atol=1e-6):
            raise ValueError(f"a vector near row {start} is not what was written")
    return len(ids)


def check_sample(load: Load, vector_of: Callable[[str], Any]) -> None:
    """Vectors of a few nodes, looked up one by one."""
    nodes = load.make()
    for row in np.linspace(0, load.nodes - 1, 25).astype(int).tolist():
        found = np.frombuffer(vector_of(nodes.texts["id"][row]), dtype=np.float32)
        if not np.allclose(found, nodes.vectors[row], atol=1e-6):
            raise ValueError(f"row {row}: its vector is not what was written")
