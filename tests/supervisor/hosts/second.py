"""The second host of a test: `nantui join` under another name, and what becomes of its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from nantui.machine.process_identity import ProcessRef, alive
from nantui.machine.process_tree import members, send
from nantui.run.layout import RunLayout
from nantui.supervisor.hosts import reports

ROOT = str(Path(__file__).parents[3])


class Second:
    """Host `b`."""

    def __init__(self, run: Path, name: str = "b", through: Sequence[str] = (), **variables: str) -> None:
        self.layout, self.name, self._through, self._variables = RunLayout(run), name, through, variables

    def join(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `nantui join` to its end."""
        environment = {**os.environ, "NANTUI_HOST": self.name, **self._variables}
        argv = [*self._through, sys.executable, "-m", "nantui", "join", str(self.layout.run), *words]
        return subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)

    @property
    def report(self) -> reports.Report:
        found = reports.read_report(self.layout, self.name)
        assert found is not None, "it has joined"
        return found

    def members(self) -> list[ProcessRef]:
        """Return its living processes of the newest attempt."""
        return members(f"{self.name}@{self.report.uuid}")

    def agent_alive(self) -> bool:
        return alive(self.report.process)

    def kill_agent(self) -> None:
        assert send(self.report.process, signal.SIGKILL)

    def kill_witness(self) -> None:
        """Kill the process that would tell of the agent's end: a child that runs the agent's own words."""
        agent = psutil.Process(self.report.process.pid)
        (witness,) = (child for child in agent.children() if child.cmdline() == agent.cmdline())
        witness.kill()

    def clean_up(self) -> None:
        """Leave nothing behind, whatever the test found."""
        found = reports.read_report(self.layout, self.name)
        for ref in [found.process, *self.members()] if found else []:
            send(ref, signal.SIGKILL)


LISTEN = "0A"  # the state of a socket in /proc/PID/net/tcp


def listening(pid: int) -> set[str]:
    """Return the addresses on which a process listens for TCP, in its own network namespace (Linux)."""
    sockets = {link[len("socket:[") : -1] for link in _descriptors(pid) if link.startswith("socket:[")}
    found = set()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTEN and words[9] in sockets:
                raw = bytes.fromhex(words[1].partition(":")[0])
                turned = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
                found.add(socket.inet_ntop(family, turned))
    return found


def _descriptors(pid: int) -> list[str]:
    links = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return links
