"""The words on screens and in terminals, and how numbers of things are said: to be reviewed in one place.

What is told of an incident stands in run/incidents.py, what a key does in ui/actions.py, what a setting means
in settings/schema.py.
"""

from __future__ import annotations

from collections.abc import Iterable

PLURALS = {"process": "processes", "batch": "batches", "loss": "losses"}

ACTIVITIES = {
    "importing": "loading libraries", "setup": "setting up", "training": "", "validating": "validating",
    "saving": "saving a checkpoint", "ending": "final validation",
}  # fmt: skip
"""What the ranks do, as they report it; a training that trains needs no word for it."""

ACTIONS = {
    "skipped": "step skipped, weights untouched",
    "observed": "only observed, weights may be ruined",
    "ended": "training ended",
    "warned": "only a warning, the training goes on",
    "rewound": "went back in memory and trains on; cannot be undone",
}
"""What was done about an incident."""

COMMANDS = {
    "start": "start", "stop": "stop", "kill": "kill", "rollback": "roll back", "undo": "undo the rollback",
    "resume": "resume", "recover": "recover", "rewind": "go back in memory", "set": "change settings",
    "quarantine": "change which images are left out",
}  # fmt: skip
"""What a person asks for."""

BEGINNINGS = {"start": "started", "resume": "resumed", "restart": "restarted from scratch"}
"""How an attempt began."""

MEASURES = {
    "grad_norm": "gradient norm", "lr": "learning rate", "loss_scale": "loss scale",
    "update_to_weight": "update / weight", "bad_weights": "weights not finite", "bad_state": "not finite",
    "bad_state_count": "how many of them", "bad_gradients": "gradients not finite",
    "bad_gradients_count": "how many of them", "bad_modules": "in these modules", "bad": "not finite",
    "tensors": "tensors not finite", "repeat_grad_norm": "norm when repeated",
    "repeat_largest_gradients": "largest, repeated", "first_bad": "first not finite in",
}  # fmt: skip
"""What was measured, by its name in files."""


def count(amount: int, word: str) -> str:
    """Return `1 epoch`, `4 epochs`, `2 processes`."""
    return f"{amount:,} {word if amount == 1 else PLURALS.get(word, f'{word}s')}"


def measure(name: str) -> str:
    """Return what a figure is, in words."""
    return MEASURES.get(name, name.replace("_", " "))


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
