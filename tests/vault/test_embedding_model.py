"""Obtaining the embedding model: looked for in order, checked, put in place whole or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from resonance.errors import EmbedderError
from resonance.vault import model
from resonance.vault.embed import choose_embedder
from resonance.vault.settings import load_settings

CONTENT = {name: f"content of {name}".encode() for name in model.PINS}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No model on this machine, no network, and other pins."""
    monkeypatch.delenv(model.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(model, "_hub_cache", lambda: None)
    monkeypatch.setattr(
        model, "PINS", {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    )
    return tmp_path


def fill(folder: Path, **other: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in CONTENT.items():
        (folder / name).write_bytes(other.get(name.partition(".")[0], data))
    return folder


def refuse(folder: Path) -> None:
    raise OSError("no network")


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch, alone: Path) -> None:
    fill(model.cache_folder() / model.NAME)
    monkeypatch.setenv(model.ENVIRONMENT, str(fill(alone / "mine")))
    assert model.find_model() == alone / "mine"


def test_an_environment_that_leads_nowhere_is_an_error(monkeypatch: pytest.MonkeyPatch, alone: Path) -> None:
    monkeypatch.setenv(model.ENVIRONMENT, str(alone / "absent"))
    with pytest.raises(EmbedderError, match=model.ENVIRONMENT):
        model.find_model()


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(model.Path, "home", nowhere)
    assert model.find_model() is None, "XDG_CACHE_HOME is enough"
    monkeypatch.delenv("XDG_CACHE_HOME")
    embedder, why = choose_embedder(load_settings(tmp_path), obtain=True)
    assert embedder is None
    assert "set HOME" in str(why)


def test_the_cache_comes_next(alone: Path) -> None:
    assert model.find_model() is None
    fill(alone / "resonance" / "models" / model.NAME)
    assert model.find_model() == alone / "resonance" / "models" / model.NAME


def test_the_hub_is_asked_before_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_from_hub", fill)
    monkeypatch.setattr(model, "_from_registry", refuse)
    assert model.is_model(model.obtain_model())


def test_the_registry_is_asked_where_the_hub_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "_from_hub", refuse)
    monkeypatch.setattr(model, "_from_registry", fill)
    folder = model.obtain_model()
    assert folder == model.find_model()
    assert [path.name for path in folder.parent.iterdir()] == [model.NAME]


def test_what_is_here_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(model.cache_folder() / model.NAME)
    monkeypatch.setattr(model, "_from_hub", refuse)
    monkeypatch.setattr(model, "_from_registry", refuse)
    assert model.obtain_model() == model.cache_folder() / model.NAME


def test_another_file_than_the_pinned_one_is_not_put_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model, "_from_hub", lambda folder: fill(folder, model=b"something else"))
    monkeypatch.setattr(model, "_from_registry", refuse)
    with pytest.raises(EmbedderError, match=r"model\.safetensors is not the file it should be"):
        model.obtain_model()
    assert model.find_model() is None
    assert list(model.cache_folder().iterdir()) == []


def test_the_message_says_what_was_tried_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model, "_from_hub", refuse)
    monkeypatch.setattr(model, "_from_registry", refuse)
    assert model.main() == 1
    told = capsys.readouterr()
    assert told.out == ""
    for part in ("the model hub: no network", "the package registry: no network", model.ENVIRONMENT):
        assert part in told.err


def test_the_command_prints_the_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model, "_from_hub", fill)
    assert model.main() == 0
    assert capsys.readouterr().out.strip() == str(model.cache_folder() / model.NAME)


def a_wheel(folder: Path) -> None:
    with zipfile.ZipFile(folder / "package.whl", "w") as wheel:
        for name, data in CONTENT.items():
            wheel.writestr(f"{model._PACKAGE_FOLDER}/{name}", data)


def a_tree(folder: Path) -> None:
    fill(folder / model._PACKAGE_FOLDER)


@pytest.mark.parametrize(
    ("works", "option", "leaves"), [("pip", "--dest", a_wheel), ("uv", "--target", a_tree)]
)
def test_pip_or_uv_fetch_the_wheel(
    monkeypatch: pytest.MonkeyPatch, works: str, option: str, leaves: Any
) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if not command[0].endswith(works):
            return subprocess.CompletedProcess(command, 1, "", "No module named pip")
        leaves(Path(command[command.index(option) + 1]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(model, "_from_hub", refuse)
    monkeypatch.setattr(model.shutil, "which", lambda name: f"/somewhere/{name}")
    monkeypatch.setattr(model.subprocess, "run", run)
    assert model.is_model(model.obtain_model())
    assert calls[0][:3] == [sys.executable, "-m", "pip"]
    assert calls[-1][0].endswith(works)


def test_a_wheel_without_the_model_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "x.whl", "w"):
            pass
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(model, "_from_hub", refuse)
    monkeypatch.setattr(model.subprocess, "run", run)
    with pytest.raises(EmbedderError, match=r"does not hold model\.safetensors"):
        model.obtain_model()


def test_an_installer_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: float) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(model, "_from_hub", refuse)
    monkeypatch.setattr(model.subprocess, "run", run)
    with pytest.raises(EmbedderError, match="timed out"):
        model.obtain_model()


def test_offline_the_hub_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(model.urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked"))
    with pytest.raises(OSError, match="HF_HUB_OFFLINE"):
        model._from_hub(tmp_path)
