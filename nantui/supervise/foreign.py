"""Trainings that nantui did not start: find their processes, show whose they are, stop only their tree.

A process started in a tmux pane has the pane's shell as its session leader, so a session or a process
group is never signalled: only the training's own tree, as it was before the first signal. What belongs
to another user is shown and never touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nantui.errors import FAILED, UserError
from nantui.run.identity import ProcessRef, alive, ref_of
from nantui.supervise.candidates import PYTHON, Candidate, candidates
from nantui.supervise.clean import printable
from nantui.supervise.evidence import CERTAIN, LIKELY, evidence_of
from nantui.supervise.origins import origin_of, restart_loop
from nantui.supervise.processes import Leftover, descendants, end_all

LAUNCHERS = (
    "torchrun",
    "accelerate",
    "deepspeed",
    "yolo",
    "torch.distributed.run",
    "torch.distributed.launch",
)
RESTART_LOOK_S = 2.0


@dataclass(frozen=True)
class ForeignTraining:
    """One training of somebody: its root process and what is below it."""

    root: ProcessRef
    pids: tuple[int, ...]
    command: str
    argv: tuple[str, ...]
    cwd: str
    user: str
    age_s: float
    origin: str
    evidence: str
    mine: bool
    restarted_by: str
    """The loop or service that seems to start it again, empty where none is seen."""


def find_foreign(run: Path, among: Iterable[Candidate] | None = None) -> list[ForeignTraining]:
    """Return the trainings that write into `run` and were not started by nantui, oldest first."""
    known = list(candidates() if among is None else among)
    evidence = {one.ref.pid: word for one in known if (word := evidence_of(one, run))}
    if CERTAIN in evidence.values():
        evidence = {pid: word for pid, word in evidence.items() if word == CERTAIN}
    by_pid = {one.ref.pid: one for one in known}
    roots = {_root(by_pid[pid], by_pid): evidence[pid] for pid in evidence}
    trainings = [_training(by_pid[pid], word) for pid, word in roots.items()]
    return sorted(trainings, key=lambda training: training.root.created)


def stop_tree(
    training: ForeignTraining, pump: Callable[[float], None] = time.sleep, grace_s: float = 5.0
) -> list[Leftover]:
    """End the training's tree, as it is now, and return what does not die.

    Raises UserError for another user's process.
    """
    if not training.mine:
        raise UserError(
            f"process {training.root.pid} belongs to {training.user}: ask them to stop it", FAILED
        )
    pids = {training.root.pid, *descendants([training.root.pid])} - {os.getpid()}
    tree = {ref.pid: ref for pid in pids if (ref := ref_of(pid)) is not None}

    def living() -> list[ProcessRef]:
        left = [ref for ref in tree.values() if alive(ref)]
        for pid in descendants(ref.pid for ref in left):
            if pid not in tree and (ref := ref_of(pid)) is not None:
                tree[pid] = ref
        return [ref for ref in tree.values() if alive(ref)]

    return end_all(living, pump, grace_s=grace_s, limit_s=10.0)


def came_back(run: Path, stopped: ForeignTraining, pump: Callable[[float], None] = time.sleep) -> str:
    """After a stop, look whether something started the training again; returns who, empty for nobody."""
    pump(RESTART_LOOK_S)
    again = [one for one in find_foreign(run) if one.root.pid != stopped.root.pid]
    again += [one for one in map(_as_stopped(stopped), candidates()) if one is not None]
    return again[0].restarted_by or f"process {again[0].root.pid} runs the same command" if again else ""


def _as_stopped(stopped: ForeignTraining) -> Callable[[Candidate], ForeignTraining | None]:
    def same(one: Candidate) -> ForeignTraining | None:
        equal = (one.argv, one.cwd) == (stopped.argv, stopped.cwd) and one.ref.created > stopped.root.created
        return _training(one, LIKELY) if equal else None

    return same


def _training(one: Candidate, evidence: str) -> ForeignTraining:
    return ForeignTraining(
        root=one.ref,
        pids=tuple(sorted({one.ref.pid, *descendants([one.ref.pid])})),
        command=printable(" ".join(one.argv), 300),
        argv=one.argv,
        cwd=one.cwd,
        user=one.user,
        age_s=max(0.0, time.time() - one.ref.created),
        origin=origin_of(one.ref.pid),
        evidence=evidence,
        mine=one.ours,
        restarted_by=restart_loop(one.parent),
    )


def _root(one: Candidate, by_pid: dict[int, Candidate]) -> int:
    """Climb to the launcher that started a rank; never to a shell, a tmux server or a service manager."""
    while (parent := by_pid.get(one.parent)) is not None and _is_launcher_of(parent, one):
        one = parent
    return one.ref.pid


def _is_launcher_of(parent: Candidate, child: Candidate) -> bool:
    """Tell whether a process started a rank as part of the same training.

    What it runs decides, never a word among its arguments: a scheduler that was told to start a training is
    not part of it. Ultralytics' own DDP starts torchrun with a generated file (utils/dist.py).
    """
    generated = any("_temp_" in word and word.endswith(".py") for word in child.argv)
    forked = parent.argv[1:] == child.argv[1:] or any("multiprocessing." in word for word in child.argv[:3])
    return _program(parent.argv) in LAUNCHERS or forked or (generated and _program(child.argv) in LAUNCHERS)


def _program(argv: tuple[str, ...]) -> str:
    """Return the module, or the name of the script, that a command line runs."""
    words = list(argv[1:] if PYTHON.search(argv[0]) and "python" in argv[0] else argv)
    while words and words[0].startswith("-") and words[0] != "-m":
        words = words[1:]
    if words[:1] == ["-m"]:
        return words[1] if len(words) > 1 else ""
    return Path(words[0]).name if words else ""
