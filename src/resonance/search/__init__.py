"""Answering questions about vectors."""
