"""Answering questions about vectors."""

from resonance.search.backend import Backend

__all__ = ["Backend"]
