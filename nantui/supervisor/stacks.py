"""Where each rank hangs: Python stacks through faulthandler, armed on a real-time signal; before its end also
the collective it is in, and native stacks where py-spy is installed (which stops the rank meanwhile).

A signal kills a process that does not handle it, so it is only sent where the kernel says that it is caught.
faulthandler writes from the signal handler in C: it answers even when Python itself is stuck in a collective.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

from nantui.machine.process_identity import ProcessRef
from nantui.machine.process_tree import describe, send
from nantui.run.atomic_files import read_text
from nantui.run.attempts import COLLECTIVE, COLLECTIVE_SAID, STACKS, Attempt, registered
from nantui.run.documents import JsonObject
from nantui.run.growing_files import tail_text
from nantui.run.layout import RunLayout
from nantui.terminal_text import printable

FRAME = re.compile(r'File "(?:.*/)?([^"]+)", line (\d+) in (\w+)')
SAID = re.compile(r"(\S+) (\d+) of (.+?)(?: from \S+)? (not )?(?:seen to be )?finished")
"""What `collective_text` of a rank says: name, number, group."""
NATIVE = re.compile(r"^\s+(.+) \(((?!libc[.-]|libpthread|libstdc|ld-|<)[^()]+)\)$")
"""A frame of py-spy's, but for those of C's and C++'s libraries, in which every wait ends."""
WAIT_S, POLL_S, COLLECTIVE_S, NATIVE_S = 1.0, 0.02, 8.0, 10.0
LONGEST = 8000


def collect_stacks(
    found: list[ProcessRef], layout: RunLayout, attempt: Attempt, *, before_the_end: bool = False
) -> list[JsonObject]:
    """Return what is known of each rank: [{"rank", "pid", "state", "where", "stack": [lines]}], and
    `before_the_end` the "collective" that it is in and its "native" stack, as far as it answers.
    """
    living, number, log = {ref.pid for ref in found}, attempt.attempt, layout.attempt_log(attempt.attempt)
    ranks = {rank: ref for rank, ref in registered(layout, number).items() if ref.pid in living}
    looks: dict[int, JsonObject] = {}
    for rank, ref in ranks.items():
        left = describe(ref)
        about = {"rank": rank, "pid": ref.pid, "state": left.state, "where": left.where}
        looks[rank] = {**about, "stack": _dump(ref, log)}
    if before_the_end:
        several = ranks if len(ranks) > 1 or attempt.nnodes > 1 else {}
        for rank, text in _collectives(several, log).items():
            looks[rank]["collective"] = text
        for rank, lines in _native_stacks(ranks, attempt.python).items():
            looks[rank]["native"] = lines
    return list(looks.values())


def hung_text(silent_s: float, found: list[JsonObject]) -> str:
    """Return in one line for how long nothing moved, which collectives the ranks are in, and where each is:
    function, file and line. faulthandler writes the main thread last.
    """
    parts: list[str] = []
    collectives: dict[str, list[str]] = {}
    for rank in found:
        lines = rank["stack"]
        begins = max((at for at, line in enumerate(lines) if "most recent call first" in line), default=0)
        frame = next(filter(None, map(FRAME.search, lines[begins:])), None)
        where = (
            f"in {frame[3]} ({frame[1]}:{frame[2]})" if frame else f"does not answer, state {rank['state']}"
        )
        parts.append(f"rank {rank['rank']} {where}{_native_frame(rank.get('native', []))}")
        if text := rank.get("collective"):
            collectives.setdefault(str(text), []).append(str(rank["rank"]))
    told = _not_entered(collectives)
    told += [f"{text} (rank {', '.join(ranks)})" for text, ranks in collectives.items()]
    where = ", ".join([*told, *parts])
    return f"no step for {silent_s:.0f} s; {where or 'no rank is to be seen'}"


def _not_entered(collectives: Mapping[str, list[str]]) -> list[str]:
    """Return which ranks others wait for: those whose last collective of the group is an earlier one."""
    said = [(found, ranks) for text, ranks in collectives.items() if (found := SAID.fullmatch(text))]
    farthest = max((found for found, _ in said if found[4]), key=lambda found: int(found[2]), default=None)
    if farthest is None:
        return []
    name, number, group = farthest.groups()[:3]
    before = (ranks for found, ranks in said if found[3] == group and int(found[2]) < int(number))
    behind = ", ".join(rank for ranks in before for rank in ranks)
    return [f"rank {behind} did not enter {name} {number} of {group}"] if behind else []


def _native_frame(lines: list[str]) -> str:
    """Return where the main thread is below Python, "" where it is in Python."""
    begins = next((at for at, line in enumerate(lines) if '"MainThread"' in line), len(lines))
    frame = next(filter(None, map(NATIVE.match, lines[begins + 1 :])), None)
    return "" if frame is None or ".py:" in frame[2] else f", natively in {frame[1]} ({frame[2]})"


def _catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal, from the kernel's SigCgt mask."""
    found = re.search(r"^SigCgt:\s*(\w+)", read_text(Path(f"/proc/{pid}/status")) or "", re.MULTILINE)
    return bool(found and int(found[1], 16) >> (number - 1) & 1)


def _collectives(ranks: Mapping[int, ProcessRef], log: Path) -> dict[int, str]:
    """Return what each rank answers, the last of its two answers that comes in time."""
    before, until = _size(log), time.monotonic() + COLLECTIVE_S
    asked = {rank for rank, ref in ranks.items() if _catches(ref.pid, COLLECTIVE) and send(ref, COLLECTIVE)}
    answers: list[re.Match[str]] = []
    while len(answers) < 2 * len(asked) and time.monotonic() < until:
        time.sleep(POLL_S)
        lines = _since(before, log).splitlines()
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
    before = size = _size(log)
    if not (_catches(ref.pid, STACKS) and send(ref, STACKS)):
        return []
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        time.sleep(POLL_S)
        now = _size(log)
        if now == size > before:
            break
        size = now
    return [printable(line) for line in _since(before, log)[:LONGEST].splitlines() if line.strip()]


def _since(before: int, log: Path) -> str:
    return tail_text(log, max(0, _size(log) - before))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
