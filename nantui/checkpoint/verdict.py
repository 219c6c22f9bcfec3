"""What is said about a checkpoint: frozen snapshots that travel between threads and processes.

Light to import, so that a remembered verdict is quick.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nantui.run.documents import Document, Large, table
from nantui.terminal_text import is_printable, printable

FINDING_KINDS = tuple(table("finding_kinds"))
"""Every kind a finding can have, worst first; the table of people and `findings` are sorted by it."""
CORRUPT_KINDS = frozenset({"nan", "inf", "laundered", "metrics"})
UNREADABLE_KINDS = frozenset({"unsafe", "torn", "crc", "cannot-read"})
MOST_FINDINGS = 5_000  # YOLOv8x has about 700 tensors
_LONGEST_TEXT = 500
ZERO = "zero"
LIMIT = "limit"
Stamp = tuple[Large, ...]  # device, inode, size, mtime in ns: the identity of a file's content


@dataclass(frozen=True)
class Finding:
    """One observation. `where` is a tensor, record or dotted name; `detail` a sentence for people."""

    kind: str
    where: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What a file says about itself: plain values only, None where it does not say.

    `epoch` is Ultralytics' own count from 0 (the N of `epochN.pt`), None also where it was stripped after
    training. `results` holds one list per column.
    """

    ultralytics: bool = False
    epoch: int | None = None
    date: str | None = None
    version: str | None = None
    fitness: float | None = None
    updates: int | None = None
    has_optimizer: bool = False
    point: bool = False  # a resume goes on inside the epoch after `epoch`, None before the first one's end
    train_args: Mapping[str, object] = field(default_factory=dict)
    train_metrics: Mapping[str, object] = field(default_factory=dict)
    results: Mapping[str, list[object]] = field(default_factory=dict)
    bad_state: tuple[tuple[str, str], ...] = ()  # numbers of optimizer or scaler that are not finite

    @property
    def stripped(self) -> bool:
        """Whether the training has ended and `strip_optimizer` has taken what a resume needs."""
        return self.ultralytics and self.epoch is None and not self.has_optimizer

    def without_history(self) -> Metadata:
        """Return it without what only judges the file."""
        return replace(self, results={}, bad_state=())


@dataclass(frozen=True)
class Suspect:
    """Zeros, or values at the dtype's limit, that only an older checkpoint of the run can explain.

    `rows` are output channels (values, in a vector); empty means the whole tensor. `kind` is ZERO or LIMIT.
    """

    name: str
    kind: str
    rows: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ScannedFile:
    """One scan of a file by itself: findings, what it says about itself, what only an older file can settle,
    its identity, whether it moved, what the scan took.
    """

    findings: tuple[Finding, ...]
    metadata: Metadata = field(default_factory=Metadata)
    suspects: tuple[Suspect, ...] = ()
    stamp: Stamp | None = None
    moving: bool = False
    seconds: float = 0.0

    @property
    def torn(self) -> bool:
        """Whether it looks as a file does that is still being written."""
        return any(finding.kind in ("torn", "crc") for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class Verdict(Metadata):
    """What one scan of one file told.

    `why_not_resumable` is why no resume may start from the file as it is, `repairable` whether it may after a
    rebase has rebuilt optimizer and scaler state. `seconds` is what the scan took, `bytes` the file's size.
    """

    path: Path
    badge: str
    why_not_resumable: str = ""
    repairable: bool = False
    best: bool = False
    findings: tuple[Finding, ...] = ()
    bytes: int = 0
    seconds: float = 0.0

    @property
    def resumable(self) -> bool:
        return not self.why_not_resumable

    @property
    def usable(self) -> bool:
        """Whether it can serve as a restore point: clean, and resumable now or after a rebase."""
        return self.badge == "clean" and (self.resumable or self.repairable)

    @property
    def work_epoch(self) -> int | None:
        """The epoch counted from 1, as in `results.csv` and the progress line's "N/total"."""
        return None if self.epoch is None else self.epoch + 1

    @property
    def cannot_be_loaded(self) -> str:
        """Which class the installed Ultralytics lacks, "" where it has all of them."""
        return next((one.where for one in self.findings if one.kind == "missing-class"), "")

    @property
    def names_to_allow(self) -> tuple[str, ...]:
        """Dotted names that the user has to allow before this file may be loaded (it runs their code)."""
        kinds = ("unsafe", "unknown-class")
        return tuple(sorted({f.where for f in self.findings if f.kind in kinds and is_printable(f.where)}))

    def to_json(self) -> Document:
        """Return the row of `nantui check --json` (commands.md)."""
        return {
            "path": str(self.path).encode("utf-8", "backslashreplace").decode(), "badge": self.badge,
            "resumable": self.resumable, "repairable": self.repairable, "epoch": self.epoch,
            "date": self.date, "version": self.version, "fitness": self.fitness, "best": self.best,
            "findings": [asdict(finding) for finding in self.findings], "bytes": self.bytes,
            "seconds": self.seconds,
        }  # fmt: skip


def printable_finding(finding: Finding) -> Finding:
    """Return a finding whose text, which comes from the file, is one printable line.

    What cannot be printed shows as `?`: left out, it would make the name of something else of a name.
    """
    where, detail = (printable(text, _LONGEST_TEXT, mark="?") for text in (finding.where, finding.detail))
    return Finding(finding.kind, where, detail)


def badge_of(findings: Iterable[Finding]) -> str:
    """Return the badge that these findings add up to."""
    kinds = {finding.kind for finding in findings}
    if kinds & UNREADABLE_KINDS:
        return "unreadable"
    return "corrupt" if kinds & CORRUPT_KINDS else "clean"


def divide(suspects: Iterable[Suspect], others: Iterable[Suspect]) -> tuple[list[Suspect], list[Suspect]]:
    """Return what a file with the suspects `others` can settle, and what it has itself and so cannot."""
    known = {(other.name, other.kind, other.shape): frozenset(other.rows) for other in others}
    ask, leave = [], []
    for suspect in suspects:
        same = known.get((suspect.name, suspect.kind, suspect.shape))
        if same is None or (same and not suspect.rows):
            ask.append(suspect)
        elif not same:
            leave.append(suspect)
        else:
            for group, keep in ((ask, False), (leave, True)):
                rows = tuple(row for row in suspect.rows if (row in same) == keep)
                group += [replace(suspect, rows=rows)] if rows else []
    return ask, leave


def stamp_of(file: Path | int) -> Stamp | None:
    """Return (device, inode, size, mtime in ns), the identity of a file's content; None where it is gone."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def sum_up(path: Path, seen: ScannedFile, more: tuple[Finding, ...] = ()) -> Verdict:
    """Return the verdict that a scan and the findings of a comparison add up to."""
    every = dict.fromkeys(map(printable_finding, (*seen.findings, *more)))
    findings = tuple(sorted(every, key=lambda finding: FINDING_KINDS.index(finding.kind))[:MOST_FINDINGS])
    badge = "busy" if seen.moving else badge_of(findings)
    why, repairable = _resumable(seen.metadata, badge, findings)
    return Verdict(
        **vars(seen.metadata.without_history()), path=path, badge=badge, why_not_resumable=why,
        repairable=repairable, best=path.stem == "best", findings=findings,
        bytes=seen.stamp[2] if seen.stamp else 0, seconds=round(seen.seconds, 6),
    )  # fmt: skip


def _resumable(said: Metadata, badge: str, findings: tuple[Finding, ...]) -> tuple[str, bool]:
    """Return why a resume may not start here ("" if it may), and whether a rebase would change that."""
    if badge != "clean":
        return {"busy": "it is still being written", "corrupt": "its weights are not sound"}.get(
            badge, "it cannot be read or must not be loaded"
        ), False
    if lacks := next((one.where for one in findings if one.kind == "missing-class"), ""):
        return f"the Ultralytics here has no {lacks}", False
    if not said.ultralytics:
        return "not an Ultralytics training checkpoint", False
    if said.stripped:
        return "stripped: the training had ended, and epoch and optimizer were taken out", False
    if said.epoch is None and not said.point:
        return "it does not contain a completed epoch", False
    if not said.train_args:
        return "it does not contain the training arguments", False
    epochs = said.train_args.get("epochs")
    if said.epoch is not None and type(epochs) is int and said.epoch + 1 >= epochs:
        return f"the last epoch of {epochs} is done: nothing is left to resume", False
    if any(finding.kind == "optimizer" for finding in findings):
        return "its optimizer or scaler state is not finite: a rebase rebuilds it", True
    if not said.has_optimizer:
        return "it has no optimizer state (a stock resume would start anew): a rebase builds it", True
    return "", False
