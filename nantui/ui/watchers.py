"""What a thread does for a screen: it scans checkpoints, and says how far it is as often as can be drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from nantui.checkpoint.verdict import Verdict
from nantui.run.atomic_files import Identity, identity
from nantui.run.layout import RunLayout
from nantui.ui.model.backend import Backend
from nantui.ui.model.run_reader import checkpoint_at, list_checkpoints
from nantui.ui.model.snapshot import Checkpoint

TELL_EVERY_S = 0.5
REST = 20  # times as long as it took to find the restore point, before that is asked again
Scanned: TypeAlias = tuple[dict[Checkpoint, Verdict], frozenset[Checkpoint], Path | None]
"""What is known of the checkpoints, which of them wait, and which one `R` would go back to."""


class Pace:
    """Allows a few repaints at once, and then one every `every` seconds: over a slow link each is felt."""

    def __init__(self, every: float, at_once: int = 3, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._most, self._clock = every, at_once, clock
        self._left, self._counted = float(at_once), clock()

    def allows(self) -> bool:
        """Tell whether to repaint now; a yes counts."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._counted) / self._every)
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Scanner:
    """Scans checkpoints, newest first, and again those that changed; then asks for the restore point.

    A verdict belongs to a file as it was (path, size, time): after a rollback the same name holds another
    training, which must not be shown with the old one's badge.
    """

    def __init__(self, weights: Path, backend: Backend, clock: Callable[[], float] = time.monotonic) -> None:
        self._weights, self._backend, self._clock = weights, backend, clock
        self._rests_until = 0.0
        self._seen: tuple[frozenset[Checkpoint], Identity] = frozenset(), None
        self._verdicts: dict[Checkpoint, Verdict] = {}
        self._restore: Path | None = None

    def look(self) -> Iterator[Scanned]:
        """Yield what is known now and then. What the journal tells may change the restore point."""
        listed, run = frozenset(list_checkpoints(self._weights)), self._weights.parent
        seen = listed, identity(RunLayout(run).journal)
        busy = any(verdict.badge == "busy" for verdict in self._verdicts.values())
        if seen == self._seen and not busy:
            return
        self._verdicts = {file: verdict for file, verdict in self._verdicts.items() if file in listed}
        waiting = listed - self._verdicts.keys()
        pace = Pace(TELL_EVERY_S, at_once=1)
        if pace.allows():
            yield self._told(waiting)
        for verdict in self._backend.verdicts(self._weights):
            file = checkpoint_at(verdict.path)
            if file is not None:
                self._verdicts[file] = verdict
                waiting -= {file}
            if pace.allows():
                yield self._told(waiting)
        yield self._told(frozenset())
        if (began := self._clock()) < self._rests_until:
            return  # not seen yet: a later look asks
        self._seen, self._restore = seen, self._backend.restore_point(run)
        self._rests_until = self._clock() + REST * (self._clock() - began)
        yield self._told(frozenset())

    def _told(self, waiting: frozenset[Checkpoint]) -> Scanned:
        return dict(self._verdicts), waiting, self._restore
