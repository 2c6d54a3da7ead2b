"""Numbers, names and values, as they are told. Nothing here imports anything else of the package."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence


def counted(count: int, noun: str, many: str = "") -> str:
    """``1 note``, ``1,204 notes``."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def listed(counts: Iterable[tuple[int, str]]) -> str:
    """``12 resolved, 3 ambiguous``; what there is none of is left out."""
    return ", ".join(f"{count:,} {name}" for count, name in counts if count)


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first few, and how many more there are."""
    rest = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest


def as_json(value: object, *, sort_keys: bool = False) -> str:
    """JSON with its characters as they are, but for lone surrogates, which no text can hold unescaped."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=sort_keys)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, sort_keys=sort_keys)
    return text


def size(count: int) -> str:
    """A number of bytes: ``2.8 MiB``."""
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:,.1f} {unit}"
