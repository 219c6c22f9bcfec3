"""Runs that 9407e15 made, unpacked, and the command line to ask about them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nantui.machine.process_identity import this_machine
from tests import waiting
from tests.compat.archive import DATA, new_root, unpack
from tests.compat.recorded import Recorded

QUICK = """patience: {tick_s: 0.05, heartbeat_s: 0.5, idle_exit_s: 0.5, host_silent_s: 20, stop_s: 60,
  teardown_s: 5}
"""


@pytest.fixture(scope="module")
def on_the_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Be on the host where the runs were recorded, rebooted since; returns the home of all processes."""
    home = tmp_path_factory.mktemp("home")
    (home / "config/nantui").mkdir(parents=True)
    (home / "config/nantui/supervise.yaml").write_text(QUICK)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CONFIG", "CACHE", "STATE"):
            patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
        patch.setenv("NANTUI_HOST", "recorded")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("YOLO_OFFLINE", "true")
        patch.setattr(waiting, "PATIENCE_S", 300.0)
        this_machine.cache_clear()
        yield home
    this_machine.cache_clear()


@pytest.fixture(scope="module")
def unpacked(on_the_host: Path) -> Iterator[Callable[[str], Recorded]]:
    """Return a maker of runs as they were recorded; no process of any of them is left in the end."""
    roots = []

    def make(name: str) -> Recorded:
        # This version is first used after the run was made: it counts as being in its place.
        (on_the_host / "state/nantui/runs.jsonl").unlink(missing_ok=True)
        roots.append(unpack(DATA / f"{name}.tar.xz", new_root()))
        return Recorded(name, roots[-1])

    yield make
    for root in roots:
        end_processes(root)
        shutil.rmtree(root)


def end_processes(root: Path) -> None:
    """Kill what was started for a run below `root`: its path is on the command line of each of them."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(root) in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
