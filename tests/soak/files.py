"""Files of a run that are cut off, mixed up or enormous: whoever reads them gets an answer, soon."""

from __future__ import annotations

import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

from nantui.errors import UserError
from nantui.recovery.comparison import read_side
from nantui.recovery.plan import make_plan
from nantui.run.growing_files import LineFollower
from nantui.run.spec import read_args, read_spec
from nantui.supervisor.foreign import read_progress
from nantui.supervisor.outcome import last_message
from nantui.supervisor.status import read_status
from nantui.ui.model.run_reader import RunReader
from nantui.ui.model.timeline import sentences
from tests.soak.harness import Kind, time_limit
from tests.soak.worlds import world
from tests.ui.synthetic import make_run

SOON_S = 20
GIGABYTE = 1 << 30
MOST_MEMORY_GB = 0.25
LAST_LINE = "RuntimeError: CUDA out of memory\n"


def damage(path: Path, dice: random.Random) -> None:
    """Cut it off, mix its lines, put noise in, or put something else in its place."""
    data = path.read_bytes()
    at, end = sorted((dice.randrange(len(data) + 1), dice.randrange(len(data) + 1)))
    lines = data.splitlines(keepends=True)
    how = dice.randrange(8)
    if how == 0:
        path.write_bytes(data[:at])
    elif how == 1:
        path.write_bytes(data[:at] + data[end:])
    elif how == 2:
        path.write_bytes(data[:end] + data[at:])
    elif how == 3:
        dice.shuffle(lines)
        path.write_bytes(b"".join(lines))
    elif how == 4:
        pieces = [piece for line in lines for piece in (line[: len(line) // 2], line[len(line) // 2 :])]
        dice.shuffle(pieces)
        path.write_bytes(b"".join(pieces))
    elif how == 5:
        path.write_bytes(data[:at] + dice.randbytes(dice.randrange(64)) + data[at:])
    elif how == 6:
        path.write_bytes(data[:at] + b"\0" * dice.choice((1, 4096)) + data[at:])
    else:
        path.unlink()
        replace_by_something_odd(path, dice)


def replace_by_something_odd(path: Path, dice: random.Random) -> None:
    how = dice.randrange(4)
    if how == 0:
        os.mkfifo(path)
    elif how == 1:
        path.symlink_to(path)
    elif how == 2:
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")


def readers(run: Path) -> list[Callable[[], object]]:
    """Return everything that looks at a run without changing it."""
    from nantui.diagnosis.causes import diagnose
    from nantui.run.layout import RunLayout

    layout = RunLayout(run)

    def snapshot() -> None:
        reader = RunReader(run, read_status)
        for _ in range(2):
            taken = reader.read()
            sentences(taken.journal, taken.events)

    return [
        lambda: read_status(run).to_json(),
        snapshot,
        lambda: read_args(layout.args_yaml),
        lambda: read_spec(layout.spec),
        lambda: diagnose(run).to_json(),
        lambda: make_plan(run),
        lambda: read_side(str(run)),
        lambda: last_message(layout.attempt_log(1)),
    ]


def damaged_files(folder: Path, dice: random.Random) -> None:
    """Every reader answers, or refuses in one line; no checkpoint is touched."""
    with world(folder):
        run = make_run(folder / "runs" / "demo", nan_from=dice.choice((None, 6)))
        weights = {path: path.read_bytes() for path in (run / "weights").glob("*.pt")}
        texts = [path for path in run.rglob("*") if path.is_file() and path not in weights]
        for path in dice.sample(texts, dice.randrange(1, 4)):
            damage(path, dice)
        for read in readers(run):
            with time_limit(SOON_S):
                try:
                    read()
                except UserError as error:
                    assert "\n" not in str(error), error
        assert weights == {path: path.read_bytes() for path in (run / "weights").glob("*.pt")}


def log_of_gigabytes(folder: Path, dice: random.Random) -> None:
    """A log, telemetry and a journal with holes of gigabytes: read from the end, within memory and time."""
    with world(folder):
        run = make_run(folder / "runs" / "demo")
        from nantui.run.layout import RunLayout

        layout = RunLayout(run)
        size = dice.randrange(2, 64) * GIGABYTE
        with layout.attempt_log(1).open("ab") as file:
            file.truncate(size)
            file.seek(size)
            file.write(("\n" + LAST_LINE).encode())
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        assert last_message(layout.attempt_log(1)) == LAST_LINE.strip()
        read_progress(layout.attempt_log(1))
        assert LineFollower(layout.attempt_log(1), tail_bytes=1 << 16).read().lines[-1] == LAST_LINE.strip()
        read_status(run)
        RunReader(run, read_status).read()
        grown_gb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
        assert grown_gb < MOST_MEMORY_GB and time.monotonic() - begun < SOON_S, grown_gb


KINDS = (
    Kind("damaged files", "cut off, interleaved, noise, pipes and loops in their place", damaged_files, 5000),
    Kind("log of gigabytes", "2 to 64 GB, sparse", log_of_gigabytes, 20, 0.2),
)
