"""A user's own script, unchanged, under the real supervisor: diverged, recovered, still entirely theirs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nantui.commands import starting
from nantui.errors import UserError
from nantui.machine.process_tree import send
from nantui.run.atomic_files import write_json
from nantui.run.attempts import read_attempt
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.results import current, read_results
from nantui.run.spec import Spec, kept_environment, write_spec
from nantui.worker.script.train_calls import refuse_later_calls
from tests import waiting
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually
from tests.worker.runs import Trainings, outcome_of, write_request

SCRIPTS = Path(__file__).with_name("scripts")
REPOSITORY = str(Path(__file__).parents[3])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Supervisors with a configuration of their own; they wait for real trainings."""
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CONFIG", "CACHE", "STATE"):
            patch.setenv(f"XDG_{name}_HOME", str(place / name.lower()))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", REPOSITORY)
        patch.setattr(waiting, "PATIENCE_S", 180.0)
        yield place


def under_exec(python: str, run: Path, script: str, *words: Any) -> StubRun:
    """Start a script as a person does, with the command line."""
    argv = [python, "-m", "nantui", "exec", "--run", str(run), "--"]
    command = [*argv, python, str(SCRIPTS / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    return StubRun(Path(done.stdout.strip()))


def log_of(run: StubRun, attempt: int) -> str:
    return run.layout.attempt_log(attempt).read_text()


def ended(run: StubRun, state: str) -> None:
    eventually(lambda: run.status().state == state, lambda: f"{run.status()}\n{log_of(run, 1)[-2000:]}")


def end_processes(run: StubRun) -> None:
    for ref in run.members():
        send(ref, signal.SIGKILL)


@pytest.fixture(scope="module")
def recovered(
    trainings: Trainings, tmp_path_factory: pytest.TempPathFactory, home: Path, warm_python: str
) -> Iterator[tuple[StubRun, list[str], list[str]]]:
    """The script's run after it broke and was recovered; what its parts proved in either attempt."""
    place = tmp_path_factory.mktemp("exec")
    proof = place / "proof.txt"
    words = proof, trainings.model, trainings.data, place / "asked"
    run = under_exec(warm_python, place / "run", "mine.py", *words)
    try:
        ended(run, "diverged")
        first = proof.read_text().splitlines()
        proof.write_text("")
        outcome = run.do("recover", presets=["nan-safe"], set={"batch": 4, "lr0": 0.0007})
        assert outcome.ok, outcome.text
        ended(run, "finished")
        yield run, first, proof.read_text().splitlines()
    finally:
        end_processes(run)


def test_the_script_diverges_under_the_guard_in_its_run_directory(recovered):
    run, proofs, _ = recovered
    outcome = outcome_of(run.path, 1, 77)
    assert outcome.exit.outcome == "diverged"
    assert outcome.incidents[-1]["incident"] == "nan_weight" and outcome.incidents[-1]["epoch"] == 2
    assert "after" not in proofs
    place = run.path.parent / "asked" / "mine"
    assert place.is_symlink() and place.resolve() == run.path, "where the script would look for it"


def test_all_that_is_the_scripts_own_is_active_again(recovered):
    run, _, proofs = recovered
    assert {"trainer", "dataset", "augmentation"} <= set(proofs)
    assert [line for line in proofs if line.startswith("callback")] == ["callback 2", "callback 3"]
    assert proofs[-2:] == ["weights True", "after"], "the script goes on behind train()"
    rows = current(read_results(run.layout.results_csv))
    assert [row.epoch for row in rows] == [1, 2, 3] and all(row.finite for row in rows)


def test_recovered_settings_win_over_the_scripts_in_the_live_optimizer(recovered):
    effect = [entry for entry in recovered[0].journal() if entry["kind"] == "in_effect"][-1]
    values, attempt = effect["values"], read_attempt(recovered[0].layout, 2)
    assert attempt is not None and attempt.mode == "resume"
    assert (values["optimizer"], values["lr0"], values["batch"]) == ("SGD", 0.0007, 4)
    assert values["amp"] is False and values["momentum"] == 0.937
    assert effect["differences"] == [] and effect["guarded"]
    assert outcome_of(recovered[0].path, 2, 0).of("registered")


def worker(python: str, run: Path, number: int, log: Path) -> str:
    """Carry an attempt out as the supervisor would; returns its output."""
    argv = [python, "-m", "nantui.worker", str(run), f"{number:03d}"]
    with log.open("wb") as file:
        subprocess.call(argv, stdout=file, stderr=file, timeout=200)
    return log.read_text()


def twice_script(python: str, trainings: Trainings, place: Path) -> list[str]:
    words = trainings.model, trainings.data, place / "asked", place / "broken"
    return [python, str(SCRIPTS / "twice.py"), *map(str, words)]


def test_a_script_is_resumed_at_the_interrupted_call_and_repeats_no_finished_one(
    trainings, tmp_path, home, warm_python
):
    first, second = RunLayout(tmp_path / "run"), RunLayout(tmp_path / "asked" / "second")
    command = {"argv": twice_script(warm_python, trainings, tmp_path), "cwd": str(tmp_path), "env": {}}
    write_spec(first.spec, Spec({}, kind="exec", exec=command))
    write_request(first.run, 1, {})
    log = worker(warm_python, first.run, 1, tmp_path / "log1")
    finished, broken = outcome_of(first.run, 1, 0), outcome_of(second.run, 1, 77)
    assert finished.exit.outcome == "finished" and broken.exit.outcome == "diverged", log[-2000:]
    assert broken.of("in_effect")[0]["guarded"], "the second train() is a run of its own"
    assert (finished.of("phase")[-1]["phase"], finished.of("phase")[-1]["call"]) == ("elsewhere", 2)
    assert "swallowed" not in log and "all done" not in log
    before = first.last.read_bytes(), first.results_csv.read_bytes()
    write_request(second.run, 2, {}, mode="resume", checkpoint="weights/last.pt")
    log = worker(warm_python, second.run, 2, tmp_path / "log2")
    assert f"first left {first.best}" in log, "the finished call answers from what it left"
    assert "begins at 1" in log and "all done" in log
    assert before == (first.last.read_bytes(), first.results_csv.read_bytes())
    assert first.attempt_numbers() == [1] and outcome_of(second.run, 2, 0).exit.outcome == "finished"
    assert [row.epoch for row in current(read_results(second.results_csv))] == [1, 2, 3]


def test_the_yolo_command_is_guarded_and_resumed_as_it_was_typed(trainings, tmp_path, home, warm_python):
    run = RunLayout(tmp_path / "run")
    options = {**trainings.common, "model": trainings.model, "data": trainings.data, "epochs": 3}
    typed = [f"{name}={value}" for name, value in options.items()]
    yolo = str(Path(sys.executable).with_name("yolo"))
    command = {"argv": [yolo, "detect", "train", *typed], "cwd": str(tmp_path), "env": {}}
    write_spec(run.spec, Spec({}, kind="exec", exec=command))
    write_request(run.run, 1, {}, faults=[{"fault": "exception", "epoch": 2, "batch": 1}])
    log = worker(warm_python, run.run, 1, tmp_path / "log1")
    assert outcome_of(run.run, 1, 0).exit.outcome == "failed", log[-2000:]
    write_request(run.run, 2, {}, mode="resume", checkpoint="weights/last.pt")
    log = worker(warm_python, run.run, 2, tmp_path / "log2")
    assert outcome_of(run.run, 2, 0).exit.outcome == "finished", log[-2000:]
    assert outcome_of(run.run, 2, 0).of("in_effect")[0]["guarded"]
    assert [row.epoch for row in current(read_results(run.results_csv))] == [1, 2, 3]


@pytest.mark.soak
def test_several_data_sets_are_runs_one_after_another_and_ultralytics_finds_each(
    trainings, tmp_path, home, warm_python
):
    second, script = tmp_path / "second.yaml", tmp_path / "sweep.py"
    second.write_text(Path(trainings.data).read_text())
    options = {**trainings.common, "epochs": 1, "project": str(tmp_path / "asked")}
    options = {name: value for name, value in options.items() if name not in ("model", "data", "save_dir")}
    script.write_text(
        f"from ultralytics import YOLO\nYOLO({str(trainings.model)!r}).train("
        f"data={[str(trainings.data), str(second)]!r}, **{options!r})\n"
    )
    run = RunLayout(tmp_path / "run")
    command = {"argv": [warm_python, str(script)], "cwd": str(tmp_path), "env": {}}
    write_spec(run.spec, Spec({}, kind="exec", exec=command))
    write_request(run.run, 1, {})
    log = worker(warm_python, run.run, 1, tmp_path / "log")
    assert outcome_of(run.run, 1, 0).exit.outcome == "finished", log[-2000:]
    found = json.loads(next((tmp_path / "asked").rglob("multitrain_results.json")).read_text())["results"]
    assert len(found) == 2 and all(found.values()), found
    assert outcome_of(tmp_path / "asked" / "multitrain" / "second", 1, 0).of("in_effect")[0]["guarded"]


@pytest.mark.soak
def test_the_second_run_of_a_script_is_recovered_by_a_supervisor_of_its_own(
    trainings, tmp_path, home, warm_python
):
    words = twice_script(warm_python, trainings, tmp_path)[2:]
    first = under_exec(warm_python, tmp_path / "run", "twice.py", *words)
    second = StubRun(tmp_path / "asked" / "second")
    try:
        ended(first, "finished")
        eventually(lambda: second.status().state == "diverged", lambda: str(second.status()))
        assert not first.do("resume").ok, "its own train() is over"
        outcome = second.do("recover", set={"lr0": 0.0005})
        assert outcome.ok, outcome.text
        ended(second, "finished")
        effect = [entry for entry in second.journal() if entry["kind"] == "in_effect"][-1]
        assert effect["values"]["lr0"] == 0.0005 and effect["differences"] == []
        assert first.layout.attempt_numbers() == [1] and second.layout.attempt_numbers() == [1, 2]
    finally:
        end_processes(first)
        end_processes(second)


def test_a_run_whose_own_call_has_finished_names_the_later_one(tmp_path):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    call = {"role": "here", "token": "", "attempt": 1}
    one = {**call, "index": 1, "run": str(tmp_path), "finished": False}
    write_json(layout.attempts / "001.call1.json", one)
    refuse_later_calls(layout, 2, 1)
    write_json(layout.attempts / "001.call1.json", {**one, "finished": True})
    write_json(layout.attempts / "001.call2.json", {**one, "index": 2, "run": "/runs/second"})
    with pytest.raises(UserError, match="resume /runs/second"):
        refuse_later_calls(layout, 2, 1)
    Journal(layout.journal).append("rollback_done", id="x", text="")
    refuse_later_calls(layout, 2, 1)


def test_the_recorded_environment_has_no_secrets(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.setenv("HF_TOKEN", "x")
    monkeypatch.setenv("MY_SETTING", "kept")
    monkeypatch.setenv("LOCAL_RANK", "1")
    kept = kept_environment()
    assert kept["MY_SETTING"] == "kept"
    assert not {"WANDB_API_KEY", "HF_TOKEN", "LOCAL_RANK"} & set(kept)


def test_a_program_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="no such program"):
        starting.resolved(["--", "no-such-program-here", "train.py"])
    assert starting.resolved(["--", "sh", "x"])[0].startswith("/")
