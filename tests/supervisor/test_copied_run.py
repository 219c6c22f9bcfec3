"""A run directory from elsewhere commands nothing, whatever its files name; a moved one asks once."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nantui.cli import main
from nantui.errors import UserError
from nantui.machine.process_tree import send
from nantui.run import commands
from nantui.run.binding import HERE, MOVED, STRANGE, bind, standing
from nantui.run.commands import Command
from nantui.run.layout import RunLayout
from nantui.run.spec import read_spec, write_spec
from nantui.run.status import RUNNING, STOPPED
from nantui.supervisor.client import submit
from nantui.supervisor.status import read_status
from tests.supervisor.stub_run import PYTHON, StubRun
from tests.waiting import eventually


@dataclass(frozen=True)
class Copied:
    """The copy of a run, whose interpreter leaves a trace when it is started."""

    layout: RunLayout
    trace: Path

    @property
    def run(self) -> str:
        return str(self.layout.run)

    def executed(self) -> bool:
        return self.trace.exists()

    def unfinished(self) -> None:
        """Let its newest attempt have no end in the journal, and diverged."""
        lines = self.layout.journal.read_text().splitlines(keepends=True)
        self.layout.journal.write_text("".join(line for line in lines if '"attempt_ended"' not in line))
        ending = json.loads(self.layout.exit(1, 0).read_text())
        self.layout.exit(1, 0).write_text(json.dumps({**ending, "outcome": "diverged", "code": 77}))


@pytest.fixture
def original(make_run: Callable[..., StubRun]) -> StubRun:
    run = make_run("original", epochs=100000)
    run.await_step()
    run.do("stop")
    eventually(lambda: not run.supervisor_alive())
    return run


@pytest.fixture
def copied(original: StubRun, tmp_path: Path, stub_python: str) -> Copied:
    place, trace = tmp_path / "downloads" / "copy", tmp_path / "executed"
    shutil.copytree(original.path, place)
    layout = RunLayout(place)
    evil = layout.run / "python"
    evil.write_text(f'#!/bin/sh\necho "$*" >> "{trace}"\nexec "{stub_python}" "$@"\n')
    evil.chmod(0o755)
    spec = read_spec(layout.spec)
    assert spec is not None
    write_spec(layout.spec, replace(spec, python=str(evil), auto=True))
    return Copied(layout, trace)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    try:
        status = main(list(words))
    except SystemExit as error:
        status = int(error.code or 0)
    out = capsys.readouterr()
    return status, out.out + out.err


LOOKS = (
    ["status"],
    ["diagnose"],
    ["rollback", "--dry-run"],
    ["recover", "--dry-run"],
    ["resume", "--dry-run"],
)


@pytest.mark.parametrize("words", [*LOOKS, ["stop", "--yes"], ["undo", "--yes"]], ids=" ".join)
def test_a_look_and_a_stop_start_nothing_that_a_copied_run_names(
    copied: Copied, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    copied.unfinished()
    before = read_spec(copied.layout.spec)
    assert before is not None and (before.python, before.auto) == ("", False)
    told(capsys, *words, copied.run)
    time.sleep(1.0)
    assert not copied.executed() and copied.layout.attempt_numbers() == [1]


@pytest.mark.parametrize("kind", ["start", "resume", "recover", "rollback"])
def test_what_would_start_a_copied_run_is_refused_until_it_was_shown(copied: Copied, kind: str) -> None:
    with pytest.raises(UserError, match="was not made here"):
        submit(copied.layout.run, Command(kind))
    assert not copied.executed() and standing(copied.layout.run) == STRANGE


def test_yes_is_no_trust_and_trust_shows_and_binds(
    copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = told(capsys, "resume", "--yes", copied.run)
    assert status == 2 and "--trust" in said and f"runs the interpreter {copied.layout.run}/python" in said
    assert "goes on by itself" in said and "unpickles weights/nantui_stop.pt" in said
    assert not copied.executed()
    status, said = told(capsys, "resume", "--trust", copied.run)
    assert status == 0 and copied.executed() and standing(copied.layout.run) == HERE
    status, said = told(capsys, "stop", "--yes", copied.run)
    assert status == 0 and "no process is left" in said


def test_what_a_command_would_run_is_shown_with_its_variables_and_waiting_settings(
    copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    data = copied.layout.run / "d.yaml"
    data.write_text("train: a\nval: b\nnames: {0: a}\ndownload: |\n  print('theirs')\n")
    command = {
        "argv": ["/bin/true", "a b"],
        "cwd": "/",
        "env": {"LD_PRELOAD": "/x.so", "HOME": [1], "x": "\0"},
    }
    text = copied.layout.spec.read_text().replace("exec: null", f"exec: {json.dumps(command)}")
    copied.layout.spec.write_text(text)
    edit = {"id": "e", "kind": "set", "by": "x", "options": {"set": {"data": str(data)}}}
    with copied.layout.journal.open("a") as journal:
        journal.write(json.dumps({"t": 1.0, "kind": "command", "by": "x", "command": edit}) + "\n")
    status, said = told(capsys, "resume", "--dry-run", copied.run)
    for words in ("/bin/true 'a b' in /", "with LD_PRELOAD=/x.so", f"sets data={data}", "print('theirs')"):
        assert words in said
    assert not copied.executed()


def test_waiting_commands_of_a_copied_run_are_not_carried_out_even_after_trust(
    copied: Copied, capsys: pytest.CaptureFixture[str]
) -> None:
    commands.put(copied.layout.commands, Command("resume", by="stranger@elsewhere"))
    told(capsys, "stop", "--yes", copied.run)
    time.sleep(1.0)
    assert not copied.executed()
    bind(copied.layout.run)
    assert commands.pending_commands(copied.layout) == []
    assert list(copied.layout.home.glob("commands-not-carried-out-*/*.json")), "kept, to be looked at"


being_written = shutil.ignore_patterns(".*.tmp")


def test_the_lock_of_a_living_run_does_not_hold_its_copy(
    make_run: Callable[..., StubRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("living", epochs=100000)
    run.await_step()
    copy = shutil.copytree(run.path, tmp_path / "copy", ignore=being_written)
    eventually(lambda: read_status(run.path).state == RUNNING)

    def shown() -> tuple[str, tuple[int, ...], float | None, str]:
        now = read_status(copy)
        return now.state, now.pids, now.eta_s, now.text

    nothing_there = (STOPPED, (), None, f"copied from {run.path}: nothing trains here")
    assert shown() == nothing_there
    assert "is training" not in told(capsys, "resume", "--dry-run", str(copy))[1]
    status, said = told(capsys, "stop", "--yes", str(copy))
    assert status == 0 and "nothing was running" in said and shown() == nothing_there
    assert run.members() and run.supervisor_alive(), "the original, whose mark the copy carries, trains on"
    run.kill_supervisor()
    assert run.members() and shown() == nothing_there, "its ranks are registered in the copy, too"


@pytest.mark.parametrize("watched", [True, False])
def test_the_copy_of_a_run_that_trains_is_not_trusted_until_that_has_ended(
    make_run: Callable[..., StubRun],
    tmp_path: Path,
    stub_python: str,
    capsys: pytest.CaptureFixture[str],
    watched: bool,
) -> None:
    """What the copy says of living processes is true, but they are the original's."""
    run = make_run("living", epochs=100000)
    run.await_step()
    copy = shutil.copytree(run.path, tmp_path / "copy", ignore=being_written)
    if not watched:
        run.kill_supervisor()
    before = run.members()
    status, said = told(capsys, "resume", "--trust", "--yes", "--python", stub_python, str(copy))
    assert status == 3 and f"{copy} is a copy of a run that trains" in said and "nothing was done" in said
    assert (str(run.path) in said) is watched
    assert standing(copy) == STRANGE and run.members() == before
    run.do("stop", now=True)
    eventually(lambda: not run.members())
    status, said = told(capsys, "resume", "--trust", "--yes", "--python", stub_python, str(copy))
    assert status == 0 and standing(copy) == HERE
    status, said = told(capsys, "stop", "--now", "--yes", str(copy))
    assert status == 0 and "no process is left" in said


def test_a_moved_run_asks_once_and_yes_is_an_answer(
    original: StubRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "elsewhere"
    os.rename(original.path, place)
    assert standing(place) == MOVED
    status, said = told(capsys, "resume", "--yes", str(place))
    assert status == 0 and f"moved here from {original.path}" in said
    assert standing(place) == HERE
    status, said = told(capsys, "stop", "--yes", str(place))
    assert status == 0
    status, said = told(capsys, "resume", "--dry-run", str(place))
    assert "moved here" not in said


def test_a_run_that_was_made_here_is_asked_nothing(
    original: StubRun, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = told(capsys, "resume", "--yes", str(original.path))
    assert status == 0 and "made here" not in said
    told(capsys, "stop", "--yes", str(original.path))


def test_a_plain_run_is_asked_about_only_where_its_data_set_brings_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = tmp_path / "plain", tmp_path / "data.yaml"
    run.mkdir()
    data.write_text("path: nowhere\ntrain: a\nval: b\nnames: {0: a}\ndownload: https://example.org/a.zip\n")
    (run / "args.yaml").write_text(f"task: detect\ndata: {data}\n")
    os.utime(run / "args.yaml", (1, 1))  # older than any process that could have written it
    status, said = told(capsys, "resume", "--our-runner", "--dry-run", str(run))
    assert status == 0 and "runs this code" not in said
    data.write_text("train: a\nval: b\nnames: {0: a}\ndownload: |\n  import os\n  os.remove('x')\n")
    status, said = told(capsys, "resume", "--our-runner", "--yes", str(run))
    assert status == 2 and "os.remove('x')" in said and "--trust" in said


def test_a_run_that_is_renamed_while_it_trains_is_followed_and_stopped_by_either_name(
    make_run: Callable[..., StubRun],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its supervisor becomes that of the new place, and stays the worker's parent: it is a real one."""
    monkeypatch.setattr(sys, "executable", PYTHON)
    run = make_run("moving", epochs=100000)
    run.await_step()
    new = StubRun(tmp_path / "moved")
    os.rename(run.path, new.path)
    eventually(lambda: "adopted" in new.kinds() and new.supervisor_alive(), lambda: str(new.kinds()))
    assert new.members()
    assert read_status(new.path).text == f"renamed while it trains: it goes on writing to {run.path}"
    run.path.mkdir(exist_ok=True)  # as Ultralytics does
    (run.path / "args.yaml").write_text("task: detect\n")
    where = f"`nantui stop {run.path}` ends what trains on as {new.path} and writes here"
    assert where in read_status(run.path).text
    status, said = told(capsys, "resume", "--yes", "--our-runner", "--trust", str(run.path))
    assert status != 0 and where in said, said
    status, said = told(capsys, "stop", "--yes", str(run.path))
    assert status == 0 and f"trains on as {new.path}" in said, said
    assert not new.members()


def test_a_run_that_is_renamed_while_it_trains_is_neither_ended_for_its_silence_nor_trained_twice(
    make_run: Callable[..., StubRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its steps say goes to the old name; that it has hung, or where it came to, cannot be known."""
    monkeypatch.setattr(sys, "executable", PYTHON)
    run = make_run("moving", epochs=100000, auto=True)
    run.await_step()
    new = StubRun(tmp_path / "moved")
    os.rename(run.path, new.path)
    eventually(lambda: "adopted" in new.kinds() and new.supervisor_alive(), lambda: str(new.kinds()))
    members = new.members()
    time.sleep(5.0)  # twice what a silent rank is given here, see `CONFIG` of the stub
    assert new.members() == members and new.status().state == RUNNING, new.journal()[-3:]
    for ref in members:
        send(ref, 9)
    eventually(lambda: not new.supervisor_alive())
    assert new.kinds().count("attempt_started") == 1


def test_a_run_that_is_deleted_while_it_trains_can_be_stopped(
    make_run: Callable[..., StubRun], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("deleted", epochs=100000)
    run.await_step()
    members = run.members()
    shutil.rmtree(run.path, ignore_errors=True)
    shutil.rmtree(run.path, ignore_errors=True)
    status, said = told(capsys, "stop", "--yes", str(run.path))
    assert status == 0, said
    eventually(lambda: not any(Path(f"/proc/{ref.pid}/environ").exists() for ref in members))
