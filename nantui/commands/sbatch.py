"""Write a Slurm job for a run, and submit it with --submit; after a requeue the run goes on by itself.

`nantui sbatch model=… data=… --slurm time=8:00:00` makes a run and its job; `nantui sbatch RUN` the job of a
run that is there. Before its time is over, or preempted, the job leaves a point and is queued again.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from nantui.commands import common, train
from nantui.entry_points import command_line
from nantui.errors import FAILED, UserError
from nantui.run.atomic_files import write_atomic
from nantui.run.discovery import require_run
from nantui.run.layout import RunLayout
from nantui.run.spec import read_spec
from nantui.supervisor.config import load_config
from nantui.terminal_text import is_printable

TEMPLATE, JOB, LOG = "slurm.sh", "job.sh", "slurm-%j.log"
GRACE_S, BESIDE_S = 120, 10
"""How long before its end Slurm signals a job, and what this takes beside the run's own grace time."""
OPTION = re.compile(r"[a-z][a-z-]*(=[^\s\"'\\#]+)?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui sbatch` takes."""
    train.add_training(parser)
    told = f"told S seconds before its end, default: {GRACE_S}"
    parser.add_argument(
        "--slurm", action="append", default=[], metavar="NAME=VALUE", help="an option of sbatch: time=8:00:00"
    )
    parser.add_argument("--grace", type=int, default=GRACE_S, metavar="S", help=told)
    parser.add_argument("--submit", action="store_true", help="submit it, too")
    parser.add_argument("--dry-run", action="store_true", help="show the job; make and submit nothing")


def run(arguments: argparse.Namespace) -> int:
    """Check everything, make the run where none is named, write its job, submit it where asked for."""
    common.refuse_read_only(arguments)
    refuse(arguments)
    if any("=" not in word for word in arguments.settings):
        if len(arguments.settings) > 1 or arguments.nnodes > 1:
            raise UserError("nantui sbatch RUN has the settings and nodes of RUN: leave the others out")
        layout = require_run(Path(arguments.settings[0]))
    else:
        layout = RunLayout(train.make_run(arguments, start=False))
    text = job_script(layout, arguments)
    if arguments.dry_run:
        print(text, end="")
        return 0
    job = layout.home / JOB
    write_atomic(job, text)
    if not arguments.submit:
        common.say(f"submit it with: sbatch {shlex.quote(str(job))}")
        return 0
    done = subprocess.run(["sbatch", str(job)], capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip() or "without a word").splitlines()[-1]
        raise UserError(f"{why}; the job is {job}: sbatch it again, or nantui sbatch {layout.run}", FAILED)
    common.say(f"{done.stdout.strip()}; watch it with: nantui {layout.run}")
    return 0


def refuse(arguments: argparse.Namespace) -> None:
    """Raise UserError for what cannot become a job, before anything is made."""
    shortest = load_config().patience.grace_s + BESIDE_S
    if arguments.grace < shortest:
        why = f"for a run to save and end (grace_s of supervise.yaml, and {BESIDE_S} s)"
        raise UserError(f"--grace {arguments.grace}: give at least {shortest:g} s, {why}")
    for option in arguments.slurm:
        if not OPTION.fullmatch(option):
            raise UserError(f"--slurm {option}: expects an option of sbatch as NAME=VALUE, e.g. time=8:00:00")
    if arguments.submit and shutil.which("sbatch") is None:
        raise UserError("sbatch is not on the path here: leave --submit out, and submit where it is", FAILED)


def job_script(layout: RunLayout, arguments: argparse.Namespace) -> str:
    """Return the job, for sbatch. Raises UserError for a path that would break its lines."""
    if not is_printable(str(layout.run)):
        raise UserError(f"{layout.run}: its path has characters that no job can hold", FAILED)
    spec = read_spec(layout.spec)
    folder = re.sub(r'(["\\])', r"\\\1", str(layout.home)).replace("%", "%%")
    nodes, name = spec.nnodes if spec else arguments.nnodes, re.sub(r"[^a-zA-Z0-9_.-]", "_", layout.run.name)
    # The last word counts: without ours a run would not find its way back.
    options = [f"job-name={name}", *arguments.slurm, f"nodes={nodes}", "ntasks-per-node=1", "requeue"]
    options += [f"signal=B:USR1@{arguments.grace}", "open-mode=append", f'output="{folder}/{LOG}"']
    lines = "\n".join(f"#SBATCH --{option}" for option in options)
    words = {"OPTIONS": lines, "RUN": shlex.quote(str(layout.run)), "NANTUI": shlex.join(command_line())}
    return common.filled(TEMPLATE, words)
