"""Where a process comes from: a terminal, a login, a service, or a loop that would start it again."""

from __future__ import annotations

import os
import re
import subprocess
from functools import lru_cache

import psutil

from nantui.machine.process_identity import stat_of
from nantui.machine.process_tree import environment_of
from nantui.terminal_text import printable

SHELLS = frozenset({"bash", "sh", "dash", "zsh", "fish", "ksh", "tcsh", "csh"})
NOWHERE = "init or container"
ADDRESS = re.compile(r"(?!localhost$)\w[\w.:%-]+")
"""A host in the list of logins; not ":0" (a display), "localhost" or "tmux(71).%0"."""
TMUX_S = 1.0
SERVICE_MANAGERS = frozenset({"supervisord", "runsv", "s6-supervise", "pm2"})


def origin_of(pid: int) -> str:
    """Return where a process was started: the tmux or screen session, the SSH address, a service.

    Its environment says which session and address; of another user's process only ancestors and the
    login of its terminal can be seen.
    """
    environment = {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, _, value in (entry.partition(b"=") for entry in environment_of(pid))
    }
    found = _by_ancestors(pid)
    socket, pane = environment.get("TMUX", "").partition(",")[0], environment.get("TMUX_PANE", "")
    session = _tmux_session(socket, pane) if socket else ""
    if screen := environment.get("STY", "").partition(".")[2]:
        session = session or f"screen session {screen}"
    if session:
        still_there = found.split()[:1] == session.split()[:1]
        found = session if still_there else f"{session} (it has left it)"
    address = environment.get("SSH_CONNECTION", "").partition(" ")[0] or _login_address(pid)
    if address:
        inside = "" if found in {"SSH", NOWHERE} else found
        found = ", ".join(filter(None, [inside, f"SSH from {address}"]))
    return printable(found, 200)


@lru_cache(maxsize=64)
def _tmux_session(socket: str, pane: str) -> str:
    """Ask the server which session a pane is in; only one of our own is talked to, and not for long."""
    try:
        mine = os.stat(socket).st_uid == os.getuid()
        words = ["tmux", "-S", socket, "list-panes", "-a", "-F", "#{pane_id} #{session_name}"]
        out = subprocess.run(words, capture_output=True, timeout=TMUX_S, check=True).stdout if mine else b""
    except (OSError, subprocess.SubprocessError):
        return "tmux"
    lines = (line.partition(" ") for line in out.decode(errors="replace").splitlines())
    name = next((name for number, _, name in lines if number == pane), "")
    return f"tmux session {name}" if name else "tmux"


def _login_address(pid: int) -> str:
    """Return from where somebody is logged in on the terminal of a process; that is public."""
    try:
        terminal = (psutil.Process(pid).terminal() or "").removeprefix("/dev/")
        logins = psutil.users() if terminal else []
    except (psutil.Error, OSError):
        return ""
    hosts = [one.host or "" for one in logins if one.terminal == terminal]
    return next((host for host in hosts if ADDRESS.fullmatch(host)), "")


def _by_ancestors(pid: int) -> str:
    try:
        ancestors = [(one.name(), one.pid) for one in psutil.Process(pid).parents()]
    except psutil.Error:
        ancestors = []
    for name, ancestor in ancestors:
        if name.startswith("tmux"):
            return "tmux"
        if name.startswith(("screen", "SCREEN")):
            return "screen"
        if name.startswith("sshd"):
            return "SSH"
        if name.startswith(("slurmstepd", "cron", "systemd")) and ancestor != 1:
            return name
    return NOWHERE if stat_of(pid) else ""


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
