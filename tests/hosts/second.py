"""The second host of a test: `nantui join` under another name, and what becomes of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nantui.run.identity import ProcessRef, alive
from nantui.run.layout import RunLayout
from nantui.supervise.hosts import reports
from nantui.supervise.processes import members, send

ROOT = str(Path(__file__).parents[2])


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

    def clean_up(self) -> None:
        """Leave nothing behind, whatever the test found."""
        found = reports.read_report(self.layout, self.name)
        for ref in [found.process, *self.members()] if found else []:
            send(ref, signal.SIGKILL)
