"""No interpreter that nantui starts imports what lies in the current directory, or in a run."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from nantui import entry_points
from nantui.checkpoint.parallel_scan import Ahead
from nantui.machine.training_python import locate
from nantui.run.attempts import Attempt
from nantui.run.layout import RunLayout
from nantui.supervisor.helper_process import helper
from nantui.supervisor.launch import start_worker

SHADOWED = ("json", "argparse", "signal", "runpy", "faulthandler", "yaml", "numpy", "torch", "dataclasses")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a directory whose modules leave a trace; returns the trace."""
    here, trace = tmp_path / "downloads", tmp_path / "imported"
    (here / "nantui").mkdir(parents=True)
    evil = f"open({str(trace)!r}, 'a').write(__name__ + ' ')\nraise ImportError('not meant')\n"
    for name in SHADOWED:
        (here / f"{name}.py").write_text(evil)
    for name in ("__init__", "recovery", "worker", "run"):
        (here / "nantui" / f"{name}.py").write_text(evil)
    monkeypatch.chdir(here)
    return trace


def test_a_helper_imports_nothing_of_the_current_directory(trap: Path) -> None:
    answer = helper(entry_points.RECOVERY, {"action": "plan", "run": "/nowhere"})
    assert not answer["ok"] and "no such directory" in answer["error"]
    helper(entry_points.RECOVERY, {"action": "plan", "run": "/nowhere"}, cwd=os.getcwd())
    assert not trap.exists()


def test_a_worker_imports_nothing_of_its_run_and_works_there(trap: Path, tmp_path: Path) -> None:
    layout = RunLayout(Path.cwd())
    layout.attempts.mkdir(parents=True)
    argv = [sys.executable, "-m", entry_points.WORKER, str(layout.run), "001"]
    start_worker(layout, Attempt(1, "u", 0.0, "start", None, {}, {}, sys.executable, argv=argv), None).wait()
    assert layout.attempt_log(1).read_text().strip(), "it came as far as to say that there is no attempt"
    assert not trap.exists()
    said = "import os, nantui.paths as e; e.go_to_work(); print(os.getcwd())"
    argv = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", said]
    start_worker(layout, Attempt(2, "u", 0.0, "start", None, {}, {}, sys.executable, argv=argv), None).wait()
    assert layout.attempt_log(2).read_text().strip() == str(layout.run)


def test_looking_for_libraries_and_scanning_import_nothing_of_the_current_directory(
    trap: Path, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    assert locate(str(python), ("yaml",))[0].endswith("yaml/__init__.py")
    files = [tmp_path / f"{number}.pt" for number in range(2)]
    for file in files:
        shutil.copyfile("json.py", file)
    ahead = Ahead(files, crc=False)
    assert [ahead.take(file) is not None for file in files] == [True, True]
    ahead.close()
    assert not trap.exists()
