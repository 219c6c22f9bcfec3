"""A measured figure: its samples, beside them what a user would otherwise do, and what was asked for.

Every benchmark yields figures; this module tells what they say, prints them and keeps them for the page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """Samples of one thing in `unit`, and of what it stands beside, taken in turn within one run.

    `limit` is the most that the median may be; with something beside it, the most that nantui may need of
    that, or with `faster` how many times faster it must be at least. None: nobody asked for a number.
    """

    what: str
    unit: str
    ours: Sequence[float]
    limit: float | None = None
    beside: str = ""
    theirs: Sequence[float] = ()
    faster: bool = False

    @property
    def ratio(self) -> float:
        """How many times faster nantui is (`faster`), or how many times as much it needs."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        return theirs / ours if self.faster else ours / theirs

    @property
    def held(self) -> bool:
        """Tell whether what was asked for was reached."""
        if self.limit is None:
            return True
        value = self.ratio if self.theirs else statistics.median(self.ours)
        return value >= self.limit if self.faster else value <= self.limit

    def cells(self) -> tuple[str, ...]:
        """Return what it is, ours, theirs, the ratio, what was asked for."""
        beside = f"{self.beside}: {shown(self.theirs, self.unit)}" if self.theirs else ""
        ratio = f"{self.ratio:.3g}x{' faster' if self.faster else ''}" if self.theirs else ""
        unit = "x" if self.theirs else f" {self.unit}"
        asked = "" if self.limit is None else f"{'>=' if self.faster else '<='} {self.limit:g}{unit}"
        return self.what, shown(self.ours, self.unit), beside, ratio, asked + ("" if self.held else " MISSED")


HEAD = ("what", "nantui", "beside it", "ratio", "asked for")


def shown(samples: Sequence[float], unit: str) -> str:
    """Return the median, with the smallest and the largest where there are several."""
    text = digits(statistics.median(samples))
    if len(samples) > 1:
        text += f" ({digits(min(samples))} to {digits(max(samples))})"
    return f"{text} {unit}"


def digits(value: float) -> str:
    """Return three digits, without a power of ten."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def told(figures: Iterable[Figure]) -> list[Figure]:
    """Print each figure as soon as it is measured; returns all of them."""
    every = []
    for figure in figures:
        what, ours, beside, ratio, asked = figure.cells()
        print(f"{what:<44} {ours:>30}  {ratio:>13}  {asked:<16} {beside}".rstrip(), flush=True)
        every.append(figure)
    return every


def carried_out(
    parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Iterable[Figure]]
) -> int:
    """Measure, print and keep the figures; returns the exit status, 1 where one was missed."""
    parser.add_argument("--json", type=Path, help="keep the figures here")
    arguments = parser.parse_args()
    figures = told(measure(arguments))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures]), encoding="utf-8")
    return 0 if all(figure.held for figure in figures) else 1


def kept(path: Path) -> list[Figure]:
    """Return the figures that a benchmark has kept."""
    return [Figure(**document) for document in json.loads(path.read_text(encoding="utf-8"))]


def description(text: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows a module's own words."""
    form = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(Path(sys.argv[0]).name, description=text, formatter_class=form)
