"""Many files at once: looks taken in processes of their own, so that a screen stays alive meanwhile.

Describing a pickle is pure Python and would hold the interpreter lock of whoever shows the list. Each
helper takes every n-th path and answers in order, one JSON line a file, so that the newest come first.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import IO, Any

from nantui.checkpoint.facts import Look
from nantui.checkpoint.rows import look_of, row_of

FEWEST_FILES = 8  # below this a helper costs more than it saves


def looks(paths: Sequence[Path], crc: bool) -> Generator[Look | None, None, None]:
    """Yield the look at each path, in order; None for one whose helper failed: look at it yourself."""
    count = min(2, os.cpu_count() or 1, len(paths))
    processes = [_start(paths[index::count], crc) for index in range(count)]
    try:
        for index in range(len(paths)):
            process = processes[index % count]
            yield _answer(process.stdout) if process is not None else None
    finally:
        for process in filter(None, processes):
            process.kill()
            process.communicate()  # reaps it and closes the pipe


def _start(paths: Sequence[Path], crc: bool) -> subprocess.Popen[bytes] | None:
    command = [sys.executable, "-m", __name__, "--crc" if crc else "--no-crc"]
    names = "".join(json.dumps(os.fspath(path)) + "\n" for path in paths)
    try:
        with tempfile.TemporaryFile() as asked:  # a pipe could fill up while both sides write
            asked.write(names.encode())
            asked.seek(0)
            return subprocess.Popen(command, stdin=asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return None


def _answer(stream: IO[bytes] | None) -> Look | None:
    with contextlib.suppress(ValueError, KeyError, TypeError, OSError):
        line = stream.readline() if stream is not None else b""
        if line:
            return look_of(json.loads(line))
    return None


def main() -> None:
    """Look at the files named on stdin; one JSON line each on stdout."""
    from nantui.checkpoint.scan import look

    crc = "--crc" in sys.argv
    for line in sys.stdin:
        row: dict[str, Any] = row_of(look(Path(json.loads(line)), crc=crc))
        print(json.dumps(row, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    main()
