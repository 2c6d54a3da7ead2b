"""Resonance: an embedded knowledge-graph store for folders of markdown.

Metadata, edges and unit float32 vectors live in one SQLite file; the text stays in the files and is
read when somebody asks for it.
"""

from resonance._core import dot_product, engine, to_fafcas
from resonance.database import ResonanceDB
from resonance.errors import ResonanceError, UnsafeSQLiteWarning
from resonance.factory import DatabaseFactory
from resonance.model import (
    Anchor,
    Content,
    Edge,
    EmbeddingMatrix,
    Hit,
    Hits,
    InsertReport,
    Link,
    MissingVectors,
    Node,
    Space,
    SpaceInfo,
    Stats,
    Text,
)

__version__: str
sqlite_version: str = engine()["version"]
"""The version of the SQLite engine in use; ``engine()`` tells where it came from."""

__all__ = [
    "Anchor",
    "Content",
    "DatabaseFactory",
    "Edge",
    "EmbeddingMatrix",
    "Hit",
    "Hits",
    "InsertReport",
    "Link",
    "MissingVectors",
    "Node",
    "ResonanceDB",
    "ResonanceError",
    "Space",
    "SpaceInfo",
    "Stats",
    "Text",
    "UnsafeSQLiteWarning",
    "__version__",
    "dot_product",
    "engine",
    "sqlite_version",
    "to_fafcas",
]


def __getattr__(name: str) -> str:
    # To look it up takes longer than all else here but NumPy, and hardly anybody asks.
    if name == "__version__":
        from importlib.metadata import version

        return version("resonance")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
