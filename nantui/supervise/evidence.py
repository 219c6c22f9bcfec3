"""Whether a process trains into a run: its open files and command line, or the time at which both began."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nantui.supervise.candidates import Candidate
from nantui.supervise.tail import head

CERTAIN, LIKELY = "certain", "likely"
ARGS_WRITTEN_WITHIN_S = 900.0
"""A training writes args.yaml soon after it was started: that links a process to a run it does not name."""


def evidence_of(one: Candidate, run: Path) -> str:
    """Return how sure it is that a process trains into `run`: CERTAIN, LIKELY or empty."""
    if any(_is_of_training(name, run) for name in one.files):
        return CERTAIN
    if _names_run_in_ddp_file(one, run):
        return CERTAIN
    if any(_names_run(word, one.cwd, run) for word in one.argv) and _trains(one):
        return CERTAIN
    return LIKELY if _started_with_run(one, run) else ""


def _is_of_training(name: str, run: Path) -> bool:
    """Whoever leaves a command or starts a supervisor has files of nantui/ open; attempts/ is training."""
    ours = os.path.join(run, "nantui", "")
    return name.startswith(f"{run}{os.sep}") and (
        not name.startswith(ours) or name.startswith(os.path.join(ours, "attempts", ""))
    )


def _trains(one: Candidate) -> bool:
    """A script that only reads the run names it as well: a training says so, or has torch loaded."""
    if "train" in " ".join(one.argv):
        return True
    try:
        return "libtorch" in Path(f"/proc/{one.ref.pid}/maps").read_text(errors="replace")
    except OSError:
        return False


def _names_run(word: str, cwd: str, run: Path) -> bool:
    """Tell whether an argument is the run directory or a file in it, relative to the process' own cwd."""
    value = word.partition("=")[2] or word
    path = os.path.normpath(os.path.join(cwd or "/", value))
    return path == str(run) or path.startswith(f"{run}{os.sep}")


def _names_run_in_ddp_file(one: Candidate, run: Path) -> bool:
    """Ultralytics' own DDP ranks run a generated file that holds the overrides, `save_dir` among them."""
    for word in one.argv:
        if "_temp_" in word and word.endswith(".py"):
            try:
                return f"'{run}'" in Path(word).read_text(errors="replace")
            except OSError:
                return False
    return False


def _started_with_run(one: Candidate, run: Path) -> bool:
    """Tell whether the run appeared soon after a training process had started that has to do with it.

    To do with it: it was started in a directory above, or its command line says the run's project, data or
    model.
    """
    if "train" not in " ".join(one.argv) or not _appeared_after(one, run):
        return False
    above = bool(one.cwd) and str(run).startswith(one.cwd.rstrip(os.sep) + os.sep)
    return above or _says(one, run)


def _appeared_after(one: Candidate, run: Path) -> bool:
    try:
        written = (run / "args.yaml").stat().st_mtime
    except OSError:
        return False
    return 0 <= written - one.ref.created <= ARGS_WRITTEN_WITHIN_S


def _says(one: Candidate, run: Path) -> bool:
    """Tell whether `project=`, or both `data=` and `model=`, on the command line are those of the run."""
    said = dict(word.removeprefix("--").partition("=")[::2] for word in one.argv if "=" in word)
    project = said.get("project")
    if project and os.path.normpath(os.path.join(one.cwd or "/", project)) == str(run.parent):
        return True
    text = head(run / "args.yaml", 1 << 16)
    kept = {found[1]: found[2] for found in re.finditer(r"^(data|model): *(\S+)", text, re.MULTILINE)}
    names = [(Path(said.get(key, "")).name, Path(kept.get(key, "?")).name) for key in ("data", "model")]
    return all(one_name == other for one_name, other in names)
