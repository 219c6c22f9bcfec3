"""How numbers of things are said, on screens and in terminals.

What the cockpit calls commands, measures and activities stands in configs/tables/words.json, what is told of
an incident in run/incidents.py, what a key does and a setting means in keys.json and settings.json beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

PLURALS = {"process": "processes", "batch": "batches", "loss": "losses"}


def count(amount: int, word: str) -> str:
    """Return `1 epoch`, `4 epochs`, `2 processes`."""
    return f"{amount:,} {word if amount == 1 else PLURALS.get(word, f'{word}s')}"


def which_epochs(which: str) -> str:
    """Return `epochs 3 to 17`, `epoch 4`, or a text that says more than numbers as it is."""
    if not which[:1].isdigit():
        return which
    return f"epoch {which}" if which.isdigit() else f"epochs {which}"


def span(hours: float) -> str:
    """Return hours as a person says them."""
    if hours * 60 < 1:
        return count(round(hours * 3600), "second")
    return count(round(hours * 60), "minute") if hours < 1.5 else f"{hours:.1f} hours"


def aligned(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows as aligned lines; the last column is as long as it likes."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
