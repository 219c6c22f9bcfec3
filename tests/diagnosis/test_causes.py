"""Diagnoses of real tiny trainings, broken on purpose, and of runs of which little is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import diagnosis_breaks as breaks
from benchmarks import diagnosis_cases as cases
from benchmarks.diagnosis_table import RECORDED, WANTED, quiet_train, recorded
from nantui.cli import main
from nantui.diagnosis.causes import diagnose
from nantui.diagnosis.evidence import CHECKPOINT, PRIOR, checkpoint
from nantui.diagnosis.facts import TroubleFacts, gather_facts
from nantui.recovery.remedies import measured
from nantui.run.attempts import Attempt
from nantui.run.binding import bind
from nantui.run.events import document_of
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.spec import Spec, write_spec

PLACE = {"epoch": 1, "batch": 13}
BROKEN = {
    "data": cases.Case("data", "pixels", 1, {"mosaic": 0.0}, faults=[{"fault": "nan_pixel", **PLACE}]),
    "hardware": cases.Case("hardware", "loss", 2, faults=[{"fault": "nan_loss", **PLACE}]),
    "gradient_explosion": cases.Case(
        "gradient_explosion", "growing", 3, {"lr0": 0.005}, {"grad_clip": 0.0, "on_suspicion": "end"},
        at_start=breaks.loss_patch(breaks.growing(3.0, 12)),
    ),
    "singular_loss": cases.Case(
        "singular_loss", "log0", 4, at_start=breaks.loss_patch(breaks.log_of_zero(14))
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def broken(tmp_path_factory):
    """Return the run directory of one broken training per cause, each trained once."""
    made: dict[str, Path] = {}

    def run(cause: str) -> Path:
        if cause not in made:
            import torch

            torch.set_num_threads(1)
            made[cause] = quiet_train(BROKEN[cause], tmp_path_factory.mktemp(cause) / "case", "cpu")
        return made[cause]

    return run


@pytest.mark.parametrize("cause", BROKEN)
def test_the_right_cause_comes_first(broken, cause):
    diagnosis = diagnose(broken(cause))
    assert diagnosis.causes[0].cause == cause
    assert diagnosis.causes[0].evidence
    assert diagnosis.incident is not None
    assert diagnosis.advice[0].cause == cause


def test_the_guilty_image_is_named_and_can_be_left_out(broken, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(broken("data"), run)
    # It was trained in this very process, which a supervisor would take for a rank that still lives.
    for events in run.glob("nantui/attempts/*.events.jsonl"):
        lines = events.read_text().splitlines(keepends=True)
        events.write_text("".join(line for line in lines if '"registered"' not in line))
    advice = diagnose(run).advice[0]
    (image,) = advice.images
    assert f"nantui labels {run} --leave-out {image}" in advice.why, "as it can be pasted"
    assert image.endswith(".png")
    assert main(["labels", str(run), "--leave-out", image, "--yes"]) == 0
    assert (run / "nantui" / "quarantine.txt").read_text().splitlines()[-1] == image


def test_costs_come_from_this_run(broken):
    advice = diagnose(broken("gradient_explosion")).advice[0]
    (first, *_) = [row for row in measured("gradient_explosion", ()) if row.step]
    assert advice.preset == first.step and advice.why == first.words
    assert " to train again, " in advice.cost
    assert advice.numbers["memory_gb"] > 0


def test_json_is_as_promised(broken, capsys):
    assert main(["diagnose", str(broken("hardware")), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) >= {"incident", "causes", "advice"}
    assert [set(cause) >= {"cause", "probability", "evidence"} for cause in document["causes"]] == [
        True
    ] * len(PRIOR)
    assert all(isinstance(text, str) for cause in document["causes"] for text in cause["evidence"])
    assert all({"preset", "why"} <= set(advice) for advice in document["advice"])


def test_the_words_have_prior_and_posterior(broken, capsys):
    assert main(["diagnose", str(broken("data"))]) == 0
    out = capsys.readouterr().out
    assert "data or augmentation anomaly (10% before any evidence)" in out
    assert "broken pixels" in out


def foreign(tmp_path, rows):
    run = tmp_path / "run"
    run.mkdir()
    (run / "args.yaml").write_text(
        "task: detect\nlr0: 0.01\noptimizer: SGD\namp: true\ndevice: '0'\nepochs: 10\n"
    )
    head = "epoch,time,train/box_loss,val/box_loss\n"
    (run / "results.csv").write_text(
        head + "".join(f"{n},{n * 10},{t},{v}\n" for n, (t, v) in enumerate(rows, 1))
    )
    return run


def test_with_only_results_it_says_what_it_cannot_know(tmp_path):
    diagnosis = diagnose(foreign(tmp_path, [(1.0, 1.0)] * 4 + [("nan", "nan")]))
    assert diagnosis.incident.epoch == 5
    assert diagnosis.replay
    assert any("did not watch" in text for text in diagnosis.unknown)
    assert diagnosis.causes[0].probability < 0.8


def test_where_no_recovery_can_be_planned_each_remedy_says_so_in_a_few_words(tmp_path):
    run = foreign(tmp_path, [(1.0, 1.0)] * 4 + [("nan", "nan")])
    write_spec(RunLayout(run).spec, Spec(train={}, python="/nowhere/python"))
    bind(run)
    assert {one.cost for one in diagnose(run).advice} == {"cost not known: nantui recover says why"}


def test_a_healthy_run_gets_no_cause(tmp_path, capsys):
    run = foreign(tmp_path, [(1.0, 1.0)] * 4)
    assert not diagnose(run).causes
    assert main(["diagnose", str(run)]) == 0
    assert "no incident" in capsys.readouterr().out


def test_no_run_is_one_line(tmp_path, capsys):
    assert main(["diagnose", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_facts_are_of_the_last_trouble(broken):
    facts = gather_facts(RunRecord(RunLayout(broken("data"))))
    assert facts.kind == "nan_loss"
    assert facts.steps_in == 12
    assert facts.autopsy.cause == "broken_pixels"
    assert [step.step for step in facts.before] == list(range(1, 13))
    assert facts.in_effect


def test_the_journal_stands_in_where_the_events_are_gone(broken, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(broken("data"), run)
    layout = RunLayout(run)
    (incident,) = gather_facts(RunRecord(layout)).incidents
    layout.events(1, 0).unlink()
    assert not gather_facts(RunRecord(layout)).trouble
    fields = {name: value for name, value in document_of(incident).items() if name not in ("t", "kind")}
    Journal(layout.journal).append("incident", attempt=1, **fields)
    facts = gather_facts(RunRecord(layout))
    assert facts.first.epoch == incident.epoch
    assert facts.autopsy is None


def test_a_checkpoint_that_was_written_again_is_not_judged(broken):
    layout = RunLayout(broken("hardware"))
    attempt = Attempt(2, "u", 0.0, "resume", "weights/last.pt", {}, {}, "python")
    assert list(checkpoint(TroubleFacts(RunRecord(layout), attempt=attempt))) == [
        "weights/last.pt was written again since the attempt began: what was resumed is not there any more"
    ]
    gone = Attempt(2, "u", 0.0, "resume", "weights/gone.pt", {}, {}, "p")
    (said,) = checkpoint(TroubleFacts(RunRecord(layout), attempt=gone))
    assert "gone" in said


def test_a_corrupt_checkpoint_that_was_resumed_is_evidence(broken, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(broken("hardware"), run)
    weights = sorted((run / "weights").glob("*.pt"))
    target = run / "weights" / "last.pt"
    if not target.exists():
        shutil.copy(weights[0], target)
    later = target.stat().st_mtime + 10
    attempt = Attempt(2, "u", later, "resume", "weights/last.pt", {}, {}, "python")
    (clean,) = checkpoint(TroubleFacts(RunRecord(RunLayout(run)), attempt=attempt))
    assert clean.ratios[CHECKPOINT] < 1
    _spoil(target)
    (corrupt,) = checkpoint(
        TroubleFacts(
            RunRecord(RunLayout(run)), attempt=Attempt(2, "u", later + 60, "resume", None, {}, {}, "p")
        )
    )
    assert corrupt.ratios[CHECKPOINT] > 10


def _spoil(path):
    import torch

    checkpoint = torch.load(path, weights_only=False, map_location="cpu")
    model = checkpoint.get("ema") or checkpoint["model"]
    next(model.parameters()).data.view(-1)[0] = float("nan")
    torch.save(checkpoint, path)


@pytest.mark.skipif(not RECORDED.is_file(), reason="no recording from a GPU here")
def test_recorded_overflows_are_still_named():
    rows = list(recorded())
    assert rows
    assert sum(row.said == row.cause for row in rows) >= WANTED * len(rows)
