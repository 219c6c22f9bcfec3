"""The processes of this machine that may train: what can be read of each without touching it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from nantui.run.alive import MARK, environment_of, living_pids
from nantui.run.identity import ProcessRef, ref_of, stat_of

PYTHON = re.compile(r"(^|/)(python[\d.]*|yolo|torchrun|accelerate)$")


@dataclass(frozen=True)
class Candidate:
    """A process that may train: what can be read of it without touching it."""

    ref: ProcessRef
    argv: tuple[str, ...]
    cwd: str
    parent: int
    files: tuple[str, ...]
    user: str
    ours: bool


def candidates() -> list[Candidate]:
    """Return every Python process that is not nantui's own; one look serves many runs."""
    found = (_candidate(pid) for pid in living_pids() if pid != os.getpid())
    return [one for one in found if one is not None]


def _candidate(pid: int) -> Candidate | None:
    try:
        process = psutil.Process(pid)
        argv = tuple(process.cmdline())
        if not argv or not any(PYTHON.search(word) for word in argv[:2]) or _is_nantui(pid, argv):
            return None
        ref, stat = ref_of(pid), stat_of(pid)
    except psutil.Error:
        return None
    if ref is None or stat is None:
        return None
    return Candidate(
        ref, argv, link_of(pid, "cwd"), stat.parent, _written_files(pid), _user(process), _is_mine(process)
    )


def _written_files(pid: int) -> tuple[str, ...]:
    """Return what a process has open for writing; whoever only reads a run does not train into it."""
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return ()
    return tuple(link_of(pid, f"fd/{number}") for number in numbers if _writes(pid, number))


def _writes(pid: int, number: str) -> bool:
    try:
        text = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
    except OSError:
        return False
    found = re.search(r"^flags:\s*([0-7]+)", text, re.MULTILINE)
    return bool(found and int(found[1], 8) & (os.O_WRONLY | os.O_RDWR))


def link_of(pid: int, name: str) -> str:
    """Return where a link of /proc/PID leads, e.g. `cwd`; empty where that cannot be read."""
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return ""


def _is_nantui(pid: int, argv: tuple[str, ...]) -> bool:
    named = any(
        word == "nantui" or word.startswith("nantui.") or word.endswith("/nantui") for word in argv[:4]
    )
    return named or any(entry.startswith(f"{MARK}=".encode()) for entry in environment_of(pid))


def _is_mine(process: psutil.Process) -> bool:
    try:
        return process.uids().effective == os.geteuid()
    except psutil.Error:
        return False


def _user(process: psutil.Process) -> str:
    try:
        return process.username()
    except (psutil.Error, KeyError):
        return "?"
