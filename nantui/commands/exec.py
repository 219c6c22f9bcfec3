"""Run your own training script, unchanged, detached, with guard and telemetry."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from nantui.commands import common, wait
from nantui.errors import FAILED, UserError
from nantui.run.binding import bind_run
from nantui.run.commands import Command
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, kept_environment, write_spec
from nantui.supervisor.client import submit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui exec` takes."""
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- python train.py …", help="the command"
    )
    parser.add_argument("--run", type=Path, metavar="DIR", help="the run directory (default: runs/exec/NAME)")
    parser.add_argument("--auto", action="store_true", help="let the ladder recover the run unattended")
    wait.add_wait(parser)
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Record the command, make the run directory, start it under a supervisor."""
    common.refuse_read_only(arguments)
    argv = resolved(arguments.command)
    where = run_directory(arguments.run, argv)
    if arguments.dry_run:
        common.say(f"would run {' '.join(argv)} as {where}")
        return 0
    layout = new_run(where, argv, arguments.auto)
    submit(layout.run, Command("start", {"cwd": os.getcwd()}))
    print(layout.run)
    common.say(f"running, detached; watch it with: nantui {layout.run}")
    return wait.foreground(layout.run) if arguments.wait else 0


def resolved(words: list[str]) -> list[str]:
    """Return the command to record, its program as a full path. Raises UserError when there is none."""
    argv = words[1:] if words[:1] == ["--"] else words
    if not argv:
        raise UserError("what to run? nantui exec -- python train.py …")
    program = shutil.which(argv[0])
    if program is None:
        raise UserError(f"{argv[0]}: no such program; give it as you would in the shell")
    return [os.path.abspath(program), *argv[1:]]


def run_directory(wanted: Path | None, argv: list[str]) -> Path:
    """Return the directory of the run: as asked, else the first free runs/exec/NAME."""
    if wanted is not None:
        if wanted.exists():
            raise UserError(f"{wanted} exists already and is never overwritten; choose another --run", FAILED)
        return wanted
    script = next((word for word in argv[1:] if word.endswith(".py")), argv[0])
    base = Path("runs/exec") / Path(script).stem
    return next(
        path for n in range(1, 10000) if not (path := base if n == 1 else Path(f"{base}-{n}")).exists()
    )


def new_run(where: Path, argv: list[str], auto: bool) -> RunLayout:
    """Make the run directory with its spec. Raises UserError when it cannot be made."""
    try:
        where.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot make {where}: {error.strerror}; choose another --run", FAILED) from None
    layout = RunLayout(where.resolve())
    command = {"argv": argv, "cwd": os.getcwd(), "env": kept_environment()}
    spec = Spec(train={}, python=sys.executable, auto=auto, kind="exec", created=time.time(), exec=command)
    write_spec(layout.spec, spec)
    bind_run(layout.run)
    return layout
