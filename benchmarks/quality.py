"""How well a question finds its note: by vector, by text, by both, beside grep and bm25s.

    python benchmarks/quality.py CORPORA [--questions 300] [--json FILE]

CORPORA is a folder of vaults. The questions are headings: of each note at most one that says at least two
words and stands nowhere else in its vault. It is taken out of a copy of the vault (a mark stays in its
place, so that sections begin where they began), and then asked for; the right answer is the note it was
taken from. So the words of the answer are never the words of the question by construction, but such a
heading still is what its author wrote over just that text: people ask in other words.

A peer answers over the same files: grep ranks by how often the words of the question occur (substrings,
any case), bm25s is Lucene's BM25 over the text of the notes with its own tokenizer.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from resonance import Hit, ResonanceDB, engine
from resonance.vault.embed import choose_embedder
from resonance.vault.ingest import ingest
from resonance.vault.settings import load_settings

K = 10
SMALLEST = 200
"""Characters of text that a heading must stand over to be asked for."""

HEADING = re.compile(r"(?m)^(#{2,6})[ \t]+(.+?)[ \t#]*\r?$")
MARK = "* * *"
WORD = re.compile(r"\w+")

Answer = Callable[[str], Sequence[str]]
"""From a question to paths, best first."""


class Question(NamedTuple):
    text: str
    path: str


def headings(text: str) -> Iterable[re.Match[str]]:
    """The headings of a note, without lines of code that look like some."""
    fences = [match.start() for match in re.finditer(r"(?m)^[ \t]*(?:```|~~~)", text)]
    for match in HEADING.finditer(text):
        if sum(fence < match.start() for fence in fences) % 2 == 0:
            yield match


def said(heading: str) -> str:
    """What a heading says, without its markup."""
    heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|<[^>]*>|[`*]", r"\1", heading)
    return " ".join(heading.split())


def make_questions(vault: Path, most: int, seed: int = 0) -> list[Question]:
    """Choose the questions, and take them out of the vault."""
    texts = {path: path.read_bytes().decode("utf-8", "replace") for path in sorted(vault.rglob("*.md"))}
    count = Counter(said(m[2]).casefold() for text in texts.values() for m in headings(text))
    chosen = []
    for path, text in texts.items():
        found = list(headings(text))
        ends = [*(match.start() for match in found[1:]), len(text)][: len(found)]
        fit = [
            match
            for match, end in zip(found, ends, strict=True)
            if end - match.end() >= SMALLEST
            and count[said(match[2]).casefold()] == 1
            and len(WORD.findall(said(match[2]))) >= 2
        ]
        if fit:
            chosen.append((path, random.Random(f"{seed}{path.name}").choice(fit)))
    chosen = random.Random(seed).sample(chosen, min(most, len(chosen)))
    questions = []
    for path, match in chosen:
        text = texts[path]
        changed = f"{text[: match.start(2)]}{MARK}{text[match.end(2) :]}"
        path.write_bytes(changed.encode())
        questions.append(Question(said(match[2]), path.relative_to(vault).as_posix()))
    return questions


def grep(vault: Path) -> Answer:
    texts = {
        path.relative_to(vault).as_posix(): path.read_bytes().decode("utf-8", "replace").lower()
        for path in vault.rglob("*.md")
    }

    def ask(text: str) -> Sequence[str]:
        words = set(WORD.findall(text.lower()))
        counts = {path: sum(map(own.count, words)) for path, own in texts.items()}
        return sorted((p for p in counts if counts[p]), key=lambda p: (-counts[p], p))[:K]

    return ask


def bm25s_peer(vault: Path) -> Answer | None:
    try:
        import bm25s
    except ImportError:
        return None
    paths = sorted(path.relative_to(vault).as_posix() for path in vault.rglob("*.md"))
    texts = [f"{Path(p).stem}\n{(vault / p).read_bytes().decode('utf-8', 'replace')}" for p in paths]
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)

    def ask(text: str) -> Sequence[str]:
        tokens = bm25s.tokenize([text], show_progress=False, return_ids=False)
        found, scores = index.retrieve(tokens, k=min(K, len(paths)), show_progress=False)
        return [paths[i] for i, score in zip(found[0], scores[0], strict=True) if score > 0]

    return ask


def ours(db: ResonanceDB) -> dict[str, Answer]:
    def paths(hits: Iterable[Hit]) -> list[str]:
        return [hit.path or "" for hit in hits]

    where = {"group_by": "document", "domain": "knowledge"}
    return {
        "vector": lambda text: paths(db.search(db.embed_question(text), K, **where)),
        "text": lambda text: paths(db.search_text(text, K, **where)),
        "hybrid": lambda text: paths(db.search_hybrid(text, K, **where)),
    }


def measured(ask: Answer, questions: Sequence[Question]) -> dict[str, float]:
    reciprocal, found, times = 0.0, 0, []
    for question in questions:
        started = time.perf_counter()
        answer = ask(question.text)
        times.append(time.perf_counter() - started)
        if question.path in answer:
            reciprocal += 1 / (list(answer).index(question.path) + 1)
            found += 1
    times.sort()
    return {
        "mrr@10": round(reciprocal / len(questions), 3),
        "recall@10": round(found / len(questions), 3),
        "median_ms": round(1000 * times[len(times) // 2], 2),
    }


def run(corpus: Path, most: int) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory() as scratch:
        vault = Path(scratch) / corpus.name
        shutil.copytree(corpus, vault)
        for path in [vault, *vault.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        questions = make_questions(vault, most)
        if len(questions) < 20:
            return None
        settings = load_settings(vault, database=Path(scratch) / "vault.db")
        embedder, why = choose_embedder(settings)
        with ResonanceDB(settings.database) as db:
            report = ingest(db, settings, embedder=embedder)
            answers = ours(db)
            if embedder is None:
                print(f"no model, so by words only: {why}", file=sys.stderr)
                answers = {"text": answers["text"]}
            answers["grep"] = grep(vault)
            if (peer := bm25s_peer(vault)) is not None:
                answers["bm25s"] = peer
            results = {name: measured(ask, questions) for name, ask in answers.items()}
        return {
            "vault": corpus.name,
            "notes": report.nodes,
            "questions": len(questions),
            "model": embedder.space.name if embedder else None,
            "results": results,
        }


def table(found: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"{'vault':<18}{'notes':>7}{'asked':>7}  {'by':<8}{'MRR@10':>8}{'recall@10':>11}{'median ms':>11}"
    ]
    for one in found:
        head = f"{one['vault']:<18}{one['notes']:>7}{one['questions']:>7}"
        for name, result in one["results"].items():
            told = f"{result['mrr@10']:>8.3f}{result['recall@10']:>11.3f}{result['median_ms']:>11.2f}"
            lines.append(f"{head}  {name:<8}{told}")
            head = " " * len(head)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", type=Path, nargs="?", default=os.environ.get("RESONANCE_CORPORA"))
    parser.add_argument("--questions", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.corpora is None or not options.corpora.is_dir():
        print("name a folder of vaults, or set RESONANCE_CORPORA", file=sys.stderr)
        return 2
    found = []
    for corpus in sorted(path for path in options.corpora.iterdir() if path.is_dir()):
        if (one := run(corpus, options.questions)) is not None:
            found.append(one)
            print(table(found), flush=True)
    if options.json:
        told = {"format": 1, "engine": engine()["version"], "k": K, "vaults": found}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
