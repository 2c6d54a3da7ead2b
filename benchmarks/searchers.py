"""Who answers in the search benchmark, each on one thread.

A searcher is made in three steps: :meth:`prepare` writes its files, in a process of its own; the class
is opened on them, in another process; then it is asked. What it does not offer it has no method for.
An answer is turned into row numbers and scores by :meth:`rows`, which nobody times.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from contender import contender
from search_data import Given, domains, ids

QUESTION = "search"


class Searcher:
    """What they have in common.

    ``ask(query, k)``, ``ask_filtered(query, k)``, ``ask_many(queries, k)``, and ``insert(number, vector)``
    for one more row; ``shared`` says that threads may ask at once.
    """

    shared = False

    @staticmethod
    def prepare(given: Given, folder: Path) -> None:
        """Write what opening reads."""

    def __init__(self, given: Given, folder: Path) -> None:
        """Open it; what is needed for questions may be loaded by the first of them."""

    def rows(self, answer: Any) -> tuple[Any, Any]:
        """Row numbers and scores, best first."""
        return answer

    def many_rows(self, answer: Any) -> list[tuple[Any, Any]]:
        numbers, scores = answer
        return list(zip(numbers, scores, strict=True))

    def close(self) -> None:
        """Let go of its files."""


@contender(QUESTION, "ours", "Resonance")
class Ours(Searcher):
    shared = True
    memory: Any = "resident"
    cached = False

    @staticmethod
    def prepare(given: Given, folder: Path) -> None:
        from resonance import ResonanceDB

        names, vectors = ids(given.rows), given.vectors
        with ResonanceDB(folder / "graph.db", dims=vectors.shape[1]) as db:
            db.insert_nodes(
                id=names,
                title=[f"The paragraph {name}" for name in names],
                type="document",
                domain=domains(given),
                embedding=vectors,
            )

    def __init__(self, given: Given, folder: Path) -> None:
        from resonance import ResonanceDB

        self.db = ResonanceDB(folder / "graph.db", vector_cache=self.cached)

    def ask(self, query: Any, k: int) -> Any:
        return self.db.search(query, k, memory=self.memory)

    def ask_filtered(self, query: Any, k: int) -> Any:
        return self.db.search(query, k, domain="rare", memory=self.memory)

    def ask_where(self, query: Any, k: int) -> Any:
        return self.db.search(query, k, where=("domain = ?", ["rare"]), memory=self.memory)

    def ask_many(self, queries: Any, k: int) -> Any:
        return self.db.search(queries, k, memory=self.memory)

    def rows(self, answer: Any) -> tuple[Any, Any]:
        numbers = np.array([int(hit.id[1:]) for hit in answer], np.int64)
        return numbers, np.array([hit.score for hit in answer])

    def many_rows(self, answer: Any) -> list[tuple[Any, Any]]:
        return [self.rows(each) for each in answer]

    def insert(self, number: int, vector: Any) -> None:
        self.db.insert_node({"id": f"n{number:07d}", "title": "new", "embedding": vector})

    def codes_bytes(self) -> int:
        return int(self.db._index.nbytes)

    def stages(self, query: Any, k: int) -> dict[str, Any]:
        told = self.db.search(query, k, explain=True, memory=self.memory).explain
        return {"scored": told.scored, **told.seconds}

    def close(self) -> None:
        self.db.close()


@contender(QUESTION, "ours-cached", "Resonance, vector_cache=True")
class OursCached(Ours):
    """Its file is written before anybody looks at the time."""

    cached = True

    @staticmethod
    def prepare(given: Given, folder: Path) -> None:
        Ours.prepare(given, folder)
        searcher = OursCached(given, folder)
        searcher.ask(given.queries[0], 1)
        searcher.close()


@contender(QUESTION, "ours-stream", 'Resonance, memory="stream"')
class OursStream(Ours):
    """It asks each query of a matrix by itself, and keeps nothing: the questions about that are not put."""

    shared = False
    memory = "stream"
    ask_many = codes_bytes = None


@contender(QUESTION, "faiss", "faiss IndexFlatIP", packages=("faiss-cpu",))
class Faiss(Searcher):
    shared = True

    @staticmethod
    def prepare(given: Given, folder: Path) -> None:
        import faiss

        index = faiss.IndexFlatIP(given.vectors.shape[1])
        index.add(given.vectors)
        faiss.write_index(index, str(folder / "index"))

    def __init__(self, given: Given, folder: Path) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self.index = faiss.read_index(str(folder / "index"))
        self.selected = faiss.SearchParameters(sel=faiss.IDSelectorBatch(given.rare))

    def ask(self, query: Any, k: int) -> Any:
        return self.index.search(query[None], k)

    def ask_filtered(self, query: Any, k: int) -> Any:
        return self.index.search(query[None], k, params=self.selected)

    def ask_many(self, queries: Any, k: int) -> Any:
        return self.index.search(queries, k)

    def rows(self, answer: Any) -> tuple[Any, Any]:
        return answer[1][0], answer[0][0]

    def many_rows(self, answer: Any) -> list[tuple[Any, Any]]:
        return list(zip(answer[1], answer[0], strict=True))

    def insert(self, number: int, vector: Any) -> None:
        self.index.add(vector[None])


@contender(QUESTION, "usearch", "usearch, exact", packages=("usearch",))
class Usearch(Searcher):
    def __init__(self, given: Given, folder: Path) -> None:
        self.vectors, self.rare = given.vectors, given.rare

    def _search(self, vectors: Any, queries: Any, k: int) -> Any:
        from usearch.index import MetricKind, search

        return search(vectors, queries, k, MetricKind.IP, exact=True, threads=1)

    def ask(self, query: Any, k: int) -> Any:
        found = self._search(self.vectors, query, k)
        return found.keys.astype(np.int64), 1 - found.distances

    def ask_filtered(self, query: Any, k: int) -> Any:
        found = self._search(self.vectors[self.rare], query, k)
        return self.rare[found.keys.astype(np.int64)], 1 - found.distances

    def ask_many(self, queries: Any, k: int) -> Any:
        found = self._search(self.vectors, queries, k)
        return found.keys.astype(np.int64), 1 - found.distances


@contender(QUESTION, "numpy", "NumPy, argpartition")
class NumPy(Searcher):
    shared = True

    def __init__(self, given: Given, folder: Path) -> None:
        self.vectors, self.rare = given.vectors, given.rare

    @staticmethod
    def best(scores: Any, k: int) -> tuple[Any, Any]:
        if k >= len(scores):
            chosen = np.arange(len(scores))
        else:
            chosen = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
        chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
        return chosen, scores[chosen]

    def ask(self, query: Any, k: int) -> Any:
        return self.best(self.vectors @ query, k)

    def ask_filtered(self, query: Any, k: int) -> Any:
        chosen, scores = self.best(self.vectors[self.rare] @ query, k)
        return self.rare[chosen], scores

    def ask_many(self, queries: Any, k: int) -> Any:
        found = [self.best(scores, k) for scores in queries @ self.vectors.T]
        return [each[0] for each in found], [each[1] for each in found]


@contender(QUESTION, "product", "NumPy, the product alone")
class Product(NumPy):
    """What BLAS takes for all scores, with nobody looking for the best of them."""

    ask = ask_filtered = None
    shared = False

    def ask_many(self, queries: Any, k: int) -> Any:
        return queries @ self.vectors.T

    def many_rows(self, answer: Any) -> list[tuple[Any, Any]]:
        return [self.best(scores, 10) for scores in answer]


@contender(QUESTION, "sqlite-vec", "sqlite-vec, by apsw", packages=("sqlite-vec", "apsw"), at_most=500_000)
class SqliteVec(Searcher):
    @staticmethod
    def connect(folder: Path) -> Any:
        import apsw
        import sqlite_vec

        connection = apsw.Connection(str(folder / "vec.db"))
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    @staticmethod
    def prepare(given: Given, folder: Path) -> None:
        vectors = given.vectors
        connection = SqliteVec.connect(folder)
        # Of unit vectors the nearest by L2 are those of the largest cosine; its kernel is the fastest here.
        connection.execute(
            f"CREATE VIRTUAL TABLE v USING vec0(embedding float[{vectors.shape[1]}], domain text)"
        )
        with connection:
            connection.executemany(
                "INSERT INTO v (rowid, embedding, domain) VALUES (?, ?, ?)",
                ((row, vectors[row].tobytes(), name) for row, name in enumerate(domains(given))),
            )
        connection.close()

    def __init__(self, given: Given, folder: Path) -> None:
        self.connection = self.connect(folder)

    def ask(self, query: Any, k: int, condition: str = "") -> Any:
        return self.connection.execute(
            f"SELECT rowid, distance FROM v WHERE embedding MATCH ? AND k = ? {condition}",
            (query.tobytes(), k),
        ).fetchall()

    def ask_filtered(self, query: Any, k: int) -> Any:
        return self.ask(query, k, "AND domain = 'rare'")

    def rows(self, answer: Any) -> tuple[Any, Any]:
        found = np.array(answer).reshape(-1, 2)
        return found[:, 0].astype(np.int64), 1 - found[:, 1] ** 2 / 2

    def insert(self, number: int, vector: Any) -> None:
        self.connection.execute(
            "INSERT INTO v (rowid, embedding, domain) VALUES (?, ?, 'new')", (number, vector.tobytes())
        )

    def close(self) -> None:
        self.connection.close()


@contender(QUESTION, "lancedb", "LanceDB, no index", packages=("lancedb", "pyarrow"))
class LanceDB(Searcher):
    @staticmethod
    def prepare(given: Given, folder: Path) -> None:
        import lancedb
        import pyarrow as pa

        vectors = given.vectors
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        columns = [pa.array(range(len(vectors))), pa.array(domains(given)), lists]
        table = pa.table(columns, names=["number", "domain", "vector"])
        lancedb.connect(str(folder / "lance")).create_table("v", table)

    def __init__(self, given: Given, folder: Path) -> None:
        import lancedb

        self.table = lancedb.connect(str(folder / "lance")).open_table("v")

    def _question(self, query: Any, k: int) -> Any:
        return self.table.search(query).distance_type("dot").select(["number", "_distance"]).limit(k)

    def ask(self, query: Any, k: int) -> Any:
        return self._question(query, k).to_arrow()

    def ask_filtered(self, query: Any, k: int) -> Any:
        return self._question(query, k).where("domain = 'rare'", prefilter=True).to_arrow()

    def rows(self, answer: Any) -> tuple[Any, Any]:
        return np.asarray(answer["number"]), 1 - np.asarray(answer["_distance"], np.float64)


@contender(QUESTION, "hnswlib", "hnswlib, approximate", packages=("hnswlib",), at_most=100_000)
class Hnswlib(Searcher):
    @staticmethod
    def prepare(given: Given, folder: Path) -> None:
        import hnswlib

        vectors = given.vectors
        index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        index.init_index(len(vectors) + 1000, M=16, ef_construction=200)
        index.add_items(vectors)
        index.save_index(str(folder / "index"))

    def __init__(self, given: Given, folder: Path) -> None:
        import hnswlib

        self.rare = set(given.rare.tolist())
        self.index = hnswlib.Index(space="ip", dim=given.queries.shape[1])
        self.index.load_index(str(folder / "index"), max_elements=given.rows + 1000)
        self.index.set_num_threads(1)

    def ask(self, query: Any, k: int) -> Any:
        self.index.set_ef(max(100, k))
        return self.index.knn_query(query, k)

    def ask_many(self, queries: Any, k: int) -> Any:
        return self.index.knn_query(queries, k)

    def rows(self, answer: Any) -> tuple[Any, Any]:
        return answer[0][0].astype(np.int64), 1 - answer[1][0]

    def many_rows(self, answer: Any) -> list[tuple[Any, Any]]:
        return list(zip(answer[0].astype(np.int64), 1 - answer[1], strict=True))

    def insert(self, number: int, vector: Any) -> None:
        self.index.add_items(vector[None], [number])
