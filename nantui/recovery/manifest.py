"""What lay in a run directory before a rollback, so that `undo` can give it back byte for byte.

Checkpoints are moved, never copied. Everything else (plots, CSV, logs) is small and may be overwritten
in place by a later attempt, so a copy of each is kept with the rollback's other files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from nantui.errors import FAILED, UserError
from nantui.recovery.transaction import STAGED, copy_durably
from nantui.run.atomic_files import read_json, write_json
from nantui.run.documents import Large, fields_of
from nantui.run.inside import inside, parts_of, refuse_foreign
from nantui.run.layout import RunLayout
from nantui.run.spec import own_uids

FILE, LINK, FOLDER = "file", "link", "folder"
LARGEST_COPY = 256 << 20
LARGEST_TOTAL = 1 << 30
NAME, COPIES, OURS = "manifest.json", "copies", "nantui"


@dataclass(frozen=True)
class Item:
    """One file, link or folder outside nantui/; `path` is relative to the run, `copied` tells of a copy."""

    path: str
    kind: str
    size: Large = 0
    mtime_ns: Large = 0
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
    home = f"nantui/backups/{id}"
    items, left_out, total = {}, [], 0
    for path, item in items_now(layout).items():
        if item.kind == FILE and (path in in_place or not path.startswith("weights/")):
            fits = path in in_place or item.size <= LARGEST_COPY and total + item.size <= LARGEST_TOTAL
            if fits:
                total += item.size
                _copy(layout.run, path, f"{home}/{COPIES}/{path}")
                item = Item(path, FILE, item.size, item.mtime_ns, copied=True)
            else:
                left_out.append(path)
        items[path] = item
    _write(layout, id, items)
    return items, left_out


def note(layout: RunLayout, id: str) -> dict[str, Item]:
    """Write down what is there, copying nothing: for a transaction that only moves. Raises OSError."""
    items = items_now(layout)
    _write(layout, id, items)
    return items


def load(layout: RunLayout, id: str) -> dict[str, Item] | None:
    """Return what `keep` wrote for the transaction `id`, None where it is missing or makes no sense.

    Raises UserError where it belongs to another user, or leads out of the run.
    """
    refuse_foreign(layout.backups / id / NAME, own_uids(layout.lock))
    try:
        with inside(layout.run, f"nantui/backups/{id}/{NAME}") as place:
            items = [Item(**fields_of(Item, entry)) for entry in (read_json(place) or {})["items"]]
    except (OSError, KeyError, TypeError):
        return None
    for item in items:
        if parts_of(item.path)[0] == OURS:
            raise UserError(f"{item.path!r} in {NAME} is nantui's own file; nothing was moved", FAILED)
    return {item.path: item for item in items}


def _write(layout: RunLayout, id: str, items: dict[str, Item]) -> None:
    with inside(layout.run, f"nantui/backups/{id}/{NAME}", make=True) as place:
        write_json(place, {"items": [asdict(item) for item in items.values()]})


def _copy(run: Path, source_path: str, target_path: str) -> None:
    with inside(run, source_path) as source, inside(run, target_path, make=True) as target:
        target.unlink(missing_ok=True)
        copy_durably(source, target)


def _walk(top: Path, run: Path) -> Iterator[Item]:
    with os.scandir(top) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = os.path.relpath(entry.path, run)
        if path == OURS or entry.name.lstrip(".").startswith(STAGED.lstrip(".")):
            continue
        state = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(state.st_mode) or (path == "weights" and entry.is_dir()):
            yield Item(path, FOLDER)
            yield from _walk(Path(entry.path), run)
        elif stat.S_ISLNK(state.st_mode) or stat.S_ISREG(state.st_mode):
            kind = LINK if stat.S_ISLNK(state.st_mode) else FILE
            yield Item(path, kind, state.st_size, state.st_mtime_ns)
