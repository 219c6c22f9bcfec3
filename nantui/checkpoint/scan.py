"""Tell what one `.pt` is worth, without running it.

Whatever a file contains, `scan` answers: a file of which nothing can be told gets the badge `unreadable` with
the reason, one that changes under our eyes `busy`.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from nantui.checkpoint.pickle.stand_ins import Refused
from nantui.checkpoint.tensors.forked_sweep import prepared
from nantui.checkpoint.tensors.zip_archive import opened
from nantui.checkpoint.verdict import (
    MOST_FINDINGS,
    Finding,
    Metadata,
    ScannedFile,
    Stamp,
    Verdict,
    badge_of,
    printable_finding,
    worst_first,
)

FRESH = 3.0  # seconds: a torn file younger than this may still be being written
SETTLE = 0.25  # seconds to wait before looking at such a file again


def scan(
    path: Path, *, crc: bool = False, older: Path | None = None, allowed: Collection[str] = ()
) -> Verdict:
    """Return the verdict on `path`; never raises for anything a file can contain.

    `crc` also checks the CRC-32 of every record (always do so before a restore). `older` is a clean,
    older checkpoint of the same run, to tell what became zero since. `allowed` are dotted names of
    callables and classes that the user trusts.
    """
    seen = scan_alone(path, crc=crc, allowed=allowed)
    if older is None or not seen.suspects:
        return sum_up(path, seen)
    from nantui.checkpoint.older_checkpoint import compare

    return sum_up(path, seen, compare(seen.suspects, seen.metadata.updates, older), older)


def scan_alone(path: Path, *, crc: bool = False, allowed: Collection[str] = ()) -> ScannedFile:
    """Look at one file by itself; at a torn one that is very young, twice."""
    started = time.perf_counter()
    with _undisturbed():
        seen = _scan_once(path, crc, frozenset(allowed))
    if not seen.moving and seen.torn and _young(path):
        time.sleep(SETTLE)
        seen = replace(seen, moving=stamp_of(path) != seen.stamp)
    return replace(seen, seconds=time.perf_counter() - started)


def describe(path: Path) -> Metadata:
    """Return what a file says about itself, without its weights: an empty one where it cannot be read."""
    from nantui.checkpoint.contents import metadata

    try:
        with opened(path) as (descriptor, status):
            return metadata(descriptor, status.st_size)
    except (Refused, OSError):
        return Metadata()


def stamp_of(path: Path) -> Stamp | None:
    """Return (device, inode, size, mtime in ns), the identity of a file's content; None where it is gone."""
    try:
        return _stamp(path.stat())
    except OSError:
        return None


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _young(path: Path) -> bool:
    try:
        return abs(time.time() - path.stat().st_mtime) < FRESH
    except OSError:
        return False


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep the cycle collector away: it would walk a file's thousands of small values over and over.

    A third of a scan's time went there. What a scan can hold is bounded, and its cycles go soon after it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _scan_once(path: Path, crc: bool, allowed: frozenset[str]) -> ScannedFile:
    try:
        with opened(path) as (descriptor, before), prepared(descriptor, before.st_size) as forked:
            from nantui.checkpoint.contents import contents

            found = contents(descriptor, before.st_size, crc, allowed, forked)
            moving = not _stamp(before) == _stamp(os.fstat(descriptor)) == stamp_of(path)
            return replace(found, stamp=_stamp(before), moving=moving, bytes=before.st_size)
    except Refused as refused:
        why = refused.detail
    except OSError as error:
        why = f"it cannot be read: {error.strerror}"
    return ScannedFile((Finding("cannot-read", "file", why),))


def sum_up(
    path: Path, seen: ScannedFile, more: tuple[Finding, ...] = (), compared_with: Path | None = None
) -> Verdict:
    """Return the verdict that a scan and the findings of a comparison add up to."""
    said = seen.metadata
    findings = worst_first(dict.fromkeys(map(printable_finding, (*seen.findings, *more))))[:MOST_FINDINGS]
    badge = "busy" if seen.moving else badge_of(findings)
    why, repairable = _resumable(said, badge, findings)
    return Verdict(
        path=path,
        badge=badge,
        resumable=not why,
        why_not_resumable=why,
        repairable=repairable,
        epoch=said.epoch,
        date=said.date,
        version=said.version,
        fitness=said.fitness,
        best=path.stem == "best",
        findings=findings,
        bytes=seen.bytes,
        seconds=round(seen.seconds, 6),
        train_args=said.args,
        train_metrics=said.metrics,
        stripped=said.stripped,
        updates=said.updates,
        compared_with=compared_with,
        point=said.point,
    )


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
    if not said.args:
        return "it does not contain the training arguments", False
    epochs = said.args.get("epochs")
    if said.epoch is not None and type(epochs) is int and said.epoch + 1 >= epochs:
        return f"the last epoch of {epochs} is done: nothing is left to resume", False
    if any(finding.kind == "optimizer" for finding in findings):
        return "its optimizer or scaler state is not finite: a rebase rebuilds it", True
    if not said.has_optimizer:
        return "it has no optimizer state (a stock resume would start anew): a rebase builds it", True
    return "", False
