"""What is proposed follows from what was measured: configs/remedies.csv decides, and its figures are said."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nantui.checkpoint.catalog import Catalog
from nantui.diagnosis.evidence import PRIOR
from nantui.paths import configs_dir
from nantui.recovery import remedies
from nantui.recovery.history import QUARANTINE, Earlier
from nantui.recovery.ladder import Ladder, Proof, load_ladder, next_step
from nantui.recovery.plan import choose_restore
from nantui.recovery.plan_inputs import PlanInputs, gather_inputs
from nantui.recovery.remedies import in_words
from nantui.recovery.trouble import LOST, judge_warnings
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.settings.presets import load_presets
from nantui.settings.schema import Schema
from tests.recovery import fakes
from tests.recovery.test_collapse import HEADER

ROWS = list(csv.DictReader((configs_dir() / "remedies.csv").open(encoding="utf-8")))
GROUPS = list(dict.fromkeys((row["cause"], row["evidence"]) for row in ROWS))
STRONG: dict[str, Any] = {
    "lr0": 0.5, "optimizer": "AdamW", "amp": True, "batch": 32, "imgsz": 1280, "device": "0",
    "grad_clip": 0.0, "hsv_v": 0.9, "momentum": 0.999, "box": 100.0,
}  # fmt: skip
"""Settings in which every remedy changes something."""
IMAGES = {"one_image": ("a.png",), "more_images": ("a.png", "b.png")}


def rows_of(cause: str, evidence: str) -> list[dict[str, str]]:
    return [row for row in ROWS if (row["cause"], row["evidence"]) == (cause, evidence)]


def proof_of(cause: str, evidence: str) -> Proof:
    seen = set(evidence.split())
    images = next((IMAGES[one] for one in seen & set(IMAGES)), ())
    return Proof(frozenset(seen - set(IMAGES)), images, (cause,) if cause else ())


def step_for(proof: Proof, ladder: Ladder, *tried: str, **run: Any) -> str | None:
    schema = Schema.load()
    earlier = [Earlier("1", "weights/last.pt", {}, presets=(name,)) for name in tried]
    in_effect = {**schema.defaults(), **STRONG, **run}
    return next_step(ladder, earlier, proof, load_presets(schema), in_effect, bf16=True)


@pytest.mark.parametrize(("cause", "evidence"), GROUPS)
def test_the_best_that_was_measured_comes_first_then_the_next(cause: str, evidence: str) -> None:
    proof, ladder = proof_of(cause, evidence), load_ladder()
    helped = [row for row in rows_of(cause, evidence) if int(row["cured"]) * 2 > int(row["trials"])]
    wanted = [row["step"] for row in helped if row["step"] not in ("", "restart")] or ["unchanged"]
    wanted = [step for step in dict.fromkeys(wanted) if step != QUARANTINE or proof.images]
    wanted = wanted or [ladder.steps[0]]
    for number, step in enumerate(wanted):
        assert step_for(proof, ladder, *wanted[:number]) == step
    said = in_words(proof.remedies, wanted[0])
    row = next(row for row in rows_of(cause, evidence) if row["step"] == wanted[0])
    if helped:
        figures = f"cured {row['cured']} of {row['trials']}, keeps {float(row['kept']):.0%} of the mAP"
        assert said == f"{row['remedy']}: {figures}"
    else:
        assert said.startswith(f"nothing cured it in {row['trials']}; skip and go on keeps ")


def test_the_table_is_in_order() -> None:
    """One that cured all comes first, and each group has tried what the product proposes."""
    for group in GROUPS:
        rows = rows_of(*group)
        whole = [int(row["cured"]) == int(row["trials"]) for row in rows]
        assert sum(whole) == 0 or whole[0]
        assert {"unchanged", "recover", "nan-safe"} <= {row["step"] for row in rows}


def test_what_is_not_in_the_table_says_so_and_the_guides_whole_comes_first() -> None:
    causes = {row["cause"] for row in ROWS}
    assert set(PRIOR) - causes == {"contaminated_checkpoint"}
    for proof in (
        Proof(frozenset({"nan_loss"})),
        Proof(frozenset(), (), ("contaminated_checkpoint", "start")),
    ):
        assert in_words(proof.remedies, "nan-safe").startswith("not measured")
        assert step_for(proof, load_ladder()) == "nan-safe"


def test_more_evidence_tells_apart_what_one_diagnosis_has_in_common() -> None:
    alone = Proof(frozenset(), (), ("gradient_explosion",)).remedies
    gain = Proof(frozenset({"unsound_save"}), (), ("gradient_explosion", "clipping", "loss_gain")).remedies
    assert gain and alone and gain != alone


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "cause,evidence,remedy\ndata,,plan A\n",
        "{head}\ndata,,plan A,recover,,,\n",
        "{head}\ndata,,pl",
    ],
    ids=["no file", "empty", "another table", "no figures", "torn"],
)
def test_a_table_that_is_damaged_costs_figures_and_no_recovery(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / "remedies.csv").write_text(text.format(head=",".join(ROWS[0])))
    monkeypatch.setattr(remedies, "configs_dir", lambda: tmp_path)
    remedies._table.cache_clear()
    found = Proof(frozenset({"broken_labels"}), ("a.png",), ("data",)).remedies
    remedies._table.cache_clear()
    assert found == [] and in_words(found, QUARANTINE).startswith("not measured")


def test_a_ladder_of_ones_own_is_followed_as_it_stands() -> None:
    own = Ladder(("level1",), ("level1", "nan-safe"), {}, max_recoveries=4, probation_epochs=3)
    assert step_for(proof_of("", "not_reproduced"), load_ladder()) == "unchanged"
    assert step_for(proof_of("", "not_reproduced"), own) == "level1"


def test_without_clipping_to_loosen_the_next_remedy_is_taken() -> None:
    proof = Proof(frozenset(), (), ("gradient_explosion",))
    assert step_for(proof, load_ladder()) == "clip"
    assert step_for(proof, load_ladder(), grad_clip=10.0) == "recover"


METRICS = (0.1, 0.3, 0.4, 0.4)


@pytest.fixture
def warned(tmp_path: Path) -> RunLayout:
    """A run of eight epochs with clean checkpoints of each, in which the guard warned in epoch 5."""
    layout = fakes.make_run(tmp_path / "run")
    learn(layout, *METRICS, 0.0, 0.0)
    journal = Journal(layout.journal)
    journal.append("attempt_started", attempt=1, mode="start")
    journal.append("warning", attempt=1, warning="loss_climbing", epoch=2, step=1, text="an early warning")
    journal.append("warning", attempt=1, warning="zero_loss", epoch=5, step=3, text="all losses are zero")
    journal.append(
        "incident", attempt=1, incident="unsound_save", epoch=6, step=9, text="no", action="warned"
    )
    return layout


def learn(layout: RunLayout, *metrics: float) -> None:
    rows = "".join(f"{n},{n},1.0,1.0,{m},{m},1.0,1.0\n" for n, m in enumerate(metrics, 1))
    layout.results_csv.write_text(f"{HEADER}\n{rows}")


def restored(layout: RunLayout) -> str:
    from nantui.recovery.restore_points import RestoreCriteria, list_candidates

    record = RunRecord(layout)
    files = [fakes.verdict(path, int(path.stem[5:])) for path in sorted(layout.weights.glob("epoch*.pt"))]
    candidates = list_candidates(files, RestoreCriteria(None, record.reached, 8))
    judgement = judge_warnings(record)
    facts = PlanInputs(record, Schema.load(), {}, candidates, None, record.reached, judgement)
    restore = choose_restore(facts, None, False)
    assert restore is not None
    return restore.name


def test_what_died_with_finite_numbers_goes_back_to_before_the_guard_said_so(warned: RunLayout) -> None:
    found = judge_warnings(RunRecord(warned))
    assert found is not None and (found.epoch, found.kind, found.said) == (5, "zero_loss", True)
    assert "all losses are zero" in found.in_words
    assert restored(warned) == "epoch3.pt", "what epochs 5 and 6 have saved is clean, and dead"


def test_a_late_warning_does_not_move_it_into_what_the_metrics_have_lost_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost in epoch 5, as results.csv shows; the guard first said something in epoch 8."""
    layout = fakes.make_run(tmp_path / "run")
    lines = [f"{n},{n},1,1,{m},{m},{1 + n / 9},1" for n, m in enumerate([*METRICS, *[0] * 14], 1)]
    layout.results_csv.write_text("\n".join([HEADER, *lines, ""]))
    layout.args_yaml.write_text("epochs: 30\n")
    journal = Journal(layout.journal)
    journal.append("attempt_started", attempt=1, mode="start")
    journal.append("warning", attempt=1, warning="zero_loss", epoch=8, step=1, text="all losses are zero")
    monkeypatch.setattr(Catalog, "verdict", lambda self, path: fakes.verdict(path, epoch_of(path)))
    facts = gather_inputs(RunRecord(layout), {})
    assert facts.judgement is not None and (facts.judgement.epoch, facts.judgement.kind) == (5, LOST)
    restore = choose_restore(facts, None, False)
    assert restore is not None and restore.name == "epoch3.pt"
    assert facts.judgement.named.startswith("before the guard warned; a judgement, no proof: the metrics")


def test_a_short_fall_before_the_warning_counts_with_it_but_none_of_what_never_worked(
    warned: RunLayout,
) -> None:
    learn(warned, 0.1, 0.3, 0.1, 0.0, 0.0, 0.0)
    found = judge_warnings(RunRecord(warned))
    assert found is not None and (found.epoch, found.kind) == (3, "zero_loss")
    assert "below half of the best, 0.3" in found.text and restored(warned) == "epoch1.pt"
    learn(warned, 0.0, 1e-5, 0.0, 0.0, 0.0, 0.0)
    found = judge_warnings(RunRecord(warned))
    assert found is not None and found.epoch == 5, "a metric of nothing tells nothing"


def test_epochs_whose_losses_are_zero_are_not_good_however_the_average_still_moves(warned: RunLayout) -> None:
    zero = "".join(f"{n},{n},0,0,{m},{m},1.0,1.0\n" for n, m in enumerate((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), 1))
    warned.results_csv.write_text(f"{HEADER}\n{zero}")
    found = judge_warnings(RunRecord(warned))
    assert found is not None and found.said and found.epoch <= 5


@pytest.mark.parametrize("epochs", ["many", ".nan", ".inf", "[3]"])
def test_a_plan_is_made_whatever_args_yaml_says_of_its_epochs(tmp_path: Path, epochs: str) -> None:
    layout = fakes.make_run(tmp_path / "run")
    layout.args_yaml.write_text(f"epochs: {epochs}\n")
    facts = gather_inputs(RunRecord(layout), {})
    assert facts.candidates and not any(one.finished for one in facts.candidates)


def epoch_of(path: Path) -> int:
    return int(path.stem[5:]) if path.stem.startswith("epoch") else 5


def test_a_warning_that_nothing_came_of_moves_no_restore_point(warned: RunLayout) -> None:
    learn(warned, *METRICS, 0.1, 0.1, 0.3)
    assert judge_warnings(RunRecord(warned)) is None
    assert restored(warned) == "epoch5.pt"


def test_a_warning_of_work_that_was_left_behind_is_none(warned: RunLayout) -> None:
    journal = Journal(warned.journal)
    journal.append("rollback_begun", id="r1", restore_point="weights/epoch3.pt", epoch=4, steps=[])
    journal.append("rollback_done", id="r1", text="")
    journal.append("attempt_started", attempt=2, mode="resume")
    assert judge_warnings(RunRecord(warned)) is None


RATE = """
import json, sys
from pathlib import Path
from benchmarks.remedies import training
from benchmarks.remedies.causes import CAUSES
from nantui.recovery import rollback

rollback.run_rebase = training.rebased_here
cause = next(one for one in CAUSES if one.name == "rate")
place = training.Place(Path(sys.argv[1]) / "data", Path(sys.argv[1]) / "runs")
place.runs.mkdir()
training.beginning("sgd", 0, place)
broke = training.broken(cause, 0, place)
found = training.proposed(cause, 0, place)
print(json.dumps({"broke": broke, "found": found}))
"""


def test_a_training_that_died_of_its_rate_is_cured_by_what_is_proposed_first(
    tmp_path: Path, warm_python: str
) -> None:
    """Really trained: seven clean epochs, a rate a hundred times too high, the diagnosis, its remedy."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "YOLO_CONFIG_DIR": str(tmp_path)}
    environment |= {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("CONFIG", "CACHE", "STATE")}
    words = [warm_python, "-c", RATE, str(tmp_path)]
    ran = subprocess.run(
        words, cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    document = json.loads(ran.stdout.splitlines()[-1])
    broke, found = document["broke"], document["found"]
    cause, probability = broke["said"][0]
    assert cause == "learning_rate" and probability > 0.5
    first = next(row for row in rows_of(cause, "") if row["step"])
    assert found["presets"] == [first["step"]]
    assert f"cured {first['cured']} of {first['trials']}" in found["said"]
    assert found["restored"] < broke["signs"][0][1], "from before the first warning"
    assert found["outcome"] == "finished" and found["n_incidents"] == 0
    assert max(found["map50"][-3:]) > 0.3, "it learned on"
