"""Curves of one or more runs in the terminal, for a chat, a log or a pipe: `nantui plot RUN val/box_loss`."""

from __future__ import annotations

import argparse
import csv
import difflib
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from nantui.commands import common
from nantui.errors import NO, USAGE, UserError
from nantui.run.layout import RunLayout
from nantui.run.record import read_run
from nantui.terminal_text import printable

WIDEST, ROWS = 100, 20
MOST_TICKS = 9
MARKERS = {"braille": "⢕", "dot": "•", "diamond": "◆", "square": "■", "circle": "●", "up": "▲"}
"""plotext's names of what curves are drawn with, and how that looks."""
PLAIN_BOX = str.maketrans("│─┌┐└┘├┤┬┴┼", "|-" + "+" * 9)
PLAIN_MARKERS = "abcdefgh"


@dataclass(frozen=True)
class Curve:
    """One metric of one run: `epochs` from 1 and their `values`, which need not be finite."""

    run: str
    metric: str
    epochs: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def finite(self) -> list[tuple[int, float]]:
        """The points that can be drawn."""
        pairs = zip(self.epochs, self.values, strict=True)
        return [(epoch, value) for epoch, value in pairs if math.isfinite(value)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui plot` takes."""
    parser.add_argument(
        "words", nargs="+", metavar="RUN|METRIC", help="runs, then columns of results.csv or parts of them"
    )
    parser.add_argument("--csv", action="store_true", help="the points as CSV: run, metric, epoch, value")
    common.add_reader(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one chart a metric, with a curve a run."""
    found = curves(*divided(arguments.words))
    if arguments.json:
        common.emit({"curves": [vars(curve) for curve in found]})
    elif arguments.csv:
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(("run", "metric", "epoch", "value"))
        for curve in found:
            pairs = zip(curve.epochs, curve.values, strict=True)
            table.writerows((printable(curve.run), printable(curve.metric), *pair) for pair in pairs)
    else:
        for metric in dict.fromkeys(curve.metric for curve in found):
            same = [curve for curve in found if curve.metric == metric]
            print(draw(metric, [(curve.run, curve.finite) for curve in same], plain=arguments.ascii))
    return 0


def divided(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the runs and the metrics among `words`. Raises UserError where one of the two is missing."""
    runs = [Path(word) for word in words if RunLayout(Path(word)).looks_like_run()]
    metrics = [word for word in words if Path(word) not in runs]
    if not runs:
        raise UserError(f"{words[0]}: no run lies there; give a run directory, then metrics", USAGE)
    if not metrics:
        raise UserError(f"which metric of {runs[0]}? e.g. nantui plot {runs[0]} mAP50-95 val/box_loss", USAGE)
    return runs, metrics


def curves(runs: Sequence[Path], metrics: Sequence[str]) -> list[Curve]:
    """Return each metric of each run that has it. Raises UserError for a metric that no run has."""
    rows = {path: read_run(path).epochs for path in runs}
    columns = dict.fromkeys(name for epochs in rows.values() for row in epochs for name in row.values)
    found = []
    for name in dict.fromkeys(column for asked in metrics for column in matching(asked, columns)):
        for path, epochs in rows.items():
            points = [(row.epoch, row.values[name]) for row in epochs if name in row.values]
            if points:
                found.append(Curve(str(path), name, *zip(*points, strict=True)))
    return found


def matching(asked: str, columns: Mapping[str, object]) -> list[str]:
    """Return the columns that `asked` means: that one, else those named so after their "/", else those that
    hold it. Raises UserError, with the ones that there are, for none.
    """
    bare = {name: name.rpartition("/")[2].partition("(")[0] for name in columns}
    for fits in (
        [name for name in columns if name == asked],
        [name for name in columns if bare[name] == asked],
        [name for name in columns if asked.lower() in name.lower()],
    ):
        if fits:
            return fits
    if not columns:
        raise UserError("no epoch has been written yet, so there is no curve", NO)
    near = difflib.get_close_matches(asked, [*columns, *bare.values()], 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"no metric {asked}; {hint}there are {', '.join(columns)}", NO)


def draw(
    title: str, series: Sequence[tuple[str, Sequence[tuple[int, float]]]], *, plain: bool = False
) -> str:
    """Return a chart of `series` over the epochs, each a name and its finite points. Raises UserError where
    none has a point.
    """
    from plotext import figure

    epochs = sorted({epoch for _, points in series for epoch, _ in points})
    if not epochs:
        raise UserError(f"{title} has no finite value to draw", NO)
    figure.clear()
    figure.plot_size(min(WIDEST, shutil.get_terminal_size().columns), ROWS)
    markers = {letter: letter for letter in PLAIN_MARKERS} if plain else MARKERS
    legend = []  # above the chart: plotext's own covers the curves
    for (name, points), (marker, looks) in zip(series, cycle(markers.items())):
        if points:
            legend.append(f"{looks} {printable(name)}")
            figure.draw(figure.signal(*zip(*points, strict=True), marker=marker).lines())
    figure.title(printable(title)).label("epoch")
    figure.ruler("x").ticks(epochs[:: -(-len(epochs) // MOST_TICKS)])
    chart = str(figure.build().string(colorless=True))
    return "\n".join([*legend, chart.translate(PLAIN_BOX) if plain else chart])
