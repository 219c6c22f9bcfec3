"""Which checkpoints a rollback moves aside, and under which names: back-ups never overwrite an older one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nantui.recovery.plan_inputs import PlanInputs
from nantui.recovery.restore_points import BEST, LAST, NOT_WRITTEN, STOP_POINT, Candidate
from nantui.run.layout import RunLayout

EPOCH_FILE = re.compile(r"^epoch(\d+)\.pt$")


@dataclass(frozen=True)
class Move:
    """A checkpoint that goes aside; paths are relative to the run."""

    source: str
    target: str
    why: str


def checkpoints_aside(
    facts: PlanInputs, id: str, restore: Candidate | None, best: Candidate | None, record_ends: str = ""
) -> list[Move]:
    """Return the moves of every checkpoint that must not stay where it is.

    `restore` None moves all of them (plan B). `record_ends` is the telling part of the name under which
    the old best is kept when its fitness can no longer be compared.
    """
    taken = existing_names(facts.layout)
    moves = []
    for one in sorted(facts.candidates, key=lambda one: one.name):
        if one.point is not None:
            continue  # they move together, `points_aside`
        source, stays = f"weights/{one.name}", best is not None and one.path == best.path and one.name == BEST
        if stays and record_ends:
            moves.append(Move(source, free_name(f"weights/best_{record_ends}", taken), "the old record"))
        elif not stays and (why := why_aside(one, restore)):
            moves.append(Move(source, target_of(facts, id, one, restore, taken), why))
    return moves


def why_aside(one: Candidate, restore: Candidate | None) -> str:
    """Return why a checkpoint moves, "" when it stays."""
    if restore is None:
        return "the training begins again"
    if one.path == restore.path:
        return "replaced by the restored one" if one.name in (LAST, STOP_POINT) else ""
    if one.verdict.badge == "busy":
        return one.why_not
    if one.why_not == NOT_WRITTEN:
        return ""
    if one.verdict.badge == "corrupt" or one.name in (LAST, STOP_POINT, BEST):
        return one.verdict.badge if one.verdict.badge != "clean" else "replaced by the restored one"
    epoch = epoch_of(one)
    return "newer than the restore point" if epoch is None or epoch > (restore.epoch or 0) else ""


def epoch_of(one: Candidate) -> int | None:
    """Return the epoch, from 0, that the file or else its name tells."""
    found = EPOCH_FILE.match(one.name)
    return one.epoch if one.epoch is not None else int(found[1]) if found else None


def target_of(facts: PlanInputs, id: str, one: Candidate, restore: Candidate | None, taken: set[str]) -> str:
    """Return where a checkpoint moves: into the transaction's own backups when it is sound and not newer
    than the restore point, else to corrupted_backup/ under a name that tells the incident's epoch.
    """
    limit = -1 if restore is None or restore.epoch is None else restore.epoch
    sound = one.verdict.badge == "clean"
    if sound and one.epoch is not None and one.epoch <= limit:
        return f"nantui/backups/{id}/weights/{one.name}"
    broken = not sound and one.verdict.badge != "busy"
    word = "corrupted" if broken else "suspect" if facts.trouble else "aside"
    epoch = facts.trouble.epoch if facts.trouble else facts.reached.epoch
    return free_name(f"weights/corrupted_backup/{one.path.stem}_epoch{epoch}_{word}", taken)


def existing_names(layout: RunLayout) -> set[str]:
    """Return the relative paths that are taken in weights/ and its back-up folder."""
    folders = [one for one in (layout.weights, layout.corrupted_backup) if one.is_dir()]
    return {f"{one.relative_to(layout.run)}/{path.name}" for one in folders for path in one.iterdir()}


def free_name(stem: str, taken: set[str]) -> str:
    """Return `stem`.pt, or with -2, -3 … when that is taken, and take it."""
    name, number = f"{stem}.pt", 2
    while name in taken:
        name, number = f"{stem}-{number}.pt", number + 1
    taken.add(name)
    return name
