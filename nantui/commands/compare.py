"""Two runs, or two attempts of a run (RUN#N): settings, curves on the same epochs, best metrics, cost."""

from __future__ import annotations

import argparse
import difflib
import math

from nantui.commands import common
from nantui.commands.plot import draw
from nantui.errors import UserError
from nantui.recovery.comparison import read_side, side_by_side
from nantui.recovery.plan_text import table
from nantui.run.documents import JsonObject
from nantui.settings.values import show_value

PLACES = frozenset({"save_dir", "project", "name", "resume", "model"})
"""Settings that say where a run lies, not what it trains."""
FOUND = frozenset({"accumulate", "images", "stride", "world_size"})
"""What a worker reports besides settings: no difference where only one side has reported."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui compare` takes."""
    parser.add_argument("a", metavar="A", help="a run, or RUN#N for attempt N of it")
    parser.add_argument("b", metavar="B", help="what to compare it with")
    parser.add_argument("--plot", metavar="CURVE", help="draw one curve of both, e.g. val/box_loss")
    common.add_reader(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the comparison."""
    found = side_by_side(read_side(arguments.a), read_side(arguments.b))
    if arguments.json:
        common.emit(found)
        return 0
    common.show(lines(found))
    if arguments.plot:
        print(plot(found, arguments.plot, plain=arguments.ascii))
    return 0


def lines(found: JsonObject) -> list[str]:
    """Return the comparison for people."""
    a, b = found["a"], found["b"]
    rows = [("", "A", "B"), ("run", a["name"], b["name"])]
    rows.append(("epochs", span(a["epochs"]), span(b["epochs"])))
    rows.append(("minutes per epoch", minutes(a["hours_per_epoch"]), minutes(b["hours_per_epoch"])))
    rows.append(("skipped steps", text(a["skipped_steps"]), text(b["skipped_steps"])))
    for name in dict.fromkeys([*a["best"], *b["best"]]):
        rows.append((f"best {name}", best(a["best"].get(name)), best(b["best"].get(name))))
    changes = [row for row in found["settings"] if row["name"] not in PLACES and not one_sided(row)]
    settings = [("setting", "A", "B"), *((row["name"], text(row["a"]), text(row["b"])) for row in changes)]
    return [
        *table(rows),
        "",
        *(table(settings) if changes else ["the same settings"]),
        "",
        *curve_table(found),
    ]


def one_sided(row: JsonObject) -> bool:
    """Tell whether a row holds what only one side's worker has reported."""
    return row["name"] in FOUND and None in (row["a"], row["b"])


def curve_table(found: JsonObject) -> list[str]:
    """Return losses and metrics at the first, middle and last epoch that both trained."""
    epochs = found["epochs"]
    if not epochs:
        return ["no epoch was trained by both"]
    at = sorted({0, len(epochs) // 2, len(epochs) - 1})
    head = ("curve", *(f"{side} epoch {epochs[i]}" for i in at for side in ("A", "B")))
    rows = [
        (name, *(f"{values[side][i]:.4g}" for i in at for side in ("a", "b")))
        for name, values in found["curves"].items()
        if not name.startswith("lr/")
    ]
    return table([head, *rows])


def plot(found: JsonObject, name: str, *, plain: bool = False) -> str:
    """Return one curve of both sides over the epochs that both trained. Raises UserError for a wrong name."""
    if name not in found["curves"]:
        near = difflib.get_close_matches(name, found["curves"], 1)
        raise UserError(
            f"no curve {name}; " + (f"did you mean {near[0]}?" if near else "see the table above")
        )
    series = []
    for side in ("a", "b"):
        pairs = zip(found["epochs"], found["curves"][name][side], strict=True)
        points = [(epoch, value) for epoch, value in pairs if math.isfinite(value)]
        series.append((f"{side.upper()}  {found[side]['name']}", points))
    return draw(name, series, plain=plain)


def span(epochs: list[int]) -> str:
    return f"{epochs[0]} to {epochs[-1]}" if epochs else "none"


def minutes(hours: float) -> str:
    return f"{hours * 60:.2f}" if math.isfinite(hours) else "not measured"


def best(found: JsonObject | None) -> str:
    return f"{found['value']:.4f} (epoch {found['epoch']})" if found else "-"


def text(value: object) -> str:
    return "-" if value is None else show_value(value)
