"""Output that never raises: what a full or read-only disk refuses is dropped and counted, and said later.

A process that prints into a file on a full disk dies of its next line: `print` raises ENOSPC, and so does the
flush at the interpreter's end. Neither a supervisor nor a training may die of its log.
"""

from __future__ import annotations

import io
import os
import sys


class PatientFile(io.RawIOBase):
    """A descriptor to write to. Whoever writes is told that all was taken."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.dropped = 0
        """Bytes that are lost and not said yet."""

    def writable(self) -> bool:
        """It is for writing only."""
        return True

    def fileno(self) -> int:
        """Return the descriptor: libraries ask whether it is a terminal, and C writes to it directly."""
        return self._descriptor

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write what the disk takes; the rest of it is dropped."""
        data = bytes(data)
        if self.dropped and self._put(
            b"\n[nantui: %d bytes of output were lost here: disk full]\n" % self.dropped
        ):
            self.dropped = 0
        if not self._put(data):
            self.dropped += len(data)
        return len(data)

    def _put(self, data: bytes) -> bool:
        """Write all of it; False where that failed. A part of a line may then stand there."""
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            return False
        return True


def print_patiently() -> None:
    """Let this process print through patient files; called before any library keeps the old streams."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = PatientFile(descriptor)
        setattr(sys, name, io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True))
