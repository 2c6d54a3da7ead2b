"""What is shipped: the sdist, the wheel made from it, and each way of installing them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SHIPPED_MIGRATIONS = sorted(path.name for path in (ROOT / "migrations").glob("*.sql"))
LOOK_INSIDE = """
from importlib.metadata import version
from importlib.resources import files
import resonance
print(version("resonance"))
print(resonance.sqlite_version)
print(*sorted(path.name for path in (files("resonance") / "migrations").iterdir()))
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def empty_environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", folder, ROOT, cwd=folder)
    (archive,) = folder.glob("resonance-*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, sdist, cwd=folder)
    (archive,) = folder.glob("resonance-*.whl")
    return archive


def test_the_sdist_holds_what_a_build_needs_and_no_engine(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "CMakeLists.txt", "cmake/obtain_sqlite.py", "LICENSE"} <= names
    assert {"src/_core/_core.pyx", "src/_core/sqlite3.pxd", "README.md"} <= names
    assert {f"migrations/{name}" for name in SHIPPED_MIGRATIONS} <= names
    assert not {name for name in names if Path(name).name in ("sqlite3.c", "sqlite3.h")}
    assert not {name for name in names if name.startswith(("build/", "dist/", ".venv/", ".git/"))}


def test_the_wheel_holds_core_stub_types_and_migrations(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"resonance/migrations/{name}" for name in SHIPPED_MIGRATIONS} <= names
    assert {"resonance/__init__.py", "resonance/_core.pyi", "resonance/py.typed"} <= names
    assert len([name for name in names if name.startswith("resonance/_core.cpython-")]) == 1
    assert not {name for name in names if not name.startswith(("resonance/", "resonance-"))}


@pytest.mark.skipif(shutil.which("nm") is None, reason="nm is not here")
@pytest.mark.skipif(sys.platform != "linux", reason="reads an ELF file")
def test_the_core_shows_no_symbol_but_its_own_entry(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (core,) = (tmp_path / "resonance").glob("_core.*.so")
    symbols = run("nm", "-D", "--defined-only", core, cwd=tmp_path).splitlines()
    assert [line.split()[-1] for line in symbols] == ["PyInit__core"]


def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    python = empty_environment(tmp_path / "venv")
    run(python, "-m", "pip", "install", "-q", wheel, cwd=tmp_path)
    version, _, migrations = run(python, "-c", LOOK_INSIDE, cwd=tmp_path).splitlines()
    assert version == wheel.name.split("-")[1]
    assert migrations.split() == SHIPPED_MIGRATIONS
    assert "resonance" in run(tmp_path / "venv" / "bin" / "resonance", "--help", cwd=tmp_path)


def test_an_editable_install_works_in_an_empty_environment(sdist: Path, tmp_path: Path) -> None:
    run("tar", "xf", sdist, cwd=tmp_path)
    checkout = tmp_path / sdist.name.removesuffix(".tar.gz")
    python = empty_environment(tmp_path / "venv")
    run(python, "-m", "pip", "install", "-q", "-e", checkout, cwd=tmp_path)
    *_, migrations = run(python, "-c", LOOK_INSIDE, cwd=tmp_path).splitlines()
    assert migrations.split() == SHIPPED_MIGRATIONS
    module = run(python, "-c", "import resonance; print(resonance.__file__)", cwd=tmp_path).strip()
    assert Path(module) == checkout / "src" / "resonance" / "__init__.py"
