"""`--into` on a real run of plain Ultralytics, and what is lost when our runner goes on with it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nantui import cli
from nantui.commands import acting
from nantui.machine.process_tree import send
from nantui.recovery.plan import UNKNOWN, lost_with_our_runner, make_plan
from nantui.run.atomic_files import to_json
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.binding import bind
from nantui.run.commands import Command
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.results import current, read_results
from nantui.run.spec import Spec, read_spec, write_spec
from nantui.settings.schema import Schema
from nantui.supervisor.client import CommandResult
from tests import waiting
from tests.recovery.fakes import hash_of
from tests.supervisor.stub_run import StubRun


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(waiting, "PATIENCE_S", 300.0)
    yield
    for ref in StubRun(tmp_path / "second").members():
        send(ref, signal.SIGKILL)


def everything(run: Path) -> dict[str, tuple[str, int]]:
    """Return content and time of every file and folder of a run, ours included."""
    return {
        str(path.relative_to(run)): (hash_of(path) if path.is_file() else "", path.stat().st_mtime_ns)
        for path in sorted([run, *run.rglob("*")])
    }


def test_a_foreign_run_goes_on_in_a_new_one_and_no_byte_of_it_changes(
    poisoned: Path, own_home: None, warm_python: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(poisoned)
    words = ["recover", str(poisoned), "--into", "second", "--set", "epochs=6", "lr0=0.002", "--yes"]
    words += ["--python", warm_python]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert UNKNOWN in said and "--our-runner" in said and not (poisoned.parent / "second").exists()
    assert cli.main([*words, "--our-runner"]) == 0, capsys.readouterr().err
    run = StubRun(poisoned.parent / "second")
    run.await_state("finished")
    assert everything(poisoned) == before, "not even a time has changed"
    assert [row.epoch for row in current(read_results(run.layout.results_csv))] == [1, 2, 3, 4, 5, 6]
    effect = [entry for entry in run.journal() if entry["kind"] == "in_effect"][-1]
    assert effect["values"]["lr0"] == 0.002 and not effect["differences"]
    assert run.layout.best.is_file() and str(run.path) in run.layout.args_yaml.read_text()


def test_an_interrupted_rollback_is_not_put_right_behind_the_back_of_into(
    poisoned: Path, own_home: None, capsys: pytest.CaptureFixture[str]
) -> None:
    Journal(RunLayout(poisoned).journal).append("rollback_begun", id="half", steps=[])
    bind(poisoned)
    before = everything(poisoned)
    words = ["recover", str(poisoned), "--into", "second", "--set", "epochs=6", "--yes", "--our-runner"]
    assert cli.main(words) == 3
    assert "was interrupted" in capsys.readouterr().err and everything(poisoned) == before


def test_the_plan_of_a_foreign_run_says_what_our_runner_cannot_bring(poisoned: Path) -> None:
    assert any(UNKNOWN in warning for warning in make_plan(poisoned).warnings)
    write_spec(RunLayout(poisoned).spec, Spec({"epochs": 12}))
    assert not any(UNKNOWN in warning for warning in make_plan(poisoned).warnings)


def test_what_the_guard_saw_of_a_script_is_named(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    layout.args_yaml.write_text("lr0: 0.1\nmy_own_knob: 3\n")
    write_spec(layout.spec, Spec({}, kind="exec", exec={"argv": ["python", "train.py"]}))
    bind(layout.run)
    write_attempt(layout, Attempt(1, "u", 0.0, "start", None, {}, {}, "python"))
    own = ["trainer class train.Mine", "callback on_train_end: train.tell"]
    layout.events(1, 0).write_text(to_json({"t": 1.0, "kind": "in_effect", "values": {}, "own": own}) + "\n")
    lost = lost_with_our_runner(RunRecord(layout), Schema.load())
    assert lost[:3] == ["its own script: python train.py", *own]
    assert lost[3].startswith("my_own_knob") and len(lost) == 4


def test_an_exec_run_goes_on_under_our_runner_only_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = RunLayout(tmp_path / "run")
    layout.run.mkdir()
    layout.args_yaml.write_text("epochs: 3\nmodel: m.yaml\n")
    write_spec(layout.spec, Spec({}, kind="exec", exec={"argv": ["python", "train.py"]}))
    bind(layout.run)
    assert cli.main(["resume", str(layout.run), "--dry-run"]) == 0
    assert "without" not in capsys.readouterr().err
    assert cli.main(["resume", str(layout.run), "--dry-run", "--our-runner"]) == 0
    assert "its own script: python train.py" in capsys.readouterr().err


def test_leaving_its_script_an_exec_run_trains_what_its_arguments_say(tmp_path: Path) -> None:
    from nantui.supervisor.run_spec import leave_the_script

    layout = RunLayout(tmp_path)
    layout.args_yaml.write_text("epochs: 3\nmodel: m.yaml\n")
    write_spec(layout.spec, Spec({}, kind="exec", exec={"argv": ["python", "train.py"]}))
    bind(layout.run)
    layout.lock.touch()  # whoever acts on a run holds it
    supervisor: Any = SimpleNamespace(layout=layout, journal=Journal(layout.journal))
    leave_the_script(supervisor, Command("resume", {}))
    assert read_spec(layout.spec).kind == "exec"
    leave_the_script(supervisor, Command("resume", {"our_runner": True}))
    spec = read_spec(layout.spec)
    assert (spec.kind, spec.exec, spec.train) == ("train", None, {"epochs": 3, "model": "m.yaml"})


def test_the_interpreter_that_is_to_train_goes_with_the_command_wherever_it_was_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Command] = []

    def carry_out(run: Path, command: Command, **how: Any) -> CommandResult:
        sent.append(command)
        return CommandResult(True, "")

    monkeypatch.setattr(acting, "carry_out", carry_out)
    layout = RunLayout(tmp_path / "run")
    layout.run.mkdir()
    layout.args_yaml.write_text("epochs: 3\nmodel: m.yaml\n")
    monkeypatch.chdir(Path(sys.executable).parent)
    words = ["resume", str(layout.run), "--our-runner", "--yes"]
    assert cli.main([*words, "--python", f"./{Path(sys.executable).name}"]) == 0 == cli.main(words)
    assert [command.options.get("python") for command in sent] == [sys.executable, None]
