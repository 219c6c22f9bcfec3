"""Finding runs: a directory that is one, or all runs below a directory, without walking into data sets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from nantui.errors import UserError
from nantui.run.layout import RunLayout

DEEPEST = 6
_NEVER_INSIDE = frozenset({"weights", "nantui", "images", "labels", "node_modules", "site-packages"})


def require_run(path: Path) -> RunLayout:
    """Return the layout of the run in `path`. Raises UserError when there is no run."""
    if not path.exists():
        raise UserError(f"{path}: no such directory; give a run directory, e.g. runs/detect/train")
    if path.is_dir() and path.name == "weights" and RunLayout(path.parent).looks_like_run():
        path = path.parent
    if path.is_file() and path.parent.name == "weights" and RunLayout(path.parent.parent).looks_like_run():
        chosen = (
            f"its run is {path.parent.parent}; recover and rollback choose a checkpoint by --to {path.name}"
        )
        raise UserError(f"{path}: a checkpoint, not a run: {chosen}")
    layout = RunLayout(path.resolve())
    if not path.is_dir() or not layout.looks_like_run():
        raise UserError(
            f"{path}: not a run: no args.yaml, results.csv or nantui/ in it; give a run directory"
        )
    return layout


def find_runs(top: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """Yield the runs in and below `top`, at most `depth` folders down; unreadable folders are passed over."""
    layout = RunLayout(top)
    if layout.looks_like_run():
        yield top
        return
    if depth == 0:
        return
    try:
        with os.scandir(top) as entries:
            below = sorted(entry.name for entry in entries if _worth_entering(entry))
    except OSError:
        return
    for name in below:
        yield from find_runs(top / name, depth - 1)


def _worth_entering(entry: os.DirEntry[str]) -> bool:
    return entry.name[0] != "." and entry.name not in _NEVER_INSIDE and entry.is_dir(follow_symlinks=False)
