"""Embedding spaces: which model the stored vectors come from."""

from __future__ import annotations

from resonance._core import Connection
from resonance.errors import SpaceError
from resonance.history import History
from resonance.model import Space


def active(connection: Connection) -> Space | None:
    """The space of the stored vectors; None before the first one."""
    found = connection.execute("SELECT name, dims, revision, normalisation FROM spaces WHERE active = 1")
    return Space(*found[0]) if found else None


def width(connection: Connection) -> int:
    """Dimensions of the active space, or -1."""
    space = active(connection)
    return -1 if space is None else space.dims


def settle_width(writer: Connection, widths: set[int]) -> None:
    """Let the first vectors define the space; refuse others once it is defined.

    Raises:
        SpaceError: vectors of two widths, or of another width than the space.
    """
    if len(widths) > 1:
        raise SpaceError(f"vectors of {sorted(widths)} dimensions in one batch; one space has one width")
    for found in widths:
        wanted = width(writer)
        if wanted < 0:
            writer.execute("INSERT INTO spaces (name, dims, active) VALUES ('unnamed', ?, 1)", (found,))
        elif wanted != found:
            raise SpaceError(f"vectors of {found} dimensions, but the space has {wanted}")


def activate(writer: Connection, space: Space, *, replace: bool) -> None:
    """Make ``space`` the active one; see ``ResonanceDB.set_space``."""
    if space.dims < 1:
        raise SpaceError(f"a space of {space.dims} dimensions; give 1 or more")
    before = active(writer)
    if before == space:
        return
    count = writer.execute("SELECT count(*) FROM nodes WHERE embedding IS NOT NULL")[0][0]
    if count and not replace:
        raise SpaceError(
            f"{count} vectors of {before} are stored; pass replace=True to drop them, then embed again with "
            f"{space}"
        )
    writer.execute("UPDATE nodes SET embedding = NULL WHERE embedding IS NOT NULL")
    writer.execute("UPDATE spaces SET active = 0 WHERE active = 1")
    writer.execute(
        "INSERT INTO spaces (name, dims, revision, normalisation) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
        space,
    )
    writer.execute(
        "UPDATE spaces SET active = 1 WHERE name = ? AND dims = ? AND revision = ? AND normalisation = ?",
        space,
    )
    History(writer).record("space", space.name, "activate", None, {**space._asdict(), "dropped": count})
