"""What is installed, which GPUs and Ultralytics hooks are there, and what the system may do to a training."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from importlib import metadata

from nantui.commands import common
from nantui.errors import NO, UserError
from nantui.machine import training_python as training
from nantui.machine.gpus import SILENT, WAITED_FOR, Sampler
from nantui.settings.guard_requirements import lacking_for_points, read_hooks
from nantui.settings.schema import find_ultralytics, read_version
from nantui.supervisor.config import load_config
from nantui.supervisor.host_checks import BAD, OK, WARN, Check, check_host
from nantui.supervisor.notify.outbox import all_ways
from nantui.version import __version__
from nantui.words import count

LIBRARIES = (*training.LIBRARIES, "textual", "numpy", "psutil", "nvidia-ml-py")
TESTED_WITH = "8.4.190"
TESTED = ("detect", "segment", "pose", "obb", "classify", "semantic", "depth", "RT-DETR")
STAND_IN = ("World", "YOLOE")
"""Trained in the tests with a stand-in for their text model, which Ultralytics downloads."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_directory(parser, "where runs lie")
    common.add_reader(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print every check; exit status 1 when something will not work."""
    directory = common.existing(arguments.directory).resolve()
    checks = [*versions(arguments.python), *_gpus(), *hooks(arguments.python)]
    checks += [*tasks(arguments.python), _colours(), *check_host(directory), _configuration()]
    lines = []
    for check in checks:
        lines.append(f"{check.verdict:<5} {check.name:<14} {check.text}")
        lines += [f"{'':<21}-> {check.do}"] if check.do else []
    common.answer(arguments, {"checks": [vars(check) for check in checks]}, lines)
    return NO if any(check.verdict == BAD for check in checks) else 0


def versions(python: str | None) -> Iterator[Check]:
    """Yield what is installed beside nantui, and which interpreter trains."""
    yield Check("nantui", OK, f"{__version__}, Python {sys.version.split()[0]} ({sys.executable})")
    elsewhere = True
    try:
        path, where = (python, "--python") if python else training.find_training_python()
        elsewhere = path != sys.executable
        yield Check("trains with", OK, f"{path} ({where})")
    except UserError as error:
        yield Check("trains with", BAD, str(error))
    for name in LIBRARIES:
        try:
            yield Check(name, OK, metadata.version(name))
        except metadata.PackageNotFoundError:
            verdict = OK if elsewhere and name in training.LIBRARIES else WARN
            do = "" if verdict == OK else f"pip install {name}"
            yield Check(name, verdict, "not in nantui's own environment", do)


def _gpus() -> Iterator[Check]:
    with common.said_if_slow(WAITED_FOR):
        sample = Sampler().sample()
    if not sample.gpus:
        do = "see whether nvidia-smi answers" if sample.note == SILENT else "training runs on the CPU, slowly"
        yield Check("GPU", WARN, sample.note or "none", do)
    for gpu in sample.gpus:
        used = f"{gpu.used_gb:.1f} of {gpu.total_gb:.1f} GB used by {count(len(gpu.processes), 'process')}"
        yield Check(f"GPU {gpu.index}", OK, f"{gpu.name}, {used}")


def hooks(python: str | None) -> Iterator[Check]:
    """Yield whether the installed Ultralytics has the places that nantui leans on, read from its source."""
    try:
        package = find_ultralytics(python)
        found, lacking = read_hooks(package), lacking_for_points(package)
    except UserError as error:
        yield Check("hooks", BAD, str(error))
        return
    for hook in found:
        if hook.held or not hook.needed:
            state = "" if hook.held else " is not there, and not needed"
            yield Check("hook", OK, f"{hook.name}{state}: {hook.why}")
        else:
            do = "its trainings would be shown as unguarded; use another Ultralytics"
            yield Check("hook", BAD, f"{hook.name} is missing ({hook.why})", do)
    if lacking:
        yield Check("step points", WARN, f"none: {', '.join(lacking)} is missing", "a resume goes by epochs")
    else:
        own = "with a train loader that is not Ultralytics' own there are none, which the run says"
        yield Check("step points", OK, f"a resume goes on at the batch; {own}, and goes by epochs")


def tasks(python: str | None) -> Iterator[Check]:
    """Yield which tasks' trainings the guard was tested on, and what is untested."""
    try:
        version = read_version(find_ultralytics(python))
    except UserError:
        return
    if version == TESTED_WITH:
        yield Check("tasks", OK, f"guarded and tested: {', '.join(TESTED)}")
    else:
        text = f"untested in full with Ultralytics {version}; docs/versions.md says what was tried beside "
        yield Check("tasks", WARN, text + TESTED_WITH, "watch the first epoch: it says guarded or not")
    text = f"untested: {' and '.join(STAND_IN)} with their own text models; with a stand-in they are guarded"
    yield Check("tasks", WARN, text, "watch the first epoch when you train one of these")


def _colours() -> Check:
    term, said = os.environ.get("TERM", ""), os.environ.get("COLORTERM", "")
    if "NO_COLOR" in os.environ:
        return Check("colours", OK, "none: NO_COLOR is set; curves differ by broken lines")
    if said in ("truecolor", "24bit"):
        return Check("colours", OK, f"true colour, COLORTERM={said}")
    if "256color" in term:
        do = "where it has true colour: export COLORTERM=truecolor (ssh does not pass it on by itself)"
        return Check("colours", OK, f"256, TERM={term}", do)
    do = "where it has 256: export TERM=xterm-256color, in tmux TERM=tmux-256color"
    return Check("colours", WARN, f"16 or fewer, TERM={term or 'unset'}", do)


def _configuration() -> Check:
    try:
        ways = ", ".join(map(str, all_ways(load_config().notify)))
    except UserError as error:
        return Check("configuration", BAD, str(error))
    return Check("configuration", OK, f"notifies {ways or 'nobody'}", "" if ways else "nantui notify add URL")
