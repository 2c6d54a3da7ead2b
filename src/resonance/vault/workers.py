"""Reading many notes, with the help of other processes: parsing is Python, which has one lock a process.

Helpers are programs of their own, not forks, which would take along the locks and threads of whoever
uses this, nor what :mod:`multiprocessing` spawns, which imports their main module again. They are given
a descriptor of the vault's root, and reach no more than we do. Whoever asks for the notes reads along,
so nothing waits for helpers to start; and what a lost one had in hand is read here.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import marshal
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import IO, Any

from resonance.model import Problem, Text
from resonance.vault.body import Heading
from resonance.vault.links import RawLink
from resonance.vault.note import ParsedNote
from resonance.vault.reader import Outcome, Reader, ReadNote, Same, Task
from resonance.vault.root import Root
from resonance.vault.scan import FoundFile
from resonance.vault.sections import Section

WORTH_HELP = 4 << 20
"""From so many bytes of notes on there are helpers. They begin to pay at 1 MB; below 4 nobody waits long."""

_MOST_HELPERS = 3
"""One process writes what all have read, and has no time to wait for more of them."""

_CHUNK_BYTES, _CHUNK_FILES = 256 << 10, 256
_PIPE_BYTES = 1 << 20
_IN_HAND = 2
"""Chunks that a helper knows of: one it reads, and one to go on with while the first is fetched."""

_CHUNKS_AHEAD = 32
"""How far reading may be ahead of writing, which bounds the memory."""

_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from resonance.vault.workers import _main; _main()"
_LENGTH = struct.Struct("=Q")
# Little of what a helper makes refers to itself, and all of it is gone after the next chunk.
_GARBAGE_THRESHOLD = 100_000
_WITHOUT_REFERENCES = 2  # a version of marshal's format; newer ones look for objects that are the same


def read_all(reader: Reader, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
    """What comes of each task, in their order, whoever does it. Close it to stop before the end."""
    helpers = _processors() - 1 if sum(task.file.size for task in tasks) >= WORTH_HELP else 0
    # A program that brings its Python along has no interpreter to start.
    if helpers < 1 or not sys.executable or getattr(sys, "frozen", False):
        yield from map(reader.read, tasks)
        return
    crew = _Crew(reader, list(_chunks(tasks)), min(helpers, _MOST_HELPERS))
    try:
        yield from crew.outcomes()
    finally:
        crew.close()


def _processors() -> int:
    """How many of them this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _chunks(tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
    start = held = 0
    for at, task in enumerate(tasks):
        if at > start and (held + task.file.size > _CHUNK_BYTES or at - start >= _CHUNK_FILES):
            yield tasks[start:at]
            start, held = at, 0
        held += task.file.size
    yield tasks[start:]


class _Crew:
    """Helpers, each with a thread that keeps it busy. Chunks are begun in their order, by whoever is free."""

    def __init__(self, reader: Reader, chunks: Sequence[Sequence[Task]], helpers: int) -> None:
        self._reader = reader
        self._chunks = chunks
        self._begun = self._wanted = 0
        self._done: dict[int, bytes | list[Outcome] | None] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._programs: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []
        try:
            for _ in range(helpers):
                self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        root = self._reader.root.fileno()
        try:
            # In a session of its own no key of the terminal reaches it: Ctrl-C is for us, who end it.
            program = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, *sys.path],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(root,),
                start_new_session=True,
            )
        except OSError:
            return  # too many processes, or no memory: we read alone
        self._programs.append(program)
        assert program.stdout is not None
        with contextlib.suppress(OSError, AttributeError):
            # An answer that finds room goes at once, however long this process keeps its one lock.
            fcntl.fcntl(program.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        thread = threading.Thread(target=self._attend, args=(program,), daemon=True)
        thread.start()
        self._threads.append(thread)

    def outcomes(self) -> Iterator[Outcome]:
        """What comes of all tasks, in their order."""
        for number in range(len(self._chunks)):
            yield from self._outcomes_of(number)

    def close(self) -> None:
        """End the helpers, whatever they are doing: nothing is lost with them."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for program in self._programs:
            program.kill()
        for thread in self._threads:
            thread.join()
        for program in self._programs:
            program.wait()
            for pipe in (program.stdin, program.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _outcomes_of(self, number: int) -> list[Outcome]:
        with self._changed:
            self._wanted = number
            self._changed.notify_all()
        while True:
            with self._changed:
                other = None if number in self._done else self._take()
                if other is None:
                    self._changed.wait_for(lambda: number in self._done)
                    found = self._done.pop(number)
                    break
            mine = self._read(other)
            with self._changed:
                self._done[other] = mine
        if isinstance(found, bytes):
            return _unpacked(found)
        return self._read(number) if found is None else found

    def _read(self, number: int) -> list[Outcome]:
        return [self._reader.read(task) for task in self._chunks[number]]

    def _take(self) -> int | None:
        """The next chunk to begin with, if it is not too far ahead. With the lock held."""
        number = self._begun
        if self._closed or number >= min(len(self._chunks), self._wanted + _CHUNKS_AHEAD):
            return None
        self._begun += 1
        return number

    def _attend(self, program: subprocess.Popen[bytes]) -> None:
        """Give a helper one chunk after the other, as long as it answers."""
        to, back = program.stdin, program.stdout
        assert to is not None
        assert back is not None
        reader = self._reader
        root = reader.root.fileno(), reader.root.max_file_bytes
        # All tasks at once: what is asked later is too short to wait for a helper that waits for us.
        terms = (*root, reader.reading, reader.rules, reader.verbatim, self._chunks)
        answers = _tell(to, pickle.dumps(terms, -1))
        asked: deque[int] = deque()
        while answers:
            with self._changed:
                while (number := self._take()) is None and not asked:
                    if self._closed or self._begun >= len(self._chunks):
                        return
                    self._changed.wait()
            if number is not None:
                asked.append(number)
                answers = _tell(to, _LENGTH.pack(number))
            if number is None or len(asked) == _IN_HAND or not answers:
                answer = _hear(back) if answers else None
                answers = answer is not None
                self._answered(asked.popleft(), answer)
        for number in asked:
            self._answered(number, None)

    def _answered(self, number: int, answer: bytes | None) -> None:
        with self._changed:
            self._done[number] = answer
            self._changed.notify_all()


# --- between the processes --------------------------------------------------------------------------


def _tell(to: IO[bytes], message: bytes) -> bool:
    """Send a message; False if there is nobody any more."""
    try:
        to.write(_LENGTH.pack(len(message)))
        to.write(message)
        to.flush()
    except OSError:
        return False
    return True


def _hear(back: IO[bytes]) -> bytes | None:
    """The next message; None if there is nobody any more."""
    try:
        head = back.read(_LENGTH.size)
        size = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else 0
        message = back.read(size)
    except OSError:
        return None
    return message if size and len(message) == size else None


def _packed(outcomes: Sequence[Outcome], *, verbatim: bool) -> bytes:
    """Outcomes as plain values, which take a fraction of the time that objects take to go through a pipe."""
    plain: list[tuple[Any, ...]] = []
    for outcome in outcomes:
        if not isinstance(outcome, ReadNote):
            plain.append((isinstance(outcome, Same), tuple(map(_plainly, outcome))))
            continue
        file, note, *others, sections, texts = outcome
        links, headings, blocks, body = note.links, note.headings, note.blocks, note.body
        if not verbatim:
            headings, blocks, body = (), (), ""
            sections = [section._replace(body="") for section in sections]
        told = note._replace(links=(), headings=(), blocks=blocks, body=body)
        parts = [list(map(tuple, part)) for part in (links, headings, sections, texts)]
        plain.append((tuple(file), tuple(told), *others, *parts))
    return marshal.dumps(plain, _WITHOUT_REFERENCES)


def _plainly(value: Any) -> Any:
    return tuple(value) if isinstance(value, tuple) else value


def _unpacked(answer: bytes) -> list[Outcome]:
    # Thousands of objects that all stay: to look for garbage in between takes longer than to make them.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return [_whole(*plain) for plain in marshal.loads(answer)]
    finally:
        if was_enabled:
            gc.enable()


def _whole(first: Any, told: tuple[Any, ...], *others: Any) -> Outcome:
    if not others:
        return Same(FoundFile(*told[0]), told[1]) if first else Problem(*told)
    node, mtime_ns, links, headings, sections, texts = others
    note = ParsedNote(*told)._replace(
        links=tuple(map(RawLink._make, links)), headings=tuple(map(Heading._make, headings))
    )
    return ReadNote(
        FoundFile(*first),
        note,
        node,
        mtime_ns,
        list(map(Section._make, sections)),
        list(map(Text._make, texts)),
    )


def _main() -> None:
    """A helper. It ends with whoever it reads for, and where anything is wrong: they read on themselves."""
    gc.set_threshold(_GARBAGE_THRESHOLD)
    to = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything else prints is no message
    asked = sys.stdin.buffer
    with contextlib.suppress(Exception):
        terms = _hear(asked)
        if terms is None:
            return
        descriptor, max_file_bytes, reading, rules, verbatim, chunks = pickle.loads(terms)
        with Root.held(descriptor, max_file_bytes=max_file_bytes) as root:
            reader = Reader(root, reading, rules, verbatim=verbatim)
            while (number := _hear(asked)) is not None:
                found = [reader.read(task) for task in chunks[_LENGTH.unpack(number)[0]]]
                _tell(to, _packed(found, verbatim=verbatim))
