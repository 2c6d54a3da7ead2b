"""Turning texts into vectors: what an embedding model must offer, and the ones known here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from resonance.errors import EmbedderError
from resonance.model import FloatArray, Space
from resonance.vault import model as default_model
from resonance.vault.settings import VaultSettings

NO_MODEL = "none"

_DEFAULT_NAMES = frozenset({default_model.NAME, f"minishlab/{default_model.NAME}"})


@runtime_checkable
class Embedder(Protocol):
    """An embedding model.

    ``space`` is its identity; :meth:`embed` returns one row per text, shape (n, ``space.dims``),
    float32, finite. A row of zeros means that the model has nothing to say about that text.
    """

    @property
    def space(self) -> Space: ...

    def embed(self, texts: Sequence[str], /) -> FloatArray: ...


class Model2VecEmbedder:
    """A static model2vec model in a folder; the default. Deterministic, and no text is cut short.

    Raises:
        EmbedderError: the folder holds no such model, or model2vec is not installed.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        weights = folder / "model.safetensors"
        try:
            from model2vec import StaticModel

            revision = default_model.sha256(weights)
            self._model = StaticModel.from_pretrained(folder)
        except Exception as error:  # whatever a damaged file makes of the loaders
            raise EmbedderError(f"{folder}: cannot be loaded as a model2vec model ({error})") from error
        name = name or folder.resolve().name
        self.space = Space(name, int(self._model.dim), revision[:12])

    def embed(self, texts: Sequence[str], /) -> FloatArray:
        vectors = self._model.encode(list(texts), max_length=None, use_multiprocessing=False)
        return np.asarray(vectors, dtype=np.float32)


class FastEmbedEmbedder:
    """A model run by fastembed, such as Amalfa's ``BAAI/bge-small-en-v1.5``.

    Args:
        name: fastembed's name of the model.
        folder: where its files lie; None for fastembed's own cache.
        obtain: fetch the model if it is not on this machine.

    Raises:
        EmbedderError: fastembed is not installed, or the model is not here.
    """

    def __init__(self, name: str, folder: Path | None = None, *, obtain: bool = False) -> None:
        try:
            from fastembed import TextEmbedding  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise EmbedderError(
                f"the model {name} needs fastembed: pip install 'resonance[fastembed]'"
            ) from error
        place = {} if folder is None else {"specific_model_path": str(folder)}
        try:
            # Without this flag fastembed waits for the network long before it fails.
            self._model = TextEmbedding(name, local_files_only=True, **place)
        except Exception as error:
            if not obtain or folder is not None:
                raise EmbedderError(f"the model {name} is not on this machine ({error})") from error
            try:
                self._model = TextEmbedding(name)
            except Exception as second:
                raise EmbedderError(f"the model {name} cannot be had ({second})") from second
        self.space = Space(name, int(self.embed(["dimensions"]).shape[1]))

    def embed(self, texts: Sequence[str], /) -> FloatArray:
        rows = list(self._model.embed(list(texts)))
        return np.asarray(rows, dtype=np.float32).reshape(len(texts), -1)


class CallableEmbedder:
    """Any function from texts to an (n, d) array, under the name of a space."""

    def __init__(self, function: Callable[[Sequence[str]], Any], space: Space) -> None:
        self._function = function
        self.space = space

    def embed(self, texts: Sequence[str], /) -> FloatArray:
        return self._function(texts)  # type: ignore[no-any-return]  # checked_embed looks at it


def checked_embed(embedder: Embedder, texts: Sequence[str]) -> FloatArray:
    """What the embedder makes of the texts: shape (n, d), float32, C-contiguous, finite.

    Raises:
        EmbedderError: it failed, or returned anything else; names the first row that is wrong.
    """
    dims = embedder.space.dims
    if not texts:
        return np.empty((0, dims), dtype=np.float32)
    who = f"the embedder of {embedder.space.name}"
    try:
        vectors = np.ascontiguousarray(embedder.embed(texts), dtype=np.float32)
    except EmbedderError:
        raise
    except Exception as error:
        raise EmbedderError(f"{who} failed on {len(texts)} texts: {error}") from error
    if vectors.shape != (len(texts), dims):
        raise EmbedderError(f"{who} returned shape {vectors.shape}, not {(len(texts), dims)}")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise EmbedderError(f"{who} returned a value that is not finite in row {int(finite.argmin())}")
    return vectors


def choose_embedder(settings: VaultSettings, *, obtain: bool = False) -> tuple[Embedder | None, str | None]:
    """The embedder the settings ask for; or None, and why there is none.

    Settings that name no model get the default one. A model that *is* named is never replaced by
    another: vectors of two models cannot be compared, and nobody would see the difference.

    Args:
        obtain: fetch the model if it is not on this machine.
    """
    name = settings.model
    if name is not None and name.lower() == NO_MODEL:
        return None, "embeddings are switched off in the settings"
    try:
        embedder = _load(settings, name, obtain)
    except EmbedderError as error:
        return None, str(error)
    if settings.dims is not None and settings.dims != embedder.space.dims:
        return None, (
            f"the settings ask for {settings.dims} dimensions, but {embedder.space.name} "
            f"has {embedder.space.dims}; change embeddings in the settings"
        )
    return embedder, None


def _load(settings: VaultSettings, name: str | None, obtain: bool) -> Embedder:
    if name is None or name in _DEFAULT_NAMES:
        folder = default_model.obtain_model() if obtain else default_model.find_model()
        if folder is None:
            raise EmbedderError(
                f"the embedding model {default_model.NAME} is not on this machine; "
                f"fetch it with: python -m resonance.vault.model"
            )
        return _model2vec(folder, default_model.NAME)
    folder = settings.root / Path(name).expanduser()
    if default_model.is_model(folder):
        return _model2vec(folder)
    if folder.is_dir():
        raise EmbedderError(f"{folder}: holds no model2vec model ({', '.join(default_model.PINS)})")
    return FastEmbedEmbedder(name, obtain=obtain)


def _model2vec(folder: Path, name: str | None = None) -> Embedder:
    status = (folder / "model.safetensors").stat()
    return _kept(folder, name, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=1)
def _kept(folder: Path, name: str | None, _version: tuple[int, ...]) -> Embedder:
    """A model, kept for whoever asks for the same one next: loading takes longer than embedding a note."""
    return Model2VecEmbedder(folder, name)
