"""What one look at a file found, as plain frozen values: light to import, so that a remembered look is quick.

`Contents` is what a file says by itself; `Look` adds whose file it was and whether it moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nantui.checkpoint.verdict import Finding

ZERO = "zero"
LIMIT = "limit"

Stamp = tuple[int, int, int, int]  # device, inode, size, mtime in ns: the identity of a file's content


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
    has_ema: bool = False
    has_optimizer: bool = False
    args: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, list[Any]] = field(default_factory=dict)
    bad_state: tuple[tuple[str, str], ...] = ()  # numbers of optimizer or scaler that are not finite

    @property
    def stripped(self) -> bool:
        """Whether the training has ended and `strip_optimizer` has taken what a resume needs."""
        return self.ultralytics and self.epoch is None and not self.has_optimizer


@dataclass(frozen=True)
class Contents:
    """Findings of the file alone, what it says about itself, and what only an older file can settle."""

    findings: tuple[Finding, ...]
    metadata: Metadata = field(default_factory=Metadata)
    suspects: tuple[Suspect, ...] = ()

    @property
    def torn(self) -> bool:
        """Whether it looks as a file does that is still being written."""
        return any(finding.kind in ("torn", "crc") for finding in self.findings)


@dataclass(frozen=True)
class Look:
    """One look at a file by itself: its contents, its identity, whether it moved, what it took."""

    contents: Contents
    stamp: Stamp | None
    moving: bool
    bytes: int
    seconds: float
