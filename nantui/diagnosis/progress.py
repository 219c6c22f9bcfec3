"""A progress line with rate and ETA on stderr, only where somebody sits at a terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

EVERY = 0.1
WIDTH = 24


class ProgressLine:
    """Call it with (done, total); it never asks to stop. `close` takes the line away."""

    def __init__(self, noun: str, out: TextIO | None = None, ascii_only: bool = False) -> None:
        self.noun = noun
        self.out = sys.stderr if out is None else out
        self.full, self.rest = ("#", ".") if ascii_only else ("█", "░")
        self.shown = self.out.isatty()
        self.begun = time.monotonic()
        self.last = -EVERY

    def __call__(self, done: int, total: int) -> bool:
        now = time.monotonic()
        if self.shown and (now - self.last >= EVERY or done == total):
            self.last = now
            self.out.write("\r" + self.line(done, total, now - self.begun) + "\x1b[K")
            self.out.flush()
        return False

    def line(self, done: int, total: int, seconds: float) -> str:
        """Return the line after `seconds`."""
        filled = WIDTH * done // total if total else WIDTH
        rate = done / seconds if seconds > 0 else 0.0
        left = f"{(total - done) / rate:.0f} s left" if rate else "…"
        bar = self.full * filled + self.rest * (WIDTH - filled)
        return f"{bar} {done:,}/{total:,} {self.noun}, {rate:,.0f}/s, {left}"

    def close(self) -> None:
        """Clear the line."""
        if self.shown:
            self.out.write("\r\x1b[K")
            self.out.flush()
