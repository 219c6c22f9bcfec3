"""The checkpoints of the run, each with its badge as a word, a glyph and a colour; restore points with their
cost, and why the others are out.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nantui.ui.format import age, clean, duration, number, size
from nantui.ui.model.checkpoint_rows import Row, findings_of
from nantui.ui.styled_text import Line, column, fit, spread
from nantui.ui.styled_text import width as width_of
from nantui.ui.widgets.list_view import Listing
from nantui.words import count

if TYPE_CHECKING:
    from nantui.recovery.restore_points import Candidate

ROOMY, NOTE, ROOM_FOR_COSTS = 66, 14, 82


class Checkpoints(Listing):
    """Newest first; Enter opens the findings."""

    def __init__(self) -> None:
        super().__init__(id="checkpoints", header=[], empty="reading the run..")
        self.keeps_first = True
        self._rows: list[Row] = []

    def show_rows(self, rows: list[Row]) -> None:
        self._rows = rows
        self.empty = "none yet: the first comes after epoch 1"
        self.show([row.checkpoint.path for row in rows], self._row)

    @property
    def row(self) -> Row | None:
        return self._rows[self.cursor] if 0 <= self.cursor < len(self._rows) else None

    def heading(self, width: int) -> Line:
        bad = sum(row.badge in ("corrupt", "unreadable") for row in self._rows)
        waiting = sum(row.badge in ("", "scanning") for row in self._rows)
        line: Line = [("checkpoints ", "title"), (f"{len(self._rows)}", "muted")]
        if waiting:
            line.append((f"  scanning, {waiting} to go", "info"))
        elif bad:
            line.append((f"  {bad} not clean", "bad"))
        labels = "".join(f"{label:>{cells}}" for label, cells in columns(width)).lstrip()
        cells = 13 + name_cells(width) + sum(cells for _, cells in columns(width))
        head = spread(line, [(labels, "faint")], cells, self.glyphs.rule)
        return head if width_of(line) + 2 + len(labels) <= cells else line  # a gap of two, or a rule

    def _row(self, index: int, width: int) -> Line:
        row = self._rows[index]
        bad = row.badge in ("corrupt", "unreadable")
        glyphs = {"good": self.glyphs.good, "bad": self.glyphs.bad, "info": self.glyphs.busy}
        name = clean(row.checkpoint.title, 60)
        line: Line = [
            (f"{glyphs.get(row.ink, self.glyphs.unknown)} {row.badge or 'waiting':<10} ", row.ink),
            (column(name, name_cells(width) - 2), "strong"),
            (f" {self.glyphs.left}" if "restore point" in row.roles else "  ", "accent"),
        ]
        cells = {
            "epoch": ("-" if row.epoch is None else str(row.epoch), "text"),
            "fitness": ("-" if row.fitness is None else number(row.fitness, 3), "text"),
            "size": (size(row.checkpoint.size), "muted"),
            "age": (age(self.cockpit.backend.now() - row.checkpoint.modified), "muted"),
        }
        for label, wide in columns(width):
            text, ink = cells[label]
            line.append((f"{text:>{wide}}", ink))
        note = findings_of(row.verdict) if bad else ", ".join(row.roles)
        if width >= ROOMY and note:
            line.append((f"  {column(note, NOTE)}", "bad" if bad else "info"))
        return fit(line, width)


def name_cells(width: int) -> int:
    note = NOTE + 2 if width >= ROOMY else 0
    return max(12, width - 13 - note - sum(cells for _, cells in columns(width)))


def columns(width: int) -> list[tuple[str, int]]:
    if width < 42:
        return [("epoch", 6), ("age", 5)]
    fitness = [("fitness", 8)] if width >= 51 else []
    return [("epoch", 4 if width == 42 else 5), *fitness, ("size", 8), ("age", 5)]


class Candidates(Listing):
    """The chosen one is marked; Enter chooses the one under the cursor."""

    def __init__(self) -> None:
        super().__init__(
            id="candidates",
            header=[("restore point", "title"), ("   Enter chooses", "faint")],
            empty="there is no checkpoint",
        )
        self._candidates: list[Candidate] = []
        self._restore: Candidate | None = None

    def show_candidates(self, candidates: list[Candidate], restore: Candidate | None) -> None:
        """Show these, the chosen one under the cursor."""
        self._candidates, self._restore = candidates, restore
        self.show([candidate.name for candidate in candidates], self._row)
        if restore in candidates:
            self.go(candidates.index(restore))

    @property
    def candidate(self) -> Candidate | None:
        return self._candidates[self.cursor] if 0 <= self.cursor < len(self._candidates) else None

    def _row(self, index: int, width: int) -> Line:
        candidate = self._candidates[index]
        chosen = candidate == self._restore
        point = candidate.point
        name = f"epoch {point.epoch} step {point.batch:,}" if point else candidate.name
        line: Line = [
            (f"{self.glyphs.cursor if chosen else ' '} ", "accent"),
            (column(clean(name, 60), 26 if point else 15), "strong" if candidate.usable else "faint"),
        ]
        if not candidate.usable:
            return fit([*line, (clean(candidate.why_not, 200), "muted")], width)
        work = f"epoch {candidate.work:>4}" if candidate.work is not None else ""
        steps, epochs = candidate.steps_lost, candidate.epochs_lost
        lost = steps or epochs
        roomy = width >= ROOM_FOR_COSTS
        again = f"{count(steps, 'step') if steps else count(epochs, 'epoch')} again"
        cost = f"{again if lost else 'costs nothing':>16}"
        line += [] if point else [(column(work, 12), "text")]
        line.append((f"{cost:>17}" if point else cost, "warn" if lost else "good"))
        hours = candidate.hours_lost if lost else float("nan")
        line.append((f"{duration(hours * 3600) if hours == hours else '':>{14 if roomy else 11}}", "muted"))
        if point is not None:
            line.append((f"  {age(time.time() - point.t)} ago", "muted"))
        elif candidate.fitness is not None:
            line += [
                ("    fitness" if roomy else "  fit", "muted"),
                (f"{number(candidate.fitness, 3):>{9 if roomy else 8}}", "text"),
            ]
        return fit(line, width)
