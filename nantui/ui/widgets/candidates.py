"""Restore points with what each costs, and why the others are out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nantui.ui.format import clean, duration, number
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
        line: Line = [
            (f"{self.glyphs.cursor if chosen else ' '} ", "accent"),
            (column(clean(candidate.name, 60), 15), "strong" if candidate.usable else "faint"),
        ]
        if not candidate.usable:
            return fit([*line, (clean(candidate.why_not, 200), "muted")], width)
        work = f"epoch {candidate.work:>4}" if candidate.work is not None else ""
        lost = candidate.epochs_lost
        roomy = width >= ROOMY
        cost = f"{count(lost, 'epoch'):>10} again" if lost else f"{'costs nothing':>16}"
        line += [(column(work, 12), "text"), (cost, "warn" if lost else "good")]
        hours = candidate.hours_lost if lost else float("nan")
        line.append((f"{duration(hours * 3600) if hours == hours else '':>{14 if roomy else 11}}", "muted"))
        if candidate.fitness is not None:
            line += [
                ("    fitness" if roomy else "  fit", "muted"),
                (f"{number(candidate.fitness, 3):>{9 if roomy else 8}}", "text"),
            ]
        return fit(line, width)
