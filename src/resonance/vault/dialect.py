"""How the notes of a vault are to be read: whose conventions they follow, and which keys are relations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

Dialect = Literal["obsidian", "dendron", "logseq", "markdown"]

DIALECTS: tuple[str, ...] = get_args(Dialect)

ANY_KEY = "*"

OLD_PAGES = ("logseq/bak", "logseq/version-files")
"""Where Logseq keeps what pages said before: no part of the vault."""

RELATION_KEYS = (
    "requires",
    "related",
    "related_to",
    "supports",
    "contradicts",
    "depends_on",
    "extends",
    "supersedes",
    "part_of",
    "see_also",
)
"""Keys of the frontmatter that are relations unless the settings name others."""

_NO_WORD = re.compile(r"\W+")


@lru_cache(maxsize=1024)
def edge_type(key: str) -> str:
    """The type that a key gives its edges: ``depends-on`` -> ``DEPENDS_ON``; may be empty."""
    return _NO_WORD.sub("_", key).strip("_").upper()


@lru_cache(maxsize=1024)
def _normal(key: str) -> str:
    return _NO_WORD.sub("_", key).strip("_").casefold()


@dataclass(frozen=True, slots=True)
class Relations:
    """Which keys of the frontmatter name the type of an edge.

    Attributes:
        named: key -> type of the edge. What stands under these keys are names of notes, in brackets
            or not.
        any_key: whether every other key whose value is nothing but links names their type, too.
    """

    named: Mapping[str, str] = field(
        default_factory=lambda: {key: edge_type(key) for key in RELATION_KEYS}, hash=False
    )
    any_key: bool = True

    def of_names(self, key: str) -> str | None:
        """The type of edges to what is named without brackets under a key, or None."""
        return self.named.get(_normal(key))

    def of_links(self, key: str) -> str | None:
        """The type of edges to the links that a value consists of, or None for that of any link."""
        return self.named.get(_normal(key)) or (edge_type(key) if self.any_key else None) or None


class Reading(NamedTuple):
    """What the same bytes are understood by."""

    dialect: Dialect = "obsidian"
    relations: Relations = Relations()

    def signature(self) -> list[Any]:
        """Equal for equal readings; a JSON value."""
        return [self.dialect, sorted(self.relations.named.items()), self.relations.any_key]


def relations_of(told: Sequence[str] | Mapping[str, str | bool]) -> Relations:
    """The relations that settings name: keys, or keys and types; ``*`` stands for any key."""
    types = told if isinstance(told, Mapping) else dict.fromkeys(told, True)
    named = {
        _normal(key): edge_type(key if value is True else str(value))
        for key, value in types.items()
        if key != ANY_KEY and value is not False
    }
    return Relations(named, bool(types.get(ANY_KEY)))
