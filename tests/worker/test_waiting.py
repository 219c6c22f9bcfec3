"""A process that waits to become a worker: what it has imported holds, unless a file changed since."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nantui import entry_points
from nantui.machine.process_tree import MARK, environment_of
from nantui.machine.waiting_process import ASKED_THROUGH, LONGEST_S, WaitingProcess, both_ends, have_done
from nantui.paths import WORK_IN
from tests.waiting import eventually

OWN_SCORE = Path("/proc/self/oom_score_adj").read_text().strip()
SPEAKS = """
import os, sys, nantui.paths
from imported import WORD
if __name__ == "__main__":
    nantui.paths.go_to_work()
    score = open("/proc/self/oom_score_adj").read().strip()
    print("said", WORD, sys.argv[1:], os.getcwd(), os.getppid(), score)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with a module that says what it is, and where."""
    (tmp_path / "imported.py").write_text("WORD = 'old'\n")
    (tmp_path / "speaks.py").write_text(SPEAKS)
    return tmp_path


@pytest.fixture
def waiting(place: Path, request: pytest.FixtureRequest) -> Iterator[WaitingProcess]:
    """Yield a process that waits to become `python -m speaks a b`, or another module with these arguments."""
    ours, its = both_ends()
    argv = [sys.executable, "-m", getattr(request, "param", "speaks"), "a", "b"]
    words = [argv[0], "-m", entry_points.WAITING, *argv[2:]]
    path = os.pathsep.join([str(place), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path, MARK: "mine", WORK_IN: str(place)}
    with its, (place / "early").open("w+b") as early:
        child = subprocess.Popen(
            words, stdin=its, stdout=early, stderr=subprocess.STDOUT, env=environment, cwd="/"
        )
    made = WaitingProcess(argv, str(place), child, ours)
    yield made
    made.end()


def said(waiting: WaitingProcess, place: Path) -> list[str]:
    """Let it become what it waits for; returns the lines of its output."""
    waiting.environment = dict(os.environ)  # pytest has changed its own
    with (place / "log").open("ab") as log:
        assert waiting.become(waiting.argv, waiting.cwd, log.fileno())
    assert waiting.child.wait(60) == 0, (place / "log").read_text()
    return (place / "log").read_text().splitlines()


def test_it_becomes_the_very_process_that_was_asked_for(waiting: WaitingProcess, place: Path) -> None:
    mark = f"{MARK}=mine".encode()
    # While it is being executed, a process has no environment yet.
    eventually(
        lambda: mark in environment_of(waiting.child.pid), lambda: "not found as a part of the attempt"
    )
    assert said(waiting, place) == [f"said old ['a', 'b'] {place} {os.getpid()} {OWN_SCORE}"]


def test_where_a_file_that_it_imported_has_changed_it_begins_anew(
    waiting: WaitingProcess, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(waiting, place, monkeypatch), "it has imported what it waits for"
    (place / "imported.py").write_text("WORD = 'mended'\n")
    assert not asked(waiting, place, monkeypatch), "nor does a fork of it work with the old one"
    why, line = said(waiting, place)
    assert "begun anew" in why and "imported.py" in why
    assert line == f"said mended ['a', 'b'] {place} {os.getpid()} {OWN_SCORE}"


def asked(waiting: WaitingProcess, place: Path, monkeypatch: pytest.MonkeyPatch, word: str = "c") -> bool:
    monkeypatch.setenv(ASKED_THROUGH, str(waiting.asked.fileno()))
    with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
        return have_done(["speaks", word], out.fileno(), err.fileno())


def test_a_fork_of_it_does_what_is_asked_and_holds_a_lock_as_a_child_would(
    waiting: WaitingProcess, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ASKED_THROUGH, str(waiting.asked.fileno()))
    look = "[os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd')[:-1]]"
    (place / "looks.py").write_text(f"import os; print({look})")
    with (place / "out").open("wb") as out, (place / "lock").open("wb") as lock:
        os.set_inheritable(lock.fileno(), True)
        assert have_done(["looks"], out.fileno(), out.fileno())
    assert str(place / "lock") in (place / "out").read_text()
    score = Path(f"/proc/{waiting.child.pid}/oom_score_adj").read_text().strip()
    assert score == "1000" != OWN_SCORE, "without memory it goes first, and never the training"
    assert os.readlink(f"/proc/{waiting.child.pid}/cwd") == "/", "what it starts finds no module in a run"
    assert said(waiting, place)[0].startswith("said old"), "and it becomes the worker all the same"


@pytest.mark.parametrize(
    ("waiting", "needed"),
    [
        (entry_points.WORKER, ["torch._dynamo", "ultralytics.models", "matplotlib.font_manager"]),
        ("torch.distributed.run", ["torch.distributed.launcher.api"]),
    ],
    indirect=["waiting"],
)
def test_what_takes_long_is_soon_there_and_never_imported_twice(
    waiting: WaitingProcess, place: Path, monkeypatch: pytest.MonkeyPatch, needed: list[str]
) -> None:
    """Whatever a fork of it had to import, the worker would import once more."""
    (place / "speaks.py").write_text(f"import sys; print({{*{needed}}} - {{*sys.modules}})")
    eventually(
        lambda: asked(waiting, place, monkeypatch) and (place / "out").read_text() == "set()\n",
        lambda: (place / "out").read_text(),
    )


@pytest.mark.parametrize("waiting", [entry_points.WORKER], indirect=True)
def test_what_is_asked_is_done_while_the_rest_is_imported(
    waiting: WaitingProcess, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last import lasts until the fork has been there."""
    been = f"pathlib.Path({str(place / 'been')!r})"
    wait = f"for _ in range(6000):\n    if {been}.exists():\n        break\n    time.sleep(0.01)\n"
    (place / "torchvision.py").write_text(f"import pathlib, time\n{wait}")
    (place / "speaks.py").write_text(
        f"import pathlib, sys; {been}.touch(); print('torchvision' in sys.modules)"
    )
    assert asked(waiting, place, monkeypatch)
    assert (place / "out").read_text() == "False\n"


def test_a_helper_that_fails_or_is_not_there_leaves_the_work_to_another(
    waiting: WaitingProcess, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ASKED_THROUGH, str(waiting.asked.fileno()))
    with (place / "out").open("wb") as out, (place / "err").open("wb") as err:
        assert not have_done(["no_such_module"], out.fileno(), err.fileno())
        assert "No module named no_such_module" in (place / "err").read_text()
        waiting.child.kill()
        waiting.child.wait()
        assert not have_done(["speaks"], out.fileno(), err.fileno())
        monkeypatch.delenv(ASKED_THROUGH)
        assert not have_done(["speaks"], out.fileno(), err.fileno())
    assert (place / "out").read_text() == ""


def test_with_nobody_at_the_other_end_it_ends(waiting: WaitingProcess) -> None:
    waiting.asked.close()
    assert waiting.child.wait(60) == 0


@pytest.mark.parametrize("differs", ["argv", "cwd", "environment"])
def test_what_differs_is_not_used_and_is_gone(
    waiting: WaitingProcess, place: Path, monkeypatch: pytest.MonkeyPatch, differs: str
) -> None:
    waiting.environment = dict(os.environ)
    argv = [*waiting.argv, "more"] if differs == "argv" else waiting.argv
    if differs == "environment":
        monkeypatch.setenv("OMP_NUM_THREADS", "17")
    with (place / "log").open("ab") as log:
        assert not waiting.become(argv, "/" if differs == "cwd" else waiting.cwd, log.fileno())
    assert waiting.child.returncode is not None and (place / "log").read_text() == ""


def test_it_waits_for_a_while_and_never_for_ever(waiting: WaitingProcess) -> None:
    assert not waiting.is_over(needed=False), "after an alarm it is kept"
    assert not waiting.is_over(needed=True)
    waiting.since -= LONGEST_S
    assert waiting.is_over(needed=True), "also under a dialog that nobody closes"
