"""Embedding: what comes out of a model is looked at, and no model is replaced behind one's back."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from vaults import embed_by_hash, hash_embedder

from resonance import ResonanceDB
from resonance.errors import EmbedderError
from resonance.model import Space
from resonance.vault import embed
from resonance.vault import model as default_model
from resonance.vault.embed import (
    CallableEmbedder,
    Embedder,
    FastEmbedEmbedder,
    Model2VecEmbedder,
    checked_embed,
    choose_embedder,
    embedder_of,
)
from resonance.vault.settings import VaultSettings, load_settings

SPACE = Space("test", 3)


def returning(value: Any) -> CallableEmbedder:
    return CallableEmbedder(lambda texts: value, SPACE)


@pytest.fixture(scope="module")
def potion() -> Model2VecEmbedder:
    folder = default_model.find_model()
    if folder is None:
        pytest.skip("the embedding model is not on this machine")
    return Model2VecEmbedder(folder, default_model.NAME)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(default_model.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(default_model, "_hub_cache", lambda: None)


def test_a_callable_is_an_embedder() -> None:
    embedder = hash_embedder()
    assert isinstance(embedder, Embedder)
    vectors = checked_embed(embedder, ["a", "b"])
    assert (vectors.shape, vectors.dtype) == ((2, 8), np.float32)
    assert np.array_equal(vectors, embed_by_hash(["a", "b"]))


@pytest.mark.parametrize(
    "value",
    [
        [[1, 2, 3], [4, 5, 6]],
        np.ones((2, 3)),
        np.ones((3, 2)).T,
        np.ones((2, 3), dtype=">f4"),
        np.ones((2, 3), dtype=np.int8),
    ],
)
def test_whatever_becomes_float32_is_taken(value: object) -> None:
    vectors = checked_embed(returning(value), ["a", "b"])
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert vectors.shape == (2, 3)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((2, 4)), r"shape \(2, 4\)"),
        (np.ones((1, 3)), r"shape \(1, 3\)"),
        (np.ones(3), r"shape \(3,\)"),
        (np.ones((2, 3, 1)), "shape"),
        ([[1, 2, 3], [1, 2]], "failed"),
        ([["a", "b", "c"]] * 2, "failed"),
        (None, "failed|shape"),
        (np.array([[1, 2, 3], [1, np.nan, 3]]), "row 1"),
        (np.array([[1, 2, np.inf], [1, 2, 3]]), "row 0"),
        (np.full((2, 3), 1e300), "row 0|failed"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_anything_else_is_an_error(value: object, message: str) -> None:
    with pytest.raises(EmbedderError, match=message):
        checked_embed(returning(value), ["a", "b"])


def test_an_exception_of_the_model_is_an_error_of_ours() -> None:
    def broken(texts: Sequence[str]) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(EmbedderError, match="out of memory"):
        checked_embed(CallableEmbedder(broken, SPACE), ["a"])


def test_no_texts_need_no_model() -> None:
    assert checked_embed(returning("not called"), []).shape == (0, 3)


def test_the_default_model(potion: Model2VecEmbedder) -> None:
    assert potion.space == Space("potion-base-8M", 256, "f65d0f325faa")
    texts = ["a cat sat on the mat", "the weather is fine", "a cat sat on the mat", ""]
    vectors = checked_embed(potion, texts)
    assert np.array_equal(vectors[0], vectors[2])
    assert not vectors[3].any()
    for text, vector in zip(texts, vectors, strict=True):
        assert np.array_equal(checked_embed(potion, [text])[0], vector)


def test_the_end_of_a_long_text_counts(potion: Model2VecEmbedder) -> None:
    long = "one two three four five " * 2_000
    vectors = checked_embed(potion, [long + "cat", long + "galaxies whales " * 500])
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)


def test_settings_without_a_model_get_the_default(root: Path, potion: Model2VecEmbedder) -> None:
    embedder, note = choose_embedder(load_settings(root))
    assert embedder is not None
    assert (embedder.space, note) == (potion.space, None)


def test_a_missing_default_model_is_said(root: Path, no_model: None) -> None:
    embedder, note = choose_embedder(load_settings(root))
    assert embedder is None
    assert note is not None
    assert "python -m resonance.vault.model" in note


def test_embeddings_can_be_switched_off(root: Path) -> None:
    embedder, note = choose_embedder(load_settings(root, model="none"))
    assert (embedder, note) == (None, "embeddings are switched off in the settings")


def test_a_named_model_is_never_replaced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastembed", None)
    embedder, note = choose_embedder(load_settings(root, model="BAAI/bge-small-en-v1.5"))
    assert embedder is None
    assert note is not None
    assert "BAAI/bge-small-en-v1.5" in note
    assert "pip install" in note


def test_not_even_by_the_one_whose_vectors_are_stored(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = CallableEmbedder(lambda texts: np.ones((len(texts), 2)), Space("default", 2))

    def load(settings: VaultSettings, name: str | None, obtain: bool) -> Embedder:
        if name is None:
            return default
        raise EmbedderError(f"{name} is not here")

    monkeypatch.setattr(embed, "_load", load)
    with ResonanceDB(":memory:") as db:
        db.set_space(default.space)
        db.insert_nodes(id=["a"], embedding=[[1.0, 0.0]])
        assert embedder_of(db, load_settings(root)) is default, "the negative control"
        with pytest.raises(EmbedderError, match="another is not here"):
            embedder_of(db, load_settings(root, model="another"), asked="another")


def test_a_width_the_model_does_not_have_is_refused(root: Path, potion: Model2VecEmbedder) -> None:
    (root / "amalfa.settings.json").write_text(
        '{"embeddings": {"model": "potion-base-8M", "dimensions": 384}}'
    )
    embedder, note = choose_embedder(load_settings(root))
    assert embedder is None
    assert note is not None
    assert "384" in note


def test_a_folder_can_be_named(root: Path, potion: Model2VecEmbedder) -> None:
    folder = default_model.find_model()
    embedder, note = choose_embedder(load_settings(root, model=str(folder)))
    assert note is None
    assert embedder is not None
    assert embedder.space.revision == potion.space.revision


@pytest.mark.parametrize("content", [None, b"", b"{}"])
def test_a_folder_without_a_model_is_said(root: Path, content: bytes | None) -> None:
    folder = root / "model"
    folder.mkdir()
    if content is not None:
        for name in default_model.PINS:
            (folder / name).write_bytes(content)
    embedder, note = choose_embedder(load_settings(root, model="model"))
    assert embedder is None
    assert note is not None
    assert "model" in note


def test_fastembed_is_asked_for_what_is_here_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class TextEmbedding:
        def __init__(self, name: str, **options: Any) -> None:
            asked.append(options)
            if options.get("local_files_only"):
                raise ValueError("not in the cache")

        def embed(self, texts: list[str]) -> Any:
            return (np.ones(4, dtype=np.float32) for _ in texts)

    fake = ModuleType("fastembed")
    fake.TextEmbedding = TextEmbedding  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fastembed", fake)

    with pytest.raises(EmbedderError, match="not on this machine"):
        FastEmbedEmbedder("m")
    assert asked == [{"local_files_only": True}]
    embedder = FastEmbedEmbedder("m", obtain=True)
    assert embedder.space == Space("m", 4)
    assert checked_embed(embedder, ["a", "b"]).shape == (2, 4)
    with pytest.raises(EmbedderError):
        FastEmbedEmbedder("m", Path("folder"), obtain=True)
    assert asked[-1] == {"local_files_only": True, "specific_model_path": "folder"}
