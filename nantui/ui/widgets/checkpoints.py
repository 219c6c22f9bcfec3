"""The checkpoints of the run, each with its badge as a word, a glyph and a colour."""

from __future__ import annotations

from nantui.ui.format import age, clean, number, size
from nantui.ui.model.checkpoint_rows import Row, findings_of
from nantui.ui.styled_text import Line, column, fit, spread
from nantui.ui.styled_text import width as width_of
from nantui.ui.widgets.list_view import Listing

ROOMY, NOTE = 66, 14


class Checkpoints(Listing):
    """Newest first; Enter opens the findings."""

    def __init__(self) -> None:
        super().__init__(id="checkpoints", header=[], empty="reading the run..")
        self.keeps_first = True
        self._rows: list[Row] = []
        self._now = 0.0

    def show_rows(self, rows: list[Row]) -> None:
        """Show these checkpoints."""
        self._rows = rows
        self.empty = "none yet: the first comes after epoch 1"
        self.show([row.checkpoint.path for row in rows], self._row)

    def grow_older(self, now: float) -> None:
        """Count ages to `now`, s since the epoch."""
        self._now = now
        self.redraw()

    @property
    def row(self) -> Row | None:
        """The checkpoint under the cursor."""
        return self._rows[self.cursor] if 0 <= self.cursor < len(self._rows) else None

    def heading(self, width: int) -> Line:
        bad = sum(row.badge in ("corrupt", "unreadable") for row in self._rows)
        waiting = sum(row.badge in ("", "scanning") for row in self._rows)
        line: Line = [("checkpoints ", "title"), (f"{len(self._rows)}", "muted")]
        if waiting:
            line.append((f"  scanning, {waiting} to go", "info"))
        elif bad:
            line.append((f"  {bad} not clean", "bad"))
        labels = "".join(f"{label:>{cells}}" for label, cells in columns(width))
        cells = 13 + name_cells(width) + sum(cells for _, cells in columns(width))
        head = spread(line, [(labels.lstrip(), "faint")], cells, self.glyphs.rule)
        return head if width_of(line) + len(labels) <= cells else line

    def _row(self, index: int, width: int) -> Line:
        row = self._rows[index]
        bad = row.badge in ("corrupt", "unreadable")
        glyphs = {"good": self.glyphs.good, "bad": self.glyphs.bad, "info": self.glyphs.busy}
        name = clean(row.checkpoint.title, 60)
        line: Line = [
            (f"{glyphs.get(row.ink, self.glyphs.unknown)} {row.badge or 'waiting':<10} ", row.ink),
            (column(name, name_cells(width) - 2), "strong"),
            (f"{self.glyphs.left} " if "restore point" in row.roles else "  ", "accent"),
        ]
        cells = {
            "epoch": ("-" if row.epoch is None else str(row.epoch), "text"),
            "fitness": ("-" if row.fitness is None else number(row.fitness, 3), "text"),
            "size": (size(row.checkpoint.size), "muted"),
            "age": (age(self._now - row.checkpoint.modified), "muted"),
        }
        for label, wide in columns(width):
            text, ink = cells[label]
            line.append((f"{text:>{wide}}", ink))
        note = findings_of(row.verdict) if bad else ", ".join(row.roles)
        if width >= ROOMY and note:
            line.append((f"  {column(note, NOTE)}", "bad" if bad else "info"))
        return fit(line, width)


def name_cells(width: int) -> int:
    """Return the cells for the name: what badge, numbers and note leave."""
    note = NOTE + 2 if width >= ROOMY else 0
    return max(12, width - 13 - note - sum(cells for _, cells in columns(width)))


def columns(width: int) -> list[tuple[str, int]]:
    """Return the columns after badge and name that fit, with their widths."""
    if width < 42:
        return [("epoch", 6), ("age", 5)]
    return [
        ("epoch", 4 if width == 42 else 5),
        *([("fitness", 8)] if width >= 51 else []),
        ("size", 8),
        ("age", 5),
    ]
