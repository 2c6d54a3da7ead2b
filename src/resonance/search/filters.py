"""Conditions on nodes, evaluated before anything is scored."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeGuard

import numpy as np

from resonance.errors import InputError

Where = str | tuple[str, Sequence[Any]]
GroupBy = Literal["document"]


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a number, NaN and infinity among them; no truth value."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


MOST = 1 << 58
"""A count beyond it means all: so many rows are in no file, and what is made of it still fits 64 bits."""


def count_of(wanted: object, name: str = "k", *, least: int = 0) -> int:
    """How many are wanted, :data:`MOST` at most.

    Raises:
        InputError: it is no whole number, or less than ``least``.
    """
    if isinstance(wanted, bool) or not isinstance(wanted, int | np.integer) or wanted < least:
        raise InputError(f"{name}={wanted!r}; give a whole number, {least} or more")
    return min(int(wanted), MOST)


def is_grouped(group_by: object) -> bool:
    """Whether documents are wanted.

    Raises:
        InputError: it is something else to group by.
    """
    if group_by not in (None, "document"):
        raise InputError(f"group_by={group_by!r}; give 'document', or nothing")
    return group_by is not None


class Filter:
    """Conditions on nodes; all must hold.

    Args:
        domain, type, layer: equal to these.
        ids: one of these.
        where: a condition in SQL over the columns of ``nodes``, such as ``"date >= '2026-01-01'"``; or a
            pair of it and the values of its ``?`` parameters.

    Raises:
        InputError: ``where`` is not one condition, or something is no text.
    """

    def __init__(
        self,
        *,
        domain: str | None = None,
        type: str | None = None,
        layer: str | None = None,
        ids: Iterable[str] | None = None,
        where: Where | None = None,
    ) -> None:
        self._equal = {"type": type, "domain": domain, "layer": layer}
        for name, value in self._equal.items():
            if value is not None and not _is_text(value):
                raise InputError(f"{name}={value!r}; give a text")
        self._ids = None if ids is None else json.dumps(_texts(ids))
        self._where, self._values = _condition(where)

    @property
    def labels(self) -> tuple[str | None, str | None, str | None]:
        """What type, domain and layer must be, or None."""
        return self._equal["type"], self._equal["domain"], self._equal["layer"]

    @property
    def beyond_labels(self) -> Filter | None:
        """The conditions that are not about type, domain and layer; None if there are none."""
        if self._ids is None and self._where is None:
            return None
        rest = Filter()
        rest._ids, rest._where, rest._values = self._ids, self._where, self._values
        return rest

    @property
    def key(self) -> Hashable | None:
        """Equal for filters that choose the same nodes of one state of the database.

        None if these may choose others the next time, as conditions do that ask for the time.
        """
        lasting = self._where is None or is_lasting(self._where)
        if not lasting or not all(type(value) in _PLAIN for value in self._values):
            return None
        values = tuple((type(value), repr(value)) for value in self._values)
        texts = (self._ids or "", self._where or "", *(text for _, text in values))
        # Whoever asks with so much more text will hardly ask the same again.
        return None if sum(map(len, texts)) > _LONGEST else (self.labels, self._ids, self._where, values)

    def of_documents(self) -> Filter:
        """These conditions for documents: a section passes if its document does, whatever it is itself."""
        where, values = self.sql()
        if where == "1":
            return self
        belongs_to = "coalesce((SELECT document FROM sections WHERE sections.node = nodes.id), nodes.id)"
        return Filter(where=(f"{belongs_to} IN (SELECT id FROM nodes WHERE {where})", values))

    def sql(self) -> tuple[str, list[Any]]:
        """A condition and the values of its parameters."""
        conditions, values = [], []
        for name, value in self._equal.items():
            if value is not None:
                conditions.append(f"{name} = ?")
                values.append(value)
        if self._ids is not None:
            conditions.append("id IN (SELECT value FROM json_each(?))")
            values.append(self._ids)
        if self._where is not None:
            conditions.append(f"({self._where})")
            values += self._values
        return " AND ".join(conditions) or "1", values


def repeatable(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a :class:`Filter` to make several of: an iterator would be empty the second time."""
    held = dict(conditions)
    if held.get("ids") is not None:
        held["ids"] = _texts(held["ids"])
    if isinstance(held.get("where"), tuple):
        held["where"] = _condition(held["where"])
    return held


def _is_text(value: object) -> bool:
    """Texts with a lone surrogate are stored nowhere."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _texts(ids: Iterable[str]) -> list[str]:
    try:
        given = [ids] if isinstance(ids, str) else list(ids)
    except TypeError as error:
        raise InputError(f"ids={ids!r}; give texts") from error
    for number, node_id in enumerate(given):
        if not isinstance(node_id, str):
            raise InputError(f"ids: {node_id!r:.60} at {number} is no text")
    return given


def _condition(where: Where | None) -> tuple[str | None, list[Any]]:
    """The condition and its values."""
    if where is None:
        return None, []
    condition, given = where if isinstance(where, tuple) and len(where) == 2 else (where, ())
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise InputError(f"where={where!r:.200}: give the values of its parameters as a list")
    return _one_condition(condition), list(given)


_LONGEST = 1 << 16
_PLAIN = (str, int, float, bytes, bool, type(None))

# What may stand before a parenthesis: words of SQL, and functions of nothing but their arguments.
_LASTING = frozenset(
    "and as between by case collate else end escape except exists filter from glob group having in "
    "intersect is isnull like limit match not notnull offset on or order over partition select then union "
    "using values when where "
    "abs avg ceil char coalesce concat concat_ws count exp floor format glob group_concat hex ifnull iif "
    "instr json json_array json_array_length json_each json_extract json_object json_quote json_tree "
    "json_type json_valid length like ln log lower ltrim max min mod nullif octet_length pow power printf "
    "quote replace round rtrim sign sqrt string_agg substr substring sum total trim trunc typeof unhex "
    "unicode upper zeroblob".split()
)
_BEFORE_PARENTHESIS = re.compile(r"(\w+|[\"'`\]])\s*\(")
# Tables that are made of what SQLite is doing, not of what is stored, and constants that are a clock's.
_FLEETING = re.compile(
    r"\b(current_(date|time|timestamp)|(pragma_|sqlite_|dbstat)\w*|bytecode|tables_used)\b"
)


def is_lasting(condition: str) -> bool:
    """Whether a condition in SQL depends on nothing but what is stored and its parameters.

    What is not known to is taken not to: the words are looked at wherever they stand.
    """
    words = condition.lower()
    return not _FLEETING.search(words) and _LASTING.issuperset(_BEFORE_PARENTHESIS.findall(words))


_QUOTES = {"'": "'", '"': '"', "`": "`", "[": "]"}


def _one_condition(sql: Any) -> str:
    """It may not end the parentheses it is put in, nor the statement, nor hide the rest in a comment."""
    if not isinstance(sql, str) or not sql.strip() or "\0" in sql:
        raise InputError(f"where={sql!r}; give a condition in SQL over the columns of nodes")
    depth, quote = 0, None
    for position, character in enumerate(sql):
        if quote is not None:
            quote = None if character == quote else quote
        elif character in _QUOTES:
            quote = _QUOTES[character]
        elif character in "()":
            depth += 1 if character == "(" else -1
        if quote is None and (depth < 0 or character == ";" or sql[position : position + 2] in ("--", "/*")):
            raise InputError(
                f"where={sql!r}: {character!r} at character {position} ends the condition; give one, "
                f"and put values into parameters: (condition, [values])"
            )
        if quote is None and character == "?" and sql[position + 1 : position + 2].isdigit():
            raise InputError(
                f"where={sql!r}: a number behind the ? at character {position} would count the values of "
                f"other conditions too; give ? for each value, or :name for one that stands in several places"
            )
    if depth or quote is not None:
        raise InputError(f"where={sql!r}: {'a quote' if quote else 'a parenthesis'} is not closed")
    return sql
