"""The real command line, in a process of its own, on small vaults of real files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import NOTES, WORDS, Result, Run

from resonance._core import Connection


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model2vec model that knows five words, in four dimensions."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {word: index for index, word in enumerate(["[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.Lowercase()
    vectors = np.array([(0, 0, 0, 0), *WORDS.values()], dtype=np.float32)
    folder = tmp_path_factory.mktemp("models") / "five-words"
    StaticModel(vectors=vectors, tokenizer=tokenizer, config={"normalize": False}).save_pretrained(folder)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Without the user's models, settings of the terminal, or network."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_PRELOAD", "ASAN_OPTIONS") if name in os.environ}
    return {
        **kept,
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "PYTHONFAULTHANDLER": "1",
        "COLUMNS": "100",
        "PYTHONWARNINGS": "ignore",
    }


@pytest.fixture
def run(tmp_path: Path, environment: dict[str, str]) -> Run:
    def run(*arguments: object, cwd: Path = tmp_path, **options: Any) -> Result:
        command = [sys.executable, "-m", "resonance", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, **options
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def run_here(capsys: pytest.CaptureFixture[str]) -> Run:
    """The same without a process of its own: quicker, for what has many cases."""
    from resonance.cli.app import app

    def run_here(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as ended:
            app(list(map(str, arguments)), prog_name="resonance")
        out, err = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Result(code, out, err)

    return run_here


def write_vault(root: Path) -> Path:
    for name, text in NOTES.items():
        note = root / name
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def vault(tmp_path: Path) -> Path:
    """Seven notes: two with links that resolve, one dangling link, one that is ambiguous."""
    return write_vault(tmp_path / "vault")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """The vault with its database in it, made once."""
    root = write_vault(tmp_path_factory.mktemp("template") / "vault")
    command = [sys.executable, "-m", "resonance", "init", root, "--model", model]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return root


@pytest.fixture
def made(template: Path, tmp_path: Path) -> Path:
    """A vault of one's own, with its database in it."""
    root = shutil.copytree(template, tmp_path / "vault")
    with Connection(root / ".resonance/resonance.db", create=False) as connection:
        connection.checkpoint_on_close(True)
        connection.execute("UPDATE properties SET value = ? WHERE key = 'vault.root'", (str(root),))
    return root
