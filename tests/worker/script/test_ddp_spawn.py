"""Ultralytics' own DDP spawn under exec and attach: every rank guarded, nantui's folder spared."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nantui.run.attempts import RankExit
from nantui.run.layout import RunLayout
from nantui.run.results import current, read_results
from nantui.run.spec import Spec, read_spec, write_spec
from nantui.worker.script import script_run
from nantui.worker.script.train_calls import HERE, Call, calls_of
from tests.worker.runs import Outcome, outcome_of, write_request

pytest.importorskip("cloudpickle", reason="Ultralytics' own DDP spawn needs it")

SCRIPT = Path(__file__).with_name("scripts") / "spawned.py"
ROOT = str(Path(__file__).parents[3])


def run_to_its_end(argv: list[str], log: Path) -> int:
    """Run `argv`, an interpreter and its words; returns the exit code."""
    environment = {**os.environ, "PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        return subprocess.call(argv, env=environment, stdout=file, stderr=file, timeout=240)


def words(trainings: Any, place: Path) -> list[str]:
    return [str(SCRIPT), str(trainings.model), str(trainings.data), str(place / "asked")]


class UnderExec:
    """The script as the supervisor's worker carries it out."""

    def __init__(self, trainings: Any, place: Path, python: str, launcher: tuple[str, ...] = ()) -> None:
        self.layout, self.place, self.python = RunLayout(place / "run"), place, python
        argv = [python, *launcher, *words(trainings, place)]
        write_spec(self.layout.spec, Spec({}, kind="exec", exec={"argv": argv, "cwd": str(place)}))

    def attempt(self, number: int, **request: Any) -> tuple[int, list[Outcome], str]:
        """Return the script's exit code, what each rank left, and the log."""
        run, log = self.layout.run, self.place / f"log{number}"
        write_request(run, number, {}, **request)
        code = run_to_its_end([self.python, "-m", "nantui.worker", str(run), f"{number:03d}"], log)
        return code, [outcome_of(run, number, code, rank) for rank in (0, 1)], log.read_text()


def test_spawned_ranks_are_guarded_end_with_the_code_and_resume(trainings, tmp_path, warm_python):
    script = UnderExec(trainings, tmp_path, warm_python)
    faults = [
        {"fault": "nan_pixel", "epoch": 1, "batch": 2, "rank": 1},
        {"fault": "nan_weight", "epoch": 2, "batch": 2, "rank": 1},
    ]
    code, ranks, log = script.attempt(1, faults=faults)
    assert code == 77, log[-3000:]
    assert [rank.exit.outcome for rank in ranks] == ["diverged"] * 2
    seen = [(i["incident"], i["epoch"], i["step"], i["action"]) for i in ranks[0].incidents]
    assert seen[0] == ("nan_loss", 1, 2, "skipped") and seen[-1][:2] == ("nan_weight", 2)
    assert ranks[0].incidents[0]["evidence"]["ranks"] == [1]
    assert script.layout.spec.is_file() and not log.rstrip().endswith("after")
    again = script.attempt(2, mode="resume", checkpoint="weights/last.pt")
    assert again[0] == 0, again[2][-3000:]
    assert [rank.exit.outcome for rank in again[1]] == ["finished"] * 2
    assert [row.epoch for row in current(read_results(script.layout.results_csv))] == [1, 2, 3]
    assert "callback of rank 0" in again[2] and again[2].rstrip().endswith("after")
    assert [(call.role, call.finished) for call in calls_of(script.layout, 2)] == [("here", True)]
    place = tmp_path / "asked" / "spawned"
    assert place.is_symlink() and place.resolve() == script.layout.run


@pytest.mark.soak
def test_ranks_that_the_user_starts_with_torchrun_are_one_call(trainings, tmp_path, warm_python):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    script = UnderExec(trainings, tmp_path, warm_python, launcher)
    fault = {"fault": "nan_pixel", "epoch": 1, "batch": 2, "rank": 1}
    code, ranks, log = script.attempt(1, faults=[fault])
    assert code == 0, log[-3000:]
    assert [rank.exit.outcome for rank in ranks] == ["finished"] * 2
    assert ranks[0].incidents[0]["evidence"]["ranks"] == [1]
    assert [(call.index, call.finished) for call in calls_of(script.layout, 1)] == [(1, True)]


@pytest.mark.soak
def test_attach_reaches_spawned_ranks_in_one_attempt(trainings, tmp_path):
    log = tmp_path / "log"
    code = run_to_its_end([sys.executable, *words(trainings, tmp_path), "attach"], log)
    assert code == 0, log.read_text()[-3000:]
    layout = RunLayout(tmp_path / "asked" / "spawned")
    assert layout.attempt_numbers() == [1] and layout.ranks(1) == [0, 1]
    assert [outcome_of(layout.run, 1, 0, rank).exit.outcome for rank in (0, 1)] == ["finished"] * 2
    assert outcome_of(layout.run, 1, 0).of("in_effect")[0]["values"]["grad_clip"] == 5.0
    spec = read_spec(layout.spec)
    assert spec is not None and spec.exec is not None
    assert spec.exec["argv"][1:] == [*words(trainings, tmp_path), "attach"] and spec.exec["call"] == 1


@pytest.mark.parametrize(
    ("outcomes", "raised"),
    [
        (("finished", "finished"), None),
        (("finished",), subprocess.CalledProcessError),
        (("finished", "failed"), subprocess.CalledProcessError),
        (("finished", "stopped"), SystemExit),
    ],
)
def test_a_crash_of_ranks_that_have_all_finished_is_no_failure(tmp_path, capsys, outcomes, raised):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    for rank, outcome in enumerate(outcomes):
        layout.events(1, rank).touch()
        ending = RankExit(outcome, rank, pid=1, code=0, t=0.0)
        layout.exit(1, rank).write_text(json.dumps(asdict(ending)))
    call, crash = Call(1, HERE, "", str(tmp_path), 1), subprocess.CalledProcessError(1, "torchrun")
    with pytest.raises(raised) if raised else contextlib.nullcontext():
        script_run._end_as_the_ranks(call, 2, crash)
    assert ("all 2 ranks finished" in capsys.readouterr().err) is (raised is None)


def test_ultralytics_own_ddp_spawn_spares_our_folder(tmp_path, monkeypatch):
    from ultralytics.utils import dist

    run = tmp_path / "run"
    for folder in ("nantui", "weights"):
        (run / folder).mkdir(parents=True)
        (run / folder / "file").touch()
    (run / "args.yaml").touch()
    monkeypatch.setattr(dist, "generate_ddp_file", lambda trainer: "spawn.py")
    trainer = SimpleNamespace(resume=False, save_dir=run, world_size=2)
    with script_run._sparing_our_folder():
        command, file = dist.generate_ddp_command(trainer)
    assert command[-1] == file == "spawn.py"
    assert (run / "nantui" / "file").exists()
    assert sorted(path.name for path in run.iterdir()) == ["nantui"]
