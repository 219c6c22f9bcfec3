"""Take the last rollback back: everything outside nantui/ as it was, byte for byte.

What a later attempt has made or changed meanwhile is not lost: it moves into the undo's own backups first.

What lay in a run directory before a rollback, so that `undo` can give it back byte for byte.

Checkpoints are moved, never copied. Everything else (plots, CSV, logs) is small and may be overwritten
in place by a later attempt, so a copy of each is kept with the rollback's other files.
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nantui.errors import FAILED, NO, UserError
from nantui.recovery.transaction import (
    MOVE,
    RMDIR,
    STAGED,
    UNDO,
    Step,
    Transaction,
    carry_out,
    copy_durably,
    discard_staged,
    is_file_of,
    move,
    step_from,
)
from nantui.run.atomic_files import read_json, write_json
from nantui.run.journal import Entry, Journal
from nantui.run.layout import RunLayout

FILE, LINK, FOLDER = "file", "link", "folder"
LARGEST_COPY = 256 << 20
LARGEST_TOTAL = 1 << 30
NAME, COPIES = "manifest.json", "copies"


@dataclass(frozen=True)
class Item:
    """One file, link or folder outside nantui/; `path` is relative to the run, `copied` tells of a copy."""

    path: str
    kind: str
    size: int = 0
    mtime_ns: int = 0
    copied: bool = False

    def matches(self, other: Item | None) -> bool:
        """Tell whether `other` is this very thing, unchanged."""
        if other is None or self.kind != other.kind:
            return False
        return self.kind == FOLDER or (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


def items_now(layout: RunLayout) -> dict[str, Item]:
    """Return everything outside nantui/ by relative path, without following links out of the run."""
    return {item.path: item for item in _walk(layout.run, layout.run)}


def keep(layout: RunLayout, id: str, in_place: Collection[str] = ()) -> tuple[dict[str, Item], list[str]]:
    """Write down what is there and copy what a later attempt may overwrite, below backups/ID.

    `in_place` are checkpoints that stay and may be overwritten where they are. Returns the items and
    the paths that were too large to copy. Raises OSError (disk full).
    """
    home = layout.backups / id
    items, left_out, total = {}, [], 0
    for path, item in items_now(layout).items():
        if item.kind == FILE and (path in in_place or not _is_checkpoint(path)):
            fits = path in in_place or item.size <= LARGEST_COPY and total + item.size <= LARGEST_TOTAL
            if fits:
                total += item.size
                _copy(layout.run / path, home / COPIES / path)
                item = Item(path, FILE, item.size, item.mtime_ns, copied=True)
            else:
                left_out.append(path)
        items[path] = item
    _write(home, items)
    return items, left_out


def note(layout: RunLayout, id: str) -> dict[str, Item]:
    """Write down what is there, copying nothing: for a transaction that only moves. Raises OSError."""
    items = items_now(layout)
    _write(layout.backups / id, items)
    return items


def load(layout: RunLayout, id: str) -> dict[str, Item] | None:
    """Return what `keep` wrote for the transaction `id`, None where it is missing."""
    document = read_json(layout.backups / id / NAME)
    if document is None:
        return None
    return {entry["path"]: Item(**entry) for entry in document["items"]}


def _write(home: Path, items: dict[str, Item]) -> None:
    home.mkdir(parents=True, exist_ok=True)
    write_json(home / NAME, {"items": [asdict(item) for item in items.values()]})


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    copy_durably(source, target)


def _walk(top: Path, run: Path) -> Iterator[Item]:
    with os.scandir(top) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = os.path.relpath(entry.path, run)
        if path == "nantui" or entry.name.lstrip(".").startswith(STAGED.lstrip(".")):
            continue
        state = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(state.st_mode) or (path == "weights" and entry.is_dir()):
            yield Item(path, FOLDER)
            yield from _walk(Path(entry.path), run)
        elif stat.S_ISLNK(state.st_mode) or stat.S_ISREG(state.st_mode):
            kind = LINK if stat.S_ISLNK(state.st_mode) else FILE
            yield Item(path, kind, state.st_size, state.st_mtime_ns)


def _is_checkpoint(path: str) -> bool:
    return path.startswith("weights/")


@dataclass(frozen=True)
class Undone:
    """What undo gave back: the rollback's `id`, what could not be given back, where later files went."""

    of: str
    text: str
    missing: tuple[str, ...]
    aside: str


def last_rollback(layout: RunLayout) -> Entry | None:
    """Return how the newest rollback or change of phase in force was begun, None without one."""
    return newest_in_force(Journal(layout.journal).entries())


def newest_in_force(entries: Iterable[Entry]) -> Entry | None:
    """Return the same from the journal's entries."""
    begun: dict[str, Entry] = {}
    in_force: list[str] = []
    for entry in entries:
        if entry["kind"] in ("rollback_begun", "phase_begun"):
            begun[str(entry["id"])] = entry
        elif entry["kind"] in ("rollback_done", "phase_done") and entry.get("id") in begun:
            in_force.append(str(entry["id"]))
        elif entry["kind"] == "undo_done" and entry.get("of") in in_force:
            in_force.remove(str(entry["of"]))
    return begun[in_force[-1]] if in_force else None


def taken_back(entry: Entry) -> str:
    """Return what undoing a rollback or a change of phase means, in one line."""
    if entry["kind"] == "phase_begun":
        number = int(entry.get("phase") or 2)
        return f"phase {number} was taken back; phase {number - 1} is as it ended"
    return f"the rollback to {Path(str(entry.get('restore_point'))).name} was taken back"


def undo(layout: RunLayout, *, by: str) -> Undone:
    """Take back the last rollback that is in force.

    Raises UserError (status NO) when there is none, (FAILED) when it cannot be done; nothing is changed then.
    """
    rollback = last_rollback(layout)
    if rollback is None:
        raise UserError(f"{layout.run}: there is no rollback to take back", NO)
    id, of = f"undo-{uuid.uuid4().hex[:8]}", str(rollback["id"])
    before = load(layout, of)
    if before is None:
        raise UserError(f"nantui/backups/{of}/{NAME} is missing; the rollback cannot be taken back", FAILED)
    try:
        steps, missing = _steps(layout, id, of, before, [step_from(step) for step in rollback["steps"]])
    except OSError as error:
        discard_staged(layout, id)
        raise UserError(f"undo could not be prepared ({error}); nothing was changed", FAILED) from error
    aside = str((layout.backups / id).relative_to(layout.run))
    text = taken_back(rollback)
    carry_out(
        layout, Transaction(id, UNDO, tuple(steps), {"of": of, "text": text, "missing": missing}), by=by
    )
    return Undone(of, text, tuple(missing), aside)


def _steps(
    layout: RunLayout, id: str, of: str, before: dict[str, Item], done: list[Step]
) -> tuple[list[Step], list[str]]:
    """Return the moves that give back what `before` lists, and what cannot be given back."""
    now, aside = items_now(layout), f"nantui/backups/{id}"
    came_from = {step.target: step for step in done if step.kind == MOVE and not _is_staged(step.source)}
    returning = {step.source: step for step in came_from.values()}
    away = [path for path, item in now.items() if item.kind != FOLDER and not item.matches(before.get(path))]
    steps = [
        move(layout.run, path, f"{aside}/{path}")
        for path in away
        if not _still_there(layout, came_from, path)
    ]
    steps += _ours_away(layout, aside, returning)
    missing = []
    for path, item in before.items():
        if item.kind == FOLDER or item.matches(now.get(path)):
            continue
        step = _back(layout, id, of, path, item, returning)
        steps.extend(step)
        missing += [] if step else [path]
    steps += [
        Step(MOVE, step.source, step.target, step.size, step.mtime_ns)
        for path, step in returning.items()
        if path not in before and is_file_of(layout.run / step.target, step)
    ]
    folders = sorted(
        (path for path, item in now.items() if item.kind == FOLDER and path not in before), reverse=True
    )
    return steps + [Step(RMDIR, path) for path in folders], missing


def _still_there(layout: RunLayout, came_from: dict[str, Step], path: str) -> bool:
    """Tell whether `path` is where the rollback put an original, which goes back rather than aside."""
    return path in came_from and is_file_of(layout.run / path, came_from[path])


def _ours_away(layout: RunLayout, aside: str, returning: dict[str, Step]) -> list[Step]:
    """Return the moves for our own files inside nantui/ that the rollback replaced (spec.yaml)."""
    ours = [path for path in returning if path.startswith("nantui/") and os.path.lexists(layout.run / path)]
    return [move(layout.run, path, f"{aside}/{path}") for path in ours]


def _back(
    layout: RunLayout, id: str, of: str, path: str, item: Item, returning: dict[str, Step]
) -> list[Step]:
    """Return the move that brings `path` back, from where the rollback put it or from its copy."""
    step = returning.get(path)
    if step is not None and is_file_of(layout.run / step.target, step):
        return [Step(MOVE, path, step.target, step.size, step.mtime_ns)]
    copy = layout.backups / of / COPIES / path
    if item.kind != FILE or not item.copied or not copy.is_file():
        return []
    staged = layout.home / f"{STAGED}{id}-{uuid.uuid4().hex[:8]}"
    copy_durably(copy, staged)
    return [move(layout.run, str(staged.relative_to(layout.run)), path)]


def _is_staged(path: str) -> bool:
    return Path(path).name.startswith(STAGED)
