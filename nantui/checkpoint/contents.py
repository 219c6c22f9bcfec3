"""Everything one file says by itself: the steps from a descriptor to findings, in their order.

Each step may refuse the file; what the steps before it found is kept, since a file that is torn behind
an unsafe pickle is unsafe all the same.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

from nantui.checkpoint import metadata as meta
from nantui.checkpoint.pickle import allowlist
from nantui.checkpoint.pickle.allowlist import judge_name
from nantui.checkpoint.pickle.interpreter import MOST_BYTES, Interpreter
from nantui.checkpoint.pickle.stand_ins import Refused
from nantui.checkpoint.tensors.tensor_tree import Tree, walk
from nantui.checkpoint.tensors.zip_archive import Archive
from nantui.checkpoint.verdict import Finding, Metadata, ScannedFile, Suspect

if TYPE_CHECKING:
    from nantui.checkpoint.tensors.forked_sweep import ForkedSweep

_PICKLE = "data.pkl"
_LONGEST_SMALL = 64
# As seen in files of PyTorch 1.8.1, 1.12.1, 2.0.1, 2.1.2, 2.6.0, 2.7.1 and 2.15.0: `version` in all of them,
# `byteorder` since 2.1, the other two since 2.7 (the alignment is 64 unless torch's `config.save` differs).
_SMALL_RECORDS = {
    "version": rb"3\n",
    ".format_version": rb"1",
    ".storage_alignment": rb"[1-9][0-9]{0,6}",
    "byteorder": rb"little",
}
_ROTTEN = "its bytes do not match their CRC-32: bit rot"


def contents(
    descriptor: int, size: int, crc: bool, allowed: frozenset[str], forked: ForkedSweep | None = None
) -> ScannedFile:
    """Return what the open file of `size` bytes contains; `forked` may sweep it. Raises OSError only."""
    steps = _Steps(allowed, crc, forked)
    try:
        steps.take(Archive(descriptor, size))
    except Refused as refused:
        steps.findings.append(Finding(refused.kind, refused.where, refused.detail))
    except MemoryError:
        steps.findings.append(Finding("cannot-read", "file", "it claims more memory than there is"))
    except OSError:
        raise
    except Exception as error:  # every file gets an answer, also one that shows up a mistake of ours
        detail = f"nantui failed on it ({type(error).__name__}: {error}): please report this"
        steps.findings.append(Finding("cannot-read", "file", detail))
    return ScannedFile(tuple(dict.fromkeys(steps.findings)), steps.metadata, steps.suspects)


def metadata(descriptor: int, size: int) -> Metadata:
    """Return only what the open file says about itself, {} of it where it cannot be read."""
    try:
        return meta.read(Interpreter(pickle_of(Archive(descriptor, size), [])).run())
    except (Refused, MemoryError):
        return Metadata()


class _Steps:
    """What has been found so far."""

    def __init__(self, allowed: frozenset[str], crc: bool, forked: ForkedSweep | None) -> None:
        self.allowed, self.crc, self.forked = allowed, crc, forked
        self.findings: list[Finding] = []
        self.metadata = Metadata()
        self.suspects: tuple[Suspect, ...] = ()
        self.classes: set[str] = set()

    def take(self, archive: Archive) -> None:
        root = self._describe(pickle_of(archive, self.findings))
        self.metadata = meta.read(root)
        tree = walk(root)
        self.findings += allowlist.judge_recipes(tree.recipes, self.classes, self.allowed)
        if not tree.leaves:
            raise Refused("cannot-read", _PICKLE, "there is no tensor in it: not a checkpoint")
        if not self.metadata.ultralytics:
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
        from nantui.checkpoint.tensors.segments import layout

        segments = layout(tree.leaves, archive)
        crc = self.crc and archive.has_crcs
        if self.crc and not crc:
            self.findings.append(Finding("unchecked", "file", "it was written without CRCs (a torch option)"))
        swept = self.forked.sweep(segments, crc) if self.forked is not None else None
        if swept is None:
            from nantui.checkpoint.tensors.sweep import sweep

            swept = sweep(archive, segments, crc)
        found, self.suspects = weight_findings.review_weights(swept.counts, tree, self.metadata)
        self.findings += found
        bad = swept.bad_crc
        if not crc and archive.has_crcs:
            bad = [name for name in weight_findings.doubtful(swept.counts)[:16] if not _sound(archive, name)]
        self.findings += [Finding("crc", name, _ROTTEN) for name in bad]


def pickle_of(archive: Archive, findings: list[Finding]) -> bytes:
    """Return the pickle; bit rot goes to `findings`. Raises Refused where none can be read."""
    record = archive.records.get(_PICKLE)
    if "constants.pkl" in archive.records:
        raise Refused("cannot-read", "file", "a TorchScript archive, not a training checkpoint")
    if record is None:
        raise Refused("torn", "file", f"it has no {_PICKLE}: not a checkpoint")
    _refuse_other_forms(archive)
    if record.size > MOST_BYTES:
        raise Refused("cannot-read", _PICKLE, f"it has {record.size} bytes, more than {MOST_BYTES}")
    data = archive.read(record)
    if archive.has_crcs and zlib.crc32(data) != record.crc:
        findings.append(Finding("crc", _PICKLE, _ROTTEN))
    return data


def _refuse_other_forms(archive: Archive) -> None:
    """Refuse a file whose small records, which torch reads first, say what torch.save never writes."""
    if "version" not in archive.records:
        raise Refused("torn", "file", "it has no version: not a checkpoint")
    for name, pattern in _SMALL_RECORDS.items():
        record = archive.records.get(name)
        if record is None:
            continue
        said = archive.read(record) if record.size <= _LONGEST_SMALL else b""
        if said == b"big":
            raise Refused("cannot-read", name, "written on a big-endian machine")
        if not re.fullmatch(pattern, said):
            raise Refused(
                "cannot-read", name, "it says what torch.save never writes: damaged, or of a newer torch"
            )


def _sound(archive: Archive, name: str) -> bool:
    record = archive.records[name]
    start, total = archive.data_offset(record), 0
    for at in range(0, record.size, 1 << 20):
        total = zlib.crc32(archive.read_at(start + at, min(1 << 20, record.size - at)), total)
    return total == record.crc
