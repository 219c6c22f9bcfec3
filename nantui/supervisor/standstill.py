"""When silence is a standstill: much longer than usual, with set-up, validation and saves allowed for. And
where each rank hangs then: Python stacks through faulthandler, armed on a real-time signal; before its end
also the collective it is in, and native stacks where py-spy is installed (which stops the rank meanwhile).

Only time in which this process itself was awake counts: a supervisor whose own reads hang on a dead NFS
server, or that was suspended with its laptop, must not call the training stalled.
A signal kills a process that does not handle it, so it is only sent where the kernel says that it is caught.
faulthandler writes from the signal handler in C: it answers even when Python itself is stuck in a collective.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import cast

from nantui.machine.process_identity import ProcessRef, ref_of, stat_of
from nantui.machine.process_tree import describe, send
from nantui.run.attempts import COLLECTIVE, COLLECTIVE_SAID, STACKS, Attempt, registered
from nantui.run.growing_files import tail_text
from nantui.run.layout import RunLayout
from nantui.supervisor.attempt_watch import ELSEWHERE, TRAINING
from nantui.supervisor.config import Patience
from nantui.terminal_text import printable

LONGEST_GAP_S = 1.0
TIMES_LONGEST = 10.0


class Silence:
    """For how long something has been the same, such as a heartbeat: no clock of another host is read.

    Adds up the time in which this process itself was awake.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[float, float, float]] = {}

    def quiet_s(self, name: str, heartbeat: float) -> float:
        now = self._clock()
        beat, quiet, looked = self._heard.get(name, (heartbeat, 0.0, now))
        quiet = quiet + min(now - looked, LONGEST_GAP_S) if beat == heartbeat else 0.0
        self._heard[name] = heartbeat, quiet, now
        return quiet


class Standstill:
    """Tells when the time without anything new is too long."""

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self.reset()

    def reset(self) -> None:
        """Begin anew, with a new attempt."""
        self._silence, self._allowed_s = Silence(self._clock), math.inf

    def observe(self, moved: int, activity: str, usual_step_s: float, longest_s: float = 0.0) -> float:
        """Return for how many seconds nothing moved once that is a standstill, else 0.0.

        `moved` counts everything new that the ranks wrote; `usual_step_s` is 0 before the first step,
        `longest_s` is how long this phase took at most so far, 0 for its first time.
        """
        quiet_s = self._silence.quiet_s("", moved)
        self._allowed_s = self.allowed_s(activity, usual_step_s, longest_s)
        return quiet_s if quiet_s > self._allowed_s else 0.0

    @property
    def hung_after_s(self) -> float:
        """How long silence lasts, in s, when it is no longer waited for under `--auto`."""
        return self._allowed_s + self._patience.hung_s

    def allowed_s(self, activity: str, usual_step_s: float, longest_s: float = 0.0) -> float:
        """Return how long silence is normal in this phase."""
        if activity == ELSEWHERE:
            return math.inf
        if activity == TRAINING and usual_step_s > 0:
            return max(self._patience.stall_floor_s, self._patience.stall_factor * usual_step_s)
        other_s = self._patience.other_phase_s
        return max(self._patience.stall_floor_s, min(other_s, TIMES_LONGEST * longest_s or other_s))


FRAME = re.compile(r'File "(?:.*/)?([^"]+)", line (\d+) in (\w+)')
NATIVE = re.compile(r"^\s+(.+) \(((?!libc[.-]|libpthread|libstdc|ld-|<)[^()]+)\)$")
"""A frame of py-spy's, but for those of C's and C++'s libraries, in which every wait ends."""
WAIT_S, POLL_S, COLLECTIVE_S, NATIVE_S = 1.0, 0.02, 8.0, 10.0
LONGEST = 8000


def collect_stacks(
    found: list[ProcessRef], layout: RunLayout, attempt: Attempt, *, before_the_end: bool = False
) -> list[dict[str, object]]:
    """Return what is known of each rank: [{"rank", "pid", "state", "where", "stack": [lines]}], and
    `before_the_end` the "collective" that it is in and its "native" stack, as far as it answers.
    """
    living = {ref.pid for ref in found}
    number = attempt.attempt
    ranks = {rank: ref for rank, ref in registered(layout, number).items() if ref.pid in living}
    looks = {rank: _look(rank, ref, layout.attempt_log(number)) for rank, ref in ranks.items()}
    if before_the_end:
        several = ranks if len(ranks) > 1 or attempt.nnodes > 1 else {}
        for rank, text in _collectives(several, layout.attempt_log(number)).items():
            looks[rank]["collective"] = text
        for rank, lines in _native_stacks(ranks, attempt.python).items():
            looks[rank]["native"] = lines
    return list(looks.values())


def hung_text(silent_s: float, found: list[dict[str, object]]) -> str:
    """Return in one line for how long nothing moved, which collectives the ranks are in, and where each is:
    function, file and line. faulthandler writes the main thread last.
    """
    parts: list[str] = []
    collectives: dict[str, list[str]] = {}
    for rank in found:
        lines = [str(line) for line in cast("list[str]", rank["stack"])]
        begins = max((at for at, line in enumerate(lines) if "most recent call first" in line), default=0)
        frame = next(filter(None, map(FRAME.search, lines[begins:])), None)
        where = (
            f"in {frame[3]} ({frame[1]}:{frame[2]})" if frame else f"does not answer, state {rank['state']}"
        )
        native = _native_frame([str(line) for line in cast("list[str]", rank.get("native", []))])
        parts.append(f"rank {rank['rank']} {where}{native}")
        if text := rank.get("collective"):
            collectives.setdefault(str(text), []).append(str(rank["rank"]))
    told = [f"{text} (rank {', '.join(ranks)})" for text, ranks in collectives.items()]
    where = ", ".join([*told, *parts])
    return f"no step for {silent_s:.0f} s; {where or 'no rank is to be seen'}"


def _native_frame(lines: list[str]) -> str:
    """Return where the main thread is below Python, "" where it is in Python."""
    begins = next((at for at, line in enumerate(lines) if '"MainThread"' in line), len(lines))
    frame = next(filter(None, map(NATIVE.match, lines[begins + 1 :])), None)
    return "" if frame is None or ".py:" in frame[2] else f", natively in {frame[1]} ({frame[2]})"


def processes_of(layout: RunLayout, attempt: int) -> list[ProcessRef]:
    """Return the process that trains in a script of the user's own, or the launcher of its ranks.

    Such a process was not started by a supervisor and carries no mark: it has only registered itself.
    """
    ranks = list(registered(layout, attempt).values())
    stat = stat_of(ranks[0].pid) if len(ranks) > 1 else None
    launcher = ref_of(stat.parent) if stat else None
    return [launcher] if launcher else ranks


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal, from the kernel's SigCgt mask."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    masks = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")]
    return bool(masks and masks[0] >> (number - 1) & 1)


def _look(rank: int, ref: ProcessRef, log: Path) -> dict[str, object]:
    left = describe(ref)
    stack = _dump(ref, log) if catches(ref.pid, STACKS) else []
    return {"rank": rank, "pid": ref.pid, "state": left.state, "where": left.where, "stack": stack}


def _collectives(ranks: Mapping[int, ProcessRef], log: Path) -> dict[int, str]:
    """Return what each rank answers, the last of its two answers that comes in time."""
    before, until = _size(log), time.monotonic() + COLLECTIVE_S
    asked = {rank for rank, ref in ranks.items() if catches(ref.pid, COLLECTIVE) and send(ref, COLLECTIVE)}
    answers: list[re.Match[str]] = []
    while len(answers) < 2 * len(asked) and time.monotonic() < until:
        time.sleep(POLL_S)
        lines = tail_text(log, max(0, _size(log) - before)).splitlines()
        answers = list(filter(None, map(COLLECTIVE_SAID.fullmatch, lines)))
    return {int(one[1]): printable(one[2]) for one in answers if int(one[1]) in asked}


def _native_stacks(ranks: Mapping[int, ProcessRef], python: str) -> dict[int, list[str]]:
    """Return py-spy's lines of each rank that it may look into, {} where it is not installed."""
    folders = [os.path.dirname(python)] if os.path.isabs(python) else []
    tool = shutil.which("py-spy", path=os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]))
    argv = [str(tool), "dump", "--native", "--pid"]
    asked: dict[int, subprocess.Popen[bytes]] = {}
    with suppress(OSError):
        for rank, ref in ranks.items() if tool else ():
            asked[rank] = subprocess.Popen([*argv, str(ref.pid)], stdout=PIPE, stderr=DEVNULL)
    found, until = {}, time.monotonic() + NATIVE_S
    for rank, child in asked.items():
        try:
            text = child.communicate(timeout=max(0.0, until - time.monotonic()))[0][:LONGEST]
            found[rank] = [printable(line) for line in text.decode(errors="replace").splitlines()]
        except subprocess.TimeoutExpired:
            child.kill()
    return found


def _dump(ref: ProcessRef, log: Path) -> list[str]:
    """Ask for the stack and read what the log has grown by; a stopped process answers nothing."""
    before = _size(log)
    if not send(ref, STACKS):
        return []
    until, size = time.monotonic() + WAIT_S, before
    while time.monotonic() < until:
        time.sleep(POLL_S)
        now = _size(log)
        if now == size > before:
            break
        size = now
    try:
        with log.open("rb") as file:
            file.seek(before)
            text = file.read(LONGEST).decode("utf-8", errors="replace")
    except OSError:
        return []
    return [printable(line) for line in text.splitlines() if line.strip()]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
