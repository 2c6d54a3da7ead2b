"""Two lists made one: by reciprocal rank, and then by a reranker where there is one.

G. V. Cormack, C. L. A. Clarke, S. Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and
individual Rank Learning Methods", SIGIR 2009.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import numpy.typing as npt

from resonance.errors import EmbedderError, EmbeddingError, InputError, TextSearchError
from resonance.model import ContentPolicy, Hit, Hits, Rank, Space
from resonance.search.exact import is_vector
from resonance.search.filters import GroupBy, Where, count_of, is_number, repeatable

if TYPE_CHECKING:
    from resonance.questions import Questions

Vector = npt.ArrayLike | Callable[[str], npt.ArrayLike] | None
"""The vector of a question, or what makes it."""

Reranker = Callable[[str, Sequence[Hit]], "Iterable[float] | Iterable[Hit]"]
"""Called with the question and the fused hits; returns a score for each, higher is better, or the hits
in their new order, without those to leave out."""

LISTS = ("vector", "text")
FUSED = "fused"
"""The name under which a reranked hit keeps the rank and the score it had before."""


class Conditions(TypedDict, total=False):
    """The conditions on hits of ``ResonanceDB.search_hybrid``."""

    domain: str | None
    type: str | None
    layer: str | None
    ids: Iterable[str] | None
    where: Where | None
    group_by: GroupBy | None


def search_hybrid(
    db: Questions,
    text: str,
    k: int,
    *,
    vector: Vector,
    k0: float,
    weights: Mapping[str, float] | None,
    candidates: int,
    reranker: Reranker | None,
    hydrate: bool | ContentPolicy,
    conditions: Conditions,
) -> Hits:
    """See ``ResonanceDB.search_hybrid``."""
    weight = checked_weights(weights, k0)
    if reranker is not None and not callable(reranker):
        raise InputError(f"rerank={reranker!r:.80}; give a function of the text and the hits")
    k = count_of(k)
    most = max(k, count_of(candidates, "candidates"))
    chosen = repeatable(conditions)
    lists: dict[str, Sequence[Hit]] = {}
    notes: list[str] = []
    by_text = None
    try:
        by_text = db.search_text(text, most, **chosen)
        notes += by_text.notes
    except TextSearchError as error:
        notes.append(f"no list by words: {error}")
    try:
        asked, space = _vector_of(db, text, vector)
        near = db.search(asked, most, space=space, **chosen)
        if near or db.query("SELECT 1 FROM nodes WHERE embedding IS NOT NULL LIMIT 1"):
            lists["vector"] = near
        else:
            notes.append("no list by meaning: the database holds no vectors; `resonance ingest` makes them")
    except EmbedderError as error:
        notes.append(f"no list by meaning: {error}")
    if by_text is not None:
        lists["text"] = by_text
    if not lists:
        raise TextSearchError(f"there is nothing to search by. {'; '.join(notes)}")
    found = Hits(fuse(lists, weight, k0)[: most if reranker is not None else k])
    if hydrate is not False:
        db.hydrate(found, hydrate)
    if reranker is not None:
        given = len(found)
        found = Hits(rerank(text, found, reranker)[:k])
        if given and not found and k:
            notes.append(f"the reranker left out all {given} hits")
    found.lists, found.notes, found.reranked = tuple(lists), tuple(notes), reranker is not None
    return found


def _vector_of(db: Questions, text: str, vector: Vector) -> tuple[Any, Space | None]:
    """The vector to ask with, and its space, as far as it is known."""
    if vector is None:
        return db._embedded(text)
    given = vector(text) if callable(vector) else vector
    if not is_vector(given):
        raise EmbeddingError(
            f"vector= is {type(given).__name__} and not one vector (d,); give one, or a function that "
            f"returns one; of a matrix take the row, as in model([text])[0]",
            column=None,
        )
    return given, None


def checked_weights(weights: Mapping[str, float] | None, k0: float) -> dict[str, float]:
    """A weight for each list; 1 where none is given.

    Raises:
        InputError: of a list there is none of, or not a number that can be a weight.
    """
    if weights is not None and not isinstance(weights, Mapping):
        raise InputError(f"weights={weights!r:.80}; give weights by list, such as {{'vector': 2, 'text': 1}}")
    told = dict(weights or {})
    if unknown := [name for name in told if name not in LISTS]:
        raise InputError(f"weights: there is no list {unknown[0]!r}; there are {', '.join(LISTS)}")
    for name, weight in told.items():
        if not _is_weight(weight):
            raise InputError(f"weights[{name!r}]={weight!r}; give a number, 0 or more")
    if not _is_weight(k0):
        raise InputError(f"k0={k0!r}; give a number, 0 or more")
    return {name: float(told.get(name, 1.0)) for name in LISTS}


def _is_weight(value: object) -> bool:
    return is_number(value) and math.isfinite(value) and value >= 0


def fuse(lists: Mapping[str, Sequence[Hit]], weights: Mapping[str, float], k0: float) -> list[Hit]:
    """All hits of the lists, best first; ties are ordered by id. ``ranks`` says where each stood.

    The score is the sum of ``weight / (k0 + rank)`` over the lists that hold the node.
    """
    ranks: dict[str, dict[str, Rank]] = {}
    first: dict[str, Hit] = {}
    for name, hits in lists.items():
        for rank, hit in enumerate(hits, 1):
            ranks.setdefault(hit.id, {})[name] = Rank(rank, hit.score)
            first.setdefault(hit.id, hit)
    fused = [
        first[node]._replace(
            score=sum(weights[name] / (k0 + rank.rank) for name, rank in places.items()), ranks=places
        )
        for node, places in ranks.items()
    ]
    fused.sort(key=lambda hit: (-hit.score, hit.id))
    return fused


def rerank(question: str, hits: Sequence[Hit], reranker: Reranker) -> list[Hit]:
    """The hits as the reranker orders them. What it raises is raised.

    Raises:
        InputError: it returned something else than a score for each hit, or some of the hits.
    """
    hits = [
        hit._replace(ranks={**(hit.ranks or {}), FUSED: Rank(rank, hit.score)})
        for rank, hit in enumerate(hits, 1)
    ]
    returned: Any = reranker(question, hits)
    if not isinstance(returned, Iterable):
        raise InputError(f"the reranker returned {returned!r:.80}; give a score for each hit, or hits")
    answer = list(returned)
    if all(isinstance(item, Hit) for item in answer):
        ids = [hit.id for hit in answer]
        if not set(ids) <= {hit.id for hit in hits} or len(set(ids)) < len(ids):
            raise InputError("the reranker returned hits that it was not given, or one of them twice")
        return answer
    try:
        scores = [float(score) for score in answer]
    except (TypeError, ValueError) as error:
        raise InputError(f"the reranker returned what is no score ({error})") from error
    if len(scores) != len(hits) or not all(map(math.isfinite, scores)):
        raise InputError(
            f"the reranker returned {len(scores)} scores for {len(hits)} hits; give a finite one for each"
        )
    scored = [hit._replace(score=score) for hit, score in zip(hits, scores, strict=True)]
    scored.sort(key=lambda hit: (-hit.score, hit.id))
    return scored
