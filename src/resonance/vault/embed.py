"""Turning texts into vectors: what an embedding model must offer, and the ones known here."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from resonance.errors import EmbedderError, SettingsError
from resonance.model import FloatArray, Space
from resonance.spaces import NAMELESS
from resonance.vault import model as default_model
from resonance.vault.settings import VaultSettings, expanded, is_folder, load_settings

if TYPE_CHECKING:
    from resonance.questions import Questions

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
    folder = settings.root / expanded(name)
    if is_folder(folder):
        if default_model.is_model(folder):
            return _model2vec(folder)
        raise EmbedderError(f"{folder}: holds no model2vec model ({', '.join(default_model.PINS)})")
    return FastEmbedEmbedder(name, obtain=obtain)


def _model2vec(folder: Path, name: str | None = None) -> Embedder:
    status = (folder / "model.safetensors").stat()
    return _kept(folder, name, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=1)
def _kept(folder: Path, name: str | None, _version: tuple[int, ...]) -> Embedder:
    """A model, kept for whoever asks for the same one next: loading takes longer than embedding a note."""
    return Model2VecEmbedder(folder, name)


# --- questions ----------------------------------------------------------------------------------------


def embedder_of(
    db: Questions, settings: VaultSettings | None = None, *, asked: str | None = None
) -> Embedder:
    """The model whose space the vectors of a database belong to.

    Args:
        settings: those of its vault; None to read them there.
        asked: the model that somebody named, which is then not replaced by another.

    Raises:
        EmbedderError: there are no vectors, or the model cannot be had.
    """
    space = db.space
    if space is None or not db.query("SELECT 1 FROM nodes WHERE embedding IS NOT NULL LIMIT 1"):
        raise EmbedderError(
            f"{db.path} holds no vectors, so there is no search by meaning; `resonance ingest` makes them"
        )
    if settings is None:
        root = db.root
        try:
            settings = load_settings(root or Path())
        except SettingsError:
            settings = VaultSettings(root or Path())
    why = None
    names = [asked or settings.model]
    if not asked and space.name not in NAMELESS:
        names.append(space.name)
    for name in dict.fromkeys(names):
        embedder, why = choose_embedder(dataclasses.replace(settings, model=name, dims=None))
        if embedder is None:
            continue
        nameless = space.name in NAMELESS and asked is not None and embedder.space.dims == space.dims
        if embedder.space == space or nameless:
            return embedder
        why = f"this model is {embedder.space.name}, revision {embedder.space.revision or 'unknown'}"
    revision = f", revision {space.revision}" if space.revision else ""
    raise EmbedderError(
        f"the vectors of {db.path} are by {space.name} ({space.dims} dimensions{revision}), which is not "
        f"here: {why}. Name it with --model, or make the vectors anew with `resonance ingest`"
    )


def question_vector(embedder: Embedder, text: str) -> FloatArray:
    """The vector of a question, shape (d,).

    Raises:
        EmbedderError: the model has nothing to say about it.
    """
    vector: FloatArray = checked_embed(embedder, [text])[0]
    if not vector.any():
        raise EmbedderError(f"{embedder.space.name} knows no word of {text[:60]!r}; ask in other words")
    return vector
