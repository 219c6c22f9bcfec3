"""A person at a keyboard: the real cockpit in a pseudo-terminal of its own, and keys typed into it."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

COLUMNS, LINES = 120, 40
ESCAPE = "\x1b"
ESCAPE_ALONE_S = 1.0  # any key that comes sooner would make a sequence of it
QUIT_WITHIN_S = 60.0


class CockpitGone(Exception):
    """The cockpit ended although nobody quit it."""


class CockpitTerminal:
    """Runs `nantui RUN` in a terminal that nobody sees; its output is read and thrown away."""

    def __init__(self, run: Path) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._keyboard = ours
        # COLUMNS and LINES would win over the terminal's own size.
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nantui", os.path.abspath(run)], cwd="/", stdin=theirs, stdout=theirs,
            stderr=theirs, start_new_session=True, env={**kept, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(theirs)
        self.bytes_drawn = 0
        threading.Thread(target=self._drain, daemon=True).start()

    def press(self, key: str) -> None:
        """Type one key. Raises CockpitGone when nobody reads it any more."""
        if self._process.poll() is not None:
            raise CockpitGone(f"the cockpit has ended with status {self._process.returncode}")
        os.write(self._keyboard, key.encode())

    def close(self) -> int:
        """Close what is open with Esc and quit with `q`, as a person does; returns the exit status."""
        try:
            if self._process.poll() is None:
                self.press(ESCAPE)
                time.sleep(ESCAPE_ALONE_S)
                self.press("q")
            return self._process.wait(timeout=QUIT_WITHIN_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            return self._process.wait()

    def _drain(self) -> None:
        try:
            while data := os.read(self._keyboard, 1 << 16):
                self.bytes_drawn += len(data)
        except OSError:
            return
