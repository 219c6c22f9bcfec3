"""Files, verdicts and roles put together: one row per checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from nantui.checkpoint.verdict import Verdict
from nantui.ui.model.snapshot import Checkpoint

BADGE_INKS = {
    "clean": "good", "corrupt": "bad", "unreadable": "bad", "busy": "info", "scanning": "muted", "": "muted",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the checkpoint list. `epoch` counts from 1, as people do."""

    checkpoint: Checkpoint
    badge: str
    epoch: int | None
    fitness: float | None
    roles: tuple[str, ...]
    verdict: Verdict | None = None

    @property
    def ink(self) -> str:
        return BADGE_INKS.get(self.badge, "warn")


def rows(
    checkpoints: tuple[Checkpoint, ...],
    verdicts: Mapping[Checkpoint, Verdict],
    scanning: frozenset[Checkpoint] = frozenset(),
    restore: Path | None = None,
) -> list[Row]:
    """Return a row per file, newest first; `restore` is the one that `R` would go back to."""
    found: list[Row] = []
    for checkpoint in checkpoints:
        verdict = verdicts.get(checkpoint)
        badge = verdict.badge if verdict is not None else "scanning" if checkpoint in scanning else ""
        roles = ["restore point"] if checkpoint.path == restore else []
        if verdict is not None and badge == "clean" and verdict.repairable and not verdict.resumable:
            roles.append("repairable")
        epoch = verdict.work_epoch if verdict is not None else _epoch_of(checkpoint.name)
        epoch = checkpoint.point.epoch if checkpoint.point else epoch
        fitness = verdict.fitness if verdict is not None else None
        found.append(Row(checkpoint, badge, epoch, fitness, tuple(roles), verdict))
    return found


def _epoch_of(name: str) -> int | None:
    """Return the epoch counted from 1 that the name `epochN.pt` tells."""
    digits = name.removeprefix("epoch").removesuffix(".pt")
    return int(digits) + 1 if name.startswith("epoch") and digits.isdigit() else None


def hours_of_room(checkpoints: tuple[Checkpoint, ...], free_gb: float) -> float | None:
    """Return for how many hours of training checkpoints fit into `free_gb`.

    Counted from the sizes and times of those that are kept (`epochN.pt`; last.pt and best.pt replace
    themselves). None while there are fewer than three: nothing piles up, or its pace is not known yet.
    """
    kept = sorted((one for one in checkpoints if _epoch_of(one.name)), key=lambda one: one.modified)
    gaps = [after.modified - before.modified for before, after in zip(kept, kept[1:], strict=False)]
    if len(gaps) < 2 or not (gap := median(gaps)):
        return None
    return free_gb * 1e9 / max(1.0, median(one.size for one in kept)) * gap / 3600


def findings_of(verdict: Verdict | None) -> str:
    """Return the kinds of findings in one word or two, worst first."""
    kinds = list(dict.fromkeys(finding.kind for finding in (verdict.findings if verdict else ())))
    return ", ".join(kinds[:2]) + (" .." if len(kinds) > 2 else "")
