"""A supervisor of 9407e15 that still runs, and the code of today beside it, or in its place.

The package of 9407e15 is unpacked from data/ and started as it was: its supervisor, its worker, a real
training. `nantui` here is the checkout's.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.archive import OLD_CODE, unpack_old_code
from tests.compat.conftest import end_processes
from tests.compat.recorded import ROOT, Recorded
from tests.waiting import eventually

IMPORTED_BY_NAME = "nantui.training.attach"
PACKAGES = ("nantui", "styles", "configs")
EPOCHS = 3000
Unpacked = Callable[[str], Recorded]


class OldRun(Recorded):
    """A run that is being trained by 9407e15, installed in `place`."""

    def __init__(self, base: Recorded, place: Path, home: Path, name: str, python: str) -> None:
        super().__init__(base.name, base.root)
        self.place, self.run = unpack_old_code(place), base.root / "runs" / name
        self.train_with(python)
        self._environment = {**os.environ, "PYTHONPATH": str(self.place)}
        self._patient(home, f"{name}-config")

    def _patient(self, home: Path, config: str) -> None:
        """Let its supervisor stay when nothing is left to do, so that it is there to be asked again."""
        file = home / config / "nantui/supervise.yaml"
        file.parent.mkdir(parents=True)
        quick = (home / "config/nantui/supervise.yaml").read_text()
        file.write_text(quick.replace("idle_exit_s: 0.5", "idle_exit_s: 600"))
        self._environment["XDG_CONFIG_HOME"] = str(home / config)

    def start(self) -> subprocess.Popen[str]:
        """Start the training, detached, by the old command; returns that command."""
        train = {
            "model": self.root / "tiny.yaml", "data": self.root / "data/data.yaml", "epochs": EPOCHS,
            "imgsz": 32, "batch": 4, "nbs": 4, "device": "cpu", "workers": 0, "plots": False,
            "optimizer": "SGD", "lr0": 0.001, "warmup_epochs": 0, "mosaic": 0, "val": False,
            "verbose": False, "project": self.run.parent, "name": self.run.name,
        }  # fmt: skip
        words = [f"{name}={value}" for name, value in train.items()]
        argv = [sys.executable, "-m", "nantui", "train", *words, "--python", str(self.root / "python")]
        return subprocess.Popen(
            [*argv, "--yes"], cwd="/", env=self._environment, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    @property
    def supervisor(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.run / "nantui/supervisor.json").read_text())
        return state

    def stepping(self, attempt: int) -> None:
        """Wait until an attempt has done some steps, and the supervisor has taken notice of it."""

        def there() -> bool:
            ended = [entry for entry in self.journal("attempt_ended") if entry["attempt"] == attempt]
            assert not ended, ended
            return len(self.steps(attempt)) > 3 and self.supervisor["state"] == "running"

        eventually(there, lambda: str(self.status()))


@pytest.fixture
def old_run(
    unpacked: Unpacked, on_the_host: Path, tmp_path: Path, request: pytest.FixtureRequest, warm_python: str
) -> Iterator[OldRun]:
    """A run that trains under 9407e15, installed in a place of its own; its end is the test's."""
    place, name = tmp_path / "install", request.node.name[-12:]
    run = OldRun(unpacked("stopped"), place, on_the_host, name, warm_python)
    said, _ = run.start().communicate(timeout=300)
    assert run.run.is_dir(), said
    yield run
    end_processes(run.root)


def test_the_unpacked_package_is_the_one_in_the_history() -> None:
    asked = subprocess.run(["git", "archive", "9407e15", *PACKAGES], cwd=ROOT, capture_output=True)
    if asked.returncode:
        pytest.skip("this checkout has no history back to 9407e15; the archive in data/ is used as it is")
    assert files_in(io.BytesIO(asked.stdout)) == files_in(io.BytesIO(OLD_CODE.read_bytes()))


def files_in(archive: io.BytesIO) -> dict[str, bytes]:
    """Return the files of a tar archive: name to content."""
    with tarfile.open(fileobj=archive) as tar:
        opened = ((member.name, tar.extractfile(member)) for member in tar if member.isfile())
        return {name: stream.read() for name, stream in opened if stream is not None}


def test_what_the_version_before_starts_by_name_is_still_there(torch_python: str) -> None:
    """Asked for nothing, each of them refuses; a name that is gone, or does nothing, would not."""
    names = names_in_the_old_code()
    assert {"nantui.supervise.main", "nantui.recovery.act", "nantui.training.worker"} < names
    assert importlib.util.find_spec(IMPORTED_BY_NAME) is not None
    started = {name: started_with_nothing(torch_python, name) for name in sorted(names - {IMPORTED_BY_NAME})}
    for name, process in started.items():
        said, _ = process.communicate(timeout=120)
        assert process.returncode in (1, 2) and "No module named" not in said, (name, said)


def names_in_the_old_code() -> set[str]:
    """Return the modules that 9407e15 names in quotes: it starts them, or imports them late."""
    files = files_in(io.BytesIO(OLD_CODE.read_bytes()))
    sources = [text for name, text in files.items() if name.endswith(".py")]
    return {name.decode() for text in sources for name in re.findall(rb'"(nantui(?:\.[a-z_]+)+)"', text)}


def runs_with(pid: int, code: Path) -> bool:
    """Tell whether a process finds the package in `code` before any other."""
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    (path,) = [value for value in variables if value.startswith("PYTHONPATH=")]
    first = Path(path.removeprefix("PYTHONPATH=").split(os.pathsep)[0])
    return (first / "nantui").resolve() == (code / "nantui").resolve()


def started_with_nothing(python: str, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-m", name], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_it_is_watched_and_once_it_died_its_training_is_taken_over(old_run: OldRun) -> None:
    run = old_run
    run.stepping(1)
    state = run.supervisor
    assert runs_with(state["pid"], run.place) and runs_with(state["worker"]["pid"], run.place)
    seen = run.status()
    assert (seen["state"], seen["epochs"], seen["guarded"]) == ("running", EPOCHS, True)
    assert state["worker"]["pid"] in seen["pids"] and seen["losses"] and seen["eta_s"] > 0
    os.kill(state["pid"], signal.SIGKILL)
    assert "no process is left" in run.nantui("stop", "--yes")
    run.ended(1, "stopped")
    assert run.supervisor["pid"] != state["pid"] and run.status()["state"] == "stopped"
    assert [entry["kind"] for entry in run.journal("adopted", "in_effect")] == ["in_effect", "adopted"]
    run.nantui("resume", "--yes")
    run.stepping(2)
    assert run.goes_on(2) and not runs_with(run.supervisor["worker"]["pid"], run.place)
    assert "no process is left" in run.nantui("stop", "--yes")
    run.ended(2, "stopped")
    assert run.asked("check")[0] == 0


def test_it_stops_and_resumes_for_todays_commands_also_after_its_code_was_replaced(old_run: OldRun) -> None:
    run = old_run
    run.stepping(1)
    pid = run.supervisor["pid"]
    assert "no process is left" in run.nantui("stop", "--yes")
    run.ended(1, "stopped")
    replace_the_code(run.place)
    run.nantui("resume", "--yes")
    run.stepping(2)
    state = run.supervisor
    assert state["pid"] == pid, "it is still the supervisor of 9407e15 that starts the worker"
    assert runs_with(state["worker"]["pid"], run.place)
    assert run.status()["state"] == "running" and run.goes_on(2)
    assert "no process is left" in run.nantui("stop", "--yes")
    run.ended(2, "stopped")
    assert run.supervisor["pid"] == pid and run.asked("check")[0] == 0


def replace_the_code(place: Path) -> None:
    """Update an installation in place, as a pull does under an editable one."""
    for name in PACKAGES:
        shutil.rmtree(place / name)
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
