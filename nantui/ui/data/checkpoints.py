"""Files, verdicts and roles put together: one row per checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nantui.ui.data.snapshot import Checkpoint

BADGE_INKS = {
    "clean": "good",
    "corrupt": "bad",
    "unreadable": "bad",
    "busy": "info",
    "scanning": "muted",
    "": "muted",
}


@dataclass(frozen=True)
class Row:
    """One line of the checkpoint list. `epoch` counts from 1, as people do."""

    checkpoint: Checkpoint
    badge: str
    epoch: int | None
    fitness: float | None
    roles: tuple[str, ...]
    findings: int
    verdict: Any = None

    @property
    def ink(self) -> str:
        return BADGE_INKS.get(self.badge, "warn")


def rows(
    checkpoints: tuple[Checkpoint, ...],
    verdicts: Mapping[Checkpoint, Any],
    scanning: frozenset[Checkpoint] = frozenset(),
) -> list[Row]:
    """Return a row per file, newest first; the newest clean one that is no `last` is the restore point."""
    found: list[Row] = []
    restore_named = False
    for checkpoint in checkpoints:
        verdict = verdicts.get(checkpoint)
        badge = verdict.badge if verdict is not None else "scanning" if checkpoint in scanning else ""
        roles = []
        if verdict is not None and not restore_named and verdict.usable:
            roles.append("restore point")
            restore_named = True
        if verdict is not None and badge == "clean" and verdict.repairable and not verdict.resumable:
            roles.append("repairable")
        epoch = verdict.work_epoch if verdict is not None else _epoch_of(checkpoint.name)
        found.append(
            Row(checkpoint, badge, epoch, getattr(verdict, "fitness", None), tuple(roles),
                len(getattr(verdict, "findings", ())), verdict)
        )  # fmt: skip
    return found


def _epoch_of(name: str) -> int | None:
    """Return the epoch counted from 1 that the name `epochN.pt` tells."""
    digits = name.removeprefix("epoch").removesuffix(".pt")
    return int(digits) + 1 if name.startswith("epoch") and digits.isdigit() else None


def findings_of(verdict: Any) -> str:
    """Return the kinds of findings in one word or two, worst first."""
    kinds = list(dict.fromkeys(finding.kind for finding in getattr(verdict, "findings", ())))
    return ", ".join(kinds[:2]) + (" .." if len(kinds) > 2 else "")
