"""Settings: Amalfa's file where there is one, defaults, and errors that say which key is wrong."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from resonance.errors import SettingsError
from resonance.vault.embed import choose_embedder
from resonance.vault.settings import SETTINGS_FILE, load_settings


def told(root: Path, **values: object) -> Path:
    (root / SETTINGS_FILE).write_text(json.dumps(values))
    return root


def test_without_a_file_the_root_is_the_only_source(root: Path) -> None:
    settings = load_settings(root)
    assert settings.sources == (".",)
    assert settings.exclude == ()
    assert settings.database == root / ".resonance/resonance.db"
    assert settings.model is None


def test_the_home_of_nobody_is_no_folder(root: Path) -> None:
    with pytest.raises(SettingsError, match="no such folder"):
        load_settings("~nobody-of-this-name/notes")
    settings = load_settings(root, database="~nobody-of-this-name/x.db")
    assert settings.database.name == "x.db"


def test_amalfas_file_is_read(root: Path) -> None:
    told(
        root,
        sources=["./docs", "./notes/"],
        excludePatterns=["node_modules", "drafts"],
        database=".amalfa/runtime/resonance.db",
        embeddings={"model": "BAAI/bge-small-en-v1.5", "dimensions": 384},
        watch={"enabled": True},
    )
    settings = load_settings(root)
    assert settings.sources == ("docs", "notes")
    assert settings.exclude == ("node_modules", "drafts")
    assert settings.database == root / ".amalfa/runtime/resonance.db"
    assert (settings.model, settings.dims) == ("BAAI/bge-small-en-v1.5", 384)


def test_arguments_win_over_the_file(root: Path, tmp_path: Path) -> None:
    told(root, sources=["docs"], database="x.db", embeddings={"model": "m", "dimensions": 3})
    settings = load_settings(root, sources=["notes"], database=tmp_path / "y.db", model="none")
    assert settings.sources == ("notes",)
    assert settings.database == tmp_path / "y.db"
    assert (settings.model, settings.dims) == ("none", None)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["docs", "docs/sub", "./docs/"], ("docs",)),
        (["docs", "."], (".",)),
        (["docs/../notes"], ("notes",)),
        (["docs", "docs/**/*.md", "*.md"], ("*.md", "docs")),
        (["docsx", "docs"], ("docs", "docsx")),
    ],
)
def test_sources_that_overlap_are_read_once(
    root: Path, sources: list[str], expected: tuple[str, ...]
) -> None:
    assert load_settings(told(root, sources=sources)).sources == expected


def test_an_absolute_source_within_the_root_is_relative_to_it(root: Path) -> None:
    assert load_settings(root, sources=[str(root / "docs")]).sources == ("docs",)


@pytest.mark.parametrize("source", ["..", "../other", "docs/../../x", "/etc", "..\\other"])
def test_sources_outside_the_root_are_refused(root: Path, source: str) -> None:
    with pytest.raises(SettingsError, match="outside the root"):
        load_settings(told(root, sources=["docs", source]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sources", "docs and more".split),
        ("sources", [1]),
        ("sources", [""]),
        ("sources", {"a": 1}),
        ("sources", ["\ud800"]),
        ("excludePatterns", "\ud800"),
        ("database", "\ud800"),
        ("excludePatterns", 3),
        ("database", 3),
        ("database", ""),
        ("embeddings", 3),
        ("embeddings", {"model": 3}),
        ("embeddings", {"model": "m", "dimensions": -1}),
        ("embeddings", {"model": "m", "dimensions": True}),
    ],
)
def test_a_wrong_value_is_named_with_its_file(root: Path, key: str, value: object) -> None:
    if callable(value):
        value = {"not": "a list"}
    with pytest.raises(SettingsError, match=key.split(".")[0]) as caught:
        load_settings(told(root, **{key: value}))
    assert SETTINGS_FILE in str(caught.value)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_json_object_is_refused(root: Path, content: bytes) -> None:
    (root / SETTINGS_FILE).write_bytes(content)
    with pytest.raises(SettingsError, match=SETTINGS_FILE):
        load_settings(root)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("sources", [3]),
        ("sources", ["\ud800"]),
        ("exclude", [None]),
        ("exclude", 3),
        ("model", 3),
        ("model", ""),
    ],
)
def test_a_wrong_argument_is_named(root: Path, argument: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"the arguments: {argument}"):
        load_settings(root, **{argument: value})


def test_what_logseq_keeps_of_old_pages_is_no_part_of_its_vaults(root: Path) -> None:
    assert load_settings(root, dialect="logseq", exclude="x").exclude == (
        "x",
        "logseq/bak",
        "logseq/version-files",
    )
    assert load_settings(root).exclude == ()


def test_one_text_in_place_of_a_list_is_one_entry(root: Path) -> None:
    settings = load_settings(root, sources="docs", exclude="drafts")
    assert (settings.sources, settings.exclude) == (("docs",), ("drafts",))


def test_names_too_long_for_a_file_are_no_error_of_the_system(root: Path) -> None:
    long = "x" * 5_000
    settings = load_settings(told(root, sources=[long, f"{long}x*"], embeddings={"model": long}))
    assert len(settings.sources) == 2
    for name in (long, "~no-such-user/model"):
        assert choose_embedder(dataclasses.replace(settings, model=name))[0] is None
    with pytest.raises(SettingsError, match="cannot be there"):
        load_settings(root, database=long)


def test_a_settings_file_that_is_a_pipe_is_refused_and_not_waited_for(root: Path) -> None:
    os.mkfifo(root / SETTINGS_FILE)
    with pytest.raises(SettingsError, match="not a regular file"):
        load_settings(root)


@pytest.mark.parametrize("name", ["absent", "x" * 5_000, "a\0b", "\ud800"])
def test_a_root_that_is_no_folder_is_refused(root: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="no such folder"):
        load_settings(root / name)


def test_a_database_may_lie_at_home(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert load_settings(told(root, database="~/graph.db")).database == Path("/home/ada/graph.db")
    assert load_settings(told(root, database="~no-such-user/graph.db")).database.is_relative_to(root)


def test_a_database_that_is_a_folder_is_refused(root: Path) -> None:
    with pytest.raises(SettingsError, match="is a folder"):
        load_settings(root, database=root)
