"""Run directories as test data: packed into an archive, unpacked elsewhere without a contradiction.

A run names its own directory everywhere: in YAML, in the journal, inside its checkpoints' pickles. Sizes and
times must not change (a rollback knows a file by its size and its time in ns), so every run was recorded
below `RECORDED`, and is unpacked below a directory whose path is exactly as long; each mention of the one
becomes the other, and the checksums inside checkpoints are put right.
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

RECORDED = "/tmp/nantui-compat-00000000"
DATA = Path(__file__).with_name("data")
OLD_CODE = DATA / "nantui-9407e15.tar.xz"
Change = Callable[[bytes], bytes]


def new_root() -> Path:
    """Make a directory with a path as long as `RECORDED`."""
    root = Path(tempfile.mkdtemp(prefix="nantui-compat-", dir="/tmp"))
    assert len(str(root)) == len(RECORDED)
    return root


def pack(archive: Path, root: Path, names: Iterable[str], neutral: Mapping[bytes, bytes]) -> None:
    """Pack `root`/`names`, each key of `neutral` replaced by its value of the same length."""
    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for path in sorted(each for name in names for each in (root / name, *(root / name).rglob("*"))):
            _add(tar, path, str(path.relative_to(root)), neutral)


def unpack(archive: Path, root: Path) -> Path:
    """Unpack below `root` (of `new_root`), as if it had been recorded there; returns `root`."""
    replaced = {RECORDED.encode(): str(root).encode()}
    with tarfile.open(archive) as tar:
        for member in tar:
            target = root / member.name
            if member.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                stream = tar.extractfile(member)
                assert stream is not None, member.name
                target.write_bytes(rewritten(member.name, stream.read(), replaced))
            target.chmod(member.mode)
            seconds, _, fraction = member.pax_headers["mtime"].partition(".")
            time_ns = int(seconds) * 10**9 + int(fraction)
            os.utime(target, ns=(time_ns, time_ns))
    return root


def unpack_old_code(target: Path) -> Path:
    """Unpack the package of 9407e15 with what it reads (styles, configs) below `target`; returns `target`."""
    with tarfile.open(OLD_CODE) as tar:
        tar.extractall(target)
    return target


def rewritten(name: str, data: bytes, replaced: Mapping[bytes, bytes]) -> bytes:
    """Return a file's content with each key replaced; inside checkpoints and kept batches, too."""

    def change(content: bytes) -> bytes:
        for old, new in replaced.items():
            assert len(old) == len(new), (old, new)
            content = content.replace(old, new).replace(_wide(old), _wide(new))
        return content

    if name.endswith(".npz"):
        return _packed_again(data, change)
    return resealed(change(data)) if name.endswith(".pt") else change(data)


def resealed(data: bytes) -> bytes:
    """Return a zip of stored members with every CRC-32 put right, in the three places where it stands."""
    sealed = bytearray(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = archive.start_dir
        for info in archive.infolist():
            name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
            begin = info.header_offset + 30 + name + extra
            end = begin + info.compress_size
            checksum = struct.pack("<I", zlib.crc32(data[begin:end]))
            sealed[entry + 16 : entry + 20] = checksum
            if info.flag_bits & 8:  # written as a stream: the checksum follows the content
                after = end + 4 * (data[end : end + 4] == b"PK\x07\x08")
                sealed[after : after + 4] = checksum
            else:
                sealed[info.header_offset + 14 : info.header_offset + 18] = checksum
            entry += 46 + sum(struct.unpack_from("<HHH", data, entry + 28))
    return bytes(sealed)


def _packed_again(data: bytes, change: Change) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), change(old.read(info)), zipfile.ZIP_DEFLATED)
    return target.getvalue()


def _wide(text: bytes) -> bytes:
    """Return `text` as numpy keeps strings."""
    return text.decode().encode("utf-32-le")


def _add(tar: tarfile.TarFile, path: Path, name: str, neutral: Mapping[bytes, bytes]) -> None:
    state = path.lstat()
    member = tarfile.TarInfo(name)
    member.mode = state.st_mode & 0o777
    member.pax_headers = {"mtime": f"{state.st_mtime_ns // 10**9}.{state.st_mtime_ns % 10**9:09d}"}
    if path.is_dir():
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    else:
        content = rewritten(name, path.read_bytes(), neutral)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
