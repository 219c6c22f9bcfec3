"""The checkpoints of the run, each with its badge as a word, a sign and a colour."""

from __future__ import annotations

import time

from nantui.ui.data.checkpoints import Row, findings_of
from nantui.ui.format import age, clean, number, size
from nantui.ui.ink import Line, column, fit
from nantui.ui.widgets.listing import Listing


class Checkpoints(Listing):
    """Newest first; Enter opens the findings."""

    def __init__(self) -> None:
        super().__init__(id="checkpoints", empty="no checkpoint yet: the first is written after epoch 1")
        self._rows: list[Row] = []
        self.progress = ""

    def show_rows(self, rows: list[Row]) -> None:
        """Show these checkpoints."""
        self._rows = rows
        self.header = self._heading()
        self.show([row.checkpoint.path for row in rows], self._row)

    @property
    def row(self) -> Row | None:
        """The checkpoint under the cursor."""
        return self._rows[self.cursor] if 0 <= self.cursor < len(self._rows) else None

    def _heading(self) -> Line:
        bad = sum(row.badge in ("corrupt", "unreadable") for row in self._rows)
        waiting = sum(row.badge in ("", "scanning") for row in self._rows)
        line: Line = [("checkpoints ", "title"), (f"{len(self._rows)}", "muted")]
        if bad:
            line.append((f"  {bad} not clean", "bad"))
        if waiting:
            line.append((f"  scanning, {waiting} to go", "muted"))
        return line

    def _row(self, index: int, width: int) -> Line:
        row = self._rows[index]
        sign = {"good": self.glyphs.good, "bad": self.glyphs.bad, "info": self.glyphs.busy}.get(
            row.ink, self.glyphs.unknown
        )
        badge = row.badge or "waiting"
        name = clean(row.checkpoint.name.removesuffix(".pt"), 60)
        line: Line = [(f"{sign} {badge:<10} ", row.ink), (column(name, 11 if width < 44 else 14), "strong")]
        line.append((f" e{row.epoch:<4}" if row.epoch is not None else "  -   ", "text"))
        if width >= 50:
            fitness = row.fitness
            line.append((f" {number(fitness, 3) if fitness is not None else '-':>7}", "text"))
        if width >= 40:
            line.append((f" {size(row.checkpoint.size):>8}", "muted"))
        line.append((f" {age(time.time() - row.checkpoint.modified):>5}", "muted"))
        note = findings_of(row.verdict) if row.badge in ("corrupt", "unreadable") else " ".join(row.roles)
        if width >= 56 and note:
            line.append((f"  {note}", "bad" if row.badge in ("corrupt", "unreadable") else "info"))
        return fit(line, width)
