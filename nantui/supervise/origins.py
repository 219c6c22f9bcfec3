"""Where a process comes from: a terminal, a login, a service, or a loop that would start it again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil

from nantui.run.identity import stat_of
from nantui.supervise.clean import printable

SHELLS = frozenset({"bash", "sh", "dash", "zsh", "fish", "ksh", "tcsh", "csh"})
SERVICE_MANAGERS = frozenset({"supervisord", "runsv", "s6-supervise", "pm2"})


def origin_of(pid: int) -> str:
    """Return where a process was started: tmux, screen, an SSH login, a service; from its ancestors."""
    for name, ancestor in _ancestors(pid):
        if name.startswith("tmux"):
            return "tmux"
        if name.startswith(("screen", "SCREEN")):
            return "screen"
        if name.startswith("sshd"):
            return "SSH"
        if name.startswith(("slurmstepd", "cron", "systemd")) and ancestor != 1:
            return printable(name)
    return "init or container" if stat_of(pid) else ""


def restart_loop(parent: int) -> str:
    """Return the script or service around a training that may start it again, empty for an open prompt."""
    try:
        process = psutil.Process(parent)
        name, argv = process.name(), process.cmdline()
    except psutil.Error:
        return ""
    if name in SHELLS and len(argv) > 1 and not argv[1].startswith("-") or (name in SHELLS and "-c" in argv):
        return f"{printable(' '.join(argv), 120)} (process {parent})"
    if name in SERVICE_MANAGERS:
        return f"{name} (process {parent})"
    return ""


def _ancestors(pid: int) -> Iterable[tuple[str, int]]:
    stat = stat_of(pid)
    while stat is not None and stat.parent > 0:
        pid = stat.parent
        try:
            yield Path(f"/proc/{pid}/comm").read_text().strip(), pid
        except OSError:
            return
        stat = stat_of(pid)
