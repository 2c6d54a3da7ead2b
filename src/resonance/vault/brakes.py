"""When a removal is so large that somebody has to say yes first."""

from __future__ import annotations

from collections.abc import Sequence

from resonance.vault.settings import MAX_LOSS, VaultSettings
from resonance.words import some

SMALLEST_LOSS = 10
"""So few notes may go whatever share of the vault they are, unless somebody has named a share."""


def bearable(settings: VaultSettings, known: int) -> float:
    """How many of ``known`` notes may be gone before anybody asks."""
    if settings.max_loss is None:
        return max(SMALLEST_LOSS, MAX_LOSS * known)
    return round(settings.max_loss * known, 6)  # 29 % of 100 are a little less than 29


def objection(
    settings: VaultSettings, *, known: int, found: int, lost: Sequence[str], lately: int = 0
) -> str | None:
    """Why these notes must not simply be removed; None where they may.

    Args:
        known: notes in the database; found: notes on disk.
        lost: paths that are gone and did not move.
        lately: notes that went in the same sweep, a moment ago.
    """
    if not lost:
        return None
    if not found:
        return (
            f"{settings.root}: no notes were found, but the database knows {known}. "
            f"Is the folder mounted, are the sources right?"
        )
    if len(lost) + lately > bearable(settings, known + lately):
        before = f" (and {lately} a moment ago)" if lately else ""
        return f"{settings.root}: {len(lost)} of {known} notes are gone{before}, beginning with {some(lost)}."
    return None
