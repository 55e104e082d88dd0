"""Spaced KD benchmark: who learns on which batch, when, and whether it matters."""

__version__ = "0.2.0"
