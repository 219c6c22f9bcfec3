"""Two runs or attempts overlaid: one picture per curve that both have, and a table of what differs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nantui.settings.values import show_value
from nantui.ui.charts.series import Curve, Picture
from nantui.ui.format import clean, duration, number
from nantui.ui.glyphs import Glyphs
from nantui.ui.styled_text import Line, column, fit

if TYPE_CHECKING:
    from nantui.recovery.comparison import Side

PLACES = frozenset({"save_dir", "project", "name", "resume", "model", "exist_ok"})
FIRST = ("val/", "metrics/mAP", "metrics/acc", "train/", "lr/pg0")


def choices(run: Path, attempts: Iterable[int], others: Iterable[Path]) -> list[str]:
    """Return what can be compared: this run, its attempts, other runs."""
    mine = [f"{run}#{number}" for number in attempts]
    return [str(run), *mine, *(str(path) for path in others if path != run)]


def pictures(one: Side, other: Side) -> list[Picture]:
    """Return a picture for every column of results.csv that either side has, the telling ones first."""
    names = dict.fromkeys(name for side in (one, other) for row in side.rows[-1:] for name in row.values)
    ordered = [name for start in FIRST for name in names if name.startswith(start)]
    return [
        Picture(
            _title(name),
            tuple(
                curve
                for curve in (_curve("A", one, name, "train"), _curve("B", other, name, "val"))
                if curve.xs
            ),
            floor=0.0,
        )
        for name in ordered
    ]


def _title(name: str) -> str:
    return name.replace("_loss", "").replace("metrics/", "").replace("/", " ").split("(")[0]


def _curve(label: str, side: Side, column: str, ink: str) -> Curve:
    points = [(float(row.epoch), row.values[column]) for row in side.rows if column in row.values]
    return Curve(label, tuple(x for x, _ in points), tuple(y for _, y in points), ink, ink == "val")


def table(one: Side, other: Side, glyphs: Glyphs, width: int) -> list[Line]:
    """Return names, cost, best metrics and differing settings as lines."""
    cells = max(10, (width - 18) // 2)
    lines: list[Line] = [_row("", "A", "B", cells, ("train", "val"))]
    lines.append(_row("run", *names(one.name, other.name), cells))
    lines.append(_row("epochs", _span(one), _span(other), cells))
    lines.append(_row("per epoch", _per_epoch(one), _per_epoch(other), cells))
    lines.append(_row("steps skipped", _shown(one.skipped), _shown(other.skipped), cells))
    for name in _metrics(one, other):
        lines.append(_row(f"best {_title(name)}", _best(one, name), _best(other, name), cells))
    changes = differing(one.settings, other.settings)
    lines += [[], [("settings that differ", "title"), (f"   {len(changes)}", "muted")]]
    for name, a, b in changes:
        lines.append(
            _row(name, clean(show_value(a), 60), clean(show_value(b), 60), cells, ("text", "accent"))
        )
    return [fit(line, width) for line in lines]


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[tuple[str, object, object]]:
    """Return the settings that both sides know and that differ, those of place left out."""
    from nantui.settings.values import compare

    both = set(one) & set(other)
    return [(row.name, row.now, row.then) for row in compare(one, other) if row.name in both - PLACES]


def _row(name: str, a: str, b: str, cells: int, inks: tuple[str, str] = ("text", "text")) -> Line:
    return [(column(name, 18), "muted"), (column(a, cells), inks[0]), (column(b, cells), inks[1])]


def short(name: str) -> str:
    """Return the last part of a run's path, with its attempt."""
    place, mark, attempt = name.rpartition("#")
    return clean(f"{Path(place).name} attempt {attempt}" if mark else Path(name).name, 60)


def names(one: str, other: str) -> tuple[str, str]:
    """Return how to call the two beside each other: by their attempts alone where the run is the same."""
    if one.rpartition("#")[0] == other.rpartition("#")[0] != "":
        return f"attempt {one.rpartition('#')[2]}", f"attempt {other.rpartition('#')[2]}"
    return short(one), short(other)


def _span(side: Side) -> str:
    return f"{side.rows[0].epoch} to {side.rows[-1].epoch}" if side.rows else "none"


def _per_epoch(side: Side) -> str:
    hours = side.hours_per_epoch
    return duration(hours * 3600) if math.isfinite(hours) else "not timed"


def _shown(value: int | None) -> str:
    return "no guard" if value is None else str(value)


def _metrics(one: Side, other: Side) -> list[str]:
    names = dict.fromkeys(name for side in (one, other) for row in side.rows[-1:] for name in row.values)
    return [name for name in names if name.startswith(("metrics/mAP", "metrics/acc"))]


def _best(side: Side, name: str) -> str:
    values = [
        (row.values[name], row.epoch) for row in side.rows if math.isfinite(row.values.get(name, math.nan))
    ]
    return f"{number(max(values)[0], 3)} at {max(values)[1]}" if values else "-"
