"""Tell what one `.pt` is worth, without running it.

Whatever a file contains, `scan` answers: a file of which nothing can be told gets the badge `unreadable` with
the reason, one that changes under our eyes `busy`. Each step may refuse the file; what the steps before it
found is kept, since a file that is torn behind an unsafe pickle is unsafe all the same.
"""

from __future__ import annotations

import gc
import time
import zlib
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from nantui.checkpoint import metadata
from nantui.checkpoint.pickle.allowlist import judge_name, judge_recipes
from nantui.checkpoint.pickle.interpreter import Interpreter
from nantui.checkpoint.pickle.stand_ins import Refused
from nantui.checkpoint.tensors.forked_sweep import ForkedSweep, prepared
from nantui.checkpoint.tensors.segments import layout
from nantui.checkpoint.tensors.tensor_tree import Tree, walk
from nantui.checkpoint.tensors.zip_archive import PICKLE, Archive, opened, read_pickle
from nantui.checkpoint.verdict import Finding, Metadata, ScannedFile, Suspect, Verdict, stamp_of, sum_up
from nantui.errors import UserError
from nantui.run.layout import RunLayout
from nantui.run.points import NAMES, StepPoint, is_whole, read_point

FRESH = 3.0  # seconds: a torn file younger than this may still be being written
SETTLE = 0.25  # seconds to wait before looking at such a file again
_ROTTEN = "its bytes do not match their CRC-32: bit rot"


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
    from nantui.checkpoint.weight_findings import compare

    return sum_up(path, seen, compare(seen.suspects, seen.metadata.updates, older))


def scan_alone(path: Path, *, crc: bool = False, allowed: Collection[str] = ()) -> ScannedFile:
    """Look at one file by itself; at a torn one that is very young, twice."""
    started = time.perf_counter()
    # The cycle collector would walk a file's thousands of small values over and over, in a third of the time.
    collects = gc.isenabled()
    gc.disable()
    try:
        seen = _scan_once(path, crc, frozenset(allowed))
    finally:
        if collects:
            gc.enable()
    if not seen.moving and seen.torn and seen.stamp and abs(time.time() - seen.stamp[3] / 1e9) < FRESH:
        time.sleep(SETTLE)
        seen = replace(seen, moving=stamp_of(path) != seen.stamp)
    return replace(seen, seconds=time.perf_counter() - started)


def describe(path: Path) -> Metadata:
    """Return what a file says about itself, without its weights: an empty one where it cannot be read."""
    try:
        with opened(path) as (descriptor, status):
            return metadata.read(Interpreter(read_pickle(Archive(descriptor, status.st_size))).run())
    except (Refused, OSError, MemoryError):
        return Metadata()


def why_unsound(layout: RunLayout, point: StepPoint | None) -> str:
    """Return why a point is not to be gone on from, "" where it is whole and clean; reads all of it."""
    if point is None or not is_whole(layout, point):
        return "not the file that its header describes"
    verdict = scan(layout.point(point.name), crc=True)
    why = ", ".join(finding.detail for finding in verdict.findings[:2])
    return "" if verdict.badge == "clean" else f"{verdict.badge} ({why})"


def refuse_unsound(layout: RunLayout, path: Path) -> None:
    """Raise UserError for an unsound step point; other checkpoints are judged by who chooses them."""
    name = next((name for name in NAMES if path == layout.point(name)), None)
    if name is not None and (why := why_unsound(layout, read_point(layout, name))):
        raise UserError(f"{path}: {why}; choose another restore point")


def _scan_once(path: Path, crc: bool, allowed: frozenset[str]) -> ScannedFile:
    steps = _Steps(allowed, crc)
    identity, moving = None, False
    try:
        with opened(path) as (descriptor, before), prepared(descriptor, before.st_size) as steps.forked:
            identity = stamp_of(descriptor)
            try:
                steps.take(Archive(descriptor, before.st_size))
            finally:
                moving = not identity == stamp_of(descriptor) == stamp_of(path)
    except Refused as refused:
        steps.findings.append(Finding(refused.kind, refused.where, refused.detail))
    except MemoryError:
        steps.findings.append(Finding("cannot-read", "file", "it claims more memory than there is"))
    except OSError as error:
        return ScannedFile((Finding("cannot-read", "file", f"it cannot be read: {error.strerror}"),))
    except Exception as error:  # every file gets an answer, also one that shows up a mistake of ours
        detail = f"nantui failed on it ({type(error).__name__}: {error}): please report this"
        steps.findings.append(Finding("cannot-read", "file", detail))
    return ScannedFile(tuple(dict.fromkeys(steps.findings)), steps.said, steps.suspects, identity, moving)


class _Steps:
    def __init__(self, allowed: frozenset[str], crc: bool) -> None:
        self.allowed, self.crc = allowed, crc
        self.forked: ForkedSweep | None = None
        self.findings: list[Finding] = []
        self.said = Metadata()
        self.suspects: tuple[Suspect, ...] = ()
        self.classes: set[str] = set()

    def take(self, archive: Archive) -> None:
        data = read_pickle(archive)
        if archive.has_crcs and zlib.crc32(data) != archive.records[PICKLE].crc:
            self.findings.append(Finding("crc", PICKLE, _ROTTEN))
        root = self._describe(data)
        self.said = metadata.read(root)
        tree = walk(root)
        self.findings += judge_recipes(tree.recipes, self.classes, self.allowed)
        if not tree.leaves:
            raise Refused("cannot-read", PICKLE, "there is no tensor in it: not a checkpoint")
        if not self.said.ultralytics:
            detail = "weights, but not an Ultralytics training checkpoint"
            self.findings.append(Finding("not-ultralytics", "file", detail))
        self._weigh(archive, tree)

    def _describe(self, data: bytes) -> object:
        """Run the pickle on paper; every name it mentions is judged, also when it breaks off."""
        interpreter = Interpreter(data)
        try:
            return interpreter.run()
        finally:
            self.classes = {name.name for name in interpreter.names.values() if name.made}
            for name in interpreter.names.values():
                found = judge_name(name, self.allowed)
                if found is not None:
                    self.findings.append(found)
            self.findings += [Finding("unsafe", where, detail) for where, detail in interpreter.remarks]

    def _weigh(self, archive: Archive, tree: Tree) -> None:
        from nantui.checkpoint import weight_findings

        segments = layout(tree.leaves, archive)
        crc = self.crc and archive.has_crcs
        if self.crc and not crc:
            self.findings.append(Finding("unchecked", "file", "it was written without CRCs (a torch option)"))
        swept = self.forked.sweep(segments, crc) if self.forked is not None else None
        if swept is None:
            from nantui.checkpoint.tensors.sweep import sweep

            swept = sweep(archive, segments, crc)
        counts, bad = swept
        found, self.suspects = weight_findings.review_weights(counts, tree, self.said)
        self.findings += found
        if not crc and archive.has_crcs:
            bad = [name for name in weight_findings.doubtful(counts)[:16] if not archive.is_sound(name)]
        self.findings += [Finding("crc", name, _ROTTEN) for name in bad]
