"""Restore points by the clock: an `epochN.pt` at the first epoch's end after so many minutes.

`save_period` counts epochs, which may take a minute or three hours. Only points that this rule made are
ever deleted, and never one of the newest clean ones; Ultralytics' own and the user's files are not touched.
Points from before a rollback stay: a trouble that returns sends the run back further than the last time.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nantui.run.attempts import read_events
from nantui.run.journal import Journal, last
from nantui.run.layout import RunLayout

_NAME = re.compile(r"^epoch(\d+)\.pt$")


class RestorePoints:
    """Decides when to keep one, and which older ones may go."""

    def __init__(self, layout: RunLayout, minutes: float, keep: int) -> None:
        self._layout, self._every, self._keep = layout, minutes * 60, max(keep, 1)
        self._last = time.monotonic()
        self._by_the_clock = _made_before(layout)
        self._clean: set[str] = set()

    def due(self) -> bool:
        """Tell whether this epoch's end should leave a restore point by the clock."""
        return self._every > 0 and time.monotonic() - self._last >= self._every

    @contextlib.contextmanager
    def kept(self, trainer: Any, due: bool) -> Iterator[None]:
        """Let `save_model` write `epochN.pt` in this epoch: it does when `epoch % save_period == 0`."""
        period = trainer.save_period
        trainer.save_period = 1 if due else period
        try:
            yield
        finally:
            trainer.save_period = period

    def saved(self, names: list[str], by_the_clock: bool, clean: bool) -> list[str]:
        """Take note of what a save left; deletes what may go and returns its names.

        `names` are file names in weights/. Points of which nothing is known count as not clean and, unless
        the clock made them, are left alone.
        """
        points = [name for name in names if _NAME.match(name)]
        if by_the_clock:
            self._last = time.monotonic()
            self._by_the_clock.update(points)
        if clean:
            self._clean.update(points)
        return self._prune()

    def _prune(self) -> list[str]:
        newest_first = sorted((n for n in self._clean if (self._layout.weights / n).exists()), key=_epoch)[
            ::-1
        ]
        if len(newest_first) < self._keep:
            return []
        oldest_kept = _epoch(newest_first[self._keep - 1])
        deleted = []
        for name in sorted(self._by_the_clock, key=_epoch):
            if _epoch(name) < oldest_kept:
                with contextlib.suppress(OSError):
                    (self._layout.weights / name).unlink()
                    deleted.append(name)
                self._by_the_clock.discard(name)
        return deleted


def _epoch(name: str) -> int:
    found = _NAME.match(name)
    return int(found.group(1)) if found else -1


def _made_before(layout: RunLayout) -> set[str]:
    """Return the restore points made by the clock since the last rollback that are still there."""
    names: set[str] = set()
    rollback = last(Journal(layout.journal).entries(), "rollback_done")
    since = float(rollback["t"]) if rollback else 0.0
    for number in layout.attempt_numbers():
        for event in read_events(layout.events(number, 0)):
            if event["kind"] == "saved" and event.get("by_the_clock") and event["t"] > since:
                names.update(Path(path).name for path in event.get("paths", []))
    return {name for name in names if _NAME.match(name) and (layout.weights / name).exists()}
