"""Trainings that nantui did not start: find their processes, show whose they are, stop only their tree.

A process started in a tmux pane has the pane's shell as its session leader, so a session or a process group
is never signalled. Whether a process trains into a run is told by its open files and command line, or by when
both began; how far it is stands in its log, of which two generations look different after the colon (tqdm
until 8.3, Ultralytics' own bar since).
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import psutil

from nantui.errors import FAILED, UserError
from nantui.machine import process_tree
from nantui.machine.gpus import Sampler
from nantui.machine.process_identity import ProcessRef, alive, ref_of
from nantui.run.atomic_files import read_text
from nantui.run.documents import JsonObject
from nantui.run.growing_files import head, tail_text
from nantui.terminal_text import printable, without_sequences
from nantui.words import span

PYTHON = re.compile(r"(^|/)(python[\d.]*|yolo|torchrun|accelerate)$")
CERTAIN, LIKELY = "certain", "likely"
ARGS_WRITTEN_WITHIN_S = 900.0
"""A training writes args.yaml soon after it was started: that links a process to a run it does not name."""
COMMANDS = frozenset(
    ("train", "val", "predict", "export", "track", "detect", "segment", "classify", "pose", "obb", "semantic")
)
"""The tasks and modes of Ultralytics' command line (`ultralytics.cfg.TASKS`, `MODES`): no folders."""
NO_PLACE = frozenset(("name", "data", "mode", "task", "cfg", "pretrained"))
"""Arguments that do not say where a training writes, whatever path they hold."""
LAUNCHERS = (
    "torchrun", "accelerate", "deepspeed", "yolo", "torch.distributed.run", "torch.distributed.launch",
)  # fmt: skip
RESTART_LOOK_S = 2.0
_sampler = cache(Sampler)
NUMBER = r"-?(?:nan|inf|\d+(?:\.\d*)?(?:e[+-]?\d+)?)"
PROGRESS = re.compile(
    rf"^\s*(?P<epoch>\d+)/(?P<epochs>\d+)\s+[\d.]+\s?[KMGT]?i?B?\s+"
    rf"(?P<losses>(?:{NUMBER}\s+)+?)\d+\s+\d+:\s*\d+%.*?(?P<step>\d+)/(?P<steps_per_epoch>\d+)",
    re.IGNORECASE,
)
PROGRESS_HEADER = re.compile(r"^\s*Epoch\s+GPU_mem\s+(?P<losses>.+?)\s+Instances\s+Size\s*$")


@dataclass(frozen=True)
class ForeignProcess:
    """A process that may train: what can be read of it without touching it. Of a training it is the root,
    and `evidence` says how sure it is that it writes into the run.
    """

    ref: ProcessRef
    argv: tuple[str, ...]
    cwd: str
    parent: int
    files: tuple[str, ...]
    """What it has open for writing; whoever only reads a run does not train into it."""
    user: str
    mine: bool
    evidence: str = ""

    @property
    def pids(self) -> tuple[int, ...]:
        """Itself and what is below it."""
        return tuple(sorted({self.ref.pid, *process_tree.descendants([self.ref.pid])}))

    @property
    def restarted_by(self) -> str:
        """The loop or service that seems to start it again, empty where none is seen."""
        return process_tree.restart_loop(self.parent)


def candidates() -> list[ForeignProcess]:
    """Return every Python process that is not nantui's own; one look serves many runs."""
    found = (_candidate(pid) for pid in psutil.pids() if pid != os.getpid())
    return [one for one in found if one is not None]


def _candidate(pid: int) -> ForeignProcess | None:
    try:
        process = psutil.Process(pid)
        argv = tuple(process.cmdline())
        if not argv or not any(PYTHON.search(word) for word in argv[:2]) or _is_nantui(pid, argv):
            return None
        ref, mine = ref_of(pid), process.uids().effective == os.geteuid()
        about = (link_of(pid, "cwd"), process.ppid(), _written_files(pid), process.username(), mine)
    except (psutil.Error, KeyError):
        return None
    return ForeignProcess(ref, argv, *about) if ref is not None else None


def _written_files(pid: int) -> tuple[str, ...]:
    def writes(number: str) -> bool:
        text = read_text(Path(f"/proc/{pid}/fdinfo/{number}")) or ""
        found = re.search(r"^flags:\s*([0-7]+)", text, re.MULTILINE)
        return bool(found and int(found[1], 8) & (os.O_WRONLY | os.O_RDWR))

    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return ()
    return tuple(link_of(pid, f"fd/{number}") for number in numbers if writes(number))


def link_of(pid: int, name: str) -> str:
    """Return where a link of /proc/PID leads, e.g. `cwd`; empty where that cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""


def _is_nantui(pid: int, argv: tuple[str, ...]) -> bool:
    named = any(word.startswith("nantui.") or word.rpartition("/")[2] == "nantui" for word in argv[:4])
    return named or any(
        entry.startswith(f"{process_tree.MARK}=".encode()) for entry in process_tree.environment_of(pid)
    )


def evidence_of(one: ForeignProcess, run: Path) -> str:
    """Return how sure it is that a process trains into `run`: CERTAIN, LIKELY or empty."""
    # Ultralytics' own DDP ranks run a generated file that holds the overrides, `save_dir` among them.
    generated = next(filter(_is_generated, one.argv), "")
    in_file = bool(generated) and f"'{run}'" in (read_text(Path(generated)) or "")
    if in_file or any(_is_of_training(name, run) for name in one.files):
        return CERTAIN
    if any(_names_run(word, one.cwd, run) for word in _places(one.argv)) and _trains(one):
        return CERTAIN
    if not 0 <= _modified(run / "args.yaml") - one.ref.created <= ARGS_WRITTEN_WITHIN_S:
        return ""
    said = _said(one)
    place = os.path.join(one.cwd or "/", said.get("project", ""), said.get("name", ""))
    if said.get("name") and os.path.normpath(place) == str(run) and _trains(one):
        return CERTAIN
    return LIKELY if _started_with_run(one, run) else ""


def _is_of_training(name: str, run: Path) -> bool:
    """Whoever leaves a command or starts a supervisor has files of nantui/ open; attempts/ is training."""
    ours = os.path.join(run, "nantui", "")
    return name.startswith(f"{run}{os.sep}") and (
        not name.startswith(ours) or name.startswith(os.path.join(ours, "attempts", ""))
    )


def _trains(one: ForeignProcess) -> bool:
    """A script that only reads the run names it as well: a training says so as its program or its command,
    never by a path among its arguments (Ultralytics' runs lie in `runs/detect/train`), or has torch loaded.
    """
    words = {word.lstrip("-") for word in one.argv[1:]}
    return "train" in _program(one.argv) or bool(words & {"train", "mode=train"}) or _has_torch(one)


def _has_torch(one: ForeignProcess) -> bool:
    return "libtorch" in (read_text(Path(f"/proc/{one.ref.pid}/maps")) or "")


def _places(argv: tuple[str, ...]) -> Iterator[str]:
    """Yield the words that may say where it trains: `train` is a command, and data or a model to begin from
    may lie in any run.
    """
    resumes = any("resume" in word for word in argv)
    for word in argv:
        key, said, _ = word.removeprefix("--").partition("=")
        if key not in (NO_PLACE if resumes and said else {*NO_PLACE, "model"} if said else COMMANDS):
            yield word


def _names_run(word: str, cwd: str, run: Path) -> bool:
    value = word.partition("=")[2] or word
    path = os.path.normpath(os.path.join(cwd or "/", value))
    return path == str(run) or path.startswith(f"{run}{os.sep}")


def _started_with_run(one: ForeignProcess, run: Path) -> bool:
    """Tell whether the run appeared soon after a training process had started that has to do with it.

    To do with it: its command line says the run's project, data or model, or it was started in a directory
    above and is Ultralytics' command or has torch loaded: many a process lives in a home directory, and a
    training that has written args.yaml has imported torch.
    """
    if "train" not in " ".join(one.argv) or not _trains(one) or _is_a_copy(run):
        return False
    above = bool(one.cwd) and str(run).startswith(one.cwd.rstrip(os.sep) + os.sep)
    linked = _says(one, run) or (above and (_program(one.argv) == "yolo" or _has_torch(one)))
    return linked and not _trains_beside(one, run)


def _trains_beside(one: ForeignProcess, run: Path) -> bool:
    """Tell whether a run beside this one appeared first after the process had started, and is trained on."""
    began = _modified(run / "args.yaml")
    for args in run.parent.glob("*/args.yaml"):
        results = _modified(args.with_name("results.csv"))
        if args.parent != run and one.ref.created <= _modified(args) <= began and not 0 < results < began:
            return True
    return False


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _said(one: ForeignProcess) -> dict[str, str]:
    return dict(word.removeprefix("--").partition("=")[::2] for word in one.argv if "=" in word)


def _is_a_copy(run: Path) -> bool:
    """Tell whether args.yaml says that its training writes elsewhere: a copy is as young as its copying."""
    said = re.search(r"^save_dir: *(/.*?) *$", head(run / "args.yaml", 1 << 16), re.MULTILINE)
    return said is not None and os.path.realpath(said[1]) != os.path.realpath(run)


def _says(one: ForeignProcess, run: Path) -> bool:
    said = _said(one)
    project = said.get("project")
    if project and os.path.normpath(os.path.join(one.cwd or "/", project)) == str(run.parent):
        return True
    text = head(run / "args.yaml", 1 << 16)
    kept = {found[1]: found[2] for found in re.finditer(r"^(data|model): *(\S+)", text, re.MULTILINE)}
    names = [(Path(said.get(key, "")).name, Path(kept.get(key, "?")).name) for key in ("data", "model")]
    return all(one_name == other for one_name, other in names)


def find_foreign(run: Path, among: Iterable[ForeignProcess] | None = None) -> list[ForeignProcess]:
    """Return the trainings that write into `run` and were not started by nantui, oldest first."""
    by_pid = {one.ref.pid: one for one in (candidates() if among is None else among)}
    evidence = {pid: word for pid, one in by_pid.items() if (word := evidence_of(one, run))}
    best = CERTAIN if CERTAIN in evidence.values() else LIKELY
    roots = {_root(by_pid[pid], by_pid): word for pid, word in evidence.items() if word == best}
    trainings = [replace(by_pid[pid], evidence=word) for pid, word in roots.items()]
    return sorted(trainings, key=lambda training: training.ref.created)


def stop_tree(
    training: ForeignProcess, pump: Callable[[float], None] = time.sleep, grace_s: float = 5.0
) -> list[process_tree.Leftover]:
    """End the training's tree, as it is now; returns what does not die. Raises UserError for others'."""
    if not training.mine:
        raise UserError(f"process {training.ref.pid} belongs to {training.user}: ask them to stop it", FAILED)
    tree = {pid: ref for pid in training.pids if pid != os.getpid() and (ref := ref_of(pid)) is not None}

    def living() -> list[ProcessRef]:
        left = [ref for ref in tree.values() if alive(ref)]
        for pid in process_tree.descendants(ref.pid for ref in left):
            if pid not in tree and (ref := ref_of(pid)) is not None:
                tree[pid] = ref
        return [ref for ref in tree.values() if alive(ref)]

    return process_tree.end_all(living, pump, grace_s=grace_s, limit_s=10.0)


def came_back(run: Path, stopped: ForeignProcess, pump: Callable[[float], None] = time.sleep) -> str:
    """After a stop, look whether something started the training again; returns who, empty for nobody."""
    pump(RESTART_LOOK_S)
    again = [one for one in find_foreign(run) if one.ref.pid != stopped.ref.pid]
    for one in candidates():
        same = (one.argv, one.cwd) == (stopped.argv, stopped.cwd)
        again += [one] if same and one.ref.created > stopped.ref.created else []
    return again[0].restarted_by or f"process {again[0].ref.pid} runs the same command" if again else ""


def _root(one: ForeignProcess, by_pid: dict[int, ForeignProcess]) -> int:
    """Climb to the launcher that started a rank; never to a shell, a tmux server or a service manager."""
    while (parent := by_pid.get(one.parent)) is not None and _is_launcher_of(parent, one):
        one = parent
    return one.ref.pid


def _is_launcher_of(parent: ForeignProcess, child: ForeignProcess) -> bool:
    """Tell whether a process started a rank as part of the same training.

    What it runs decides, never a word among its arguments: a scheduler that was told to start a training is
    not part of it. Ultralytics' own DDP starts torchrun with a generated file (utils/dist.py).
    """
    generated = any(map(_is_generated, child.argv))
    forked = parent.argv[1:] == child.argv[1:] or any("multiprocessing." in word for word in child.argv[:3])
    return _program(parent.argv) in LAUNCHERS or forked or (generated and _program(child.argv) in LAUNCHERS)


def _is_generated(word: str) -> bool:
    return "_temp_" in word and word.endswith(".py")


def _program(argv: tuple[str, ...]) -> str:
    words = list(argv[1:] if PYTHON.search(argv[0]) and "python" in argv[0] else argv)
    while words and words[0].startswith("-") and words[0] != "-m":
        words = words[1:]
    if words[:1] == ["-m"]:
        return words[1] if len(words) > 1 else ""
    return Path(words[0]).name if words else ""


def describe(training: ForeignProcess, with_gpu: bool = False) -> str:
    """Return one line: whose process it is, from where, how old, its command, and `with_gpu` what it holds of
    the GPUs, where the driver says so.
    """
    origin = process_tree.origin_of(training.ref.pid)
    place = f", from {origin}" if origin else ""
    held_gb = sum(gpu.ours_gb for gpu in _sampler().sample(training.pids).gpus) if with_gpu else 0.0
    gpu = f", {held_gb:.1f} GB of GPU memory" if held_gb else ""
    hours = max(0.0, time.time() - training.ref.created) / 3600
    whose = f"process {training.ref.pid} of {training.user}{place}"
    return f"{whose}, {span(hours)} old{gpu}: {printable(' '.join(training.argv), 300)}"


def read_progress(path: Path) -> JsonObject:
    """Return what the newest progress line of a log tells, by the names of `RunStatus`: counts from 1 as
    printed, `step` 0 before the first; {} where there is none or it is no regular file.
    """
    names: list[str] = []
    found: JsonObject = {}
    for line in re.split(r"[\r\n]+", without_sequences(tail_text(path))):
        if header := PROGRESS_HEADER.match(line):
            names = header["losses"].split()
        elif row := PROGRESS.match(line):
            values = [float(word) for word in row["losses"].split()]
            known = names if len(names) == len(values) else [f"loss {n}" for n, _ in enumerate(values, 1)]
            found = {name: int(row[name]) for name in ("epoch", "epochs", "step", "steps_per_epoch")}
            found["losses"] = dict(zip(known, values, strict=True))
    return found


def log_of(pid: int) -> Path | None:
    """Return the regular file that a process has as standard output, None where it is none."""
    link = f"/proc/{pid}/fd/1"
    try:
        place = Path(os.readlink(link))
        through, direct = os.stat(link), os.lstat(place)
    except OSError:
        return None
    same = (through.st_dev, through.st_ino) == (direct.st_dev, direct.st_ino)
    return place if same and stat.S_ISREG(direct.st_mode) else None
