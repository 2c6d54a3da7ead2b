"""SQL that must not be in this package, because of what it did elsewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    file
    for pattern in ("src/resonance/**/*.py", "src/_core/*.p*", "migrations/*.sql")
    for file in sorted(ROOT.glob(pattern))
]

BANNED = {
    # Drops what is not named, takes a new rowid, cascades, and fires no delete trigger.
    "replace": re.compile(r"\b(?:INSERT|UPDATE)\s+OR\s+REPLACE\b|\bREPLACE\s+INTO\b", re.I),
    # A savepoint rolled back in a big transaction loses commits on engines before 3.50.2.
    "savepoint": re.compile(r"[\"'(;]\s*(?:SAVEPOINT|RELEASE|ROLLBACK\s+TO)\b"),
    # A deferred transaction that writes after it has read fails at once, whatever the time-out.
    "begin": re.compile(r"[\"']BEGIN\s+(?:DEFERRED|TRANSACTION)\b", re.I),
    # Two conflict clauses put an index out of step on engines before 3.45.2.
    "conflict": re.compile(r"\bON\s+CONFLICT\b[^;\"]*\bON\s+CONFLICT\b", re.I),
    # Another copy of SQLite in this process would drop our locks.
    "sqlite3": re.compile(r"^\s*(?:import\s+(?:sqlite3|apsw)|from\s+(?:sqlite3|apsw)\b.*\s+import)\b", re.M),
}


def code_of(file):
    """The text without its comments, which may well name what is banned."""
    mark = "--" if file.suffix == ".sql" else "#"
    return re.sub(rf"(?m)(?:^|\s){mark}.*$", "", file.read_text())


def test_there_is_something_to_read():
    assert len(SOURCES) > 30
    assert any("INSERT INTO" in code_of(file) for file in SOURCES)


@pytest.mark.parametrize("name", BANNED)
def test_banned(name):
    found = [
        (str(file.relative_to(ROOT)), match.group())
        for file in SOURCES
        for match in BANNED[name].finditer(code_of(file))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("replace", 'execute("INSERT OR REPLACE INTO nodes VALUES (1)")'),
        ("replace", 'execute("""\n    replace\n into nodes""")'),
        ("savepoint", 'execute("SAVEPOINT x")'),
        ("begin", "execute('BEGIN DEFERRED')"),
        ("conflict", '"INSERT INTO t VALUES (1) ON CONFLICT (a) DO NOTHING ON CONFLICT (b) DO NOTHING"'),
        ("sqlite3", "import sqlite3\n"),
    ],
)
def test_the_patterns_find_what_they_should(name, sample):
    assert BANNED[name].search(sample)
