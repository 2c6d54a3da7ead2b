"""Embedding spaces: which model the stored vectors come from.

The vectors of the active space stand in ``nodes``, those of the others in ``vectors``, each with the hash
of the text it was made from.
"""

from __future__ import annotations

from numbers import Integral
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from resonance._core import Connection
from resonance.errors import InputError, SpaceError
from resonance.history import History
from resonance.model import FloatArray, Space, SpaceInfo

TEXT = (
    "coalesce((SELECT s.text_hash FROM sections AS s WHERE s.node = n.id), "
    "(SELECT f.body_hash FROM files AS f WHERE f.node = n.id), n.hash)"
)
"""SQL: the hash of the text that the node ``n`` stands for; NULL where nobody has said."""

WANTED = (
    "(n.embedding IS NOT NULL OR EXISTS (SELECT 1 FROM files AS f WHERE f.node = n.id) "
    "OR EXISTS (SELECT 1 FROM sections AS s WHERE s.node = n.id))"
)
"""SQL: whether the node ``n`` is one that should have a vector in every space."""

OWED = "missing"
"""In place of a hash: the active space has no vector of this node, and not because there is none to have."""

# Named when nobody said whose the vectors are.
NAMELESS = frozenset({"unnamed", "unknown"})

NORM_TOLERANCE = 1e-3
"""How far from 1 the norm of a stored vector may be: older writers' arithmetic was no better."""

_COLUMNS = "id, active, name, dims, revision, normalisation"


class StoredSpace(NamedTuple):
    """A space, and the number it has in the database."""

    id: int
    active: bool
    space: Space


def off_unit(vectors: FloatArray) -> npt.NDArray[np.float64]:
    """How far from 1 the norm of each row of (n, d) is; NaN or infinity where a value is not finite."""
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    off: npt.NDArray[np.float64] = np.abs(norms - 1)
    return off


def current(space: int) -> str:
    """SQL: whether the node ``n`` has an up-to-date vector in a space that is not active."""
    return (
        f"EXISTS (SELECT 1 FROM vectors AS v WHERE v.node = n.id AND v.space = {space} AND v.hash IS {TEXT})"
    )


def stored(connection: Connection) -> list[StoredSpace]:
    """All spaces, the active one first."""
    found = connection.execute(f"SELECT {_COLUMNS} FROM spaces ORDER BY active DESC, id")
    return [StoredSpace(number, bool(active), Space(*rest)) for number, active, *rest in found]


def active(connection: Connection) -> Space | None:
    """The space of the stored vectors; None before the first one."""
    found = connection.execute("SELECT name, dims, revision, normalisation FROM spaces WHERE active = 1")
    return Space(*found[0]) if found else None


def width(connection: Connection) -> int:
    """Dimensions of the active space, or -1."""
    space = active(connection)
    return -1 if space is None else space.dims


def find(connection: Connection, wanted: Space | str) -> StoredSpace:
    """The space that is meant by its identity, by its name, or by ``name@revision``.

    Raises:
        SpaceError: there is none, or more than one; names those there are.
        InputError: it is neither.
    """
    if not isinstance(wanted, Space | str):
        raise InputError(f"space={wanted!r:.80}; give a Space, its name, or name@revision")
    known = stored(connection)
    if isinstance(wanted, Space):
        found = [each for each in known if each.space == wanted]
    else:
        found = [each for each in known if each.space.name == wanted]
        found = found or [each for each in known if f"{each.space.name}@{each.space.revision}" == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise SpaceError(f"{wanted!r} may be {', '.join(told(each.space) for each in found)}; say which")
    there = ", ".join(told(each.space) for each in known) or "none"
    raise SpaceError(f"no space {wanted if isinstance(wanted, str) else told(wanted)!r}; there are: {there}")


def told(space: Space) -> str:
    """A space for people: ``name@revision (384 dimensions)``."""
    revision = f"@{space.revision}" if space.revision else ""
    return f"{space.name}{revision} ({space.dims} dimensions)"


def wide(connection: Connection, dims: int) -> list[Space]:
    """The spaces that are not active and as wide as that."""
    return [each.space for each in stored(connection) if not each.active and each.space.dims == dims]


def listed(connection: Connection) -> list[SpaceInfo]:
    """Every space with its counts; see ``ResonanceDB.spaces``."""
    return [counted(connection, each) for each in stored(connection)]


def counted(connection: Connection, found: StoredSpace) -> SpaceInfo:
    """A space with its counts."""
    if found.active:
        vectors = connection.execute("SELECT count(*) FROM nodes WHERE embedding IS NOT NULL")[0][0]
        owed = connection.execute(
            "SELECT count(*) FROM vectors AS v JOIN nodes AS n ON n.id = v.node "
            "WHERE v.space = ? AND n.embedding IS NULL",
            (found.id,),
        )[0][0]
        return SpaceInfo(found.space, True, vectors, owed, 0)
    vectors, outdated = connection.execute(
        f"SELECT count(*) FILTER (WHERE fits AND some), count(*) FILTER (WHERE NOT fits AND wanted) FROM "
        f"(SELECT v.hash IS {TEXT} AS fits, v.embedding IS NOT NULL AS some, {WANTED} AS wanted "
        f"FROM vectors AS v JOIN nodes AS n ON n.id = v.node WHERE v.space = ?)",
        (found.id,),
    )[0]
    return SpaceInfo(found.space, False, vectors, missing(connection, found.id), outdated)


def missing(connection: Connection, space: int) -> int:
    """How many nodes have no up-to-date vector in a space that is not active, but should."""
    found = connection.execute(f"SELECT count(*) FROM nodes AS n WHERE {WANTED} AND NOT {current(space)}")
    return int(found[0][0])


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


def add(writer: Connection, space: Space) -> StoredSpace:
    """Make a space known, without vectors; nothing happens if it is.

    Raises:
        SpaceError: it cannot be one, or its name does not say whose the vectors are.
    """
    space = possible(space)
    if all(each.space != space for each in stored(writer)):
        if not space.name or space.name in NAMELESS:
            raise SpaceError(f"a space named {space.name!r} says nothing of its model; give the model's name")
        writer.execute("INSERT INTO spaces (name, dims, revision, normalisation) VALUES (?, ?, ?, ?)", space)
        History(writer).record("space", space.name, "add", None, space._asdict())
    return find(writer, space)


def possible(space: Space) -> Space:
    """The space, its width a plain number whatever kind it came as."""
    if not isinstance(space, Space):
        raise InputError(f"space={space!r:.80}; give a Space(name, dims, revision)")
    texts = (space.name, space.revision, space.normalisation)
    if not isinstance(space.dims, Integral) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"{space!r:.200}: give a whole number of dimensions, and texts for the rest")
    if space.dims < 1:
        raise SpaceError(f"a space of {space.dims} dimensions; give 1 or more")
    return space._replace(dims=int(space.dims))


def activate(writer: Connection, space: Space, *, replace: bool) -> None:
    """Make ``space`` the active one; see ``ResonanceDB.set_space``."""
    space = possible(space)
    before = active(writer)
    if before == space:
        return
    known = [each for each in stored(writer) if each.space == space]
    if known and writer.execute("SELECT 1 FROM vectors WHERE space = ? LIMIT 1", (known[0].id,)):
        raise SpaceError(
            f"vectors of {told(space)} are kept beside those in use; take them with switch_space, or "
            f"throw them away with drop_space first"
        )
    count = writer.execute("SELECT count(*) FROM nodes WHERE embedding IS NOT NULL")[0][0]
    if count and not replace:
        raise SpaceError(
            f"{count} vectors of {before} are stored; pass replace=True to drop them, then embed again with "
            f"{space}; or keep both: add_space, insert_vectors, switch_space"
        )
    writer.execute("DELETE FROM vectors WHERE space = (SELECT id FROM spaces WHERE active = 1)")
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
