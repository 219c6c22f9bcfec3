"""All checkpoints of a run: what there is at once, verdicts as they come, newest first.

A file by itself cannot always tell whether a zero channel was trained or washed; an older clean file of
the same run can. Which one is asked, and in what order, is decided here.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nantui.checkpoint.cache import Cache
from nantui.checkpoint.verdict import Finding, ScannedFile, Stamp, Verdict, badge_of, divide, stamp_of, sum_up
from nantui.run.layout import RunLayout

if TYPE_CHECKING:
    from nantui.checkpoint.parallel_scan import Ahead

BACKUP, POINT = "corrupted_backup", "point"
_EPOCH = re.compile(r"epoch(\d+)")
FEWEST_FILES = 8  # below this a helper process costs more than it saves


@dataclass(frozen=True)
class CheckpointFile:
    """A `.pt` of the run as the directory shows it. `modified` is in seconds since the epoch."""

    path: Path
    name: str
    bytes: int
    modified: float
    kind: str  # last, best, epoch, nantui_stop, point (a step point, which lies elsewhere) or other
    epoch: int | None  # the N of epochN.pt, counted from 0
    in_backup: bool


class Catalog:
    """The checkpoints in one `weights/` directory, in its `corrupted_backup/`, and the run's step points.

    Verdicts are remembered by the files' identity, also between processes. Thread-safe: a file is never
    scanned twice at the same time.
    """

    def __init__(self, weights_dir: Path, allowed: Collection[str] = ()) -> None:
        self.weights_dir = weights_dir
        self.allowed = frozenset(allowed)
        self._cache = Cache(weights_dir, self.allowed)
        self._lock = threading.RLock()
        self._scanned: dict[Stamp, ScannedFile] = {}  # of one pass: those too that the cache may not keep

    def files(self) -> list[CheckpointFile]:
        """Return the checkpoints that are there, newest first. A missing directory holds none."""
        found = []
        points = [RunLayout(self.weights_dir.parent).points] if self.weights_dir.name == "weights" else []
        for directory in (self.weights_dir, self.weights_dir / BACKUP, *points):
            try:
                paths = [path for path in directory.iterdir() if path.suffix == ".pt" and path.name[0] != "."]
            except OSError:
                continue
            kind = POINT if directory in points else ""
            found += [_file(path, directory.name == BACKUP, kind) for path in paths]
        there = [file for file in found if file is not None]
        return sorted(there, key=lambda file: (file.modified, file.epoch or 0), reverse=True)

    def verdict(self, path: Path, crc: bool = False) -> Verdict:
        """Return the verdict on one file, compared with the nearest older clean one where that helps."""
        with self._lock:
            self._scanned.clear()
            verdict = self._verdict(path, self.files(), crc)
            if self._cache.due():
                self._cache.save(self._stamps())
            return verdict

    def verdicts(self, crc: bool = False) -> Iterator[Verdict]:
        """Yield the verdict of each file, newest first, as soon as it is known."""
        files = self.files()
        with self._lock:
            self._scanned.clear()
        with self._ahead(files, crc) as ahead:
            for index, file in enumerate(files, 1):
                with self._lock:
                    verdict = self._verdict(file.path, files, crc, ahead)
                    if self._cache.due() or index == len(files):
                        self._cache.save(self._stamps())
                yield verdict

    def _ahead(self, files: list[CheckpointFile], crc: bool) -> AbstractContextManager[Ahead | None]:
        """Start helpers where many files are unknown; what they have not scanned we scan ourselves."""
        unknown = [file.path for file in files if crc or self._cache.scanned(stamp_of(file.path)) is None]
        if len(unknown) < FEWEST_FILES:
            return nullcontext()
        from nantui.checkpoint.parallel_scan import Ahead

        try:
            return closing(Ahead(unknown, crc, self.allowed))
        except OSError:
            return nullcontext()

    def _stamps(self) -> set[Stamp]:
        stamps = (stamp_of(file.path) for file in self.files())
        return {stamp for stamp in stamps if stamp is not None}

    def _verdict(
        self, path: Path, files: list[CheckpointFile], crc: bool, ahead: Ahead | None = None
    ) -> Verdict:
        seen = self._scan(path, crc, ahead)
        verdict = sum_up(path, seen, self._compare(path, seen, files, ahead))
        return replace(verdict, best=True) if self._is_best(path, seen, files, ahead) else verdict

    # -- scans ---------------------------------------------------------------------------------------

    def _scan(self, path: Path, crc: bool = False, ahead: Ahead | None = None) -> ScannedFile:
        """Scan a file, or remember its scan; CRCs are always checked anew, for bit rot leaves no mark."""
        stamp = stamp_of(path)
        known = self._scanned.get(stamp) if stamp else None
        if known is None and not crc:
            known = self._cache.scanned(stamp)
        if known is None:
            from nantui.checkpoint.scan import scan_alone

            known = ahead.take(path) if ahead is not None else None
            known = known or scan_alone(path, crc=crc, allowed=self.allowed)
            if known.stamp is not None and not known.moving:
                self._scanned[known.stamp] = known
            if not crc:
                self._cache.keep_scanned(known)
        return known

    # -- comparisons ---------------------------------------------------------------------------------

    def _compare(
        self, path: Path, seen: ScannedFile, files: list[CheckpointFile], ahead: Ahead | None
    ) -> tuple[Finding, ...]:
        """Ask older clean files, nearest first, until every suspect is cleared or convicted.

        All suspects are compared, also where both files have them: these then convict nothing.
        """
        if not seen.suspects:
            return ()
        from nantui.checkpoint.weight_findings import compare

        findings: list[Finding] = []
        left = list(seen.suspects)
        for file in files:
            if not left or seen.moving or seen.stamp is None:
                break
            other = self._scan(file.path, ahead=ahead) if file.path != path else None
            if other is None or other.stamp is None or not _older_and_clean(other, seen):
                continue
            place = other.metadata.train_args.get("save_dir")
            same = place is not None and place == seen.metadata.train_args.get("save_dir")
            if not (self.weights_dir.name == "weights" or same):
                continue  # a folder of downloads: other trainings prove nothing
            ask, left = divide(left, other.suspects)
            if ask:
                known = self._cache.compared(seen.stamp, other.stamp)
                if known is None:
                    known = compare(seen.suspects, seen.metadata.updates, file.path)
                    self._cache.keep_compared(seen.stamp, other.stamp, known)
                findings += known
        return tuple(findings)

    def _is_best(
        self, path: Path, seen: ScannedFile, files: list[CheckpointFile], ahead: Ahead | None
    ) -> bool:
        date = seen.metadata.date
        best = [file.path for file in files if file.kind == "best" and not file.in_backup]
        if not best or date is None or best[0] == path:
            return path.stem == "best"
        return self._scan(best[0], ahead=ahead).metadata.date == date


def _file(path: Path, in_backup: bool, kind: str = "") -> CheckpointFile | None:
    try:
        status = path.stat()
    except OSError:
        return None
    match = _EPOCH.fullmatch(path.stem)
    known = path.stem if path.stem in ("last", "best", "nantui_stop") else "epoch" if match else "other"
    epoch = int(match[1]) if match else None
    return CheckpointFile(path, path.name, status.st_size, status.st_mtime, kind or known, epoch, in_backup)


def _older_and_clean(other: ScannedFile, seen: ScannedFile) -> bool:
    if other.stamp is None or seen.stamp is None or other.moving:
        return False
    if badge_of(other.findings) != "clean":
        return False
    one, two = other.metadata, seen.metadata
    if one.epoch is not None and two.epoch is not None and one.epoch > two.epoch:
        return False  # of an earlier training in the same directory
    if one.date and two.date:
        return one.date < two.date
    return other.stamp[3] < seen.stamp[3]
