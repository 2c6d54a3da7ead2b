"""Imports run one way. Each line may import from the lines above it, and a package from itself."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "resonance"

ORDER = """
    errors model words
    _core
    disk garbage lock watch
    backup
    migrate
    factory
    readers turns
    session
    history rows parallel
    changes spaces
    search
    arrow aside bulk matrix rebuild stats
    questions
    database
    aio
    vault
    care
    cli
    __main__
"""

# What leads upwards all the same: imported when a function runs, not before.
DOORS = {
    ("factory", "care.health"): "DatabaseFactory.perform_health_check is the contract's name for it",
    ("questions", "vault.embed"): "db.search_hybrid() asks the model whose vectors are stored",
    ("questions", "vault.hydrate"): "db.content() reads from the vault",
    ("questions", "vault.anchors"): "db.anchors() reads from the vault",
    ("questions", "care.digest"): "db.digest() is part of looking after a database",
    ("model", "arrow"): "an EmbeddingMatrix can be handed out as Arrow",
}


def line_of(module):
    """The number of the line that ``module`` (without "resonance.") stands in."""
    for number, line in enumerate(ORDER.split("\n")):
        if module.split(".")[0] in line.split():
            return number
    pytest.fail(f"{module} has no place in the order of tests/test_layers.py; give it one")


def modules():
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            yield name, ast.parse(file.read_text())


def is_module(name):
    path = PACKAGE.joinpath(*name.split("."))
    return name == "_core" or path.with_suffix(".py").exists() or path.is_dir()


def imported(statement):
    """Modules of this package that an import statement names, without "resonance."."""
    if isinstance(statement, ast.Import):
        names = [alias.name for alias in statement.names]
    else:
        assert statement.level == 0, "imports are absolute"
        inside = f"{statement.module}."
        names = [
            inside + alias.name
            if is_module((inside + alias.name).removeprefix("resonance."))
            else statement.module
            for alias in statement.names
        ]
    return [name.removeprefix("resonance").lstrip(".") for name in names if name.split(".")[0] == "resonance"]


def imports(tree):
    """(module, inside a function, only for type checkers) of each import."""

    def walk(node, inside, typing):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                for name in imported(child):
                    yield name, inside, typing
            yield from walk(
                child,
                inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda),
                typing or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)),
            )

    yield from walk(tree, False, False)


def goes_down(importer, target):
    if importer.split(".")[0] == target.split(".")[0]:
        return "." in importer or "." in target  # rooms of one package
    return line_of(target) < line_of(importer)


def wrong_imports(found):
    wrong = []
    for importer, tree in found:
        for target, inside, typing in imports(tree):
            if target == "":
                # The package itself, as its users see it: for the outermost layers only.
                if line_of(importer) < line_of("vault"):
                    wrong.append(f"{importer} imports the whole package")
            elif (
                not goes_down(importer, target)
                and not typing
                and not (inside and (importer, target) in DOORS)
            ):
                wrong.append(f"{importer} imports {target}")
    return wrong


def test_imports_run_one_way():
    assert wrong_imports(modules()) == []


def test_doors_are_used_and_only_from_inside_functions():
    used = {
        (importer, target)
        for importer, tree in modules()
        for target, inside, _ in imports(tree)
        if inside and (importer, target) in DOORS
    }
    assert used == set(DOORS)


def test_every_place_is_taken():
    names = {name.split(".")[0] for name, _ in modules()} | {"_core"}
    assert names == set(ORDER.split())


def test_the_core_knows_only_the_errors():
    found = set()
    for file in (ROOT / "src" / "_core").glob("*.p*"):
        for module, names in re.findall(
            r"(?m)^\s*from\s+(resonance[\w.]*)\s+import\s+(.*)$", file.read_text()
        ):
            found |= {name.strip() for name in names.split(",")} if module == "resonance" else {module}
    assert found == {"errors", "resonance.errors"}


def test_importing_the_package_opens_no_heavy_doors():
    """Searching vectors needs no markdown, and no command line."""
    from support import run_python

    loaded = set(run_python("import sys, resonance; print(*sys.modules)").split())
    heavy = {
        "frontmatter",
        "yaml",
        "pyromark",
        "model2vec",
        "typer",
        "rich",
        "pyarrow",
        "sqlite3",
        "hypothesis",
    }
    assert loaded & heavy == set()


@pytest.mark.parametrize(
    ("importer", "code"),
    [
        ("errors", "from resonance import model"),
        ("lock", "from resonance.session import Session"),
        ("rows", "from resonance.history import History"),
        ("database", "from resonance.vault import ids"),
        ("database", "def f():\n    from resonance.vault.ids import x"),
        ("factory", "from resonance.care.health import check_health"),
        ("session", "import resonance.database"),
        ("search.exact", "from resonance.database import ResonanceDB"),
        ("backup", "from resonance import ResonanceDB"),
        ("vault.scan", "from resonance.care import health"),
    ],
)
def test_what_would_be_found(importer, code):
    assert wrong_imports([(importer, ast.parse(code))])


@pytest.mark.parametrize(
    ("importer", "code"),
    [
        ("database", "from resonance import _core, rows"),
        ("vault.scan", "from resonance.vault.root import Root\nfrom resonance.database import ResonanceDB"),
        ("factory", "def f():\n    from resonance.care.health import check_health"),
        (
            "session",
            "import typing\nif typing.TYPE_CHECKING:\n    from resonance.database import ResonanceDB",
        ),
        ("cli.app", "import resonance\nfrom resonance import ResonanceDB"),
    ],
)
def test_what_is_fine(importer, code):
    assert wrong_imports([(importer, ast.parse(code))]) == []
