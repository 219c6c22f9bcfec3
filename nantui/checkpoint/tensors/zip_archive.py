"""The zip around a checkpoint, read with bounded reads and believed in nothing.

Only what `torch.save` writes is accepted (caffe2/serialize/inline_container.cc over miniz), and Python's own
zipfile in that form; docs/checkpoints.md has the list. What we read has to be what a load would read. One bit
of a directory entry is enough to differ: of a record marked as a folder torch loads nothing.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nantui.checkpoint.pickle.stand_ins import Refused

MOST_FILE_BYTES = 32 << 30
MOST_DIRECTORY_BYTES = 16 << 20
MOST_RECORDS = 100_000
PICKLE = "data.pkl"
_LONGEST_SMALL = 64
# As seen in files of PyTorch 1.8.1, 1.12.1, 2.0.1, 2.1.2, 2.6.0, 2.7.1 and 2.15.0: `version` in all of them,
# `byteorder` since 2.1, the other two since 2.7 (the alignment is 64 unless torch's `config.save` differs).
_SMALL_RECORDS = {
    "version": rb"3\n", ".format_version": rb"1", ".storage_alignment": rb"[1-9][0-9]{0,6}",
    "byteorder": rb"little",
}  # fmt: skip
MOST_PICKLE_BYTES = 16 << 20  # YOLOv8x with AdamW has 0.3 MB
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
LOCAL_SIZE = _LOCAL.size
_FULL32 = 0xFFFFFFFF
_FULL16 = 0xFFFF
_FLAGS = 0x0808  # sizes behind the bytes, names in UTF-8: what torch.save sets, and zipfile at most
_SIZES_BEHIND = 0x8
_VERSIONS = frozenset({0, 20, 45})  # "needed to extract": torch.save, zipfile, zipfile with zip64
_DESCRIPTORS = frozenset({16, 24})


@dataclass(slots=True, eq=False)
class Record:
    """One entry: its name without the archive's prefix, and where it lies according to the directory.

    `form` are the bytes that stand in both of its headers (version, flags, method, time); `end` is where the
    next record or the directory begins.
    """

    name: str
    header: int
    size: int
    crc: int
    raw_name: bytes
    form: bytes
    end: int = 0


@contextmanager
def opened(path: Path) -> Iterator[tuple[int, os.stat_result]]:
    """Yield a file's descriptor and status. Raises Refused for what is no file, or cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refused("cannot-read", "file", f"it cannot be opened: {reason}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("cannot-read", "file", "it is not a regular file")
        yield descriptor, status
    finally:
        os.close(descriptor)


class Archive:
    """The directory of a checkpoint's zip. `descriptor` stays the caller's."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self.size = size
        self.records: dict[str, Record] = {}
        self._data_offsets: dict[str, int] = {}
        self._read_directory()

    def read_at(self, offset: int, count: int) -> bytes:
        """Return exactly `count` bytes at `offset`. Raises Refused where the file has become shorter."""
        taken = os.pread(self.descriptor, count, offset)
        if len(taken) != count:
            raise Refused("torn", "file", f"it ends at byte {offset + len(taken)}, in the middle")
        return taken

    def data_offset(self, record: Record) -> int:
        """Return where a record's bytes begin, from its local header, which has to agree."""
        known = self._data_offsets.get(record.name)
        if known is None:
            header = self.read_at(record.header, LOCAL_SIZE + len(record.raw_name))
            known = self._data_offsets[record.name] = check_local(header, record, self.size)
        return known

    @property
    def has_crcs(self) -> bool:
        """Whether CRCs were written; `torch.serialization.set_crc32_options(False)` leaves zeros."""
        return any(record.crc for record in self.records.values())

    def read(self, record: Record) -> bytes:
        """Return a whole record; for small ones only."""
        return self.read_at(self.data_offset(record), record.size)

    def is_sound(self, name: str) -> bool:
        """Tell whether a record's bytes are those that its CRC-32 was taken of."""
        record, total = self.records[name], 0
        start = self.data_offset(record)
        for at in range(0, record.size, 1 << 20):
            total = zlib.crc32(self.read_at(start + at, min(1 << 20, record.size - at)), total)
        return total == record.crc

    # -- the directory -----------------------------------------------------------------------------

    def _read_directory(self) -> None:
        if self.size == 0:
            raise Refused("torn", "file", "it is empty")
        magic = self.read_at(0, min(4, self.size))
        if magic != b"PK\x03\x04":
            raise _not_a_zip(magic, self.size)
        if self.size < _END.size:
            raise _torn()
        if self.size > MOST_FILE_BYTES:
            raise Refused("cannot-read", "file", f"it has {self.size} bytes, more than any checkpoint")
        count, length, offset = self._locate()
        if length > MOST_DIRECTORY_BYTES or count > MOST_RECORDS:
            raise Refused("cannot-read", "file", f"its directory claims {count} records in {length} bytes")
        self._parse(self.read_at(offset, length), count)
        self._no_overlaps(offset)

    def _locate(self) -> tuple[int, int, int]:
        end_at = self.size - _END.size
        magic, *fields = _END.unpack(self.read_at(end_at, _END.size))
        if magic != b"PK\x05\x06":
            raise _torn()
        disk, first_disk, here, count, length, offset, comment = fields
        if disk or first_disk or here != count or comment:
            raise _foreign_zip("its end record has a comment or several disks")
        locator_at = end_at - _LOCATOR.size
        if locator_at >= 0:
            mark, disk, end64_at, disks = _LOCATOR.unpack(self.read_at(locator_at, _LOCATOR.size))
            if mark == b"PK\x06\x07":
                if disk or disks != 1:
                    raise _foreign_zip("it lies on several disks")
                return self._locate64(locator_at, end64_at, (count, length, offset))
        if offset + length != end_at:
            raise _foreign_zip("its directory is not where its end record says")
        return count, length, offset

    def _locate64(self, locator_at: int, end_at: int, small: tuple[int, int, int]) -> tuple[int, int, int]:
        if end_at + _END64.size != locator_at:
            raise _foreign_zip("its zip64 end record is not where it should be")
        magic, rest, _, _, disk, first_disk, here, count, length, offset = _END64.unpack(
            self.read_at(end_at, _END64.size)
        )
        if magic != b"PK\x06\x06" or rest != _END64.size - 12 or disk or first_disk or here != count:
            raise _foreign_zip("its zip64 end record is damaged")
        full = _FULL16, _FULL32, _FULL32
        for wide, narrow, most in zip((count, length, offset), small, full, strict=True):
            if narrow not in (wide, most):
                raise _foreign_zip("its two end records disagree")
        if offset + length != end_at:
            raise _foreign_zip("its directory is not where its end record says")
        return count, length, offset

    def _parse(self, directory: bytes, count: int) -> None:
        position, prefix = 0, b""
        folded: set[str] = set()
        for _ in range(count):
            raw, header, size, crc, form, position = _entry(directory, position)
            prefix = prefix or _prefix(raw, header)
            name = raw[len(prefix) :].decode("utf-8", "replace")
            record = Record(name, header, size, crc, raw, form)
            if not raw.startswith(prefix) or not name or ".." in name or "\\" in name or "\0" in name:
                raise _unsafe(record, "its name leads outside the archive's own folder")
            if name.lower() in folded:
                raise _unsafe(record, "two records have the same name: readers would differ")
            folded.add(name.lower())
            self.records[name] = record
        if position != len(directory):
            raise _foreign_zip("its directory has bytes that belong to no record")

    def _no_overlaps(self, directory_at: int) -> None:
        """Refuse records that share bytes or reach into the directory: false sizes, zip bombs."""
        end = directory_at
        for record in sorted(self.records.values(), key=lambda record: record.header, reverse=True):
            record.end = end
            least = record.header + LOCAL_SIZE + len(record.raw_name) + record.size
            if least > directory_at:
                raise _unsafe(record, f"it claims {record.size} bytes, more than the file has")
            if least > end:
                raise _unsafe(record, "it shares bytes with another record")
            end = record.header


def read_pickle(archive: Archive) -> bytes:
    """Return the pickle of a checkpoint. Raises Refused where none can be read."""
    record = archive.records.get(PICKLE)
    if "constants.pkl" in archive.records:
        raise Refused("cannot-read", "file", "a TorchScript archive, not a training checkpoint")
    if record is None:
        raise Refused("torn", "file", f"it has no {PICKLE}: not a checkpoint")
    _refuse_other_forms(archive)
    if record.size > MOST_PICKLE_BYTES:
        raise Refused("cannot-read", PICKLE, f"it has {record.size} bytes, more than {MOST_PICKLE_BYTES}")
    return archive.read(record)


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


def _entry(directory: bytes, position: int) -> tuple[bytes, int, int, int, bytes, int]:
    """Return (raw name, header offset, size, CRC, form, position behind it) of one directory entry."""
    name_at = position + _CENTRAL.size
    if name_at > len(directory):
        raise _torn("its directory ends early")
    fields = _CENTRAL.unpack_from(directory, position)
    _, _, _, needed, _, flags, method, _, _, crc, packed, size, *lengths, disk, inside, outside, header = (
        fields
    )
    name_size, extra_size, comment_size = lengths
    extra_at = name_at + name_size
    end = extra_at + extra_size + comment_size
    if fields[0] != b"PK\x01\x02" or end > len(directory):
        raise _torn("its directory is damaged")
    name = directory[name_at:extra_at]
    where = name.decode("utf-8", "replace")[:100]
    if _FULL32 in (size, packed, header):
        size, packed, header = _widen(directory[extra_at : extra_at + extra_size], size, packed, header)
    if flags & ~_FLAGS or method or packed != size:
        raise Refused("cannot-read", where, "it is compressed or encrypted, which torch.save never does")
    if needed not in _VERSIONS or disk or inside or outside & 0xFFFF or comment_size:
        raise Refused("cannot-read", where, "its directory entry says what torch.save never writes: damaged")
    return name, header, size, crc, directory[position + 6 : position + 16], end


def _prefix(raw: bytes, header: int) -> bytes:
    if header != 0:
        raise _foreign_zip("its first record is not at its beginning")
    folder, slash, _ = raw.partition(b"/")
    if not slash or not folder:
        raise Refused("cannot-read", "file", "a zip, but not one that torch.save wrote")
    return folder + slash


def check_local(header: bytes, record: Record, limit: int) -> int:
    """Return the offset of a record's bytes from its local header, or refuse one that disagrees."""
    magic, _, _, flags, _, _, _, crc, packed, size, name_size, extra_size = _LOCAL.unpack_from(header)
    if magic != b"PK\x03\x04":
        raise Refused("torn", record.name[:100], "its header is missing: a hole in the middle of the file")
    start: int = record.header + LOCAL_SIZE + name_size + extra_size
    behind = record.end - start - record.size
    if flags & _SIZES_BEHIND:  # they follow the bytes, as miniz writes them
        fits, unsaid = behind in _DESCRIPTORS, {0}
    else:
        fits, unsaid = behind == 0, {_FULL32}
    told = {record.size} | unsaid
    same = header[LOCAL_SIZE:] == record.raw_name and header[4:14] == record.form
    crc_told = crc == record.crc or (crc == 0 and flags & _SIZES_BEHIND)
    if (
        not (fits and same and crc_told)
        or packed not in told
        or size not in told
        or start + record.size > limit
    ):
        raise _unsafe(record, "its header and the directory disagree")
    return start


def _widen(extra: bytes, size: int, packed: int, header: int) -> tuple[int, int, int]:
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        field = extra[position + 4 : position + 4 + length]
        if kind == 1:
            values = list(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            narrow = size, packed, header
            wide = [values.pop(0) if value == _FULL32 and values else value for value in narrow]
            return wide[0], wide[1], wide[2]
        position += 4 + length
    return size, packed, header


def _unsafe(record: Record, detail: str) -> Refused:
    return Refused("unsafe", record.name[:100], detail)


def _foreign_zip(detail: str) -> Refused:
    return Refused("cannot-read", "file", f"not a zip that torch.save wrote: {detail}")


def _torn(detail: str = "its end is missing: it was cut off or is still being written") -> Refused:
    return Refused("torn", "file", detail)


def _not_a_zip(magic: bytes, size: int) -> Refused:
    if not magic.strip(b"\0"):
        return Refused("torn", "file", "it begins with zeros: its bytes never reached the disk")
    if size >= 4 and magic[:1] == b"\x80":
        legacy = "the legacy format of PyTorch before 1.6: it cannot be judged without running it"
        return Refused("cannot-read", "file", legacy)
    return Refused("torn", "file", "not a zip: its beginning is missing or it is no checkpoint")
