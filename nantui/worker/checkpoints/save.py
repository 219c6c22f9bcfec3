"""What a training saves, so that no save can tear: into a staging folder, checked, then renamed.

Ultralytics truncates last.pt and writes it in place (`write_bytes`); a kill or a full disk in between
leaves neither the old file nor the new one. Here the old file stays whole until the new one is on disk.

Restore points by the clock are an `epochN.pt` at the first epoch's end after so many minutes, since
`save_period` counts epochs, which may take a minute or three hours. Only points that this rule made are
ever deleted, and never one of the newest clean ones; Ultralytics' own and the user's files are not touched.
Points from before a rollback stay: a trouble that returns sends the run back further than the last time.

An agreed stop leaves the advanced weights with the last completed epoch's number, so that resuming repeats
the interrupted epoch; the file is never best.pt or epochN.pt. `trainer.stop = True` would finish and strip
the run for good.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from nantui.checkpoint.scan import scan
from nantui.checkpoint.weight_findings import BY_ITS_RECORD
from nantui.run.atomic_files import sync_directory
from nantui.run.documents import JsonObject
from nantui.run.events import RollbackDone, Saved, newest, of_kind
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.worker import ultralytics_api
from nantui.worker.ultralytics_types import Trainer

STAGING = ".nantui-staging"
Strip: TypeAlias = Callable[..., JsonObject]
"""utils/torch_utils.py, `strip_optimizer(f, s, updates)`: returns what it wrote, {} where it could not."""
UNSOUND = frozenset({"nan", "inf", "laundered"})
"""What `nantui check` may find in weights that were written a moment ago, which no disk has spoilt yet."""
_NAME = re.compile(r"^epoch\d+\.pt$")


class Unsound(Exception):
    """What would be saved is what `nantui check` calls corrupt."""


def refuse_unsound(file: Path, older: Path) -> list[str]:
    """Return where a file holds values at the limit of fp16, sound as they may be. Raises Unsound where it,
    compared with an `older` one, holds weights that are not.

    What is saved is not what was trained: Ultralytics halves the averaged weights and clamps what fp16 cannot
    hold (`save_model` in engine/trainer.py), so a finite 1e30 becomes 65504 without a word. What only metrics
    that are not finite speak against is left to `nan_validation`: finite weights are saved beside them.
    """
    findings = scan(file, older=older).findings
    found = [one for one in findings if one.kind in UNSOUND and not one.detail.endswith(BY_ITS_RECORD)]
    if found:
        more = f" (and {len(found) - 1} more)" if found[1:] else ""
        raise Unsound(f"{found[0].where}: {found[0].detail}{more}")
    return [one.where for one in findings if one.kind == "saturated"]


def save_staged(
    trainer: Trainer, save: Callable[[], bool | None], judge: Callable[[Path, Path], None]
) -> list[Path]:
    """Let `save` write its files aside, check them, and rename them into place; returns the files.

    Raises OSError (disk full, no permission), zipfile.BadZipFile or what `judge` raises, which is given the
    new last.pt (all of them are the same) and the one before it; then every old file is as it was.
    last.pt is renamed last: a kill in between leaves it whole and an epoch behind, which a resume repeats.
    """
    target = Path(trainer.wdir)
    with _staging(target) as staging:
        with ultralytics_api.redirected_saves(trainer, staging):
            if save() is False:  # before 8.4 it told nothing
                return []
        staged = sorted(staging.iterdir(), key=lambda file: (file.name == Path(trainer.last).name, file.name))
        for file in staged:
            settle(file)
        judge(staged[-1], target / staged[-1].name)
        for file in staged:
            os.replace(file, target / file.name)
        sync_directory(target)
        return [target / file.name for file in staged]


def write_stop_point(
    trainer: Trainer, save: Callable[[], object], path: Path, judge: Callable[[Path, Path], None]
) -> None:
    """Write `path` from the trainer's present state, atomically.

    Raises OSError when it cannot be kept, and what `judge` raises.
    """
    with _staging(path.parent) as staging, ultralytics_api.redirected_saves(trainer, staging):
        with ultralytics_api.replaced(trainer, "epoch", trainer.epoch - 1):
            save()
        settle(staging / "last.pt")
        judge(staging / "last.pt", path.parent / "last.pt")
        os.replace(staging / "last.pt", path)
        sync_directory(path.parent)


def strip_staged(
    stock_strip: Strip, file: str | Path, s: str = "", updates: object = None, protects: bool = True
) -> JsonObject:
    """Strip a checkpoint as Ultralytics' `strip_optimizer` does, beside the old file, then take its place.

    It would write over the only copy of the trained weights. Raises OSError (disk full), zipfile.BadZipFile
    or, where the guard `protects`, Unsound for weights that are not sound any more; then the file is as it
    was.
    """
    target = Path(s or file)
    with _staging(target.parent) as staging:
        stripped = stock_strip(file, s=str(staging / target.name), updates=updates)
        if stripped:
            settle(staging / target.name)
            if protects:
                refuse_unsound(staging / target.name, Path(file))
            os.replace(staging / target.name, target)
            sync_directory(target.parent)
        return stripped


@contextlib.contextmanager
def _staging(directory: Path) -> Iterator[Path]:
    """Give an empty folder inside `directory`, for a while; a killed save may have left one."""
    staging = directory / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def settle(file: Path) -> None:
    """Check that a written checkpoint is a whole archive, and wait until it is on the disk.

    Raises zipfile.BadZipFile for a torn one: the directory of a zip is at its end.
    """
    with zipfile.ZipFile(file) as archive:
        if not any(name.endswith("data.pkl") for name in archive.namelist()):
            raise zipfile.BadZipFile(f"{file.name}: no checkpoint inside")
    with open(file, "rb") as written:
        os.fsync(written.fileno())


class RestorePoints:
    """Decides when to keep one, and which older ones may go."""

    def __init__(self, layout: RunLayout, minutes: float, keep: int) -> None:
        self._weights, self._every, self._keep = layout.weights, minutes * 60, max(keep, 1)
        self._last = time.monotonic()
        self._by_the_clock = _made_before(layout)
        self._clean: set[str] = set()

    def due(self) -> bool:
        """Tell whether this epoch's end should leave a restore point by the clock."""
        return self._every > 0 and time.monotonic() - self._last >= self._every

    def saved(self, names: list[str], by_the_clock: bool, clean: bool) -> list[str]:
        """Take note of what a save left; deletes what may go and returns its names.

        `names` are file names in weights/. Points of which nothing is known count as not clean and, unless
        the clock made them, are left alone.
        """
        points = [name for name in names if _NAME.match(name)]
        if by_the_clock:
            self._last = time.monotonic()
            self._by_the_clock.update(points)
        if clean:
            self._clean.update(points)
        newest = sorted(_epoch(name) for name in self._clean if (self._weights / name).exists())[
            -self._keep :
        ]
        outlived = [n for n in self._by_the_clock if len(newest) == self._keep and _epoch(n) < newest[0]]
        deleted = []
        for name in sorted(outlived, key=_epoch):
            with contextlib.suppress(OSError):
                (self._weights / name).unlink()
                deleted.append(name)
        self._by_the_clock.difference_update(outlived)
        return deleted


def _epoch(name: str) -> int:
    return int(name.removeprefix("epoch").removesuffix(".pt"))


def _made_before(layout: RunLayout) -> set[str]:
    """Return the restore points made by the clock since the last rollback that are still there."""
    names: set[str] = set()
    record = RunRecord(layout)
    rollback = newest(record.journal, RollbackDone)
    since = rollback.t if rollback else 0.0
    for attempt in record.attempts:
        for saved in of_kind(attempt.events(), Saved):
            if saved.by_the_clock and saved.t > since:
                names.update(Path(path).name for path in saved.paths)
    return {name for name in names if _NAME.match(name) and (layout.weights / name).exists()}
