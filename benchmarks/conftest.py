"""Makes `pytest benchmarks` a run: options, who plays what, and the table at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from board import Board, Replay
from contender import contenders
from report import describe, keep_played, summary, table
from scales import ROUNDS, SCALES, planned

HERE = Path(__file__).parent
_clock = Replay()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("resonance benchmarks")
    group.addoption("--scale", choices=list(SCALES), default="small", help="how much data; default: small")
    group.addoption("--rounds", type=int, help="how often everybody plays; default: as the scale says")
    group.addoption("--only", help="names of contenders, with commas; default: all")
    group.addoption("--results", type=Path, default=HERE / "results" / "latest.json", help="where JSON goes")
    group.addoption(
        "--work",
        type=Path,
        default=HERE.parent / "build" / "bench" / "work",
        help="a folder for the databases, on the disk to measure",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("python_functions", "bench_*")
    # The table below says it all.
    config.option.benchmark_quiet = not config.option.benchmark_verbose


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "planned_load" not in metafunc.fixturenames:
        return
    config = metafunc.config
    question = metafunc.function.__name__.removeprefix("bench_")
    only = set(config.option.only.split(",")) if config.option.only else None
    absent = config.stash.setdefault(_ABSENT, {})
    cases = []
    for each in planned(config.option.scale, question):
        for contender in contenders(question):
            if only is not None and contender.name not in only:
                continue
            if each.only is not None and contender.name not in each.only:
                continue
            if reason := contender.absent(each.load):
                absent.setdefault(each.load.name, {})[contender.name] = reason
                continue
            cases.append(pytest.param(each.load, contender.name, id=f"{each.load.name}-{contender.name}"))
    metafunc.parametrize(("planned_load", "contender"), cases)


_ABSENT = pytest.StashKey[dict[str, dict[str, str]]]()
_BOARD = pytest.StashKey[Board]()
_STARTED = pytest.StashKey[float]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(0))
        item.add_marker(pytest.mark.benchmark(timer=_clock, disable_gc=False, warmup=False))


@pytest.fixture(scope="session")
def board(request: pytest.FixtureRequest) -> Board:
    """The board all rounds are played on."""
    options = request.config.option
    made = Board(options.rounds or ROUNDS[options.scale], options.work)
    request.config.stash[_BOARD] = made
    request.config.stash[_STARTED] = time.time()
    return made


@pytest.fixture
def play(request: pytest.FixtureRequest, board: Board, benchmark: Any) -> Any:
    """Called with a load and a contender: plays their rounds, if that has not been done yet."""

    def call(load: Any, name: str) -> None:
        names = [
            item.callspec.params["contender"]
            for item in request.session.items
            if getattr(item, "callspec", None) and item.callspec.params.get("planned_load") == load
        ]
        played = len(board.records)
        record = board.record(load, name, names)
        if len(board.records) > played:
            # A run that is stopped later has what it measured so far.
            keep_played(request.config.option.results, results(request.config, board))
        if record.error is not None:
            pytest.fail(record.error, pytrace=False)
        _clock.load([each["seconds"] for each in record.rounds])
        benchmark.group = load.name
        benchmark.extra_info.update({"rows": load.rows, "label": record.label})
        benchmark.pedantic(_clock.advance, rounds=len(record.rounds), iterations=1)

    return call


def results(config: pytest.Config, board: Board) -> dict[str, Any]:
    """All that was measured so far, and the circumstances."""
    run = describe(config.option.scale, config.stash[_STARTED], board.rounds)
    order = [each.load.name for each in SCALES[config.option.scale]]
    run["results"] = sorted(summary(board.records.values()), key=lambda entry: order.index(entry["case"]))
    run["absent"] = config.stash.get(_ABSENT, {})
    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    board = config.stash.get(_BOARD, None)
    if board is None:
        return
    run = results(config, board)
    keep_played(config.option.results, run)
    terminalreporter.write_line("")
    terminalreporter.write_line(table(run))
    terminalreporter.write_line(f"\nas JSON: {config.option.results}")
