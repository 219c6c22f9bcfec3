"""What is said about a checkpoint: frozen snapshots that travel between threads and processes.

Light to import, so that a remembered verdict is quick.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nantui.run.documents import Document
from nantui.terminal_text import is_printable, printable

# Every kind a finding can have, worst first; the table of people and `findings` are sorted by it.
FINDING_KINDS = (
    "unsafe",  # the pickle names or calls something outside the known set: never load it
    "torn",  # the file is not whole: truncated, empty, no zip, a hole in the middle
    "crc",  # a record's bytes do not match its CRC-32: bit rot, or a copy gone wrong
    "cannot-read",  # nothing can be said: no permission, the legacy format, an exotic dtype, over a limit
    "nan",  # NaN in the weights
    "inf",  # infinity in the weights
    "laundered",  # NaN or infinity that Ultralytics turned into 0 or +-65504 when it saved
    "metrics",  # NaN in the metrics or losses of the checkpoint's own epoch
    "optimizer",  # only optimizer or scaler state is bad: a rebase rebuilds it
    "validation",  # NaN in validation losses alone, beside metrics above 0: the network works, a warning
    "decayed",  # matrices of exact 0 in a file whose own metrics show a network that works: a warning
    "saturated",  # values at the dtype's limit: a warning, large healthy values look the same
    "unchecked",  # a check of CRCs was asked for, and the file was written without any
    "not-ultralytics",  # weights, but not in an Ultralytics checkpoint
    "missing-class",  # a class of Ultralytics' that the installed one does not have: it cannot be loaded here
    "unknown-class",  # a user's own class: loading runs its code, so its name has to be allowed first
)
CORRUPT_KINDS = frozenset({"nan", "inf", "laundered", "metrics"})
UNREADABLE_KINDS = frozenset({"unsafe", "torn", "crc", "cannot-read"})
MOST_FINDINGS = 5_000  # YOLOv8x has about 700 tensors
_LONGEST_TEXT = 500
ZERO = "zero"
LIMIT = "limit"
Stamp = tuple[int, int, int, int]  # device, inode, size, mtime in ns: the identity of a file's content


@dataclass(frozen=True)
class Finding:
    """One observation. `where` is a tensor, record or dotted name; `detail` a sentence for people."""

    kind: str
    where: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What one scan of one file told.

    `resumable` is whether a resume may start from the file as it is; `repairable` whether it may after a
    rebase has rebuilt optimizer and scaler state. `epoch` is Ultralytics' own count from 0 (the N of
    `epochN.pt`), None where the file does not tell (stripped after training, or not a training
    checkpoint). `seconds` is what the scan took, `bytes` the file's size. `train_args` and
    `train_metrics` hold plain values only.
    """

    path: Path
    badge: str
    resumable: bool
    why_not_resumable: str
    repairable: bool
    epoch: int | None
    date: str | None
    version: str | None
    fitness: float | None
    best: bool
    findings: tuple[Finding, ...]
    bytes: int
    seconds: float
    train_args: Mapping[str, object] = field(default_factory=dict)
    train_metrics: Mapping[str, object] = field(default_factory=dict)
    stripped: bool = False
    updates: int | None = None
    compared_with: Path | None = None
    point: bool = False  # a resume goes on inside the epoch after `epoch`, None before the first one's end

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


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sort findings by how bad their kind is, keeping the file's order within a kind."""
    order = {kind: index for index, kind in enumerate(FINDING_KINDS)}
    return tuple(sorted(findings, key=lambda finding: order.get(finding.kind, len(order))))


def badge_of(findings: Iterable[Finding]) -> str:
    """Return the badge that these findings add up to."""
    kinds = {finding.kind for finding in findings}
    if kinds & UNREADABLE_KINDS:
        return "unreadable"
    return "corrupt" if kinds & CORRUPT_KINDS else "clean"


@dataclass(frozen=True)
class Suspect:
    """Zeros, or values at the dtype's limit, that only an older checkpoint of the run can explain.

    `rows` are output channels (values, in a vector); empty means the whole tensor. `kind` is ZERO or LIMIT.
    """

    name: str
    kind: str
    rows: tuple[int, ...]
    shape: tuple[int, ...]


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


@dataclass(frozen=True)
class Metadata:
    """Plain values only; None where the file does not say. `results` holds one list per column."""

    ultralytics: bool = False
    module: bool = False
    epoch: int | None = None
    date: str | None = None
    version: str | None = None
    fitness: float | None = None
    updates: int | None = None
    has_optimizer: bool = False
    point: bool = False  # it holds a step point: a resume goes on inside the epoch, also the first
    args: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, object] = field(default_factory=dict)
    results: Mapping[str, list[object]] = field(default_factory=dict)
    bad_state: tuple[tuple[str, str], ...] = ()  # numbers of optimizer or scaler that are not finite

    @property
    def stripped(self) -> bool:
        """Whether the training has ended and `strip_optimizer` has taken what a resume needs."""
        return self.ultralytics and self.epoch is None and not self.has_optimizer


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
    bytes: int = 0
    seconds: float = 0.0

    @property
    def torn(self) -> bool:
        """Whether it looks as a file does that is still being written."""
        return any(finding.kind in ("torn", "crc") for finding in self.findings)
