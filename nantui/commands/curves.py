"""What runs have recorded, to look at elsewhere: plot, compare, export."""

from __future__ import annotations

import argparse
import csv
import difflib
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from nantui.commands import common
from nantui.errors import FAILED, NO, USAGE, UserError, refused
from nantui.opened_run import FRAMES, OpenRun
from nantui.run.documents import JsonObject
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord, read_run
from nantui.settings.values import show_value
from nantui.terminal_text import printable
from nantui.words import aligned

WIDEST, ROWS = 100, 20
MOST_TICKS = 9
MARKERS = {"braille": "⢕", "dot": "•", "diamond": "◆", "square": "■", "circle": "●", "up": "▲"}
"""plotext's names of what curves are drawn with, and how that looks."""
PLAIN_BOX = str.maketrans("│─┌┐└┘├┤┬┴┼", "|-" + "+" * 9)
PLAIN_MARKERS = "abcdefgh"
PLACES = frozenset({"save_dir", "project", "name", "resume", "model"})
"""Settings that say where a run lies, not what it trains."""
FOUND = frozenset({"accumulate", "images", "stride", "world_size"})
"""What a worker reports besides settings: no difference where only one side has reported."""
EXTRA = "it is not installed; pip install 'nantui[export]'"


@dataclass(frozen=True)
class Curve:
    """One metric of one run: `epochs` from 1 and their `values`, which need not be finite."""

    run: str
    metric: str
    epochs: Sequence[int]
    values: Sequence[float]


def add_plot(parser: argparse.ArgumentParser) -> None:
    words = "runs, then columns of results.csv or parts of them"
    parser.add_argument("words", nargs="+", metavar="RUN|METRIC", help=words)
    common.add_flags(parser, csv="the points as CSV: run, metric, epoch, value")
    common.add_reader(parser)


def run_plot(arguments: argparse.Namespace) -> int:
    """Curves of one or more runs in the terminal, for a chat, a log or a pipe:
    `nantui plot RUN val/box_loss`.
    """
    found = _curves(*_divided(arguments.words))
    if arguments.json:
        common.emit({"curves": [vars(curve) for curve in found]})
    elif arguments.csv:
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow(("run", "metric", "epoch", "value"))
        for curve in found:
            names = printable(curve.run), printable(curve.metric)
            rows.writerows((*names, *pair) for pair in zip(curve.epochs, curve.values, strict=True))
    else:
        for metric in dict.fromkeys(curve.metric for curve in found):
            print(draw([curve for curve in found if curve.metric == metric], plain=arguments.ascii))
    return 0


def _divided(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    runs = [Path(word) for word in words if RunLayout(Path(word)).looks_like_run()]
    metrics = [word for word in words if Path(word) not in runs]
    if not runs:
        raise UserError(f"{words[0]}: no run lies there; give a run directory, then metrics", USAGE)
    if not metrics:
        raise UserError(f"which metric of {runs[0]}? e.g. nantui plot {runs[0]} mAP50-95 val/box_loss", USAGE)
    return runs, metrics


def _curves(runs: Sequence[Path], metrics: Sequence[str]) -> list[Curve]:
    rows = {path: _readable(read_run(path)).epochs for path in runs}
    columns = dict.fromkeys(name for epochs in rows.values() for row in epochs for name in row.values)
    found = []
    for name in dict.fromkeys(column for asked in metrics for column in matching(asked, columns)):
        for path, epochs in rows.items():
            points = [(row.epoch, row.values[name]) for row in epochs if name in row.values]
            if points:
                found.append(Curve(str(path), name, *zip(*points, strict=True)))
    return found


def _readable(record: RunRecord) -> RunRecord:
    if record.results_unread:
        path, why = record.layout.results_csv, "it is no file"
        if path.is_file():
            with refused(f"{path} cannot be read"):
                path.open().close()
            why = "no line of it is an epoch, with a number for each column"
        raise UserError(f"{path} cannot be read: {why}", FAILED)
    return record


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


def draw(curves: Sequence[Curve], *, plain: bool = False) -> str:
    """Return a chart of one metric of several runs. Raises UserError where none has a finite value."""
    from plotext import figure

    series, title = {}, curves[0].metric
    for curve in curves:
        pairs = zip(curve.epochs, curve.values, strict=True)
        series[curve.run] = [(epoch, value) for epoch, value in pairs if math.isfinite(value)]
    epochs = sorted({epoch for points in series.values() for epoch, _ in points})
    if not epochs:
        raise UserError(f"{title} has no finite value to draw", NO)
    figure.clear()
    figure.plot_size(min(WIDEST, shutil.get_terminal_size().columns), ROWS)
    markers = {letter: letter for letter in PLAIN_MARKERS} if plain else MARKERS
    legend = []  # above the chart: plotext's own covers the curves
    for (name, points), (marker, looks) in zip(series.items(), cycle(markers.items())):
        if points:
            legend.append(f"{looks} {printable(name)}")
            figure.draw(figure.signal(*zip(*points, strict=True), marker=marker).lines())
    values = {value for points in series.values() for _, value in points}
    if len(values) == 1 and (value := min(values)) >= 0:  # around it plotext would show negative ones, too
        figure.ruler("y").lim(0, 2 * value or 1)
    figure.title(printable(title)).label("epoch")
    figure.ruler("x").ticks(epochs[:: -(-len(epochs) // MOST_TICKS)])
    chart = str(figure.build().string(colorless=True))
    return "\n".join([*legend, chart.translate(PLAIN_BOX) if plain else chart])


def add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a run, or RUN#N for attempt N of it")
    parser.add_argument("b", metavar="B", help="what to compare it with")
    parser.add_argument("--plot", metavar="CURVE", help="draw one curve of both, e.g. val/box_loss")
    common.add_reader(parser)


def run_compare(arguments: argparse.Namespace) -> int:
    """Two runs, or two attempts of a run (RUN#N): settings, curves on the same epochs, best metrics, cost."""
    from nantui.recovery.comparison import read_side, side_by_side

    found = side_by_side(read_side(arguments.a), read_side(arguments.b))
    common.answer(arguments, found, _comparison(found))
    for name in matching(arguments.plot, found["curves"]) if arguments.plot and not arguments.json else ():
        print(draw(of_both(found, name), plain=arguments.ascii))
    return 0


def of_both(found: JsonObject, name: str) -> list[Curve]:
    """Return one curve of both sides over the epochs that both trained."""
    sides = {side: f"{side.upper()}  {found[side]['name']}" for side in ("a", "b")}
    return [Curve(who, name, found["epochs"], found["curves"][name][side]) for side, who in sides.items()]


def _comparison(found: JsonObject) -> list[str]:
    metrics = [*dict.fromkeys([*found["a"]["best"], *found["b"]["best"]])]
    names = ["run", "epochs", "minutes per epoch", "skipped steps", *(f"best {name}" for name in metrics)]
    sides = zip(names, _side(found["a"], metrics), _side(found["b"], metrics), strict=True)
    settings = [("setting", "A", "B")]
    for row in found["settings"]:
        if row["name"] not in PLACES and not (row["name"] in FOUND and None in (row["a"], row["b"])):
            settings.append((row["name"], _text(row["a"]), _text(row["b"])))
    differ = aligned(settings) if len(settings) > 1 else ["the same settings"]
    return [*aligned([("", "A", "B"), *sides]), "", *differ, "", *_curve_table(found)]


def _side(found: JsonObject, metrics: Sequence[str]) -> Iterator[str]:
    epochs, hours = found["epochs"], found["hours_per_epoch"]
    yield found["name"]
    yield f"{epochs[0]} to {epochs[-1]}" if epochs else "none"
    yield f"{hours * 60:.2f}" if math.isfinite(hours) else "not measured"
    yield _text(found["skipped_steps"])
    for best in map(found["best"].get, metrics):
        yield f"{best['value']:.4f} (epoch {best['epoch']})" if best else "-"


def _curve_table(found: JsonObject) -> list[str]:
    epochs = found["epochs"]
    if not epochs:
        return ["no epoch was trained by both"]
    at = sorted({0, len(epochs) // 2, len(epochs) - 1})
    head = ("curve", *(f"{side} epoch {epochs[i]}" for i in at for side in ("A", "B")))
    curves = {name: sides for name, sides in found["curves"].items() if not name.startswith("lr/")}
    rows = [(name, *(f"{sides[side][i]:.4g}" for i in at for side in "ab")) for name, sides in curves.items()]
    return aligned([head, *rows])


def _text(value: object) -> str:
    return "-" if value is None else show_value(value)


def add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="the run")
    parser.add_argument("--to", choices=sorted([*FORMATS, "tensorboard"]), required=True, help="the format")
    out = "a new or empty directory, default: RUN's name + -export here"
    parser.add_argument("--out", type=Path, metavar="DIR", help=out)
    common.add_reader(parser)


def run_export(arguments: argparse.Namespace) -> int:
    """A run's epochs, steps, incidents and checkpoints as files: CSV, Parquet, JSON or TensorBoard events."""
    opened = OpenRun(arguments.run)
    out = arguments.out or Path(f"{opened.name}-export")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; choose another --out DIR", FAILED)
    with refused(f"cannot write to {out}", "choose another --out DIR"):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".nantui-export-") as folder:
            _write(opened, arguments.to, Path(folder))
            written = sorted(Path(folder).iterdir())
            out.mkdir(exist_ok=True)
            for path in written:
                path.replace(out / path.name)
    files = [str(out / path.name) for path in written]
    common.answer(arguments, {"files": files}, files)
    return 0


FORMATS: dict[str, dict[str, Any]] = {
    "csv": {"index": False},
    "json": {"orient": "records", "indent": 1},
    "parquet": {"index": False, "engine": "pyarrow"},
}
"""What pandas' `to_csv`, `to_json`, `to_parquet` are told."""


def _write(opened: OpenRun, form: str, folder: Path) -> None:
    try:
        if form == "tensorboard":
            _write_events(opened, folder)
            return
        for name in FRAMES:
            frame = getattr(opened, name)()
            getattr(frame, f"to_{form}")(folder / f"{name}.{form}", **FORMATS[form])
    except ImportError:
        needs = "Parquet needs pyarrow" if form == "parquet" else "TensorBoard's events need tensorboardX"
        raise UserError(f"{needs}: {EXTRA}", FAILED) from None


def _write_events(opened: OpenRun, folder: Path) -> None:
    from tensorboardX import SummaryWriter

    def add(name: str, value: float, step: int, wall_s: float | None = None) -> None:
        if math.isfinite(value):
            writer.add_scalar(name, value, step, walltime=wall_s)

    writer: Any
    with SummaryWriter(str(folder)) as writer:
        epochs = opened.epochs()
        for row in epochs.to_dict("records"):
            for name in epochs.columns[3:]:
                add(name, row[name], int(row["epoch"]))
        steps = opened.steps()
        losses = [name for name in steps.columns if name.endswith("loss")]
        for number, row in enumerate(steps.to_dict("records"), start=1):
            for name in (*losses, "grad_norm", "lr", "step_s"):
                add(f"step/{name}", row[name], number, row["t"])
