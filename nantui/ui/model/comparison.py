"""Runs or attempts overlaid: one picture per curve that they have, and a table of what differs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase

from nantui.recovery.comparison import Side
from nantui.run.layout import RunLayout
from nantui.run.telemetry import StepFollower
from nantui.settings.values import compare, show_value
from nantui.ui.charts.series import Column, Curve, Picture, stroke
from nantui.ui.format import clean, duration, number
from nantui.ui.model.run_charts import SPLITS, over_epochs
from nantui.ui.model.step_store import MEMORY, WHOLE_BYTES, StepStore
from nantui.ui.styled_text import Line, column, fit

PLACES = frozenset({"save_dir", "project", "name", "resume", "model", "exist_ok"})
NO_CURVE = frozenset({"lr", *MEMORY})
FIRST = ("val/", "metrics/mAP", "metrics/acc", "train/", "lr/pg0")


def choices(run: Path, attempts: Iterable[int], others: Iterable[Path]) -> list[str]:
    """Return what can be compared: this run, its attempts, other runs."""
    mine = [f"{run}#{number}" for number in attempts]
    return [str(run), *mine, *(str(path) for path in others if path != run)]


def pictures(sides: Sequence[Side], last: int = 0) -> list[Picture]:
    """Return a picture for every column of results.csv that a side has, the telling ones first, of all
    epochs or of each side's `last`.
    """
    names = dict.fromkeys(name for side in sides for row in side.rows[-1:] for name in row.values)
    ordered = [name for start in FIRST for name in names if name.startswith(start)]
    return [_picture(name, [over_epochs(side.rows[-last:], name) for side in sides]) for name in ordered]


def step_pictures(found: Sequence[Mapping[str, Column]]) -> list[Picture]:
    """Return a picture for every loss and for the gradient norm, over single steps."""
    names = dict.fromkeys(name for columns in found for name in columns if name not in NO_CURVE)
    return [_picture(name, [columns.get(name, ((), ())) for columns in found], "step") for name in names]


def steps_of(name: str) -> dict[str, Column]:
    """Return the steps of a run, or of attempt N of it (RUN#N), by column; reads files, for a thread."""
    place, mark, number = name.rpartition("#")
    whole = not mark or Path(name).exists()
    layout, store = RunLayout(Path(name if whole else place)), StepStore()
    for attempt in layout.attempt_numbers() if whole else [int(number)]:
        steps = StepFollower(layout.steps(attempt), whole_bytes=WHOLE_BYTES)
        while store.read(steps, attempt):
            pass
    return store.curves().columns


def _picture(name: str, columns: Sequence[Column], x_name: str = "epoch") -> Picture:
    curves = (Curve(letter(index), *column, *stroke(index), index) for index, column in enumerate(columns))
    return Picture(_title(name), tuple(curve for curve in curves if curve.xs), x_name=x_name, floor=0.0)


def letter(side: int) -> str:
    """Return what a side is called: A to Z, then by number."""
    return ascii_uppercase[side] if side < len(ascii_uppercase) else str(side + 1)


def _title(name: str) -> str:
    return name.replace("_loss", "").replace("metrics/", "").replace("/", " ").split("(")[0]


def overview(sides: Sequence[Side], width: int) -> list[Line]:
    """Return a row for each of many sides, and the settings that are not the same in all of them."""
    metrics = _metrics(sides)[:2]
    heads = [(column(f"best {_title(name)}", 16), "faint") for name in metrics]
    lines: list[Line] = [[(column("  run", 26), "faint"), (column("epochs", 12), "faint"), *heads]]
    for index, side in enumerate(sides):
        cells = [(column(_best(side, name), 16), "text") for name in metrics]
        named = (f"{letter(index)} {column(short(side.name), 24)}", stroke(index)[0])
        lines.append([named, (column(_span(side), 12), "muted"), *cells])
    changed = sorted(differing(sides))
    lines += [[], [("settings that differ", "title"), (f"   {len(changed)}", "muted")]]
    lines.append([(" " * 16, "text"), *((column(letter(n), 10), stroke(n)[0]) for n in range(len(sides)))])
    for name in changed:
        values = (column(_value(side, name, 12), 10) for side in sides)
        lines.append([(column(name, 16), "muted"), ("".join(values), "text")])
    return [fit(line, width) for line in lines]


def table(sides: tuple[Side, Side], width: int) -> list[Line]:
    """Return cost, best metrics and differing settings as lines."""
    cells = max(10, (width - 18) // 2)

    def row(name: str, told: Iterable[str], inks: tuple[str, str] = ("text", "text")) -> Line:
        return [(column(name, 18), "muted"), *zip((column(text, cells) for text in told), inks, strict=True)]

    changed = differing(sides)
    lines: list[Line] = [
        row("", "AB", SPLITS), row("epochs", map(_span, sides)), row("per epoch", map(_per_epoch, sides)),
        row("steps skipped", ("no guard" if one.skipped is None else str(one.skipped) for one in sides)),
        *(row(f"best {_title(name)}", (_best(side, name) for side in sides)) for name in _metrics(sides)), [],
        [("settings that differ", "title"), (f"   {len(changed)}", "muted")],
        *(row(name, (_value(side, name, 60) for side in sides), ("text", "accent")) for name in changed),
    ]  # fmt: skip
    return [fit(line, width) for line in lines]


def differing(sides: Sequence[Side]) -> list[str]:
    """Return the settings that not all sides have the same, those of place left out."""
    first, *others = (side.settings for side in sides)
    known = [row.name for other in others for row in compare(first, other) if row.name in {*first} & {*other}]
    return [name for name in dict.fromkeys(known) if name not in PLACES]


def _value(side: Side, name: str, longest: int) -> str:
    return clean(show_value(side.settings.get(name)), longest)


def short(name: str) -> str:
    """Return the last part of a run's path, with its attempt."""
    place, mark, attempt = name.rpartition("#")
    return clean(f"{Path(place).name} attempt {attempt}" if mark else Path(name).name, 60)


def _span(side: Side) -> str:
    ends = dict.fromkeys(row.epoch for row in side.rows[:1] + side.rows[-1:])
    return " to ".join(map(str, ends)) or "none"


def _per_epoch(side: Side) -> str:
    hours = side.hours_per_epoch
    return duration(hours * 3600) if math.isfinite(hours) else "not timed"


def _metrics(sides: Sequence[Side]) -> list[str]:
    names = dict.fromkeys(name for side in sides for row in side.rows[-1:] for name in row.values)
    return [name for name in names if name.startswith(("metrics/mAP", "metrics/acc"))]


def _best(side: Side, name: str) -> str:
    values = [
        (row.values[name], -row.epoch) for row in side.rows if math.isfinite(row.values.get(name, math.nan))
    ]
    return f"{number(max(values)[0], 3)} at {-max(values)[1]}" if values else "-"
