"""The commands that start a run under a supervisor that outlives this terminal: train, exec, sbatch."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nantui.commands import cockpit, common
from nantui.commands.watching import foreground
from nantui.entry_points import command_line
from nantui.errors import FAILED, UserError, refused
from nantui.machine.gpus import WAITED_FOR, Sampler, chosen, device_count, has_bf16, uses_no_gpu
from nantui.recovery.run_facts import classes_of, gpus_of
from nantui.run.atomic_files import write_atomic
from nantui.run.binding import begin_records, bind
from nantui.run.commands import Command
from nantui.run.endings import each_remedy
from nantui.run.layout import RunLayout, require_run
from nantui.run.plan import PlanPhase, new_plan
from nantui.run.spec import Spec, divided, kept_environment, read_spec, with_settings, write_spec
from nantui.settings.lint import Known, lint
from nantui.settings.presets import apply_all, find_presets, load_yaml, read_phases
from nantui.settings.schema import Schema
from nantui.settings.values import changed, show_value
from nantui.supervisor.client import check_arguments, create_run, settings_as_now, submit
from nantui.supervisor.config import load_config
from nantui.supervisor.gpu_admission import ensure_gpu_memory, gpu_shortages
from nantui.supervisor.hosts.endpoint import open_endpoint
from nantui.terminal_text import is_printable

MOST_HOSTS = 64
TEMPLATE, JOB, LOG = "slurm.sh", "job.sh", "slurm-%j.log"
GRACE_S, BESIDE_S = 120, 10
"""How long before its end Slurm signals a job, and what this takes beside the run's own grace time."""
OPTION = re.compile(r"[a-z][a-z-]*(=[^\s\"'\\#]+)?")


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui train` takes."""
    _add_training(parser)
    common.add_flags(parser, "wait_gpu", "wait", watch="open the cockpit on it")
    common.add_changer(parser, asks=False)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("settings", nargs="*", metavar="key=value", help="as in the yolo command")
    add_asked(parser)
    parser.add_argument("--nnodes", type=int, default=1, metavar="N", help="hosts that train together")
    parser.add_argument("--endpoint", default="", metavar="HOST:PORT", help="where the hosts' ranks meet")


def add_asked(parser: argparse.ArgumentParser) -> None:
    """Add what says, beside its settings, what a run is to be."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as YAML; words on the line win")
    common.add_list(parser, "--preset", "NAME", "apply remedies")
    plan = "train in phases: a plan's YAML file, or `progressive`"
    parser.add_argument("--plan", metavar="FILE", help=plan)
    common.add_flags(parser, "auto")


@dataclass(frozen=True)
class Asked:
    """What a run is asked to be: its `own` settings, and these with the first of the plan's phases over them
    (`first`), apart as Ultralytics' (`train`) and nantui's (`ours`).
    """

    own: dict[str, object]
    phases: Sequence[PlanPhase]
    first: dict[str, object]
    train: dict[str, object]
    ours: dict[str, object]

    def plan(self, name: str, schema: Schema, resolved: Mapping[str, object]) -> dict[str, object]:
        """Return the plan `name`, which has phases, for the spec, paths as Ultralytics `resolved` them."""
        train, ours = divided(self.own)
        first = self.phases[0].settings
        base = {name: value for name, value in {**train, **resolved}.items() if name not in first}
        return new_plan(name, self.phases, {**base, **{k: v for k, v in train.items() if k in first}}, ours)


def ask(settings: Mapping[str, object], arguments: argparse.Namespace, schema: Schema) -> Asked:
    """Return the settings with presets and plan applied. Raises UserError for what cannot be trained."""
    presets = find_presets(arguments.preset, schema)
    # Each is a bound on what the run would have otherwise.
    own = {**settings, **changed(apply_all(presets, {**schema.defaults(), **settings}, schema.fields))}
    phases = read_phases(arguments.plan, schema) if arguments.plan else []
    first = {**own, **(phases[0].settings if phases else {})}
    train, ours = divided(first)
    if not train.get("model") or not train.get("data"):
        raise UserError("what to train? say model=yolov8n.pt data=path/to/data.yaml [key=value…]")
    return Asked(own, phases, first, train, ours)


def run_train(arguments: argparse.Namespace) -> int:
    """Start a run under a supervisor that outlives this terminal, and return."""
    common.refuse_read_only(arguments)
    if arguments.wait and arguments.watch:
        raise UserError("--wait and --watch both stay in this terminal: choose one")
    where = make_run(arguments)
    if arguments.dry_run:
        return 0
    common.say(f"training, detached; watch it with: {common.look_at(where)}")
    if arguments.nnodes > 1:
        common.say(f"waiting for its hosts; on each other host: nantui join {where}")
    if arguments.watch:
        arguments.directory = where
        return cockpit.run(arguments)
    return foreground(where) if arguments.wait else 0


def make_run(arguments: argparse.Namespace, *, start: bool = True) -> Path:
    """Return the run that is asked for, made and started; a dry run makes none. Raises UserError.

    One that is to `start` later, in a job, may ask for devices that are not here.
    """
    schema = Schema.load(arguments.python)
    words = take_hosts(arguments)
    config = read_config(arguments.config, schema, arguments.python)
    asked = ask({**config, **schema.parse_assignments(words)}, arguments, schema)
    train = asked.train
    told = [*_in_phases(asked.phases, asked.own), *remarks(schema, asked.first)]
    elsewhere = {} if start else {"device": train.pop("device", None)}
    if arguments.nnodes > 1:
        refuse_alone(train, elsewhere)
    if arguments.dry_run:
        where = Path(str(check_arguments(train, python=arguments.python)["save_dir"]))
        unattended = [f"unattended, {line}" for line in each_remedy()] if arguments.auto else []
        common.say("\n".join([f"would train in {where}", *told, *unattended]))
        return where
    device = train.get("device")
    if start and not arguments.wait_gpu and not uses_no_gpu(device):
        with common.said_if_slow(WAITED_FOR):
            gpus = chosen(Sampler().sample().gpus, device)
        ensure_gpu_memory(lambda: gpu_shortages(gpus, None, train), wait_for_it=False)
    if start and arguments.nnodes > 1:
        # Tried before anything is made; the supervisor opens it again when it waits.
        open_endpoint(arguments.endpoint)[0].close()
    where = create_run(
        train, asked.ours, python=arguments.python, auto=arguments.auto, start=start,
        options=common.given(arguments, "wait_gpu") if start else None,
        plan=partial(asked.plan, arguments.plan, schema) if asked.phases else None, nnodes=arguments.nnodes,
        endpoint=arguments.endpoint if arguments.nnodes > 1 else "",
    )  # fmt: skip
    if elsewhere.get("device") and (spec := read_spec(RunLayout(where).spec)):
        write_spec(RunLayout(where).spec, with_settings(spec, elsewhere))
    print(where)
    for line in told:
        common.say(line)
    return where


def remarks(schema: Schema, asked: Mapping[str, object]) -> list[str]:
    """Return what lint says of the settings asked for by name; defaults are nobody's mistake."""
    device = asked.get("device")
    known = Known(
        classes=classes_of(asked.get("data")), devices=device_count(device),
        on_gpu=False if uses_no_gpu(device) else None,
        bf16=has_bf16(gpus_of(device)) if "amp" in asked else None,
    )  # fmt: skip
    about = {*asked, *(("optimizer",) if {"lr0", "momentum"} & set(asked) else ())}
    found = lint({**schema.defaults(), **asked}, known)
    return [f"{finding.severity}: {finding.text}" for finding in found if finding.name in about]


def _in_phases(phases: Sequence[PlanPhase], own: Mapping[str, object]) -> list[str]:
    """Return a line for each phase, and one for what was asked and every phase sets otherwise."""
    lines = []
    for number, phase in enumerate(phases, 1):
        settings = ", ".join(f"{name}={show_value(value)}" for name, value in phase.settings.items())
        lines.append(f"phase {number} of {len(phases)}: {phase.title or 'no title'} ({settings})")
    unused = [name for name in own if phases and all(name in phase.settings for phase in phases)]
    return [*lines, *([f"the plan sets {', '.join(unused)} in every phase"] if unused else [])]


def take_hosts(arguments: argparse.Namespace) -> list[str]:
    """Take `nnodes=` and `endpoint=` out of the words on the line, as they are no settings of a training.

    Returns the other words. Raises UserError for a number of hosts that is none.
    """
    rest = []
    for word in arguments.settings:
        name, _, value = word.partition("=")
        if name == "endpoint":
            arguments.endpoint = value
        elif name == "nnodes" and value.isdigit():
            arguments.nnodes = int(value)
        else:
            rest.append(word)
    if not 1 <= arguments.nnodes <= MOST_HOSTS:
        raise UserError(f"nnodes={arguments.nnodes}: expects a number of hosts from 1 to {MOST_HOSTS}")
    return rest


def refuse_alone(train: dict[str, object], elsewhere: Mapping[str, object]) -> None:
    """Raise UserError for what only one host can do; without a device, the first GPU or the CPU is meant."""
    batch = train.get("batch", 16)
    if not isinstance(batch, int) or batch < 1:
        raise UserError(f"batch={batch}: hosts cannot each find one; give that of all ranks together")
    if elsewhere and not elsewhere["device"]:
        raise UserError("several nodes: say device=, those of each node")
    if not (elsewhere or train.get("device")):
        with common.said_if_slow("the GPU driver has not answered yet; with device= it is not asked"):
            train["device"] = "0" if Sampler().sample(within_s=None).gpus else "cpu"  # however long it takes


def read_config(path: Path | None, schema: Schema, python: str | None = None) -> dict[str, object]:
    """Return the settings of a YAML file, also of another run's args.yaml, which may be of an older release.

    Raises UserError for what is no mapping of known settings.
    """
    if path is None:
        return {}
    document = load_yaml(path, dict, "--config wants a YAML mapping, e.g. 'lr0: 0.003'")
    try:
        return schema.check(document)
    except UserError as refused:
        if all(name in schema.fields and value is not None for name, value in document.items()):
            raise refused
    settings, notes = settings_as_now(document, python=python)
    for note in notes:
        common.say(note)
    return schema.check(settings)


def add_exec(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui exec` takes."""
    script = "-- python train.py …"
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar=script, help="the command")
    parser.add_argument("--run", type=Path, metavar="DIR", help="the run directory (default: runs/exec/NAME)")
    common.add_flags(parser, "auto", "wait")
    common.add_changer(parser, asks=False)


def run_exec(arguments: argparse.Namespace) -> int:
    """Run your own training script, unchanged, detached, with guard and telemetry."""
    common.refuse_read_only(arguments)
    argv = resolved(arguments.command)
    where = run_directory(arguments.run, argv)
    if arguments.dry_run:
        common.say(f"would run {' '.join(argv)} as {where}")
        return 0
    layout = new_run(where, argv, arguments.auto)
    submit(layout.run, Command("start", {"cwd": os.getcwd()}))
    print(layout.run)
    common.say(f"running, detached; watch it with: {common.look_at(layout.run)}")
    return foreground(layout.run) if arguments.wait else 0


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
    places = (base if number == 1 else Path(f"{base}-{number}") for number in range(1, 10000))
    return next(place for place in places if not place.exists())


def new_run(where: Path, argv: list[str], auto: bool) -> RunLayout:
    """Make the run directory with its spec. Raises UserError when it cannot be made."""
    load_config()
    begin_records()
    with refused(f"cannot make {where}", "choose another --run"):
        where.mkdir(parents=True)
    layout = RunLayout(where.resolve())
    command = {"argv": argv, "cwd": os.getcwd(), "env": kept_environment()}
    spec = Spec(train={}, python=sys.executable, auto=auto, kind="exec", created=time.time(), exec=command)
    write_spec(layout.spec, spec)
    bind(layout.run)
    return layout


def add_sbatch(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui sbatch` takes."""
    _add_training(parser)
    option = "an option of sbatch: time=8:00:00"
    parser.add_argument("--slurm", action="append", default=[], metavar="NAME=VALUE", help=option)
    told = f"told S seconds before its end, default: {GRACE_S}"
    parser.add_argument("--grace", type=int, default=GRACE_S, metavar="S", help=told)
    common.add_flags(parser, submit="submit it, too", dry_run="show the job; make and submit nothing")


def run_sbatch(arguments: argparse.Namespace) -> int:
    """Write a Slurm job for a run, and submit it with --submit; after a requeue the run goes on by itself.

    `nantui sbatch model=… data=… --slurm time=8:00:00` makes a run and its job; `nantui sbatch RUN` the job
    of a run that is there. Before its time is over, or preempted, the job leaves a point and is queued again.
    """
    common.refuse_read_only(arguments)
    _refuse_job(arguments)
    if any("=" not in word for word in arguments.settings):
        if len(arguments.settings) > 1 or arguments.nnodes > 1:
            raise UserError("nantui sbatch RUN has the settings and nodes of RUN: leave the others out")
        layout = require_run(Path(arguments.settings[0]))
    else:
        layout = RunLayout(make_run(arguments, start=False))
    text = _job_script(layout, arguments)
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
    common.say(f"{done.stdout.strip()}; watch it with: {common.look_at(layout.run)}")
    return 0


def _refuse_job(arguments: argparse.Namespace) -> None:
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


def _job_script(layout: RunLayout, arguments: argparse.Namespace) -> str:
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
