"""A run's epochs, steps, incidents and checkpoints as files: CSV, Parquet, JSON or TensorBoard events."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nantui.commands import common
from nantui.errors import FAILED, UserError
from nantui.opened_run import FRAMES, OpenRun

if TYPE_CHECKING:
    from pandas import DataFrame

EXTRA = "it is not installed; pip install 'nantui[export]'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui export` takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the run")
    parser.add_argument("--to", choices=sorted(WRITERS), required=True, help="the format")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="a new or empty directory, default: RUN's name + -export here"
    )
    common.add_reader(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the files and name them."""
    opened = OpenRun(arguments.run)
    out = arguments.out or Path(f"{opened.name}-export")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"{out} exists and is not empty; nothing was written, choose another --out DIR", FAILED
        )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".nantui-export-") as folder:
            written = WRITERS[arguments.to](opened, Path(folder))
            out.mkdir(exist_ok=True)
            for path in written:
                path.replace(out / path.name)
    except OSError as error:
        raise UserError(
            f"cannot write to {out}: {error.strerror}; choose another --out DIR", FAILED
        ) from None
    files = [str(out / path.name) for path in written]
    if arguments.json:
        common.emit({"files": files})
    else:
        print("\n".join(files))
    return 0


def each(suffix: str, write: Callable[[DataFrame, Path], object]) -> Callable[[OpenRun, Path], list[Path]]:
    """Return a writer that makes a file of each frame."""

    def writer(opened: OpenRun, folder: Path) -> list[Path]:
        paths = []
        for name in FRAMES:
            paths.append(folder / f"{name}.{suffix}")
            write(getattr(opened, name)(), paths[-1])
        return paths

    return writer


def parquet(table: DataFrame, path: Path) -> None:
    """Write one frame as Parquet. Raises UserError without pyarrow."""
    try:
        table.to_parquet(path, index=False, engine="pyarrow")
    except ImportError:
        raise UserError(f"Parquet needs pyarrow: {EXTRA}", FAILED) from None


def tensorboard(opened: OpenRun, folder: Path) -> list[Path]:
    """Write the epochs' columns and the steps' losses as TensorBoard events. Raises UserError without it."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError(f"TensorBoard's events need tensorboardX: {EXTRA}", FAILED) from None
    with SummaryWriter(str(folder)) as writer:
        epochs = opened.epochs()
        for row in epochs.to_dict("records"):
            for name in epochs.columns[3:]:
                _scalar(writer, name, row[name], int(row["epoch"]))
        steps = opened.steps()
        losses = [name for name in steps.columns if name.endswith("loss")]
        for number, row in enumerate(steps.to_dict("records"), start=1):
            for name in (*losses, "grad_norm", "lr", "step_s"):
                _scalar(writer, f"step/{name}", row[name], number, row["t"])
    return sorted(folder.iterdir())


def _scalar(writer: object, name: str, value: float, step: int, wall_s: float | None = None) -> None:
    if math.isfinite(value):
        writer.add_scalar(name, value, step, walltime=wall_s)  # type: ignore[attr-defined]


WRITERS: dict[str, Callable[[OpenRun, Path], list[Path]]] = {
    "csv": each("csv", lambda table, path: table.to_csv(path, index=False)),
    "json": each("json", lambda table, path: table.to_json(path, orient="records", indent=1)),
    "parquet": each("parquet", parquet),
    "tensorboard": tensorboard,
}
