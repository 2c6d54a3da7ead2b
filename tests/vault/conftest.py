"""Fixtures for the tests of the vault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vaults import Files, Vault


@pytest.fixture
def make_vault(tmp_path: Path) -> Iterator[Callable[[Files], Vault]]:
    """Makes vaults, each with a database of its own outside of it, and closes them afterwards."""
    made: list[Vault] = []

    def make(files: Files) -> Vault:
        place = tmp_path / str(len(made))
        vault = Vault(place / "vault", place / "resonance.db")
        vault.write(files)
        made.append(vault)
        return vault

    yield make
    for vault in made:
        vault.db.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder."""
    folder = tmp_path / "vault"
    folder.mkdir()
    return folder
