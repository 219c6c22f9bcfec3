"""Hostile and odd files, written byte by byte: no pickle in here is ever loaded by anything but `scan`."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

HALF = "HalfStorage"


def write(
    path: Path, pickle: bytes, records: dict[str, bytes] | None = None, prefix: str = "archive"
) -> Path:
    """Write a zip as torch.save lays it out, around a pickle and raw storages."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{prefix}/data.pkl", pickle)
        archive.writestr(f"{prefix}/byteorder", b"little")
        for name, data in (records or {}).items():
            archive.writestr(f"{prefix}/{name}", data)
        archive.writestr(f"{prefix}/version", b"3\n")
    return path


def text(value: str) -> bytes:
    """Opcodes that push a string."""
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    """Opcodes that push an integer of any size."""
    size = value.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def name(module: str, attribute: str) -> bytes:
    """Opcodes that push a global."""
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def storage(key: str = "0", numel: int = 4, kind: str = HALF) -> bytes:
    """Opcodes that push a storage by its persistent id."""
    inside = text("storage") + name("torch", kind) + text(key) + text("cpu") + number(numel)
    return b"(" + inside + b"tQ"


def tensor(
    shape: tuple[int, ...] = (4,), stride: tuple[int, ...] = (1,), offset: int = 0, of: bytes | None = None
) -> bytes:
    """Opcodes that push a tensor."""
    sizes = b"(" + b"".join(map(number, shape)) + b"t"
    steps = b"(" + b"".join(map(number, stride)) + b"t"
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = b"(" + (of or storage()) + number(offset) + sizes + steps + b"\x89" + hooks + b"t"
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def dictionary(**values: bytes) -> bytes:
    """Opcodes that push a dictionary of what the values push."""
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def pickled(body: bytes) -> bytes:
    """Opcodes as a whole pickle."""
    return b"\x80\x02" + body + b"."


def call(module: str, attribute: str, *arguments: bytes) -> bytes:
    """Opcodes that call a global."""
    return name(module, attribute) + b"(" + b"".join(arguments) + b"tR"


def local(name: bytes, data: bytes, size: int | None = None) -> bytes:
    """A local file header and its bytes, with a size that may lie."""
    claimed = len(data) if size is None else size
    numbers = 20, 0, 0, 0, 0, zlib.crc32(data), claimed, claimed, len(name), 0
    return struct.pack("<4s5H3L2H", b"PK\x03\x04", *numbers) + name + data


def central(name: bytes, data: bytes, at: int, size: int | None = None) -> bytes:
    """A directory entry for such a record at byte `at`."""
    claimed = len(data) if size is None else size
    numbers = 20, 20, 0, 0, 0, 0, zlib.crc32(data), claimed, claimed, len(name), 0, 0, 0, 0, 0, at
    return struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *numbers) + name


def end(count: int, length: int, offset: int) -> bytes:
    """The end record of a directory."""
    return struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, length, offset, 0)


def raw_zip(records: list[tuple[bytes, bytes]], lies: dict[int, int] | None = None) -> bytes:
    """A zip from (name, data) pairs, duplicates and odd names included; `lies` are sizes by index."""
    body, directory = b"", b""
    for index, (name, data) in enumerate(records):
        size = (lies or {}).get(index)
        directory += central(name, data, len(body), size)
        body += local(name, data, size)
    return body + directory + end(len(records), len(directory), len(body))
