"""Many files at once, in processes of their own, so that a screen stays alive meanwhile.

Describing a pickle is pure Python and would hold the interpreter lock of whoever shows the list. Each
helper takes every n-th path and answers in order, one JSON line a file, so that the newest come first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path

from nantui.checkpoint.cache import row_of
from nantui.checkpoint.verdict import ScannedFile
from nantui.run.documents import known_fields

# The helper imports from where we import, and not from its working directory, which may hold anything.
_PROGRAM = """
import sys
sys.path[:] = sys.argv[1:]
from nantui.checkpoint.parallel_scan import main
main()
"""


class Ahead:
    """Looks at several files, taken ahead by helper processes. Close it to be rid of them.

    Raises OSError where none can be started.
    """

    def __init__(self, paths: Sequence[Path], crc: bool, allowed: Collection[str] = ()) -> None:
        count = min(2, os.cpu_count() or 1, len(paths))
        self._processes = [_start(paths[index::count], crc, allowed) for index in range(count)]
        self._coming = deque(enumerate(paths))
        self._ready: dict[Path, ScannedFile | None] = {}

    def take(self, path: Path) -> ScannedFile | None:
        """Return the scan of `path`, waiting for it; None where it was not asked for or its helper failed."""
        while path not in self._ready and self._coming:
            index, coming = self._coming.popleft()
            self._ready[coming] = _answer(self._processes[index % len(self._processes)])
        return self._ready.pop(path, None)

    def close(self) -> None:
        """End the helpers, finished or not."""
        self._coming.clear()
        for process in self._processes:
            process.kill()
            process.communicate()  # reaps it and closes the pipe


def _start(paths: Sequence[Path], crc: bool, allowed: Collection[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-c", _PROGRAM, *filter(None, sys.path)]
    lines = [{"crc": crc, "allowed": sorted(allowed)}, *map(os.fspath, paths)]
    names = "".join(json.dumps(line) + "\n" for line in lines)
    # No matrices are multiplied there: otherwise importing numpy starts a thread for every core.
    environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ}
    with tempfile.TemporaryFile() as asked:  # a pipe could fill up while both sides write
        asked.write(names.encode())
        asked.seek(0)
        return subprocess.Popen(
            command, stdin=asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )


def _answer(process: subprocess.Popen[bytes]) -> ScannedFile | None:
    assert process.stdout is not None, "a pipe"
    try:
        return known_fields(ScannedFile, json.loads(process.stdout.readline()))
    except (ValueError, OSError):  # it has died
        return None


def main() -> None:
    """Read the options of `scan` and then file names from stdin; one JSON line for each file on stdout."""
    from nantui.checkpoint.scan import scan_alone

    options = json.loads(sys.stdin.readline())
    for line in sys.stdin:
        row = row_of(scan_alone(Path(json.loads(line)), **options))
        print(json.dumps(row, separators=(",", ":")), flush=True)
