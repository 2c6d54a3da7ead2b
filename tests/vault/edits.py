"""Edits at random, as people and programs make them, each told by the paths it touched."""

from __future__ import annotations

import os
import random
import shutil
import unicodedata
from pathlib import Path

from vaults import write

FOLDERS = ["", "", "", "a", "a/b", "c d", "é", "日本", ".hidden", "drafts"]
STEMS = ["index", "Index", "a", "b", "a b", "a-b", "C++", "C#", "é", "メモ", "n", "note 1", "x.y", "_"]
ENDINGS = [".md", ".md", ".md", ".md", ".markdown", ".MD", ".png", ".md~", ""]
NAMES = [
    "index",
    "a",
    "a b",
    "C++",
    "メモ",
    "n",
    "alias",
    "Other Name",
    "nowhere",
    "a/b/n",
    "c d/a",
    "pic.png",
]
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()


class Editor:
    """Changes a vault; the same seed makes the same changes."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random.Random(seed)
        for _ in range(20):
            self.write()

    def edit(self) -> set[str]:
        """One change. Returns the root-relative paths it touched, files and folders."""
        actions = [
            (self.write, 6),
            (self.append, 4),
            (self.change_head, 4),
            (self.remove, 3),
            (self.move, 4),
            (self.move_folder, 1),
            (self.remove_folder, 0.5),
            (self.copy, 1),
            (self.spoil, 1),
            (self.touch, 1),
        ]
        return self.random.choices([a for a, _ in actions], [w for _, w in actions])[0]()

    def path(self) -> str:
        pick = self.random.choice
        path = "/".join(part for part in (pick(FOLDERS), pick(STEMS) + pick(ENDINGS)) if part)
        return unicodedata.normalize("NFD", path) if self.random.random() < 0.1 else path

    def some_file(self) -> str | None:
        """A well-formed file: a note that is so no longer keeps its old node, which is not meant here."""
        files = sorted(
            p.relative_to(self.root).as_posix()
            for p in self.root.rglob("*")
            if p.is_file() and not p.name.startswith("spoiled")
        )
        return self.random.choice(files) if files else None

    def text(self) -> str:
        pick = self.random.choice
        lines = []
        for _ in range(self.random.randrange(6)):
            name = pick(NAMES)
            lines.append(
                pick(
                    [
                        f"[[{name}]]",
                        f"![[{name}|shown]]",
                        f"[t]({name.replace(' ', '%20')}.md)",
                        f"[t](../{name}.md#x)" if " " not in name else "[[#self]]",
                        f"#t{self.random.randrange(4)} #Deep/tag",
                        f"# {pick(WORDS).title()}",
                        " ".join(self.random.choices(WORDS, k=self.random.randrange(1, 60))),
                        "```\n[[in code]]\n```",
                        "<https://example.org>",
                    ]
                )
            )
        return self.head() + "\n\n".join(lines) + "\n"

    def head(self) -> str:
        pick = self.random.choice
        entries = [
            f"title: {pick(WORDS)}",
            f"aliases: [{pick(NAMES)}, '{pick(WORDS)}']",
            f"tags: [t{self.random.randrange(4)}, {pick(WORDS)}]",
            f"date: 2024-0{self.random.randrange(1, 10)}-01",
            f"summary: {pick(WORDS)}",
            f"related: '[[{pick(NAMES)}]]'",
        ]
        chosen = self.random.sample(entries, self.random.randrange(4))
        return "---\n" + "\n".join(chosen) + "\n---\n" if chosen else ""

    def write(self) -> set[str]:
        path = self.path()
        if (self.root / path).is_dir() or any(p.is_file() for p in (self.root / path).parents):
            return set()
        above = path.split("/")[0] if not (self.root / path).parent.exists() else path
        write(self.root, {path: self.text()})
        return {above}

    def append(self) -> set[str]:
        path = self.some_file()
        if path is None:
            return set()
        with (self.root / path).open("ab") as file:
            file.write(self.text().encode())
        return {path}

    def change_head(self) -> set[str]:
        """Other metadata on the same text."""
        path = self.some_file()
        if path is None:
            return set()
        body = (self.root / path).read_bytes().split(b"---\n", 2)[-1]
        (self.root / path).write_bytes(self.head().encode() + body)
        return {path}

    def remove(self) -> set[str]:
        path = self.some_file()
        if path is not None:
            (self.root / path).unlink()
        return {path} - {None}  # type: ignore[return-value]

    def move(self) -> set[str]:
        path, target = self.some_file(), self.path()
        place = self.root / target
        if path is None or place.is_dir() or any(p.is_file() for p in place.parents):
            return set()
        above = target.split("/")[0] if not place.parent.exists() else target
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.root / path, place)  # noqa: PTH105  # over whatever is there
        return {path, above}

    def folders(self) -> list[Path]:
        return sorted(p for p in self.root.rglob("*") if p.is_dir())

    def move_folder(self) -> set[str]:
        folders = self.folders()
        target = self.root / self.random.choice(["moved", "a/moved", "z"])
        if not folders or target.exists() or not target.parent.is_dir():
            return set()
        folder = self.random.choice(folders)
        if target.is_relative_to(folder):
            return set()
        folder.rename(target)
        return {p.relative_to(self.root).as_posix() for p in (folder, target)}

    def remove_folder(self) -> set[str]:
        folders = self.folders()
        if not folders:
            return set()
        folder = self.random.choice(folders)
        shutil.rmtree(folder)
        return {folder.relative_to(self.root).as_posix()}

    def copy(self) -> set[str]:
        path, target = self.some_file(), f"copy {self.random.randrange(5)}.md"
        if path not in (None, target):
            shutil.copy(self.root / path, self.root / target)
        return {target}

    def spoil(self) -> set[str]:
        path = f"spoiled {self.random.randrange(3)}.md"
        if (self.root / path).exists():
            (self.root / path).unlink()
        else:
            contents = [b"---\ntitle: [\n---\n", b"\xff\xfeU\x00", b"a\0b", b"caf\xe9"]
            (self.root / path).write_bytes(self.random.choice(contents))
        return {path}

    def touch(self) -> set[str]:
        path = self.some_file()
        if path is not None:
            (self.root / path).touch()
        return {path} - {None}  # type: ignore[return-value]
