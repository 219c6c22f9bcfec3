"""Restore points with what each costs, and why the others are out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nantui.ui.format import age, clean, duration, number
from nantui.ui.styled_text import Line, column, fit
from nantui.ui.widgets.list_view import Listing
from nantui.words import count

if TYPE_CHECKING:
    from nantui.recovery.restore_points import Candidate

ROOMY = 82


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
        """The candidate under the cursor."""
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
        roomy = width >= ROOMY
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
