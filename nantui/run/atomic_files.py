"""Writes that survive a crash: beside, fsync, rename.

Every file that another process may read at any moment goes through here, so that a reader sees the
old file or the new one and never a torn one, whatever kills the writer.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from nantui.run.documents import LARGEST_JSON, LARGEST_TEXT, LARGEST_YAML, JsonObject, parse_json, parse_yaml

# The umask can only be read by setting it, which is not safe once threads run: read it once.
_UMASK = os.umask(0o077)
os.umask(_UMASK)
NEW_FILE_MODE = 0o666 & ~_UMASK
Identity = tuple[int, int, int] | None


def write_atomic(path: Path, data: bytes | str, mode: int | None = None) -> None:
    """Replace `path` by `data` in one step.

    `mode` is the permission of the new file; by default the umask decides, as for any new file.
    Raises OSError (disk full, no permission); then the old file is whole and nothing is left beside it.
    """
    payload = data.encode() if isinstance(data, str) else data
    temporary = path.parent / f".{path.name}.{os.urandom(6).hex()}.tmp"
    # Not tempfile: every command would import its dozen modules at its start, for this one name.
    descriptor = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            os.fchmod(file.fileno(), NEW_FILE_MODE if mode is None else mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames inside `directory` durable; a file system without directory fsync is tolerated."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def to_json(document: object, indent: int | None = None) -> str:
    """Return `document` as JSON with non-finite numbers as the strings "nan", "inf" and "-inf".

    A file name that is not UTF-8 (surrogate escapes in Python) is written with \\u escapes and read back as
    it was; everything else stays readable.
    """
    plain = finite(document)
    text = json.dumps(plain, indent=indent, ensure_ascii=False, default=str, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(plain, indent=indent, default=str, allow_nan=False)
    return text


def finite(value: object) -> object:
    """Return `value` with every non-finite float replaced by its name, since JSON has no NaN literal."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def write_json(path: Path, document: object, mode: int | None = None) -> None:
    """Write `document` as indented JSON, atomically."""
    write_atomic(path, to_json(document, indent=2) + "\n", mode)


def open_regular(path: Path, flags: int = 0) -> BinaryIO | None:
    """Open a file for reading, None where it is missing or no regular file: a pipe would block for ever."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | flags)
    except (OSError, ValueError):  # a name with a zero byte in it
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def read_owned(path: Path, largest: int, flags: int = 0) -> tuple[bytes, int] | None:
    """Return at most `largest` + 1 bytes of a regular file and its owner's user id, None without one."""
    file = open_regular(path, flags)
    if file is None:
        return None
    try:
        with file:
            return file.read(largest + 1), os.fstat(file.fileno()).st_uid
    except OSError:
        return None


def read_text(path: Path, largest: int = LARGEST_TEXT) -> str | None:
    """Return the text of a regular file, None where there is none of at most `largest` bytes; bytes that are
    no UTF-8 are replaced.
    """
    found = read_owned(path, largest)
    return found[0].decode("utf-8", errors="replace") if found and len(found[0]) <= largest else None


def read_json(path: Path) -> JsonObject | None:
    """Return the object in `path`, or None where there is none or it is not a JSON object."""
    return _object(parse_json, read_text(path, LARGEST_JSON) or "")


def read_own_json(path: Path) -> JsonObject | None:
    """Return the same of a file that belongs to this user and is no link, else None."""
    found = read_owned(path, LARGEST_JSON, os.O_NOFOLLOW)
    return _object(parse_json, found[0]) if found is not None and found[1] == os.getuid() else None


def read_yaml(path: Path) -> JsonObject | None:
    """Return the mapping in `path`, or None where there is none or it is no YAML mapping."""
    return _object(parse_yaml, read_text(path, LARGEST_YAML) or "")


def _object(parse: Callable[[Any], Any], text: str | bytes) -> JsonObject | None:
    try:
        document = parse(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def identity(path: Path) -> Identity:
    """Return what changes when a file does (inode, size, ns of modification), None when it is missing."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns
