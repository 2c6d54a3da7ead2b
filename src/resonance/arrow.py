"""Tables out as Arrow: pyarrow, polars, pandas and duckdb take them without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from resonance import _core, rows
from resonance.errors import InputError, ResonanceError
from resonance.model import EmbeddingMatrix
from resonance.search.filters import Filter

if TYPE_CHECKING:
    import pyarrow

_KINDS = {"embedding": "v", "confidence": "r", "veracity": "r"}


def read_table(connection: _core.Connection, table: str, chosen: Filter, width: int) -> pyarrow.Table:
    """``nodes`` or ``edges`` as a table; text is large_string, vectors FixedSizeList<float32>."""
    known = {"nodes": rows.NODE_COLUMNS, "edges": rows.EDGE_COLUMNS}
    columns = known.get(table) if isinstance(table, str) else None
    if columns is None:
        raise InputError(f"no table {table!r} to export; give 'nodes' or 'edges'")
    where, values = chosen.sql()
    if table == "edges" and where != "1":
        raise InputError("filters are for nodes; filter the table of edges itself")
    if width < 0:
        columns = tuple(name for name in columns if name != "embedding")
    read = _core.read_columns(
        connection,
        f"SELECT {', '.join(columns)} FROM {table} WHERE {where}",
        values,
        "".join(_KINDS.get(name, "t") for name in columns),
        max(width, 0),
    )
    arrow = require_pyarrow()
    arrays = [
        _array(arrow, _KINDS.get(name, "t"), width, *parts) for name, parts in zip(columns, read, strict=True)
    ]
    return arrow.table(dict(zip(columns, arrays, strict=True)))


def matrix_table(matrix: EmbeddingMatrix) -> pyarrow.Table:
    """``id`` (large_string) and ``embedding``; the vectors are not copied."""
    arrow = require_pyarrow()
    width = matrix.vectors.shape[1]
    if width:
        vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(matrix.vectors.reshape(-1)), width)
    else:
        # Before the first vector nobody knows how wide they are, and Arrow has no lists of 0.
        vectors = arrow.array([], arrow.list_(arrow.float32()))
    ids = _array(arrow, "t", 0, *matrix.names.buffers(), np.ones(len(matrix), np.bool_))
    return arrow.table({"id": ids, "embedding": vectors})


def _array(
    arrow: Any,
    kind: str,
    width: int,
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    valid: npt.NDArray[np.bool_],
) -> Any:
    bits = None if valid.all() else arrow.py_buffer(np.packbits(valid, bitorder="little"))
    buffer = arrow.py_buffer(data)
    if kind == "t":
        buffers = [bits, arrow.py_buffer(offsets), buffer]
        return arrow.Array.from_buffers(arrow.large_string(), len(valid), buffers)
    if kind == "r":
        return arrow.Array.from_buffers(arrow.float64(), len(valid), [bits, buffer])
    flat = arrow.Array.from_buffers(arrow.float32(), len(valid) * width, [None, buffer])
    kind_of_list = arrow.list_(arrow.float32(), width)
    return arrow.Array.from_buffers(kind_of_list, len(valid), [bits], children=[flat])


def require_pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ResonanceError("this needs pyarrow: pip install 'resonance[arrow]'") from error
    return pyarrow
