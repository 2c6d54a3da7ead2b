"""What should the vector of a long note be made of? Is the note found by its title, in each case?

    python benchmarks/long_notes.py VAULT [VAULT ...]

Only long notes are asked for, among all notes of the vault; the model is the default one. A note counts
as found where any note of that title is. Titles stand in the texts that are embedded, as they do in use,
so the figures compare kinds of vectors and say nothing of how people ask.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from resonance.errors import ContentError
from resonance.vault.embed import Model2VecEmbedder, checked_embed
from resonance.vault.model import NAME, obtain_model
from resonance.vault.note import parse_note
from resonance.vault.sections import SectionRules, sections_of

BATCH = 1024


def unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(norms, norms, 1)).astype(np.float32)


def main(vault: Path) -> None:
    model = Model2VecEmbedder(obtain_model(), NAME)

    def embed(texts: list[str]) -> np.ndarray:
        pieces = [checked_embed(model, texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
        return unit(np.concatenate(pieces))

    notes, sections = [], []
    for path in sorted(vault.rglob("*.md")):
        if any(part.startswith(".") for part in path.relative_to(vault).parts):
            continue
        try:
            note = parse_note(path.relative_to(vault).as_posix(), data := path.read_bytes())
        except ContentError:
            continue
        notes.append(note)
        sections.append(sections_of(note, data, "note", SectionRules()))
    whole = embed([note.embedding_text for note in notes])
    parts = embed([section.text for each in sections for section in each])
    owner = np.repeat(np.arange(len(notes)), [len(each) for each in sections])
    long, starts = np.unique(owner, return_index=True)

    mean, first = whole.copy(), whole.copy()
    mean[long] = unit(np.add.reduceat(parts.astype(np.float64), starts))
    first[long] = parts[starts]
    by_title: dict[str, list[int]] = {}
    for number, note in enumerate(notes):
        by_title.setdefault(note.title, []).append(number)
    queries = embed([notes[number].title for number in long])
    print(f"{vault.name}: {len(long)} long notes of {len(notes)}, {len(parts)} sections")
    for name, vectors, grouped in (
        ("whole text", whole, False),
        ("mean of its sections", mean, False),
        ("first section", first, False),
        ("first and mean", unit(first + mean), False),
        ("grouped, with all sections", unit(first + mean), True),
    ):
        ranks = []
        for number, query in zip(long, queries, strict=True):
            scores = vectors @ query
            if grouped:
                scores[long] = np.maximum(scores[long], np.maximum.reduceat(parts @ query, starts))
            ranks.append(1 + (scores > scores[by_title[notes[number].title]].max()).sum())
        found = np.array(ranks)
        print(f"  {name:28} mean reciprocal rank {np.mean(1 / found):.3f}, first {np.mean(found == 1):.0%}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        main(Path(argument))
