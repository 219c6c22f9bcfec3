"""The ladder and the unattended policy, judged from files alone: what comes next, and when it gives up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nantui.errors import UserError
from nantui.recovery import plan_inputs as facts_of
from nantui.recovery import unattended_policy
from nantui.recovery.history import Earlier, earlier_recoveries, repeats
from nantui.recovery.ladder import Ladder, Proof, load_ladder, next_step
from nantui.recovery.plan import make_plan, plan_lines
from nantui.recovery.rollback import about
from nantui.recovery.trouble import LOST, Judgement, Ruin
from nantui.recovery.unattended_policy import GIVE_UP, NOTHING, RECOVER, TELL, decide
from nantui.run.attempts import Attempt, RankExit, write_attempt, write_exit
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.spec import Spec, write_spec
from nantui.settings.presets import load_presets
from nantui.settings.schema import Schema
from tests.recovery import fakes

GPU_RUN: dict[str, Any] = {
    "lr0": 0.01,
    "optimizer": "AdamW",
    "amp": True,
    "batch": 32,
    "imgsz": 1280,
    "device": "0",
}


@pytest.fixture(scope="module")
def schema() -> Schema:
    return Schema.load()


def steps(
    schema: Schema, earlier: list[Earlier], causes: set[str], images: tuple[str, ...] = (), **run: Any
) -> str | None:
    in_effect = {**schema.defaults(), **GPU_RUN, **run}
    return next_step(
        load_ladder(), earlier, Proof(frozenset(causes), images), load_presets(schema), in_effect
    )


def tried(*names: str) -> list[Earlier]:
    return [
        Earlier(str(number), "weights/epoch2.pt", {}, presets=(name,)) for number, name in enumerate(names)
    ]


def test_without_evidence_the_guides_whole_comes_first_and_then_each_level(schema: Schema) -> None:
    assert steps(schema, [], set()) == "nan-safe"
    assert steps(schema, tried("nan-safe"), set()) == "level1"
    assert steps(schema, tried("nan-safe", "level1"), set()) == "level2"
    assert steps(schema, tried("nan-safe", "level1", "level2"), set()) == "level3"
    assert steps(schema, tried("nan-safe", "level1", "level2", "level3"), set(), ("a.png",)) == "quarantine"
    assert steps(schema, tried("nan-safe", "level1", "level2", "level3"), set()) is None


def test_evidence_comes_first(schema: Schema) -> None:
    assert steps(schema, [], {"scale_collapsed"}) == "bf16"
    assert steps(schema, tried("bf16"), {"scale_collapsed"}) == "nan-safe"
    assert steps(schema, [], {"broken_pixels"}, ("bad.png",)) == "quarantine"
    assert steps(schema, [], {"broken_pixels"}) == "nan-safe", "no image is proven guilty"
    assert steps(schema, [], {"scale_collapsed"}, device="cpu") == "nan-safe", "there is no bf16 on a CPU"
    assert steps(schema, [], {"scale_collapsed"}, amp=False) == "nan-safe", "nothing to change there"


def test_a_step_that_would_change_nothing_is_passed_over(schema: Schema) -> None:
    assert steps(schema, tried("nan-safe"), set(), lr0=0.0005) == "level2"
    assert steps(schema, tried("nan-safe"), set(), lr0=0.0005, imgsz=320) == "level3"


def test_a_ladder_of_ones_own_is_checked(tmp_path: Path, schema: Schema) -> None:
    path = tmp_path / "ladder.yaml"
    path.write_text("first: [nan-safe]\nsteps: [level9]\n")
    with pytest.raises(UserError, match="level9.*no preset"):
        next_step(load_ladder(path), tried("nan-safe"), Proof(frozenset()), load_presets(schema), GPU_RUN)
    path.write_text("steps: 3")
    with pytest.raises(UserError, match="not a ladder"):
        load_ladder(path)


class Tale:
    """Writes what happens to a run into its files: attempts that end, rollbacks that are done."""

    def __init__(self, layout: RunLayout) -> None:
        self.layout, self.journal, self.number = layout, Journal(layout.journal), 0

    def attempt(
        self, outcome: str, epoch: int, text: str = "", incident: str = "nan_gradient", **told: str
    ) -> None:
        self.number += 1
        begun = self.journal.append("attempt_started", attempt=self.number)["t"]
        fields = {"train": {}, "ours": {"guard": "protect"}, "python": "python"}
        attempt = Attempt(self.number, f"u{self.number}", begun, "resume", None, **fields)
        write_attempt(self.layout, attempt)
        if outcome == "diverged":
            fields = {"attempt": self.number, "epoch": epoch, "step": 1, "action": "ended", "text": ""}
            self.journal.append("incident", incident=incident, **fields)
        write_exit(self.layout, self.number, RankExit(outcome, 0, 1, 77, 0.0, epoch=epoch, text=text))
        ended = {"attempt": self.number, "outcome": outcome, "epoch": epoch, "text": text}
        self.journal.append("attempt_ended", **ended, **told)

    def recovery(self, decision: unattended_policy.Decision) -> None:
        options = decision.options
        plan = make_plan(
            self.layout.run, options.get("to"), options.get("set", {}), options["presets"],
            restart=bool(options.get("force_restart")), id=f"r{self.number}",
        )  # fmt: skip
        self.journal.append("rollback_begun", id=plan.id, **about(plan), steps=[])
        self.journal.append("rollback_done", id=plan.id, text="")


@pytest.fixture
def tale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tale:
    """A run with clean epoch0…5.pt (epochs 1 to 6 of 20) and nothing wrong yet."""
    layout = fakes.make_run(tmp_path / "run")
    layout.best.unlink()
    layout.last.unlink()
    layout.results_csv.write_text(
        "epoch,time,train/box_loss\n" + "".join(f"{n},{n},1.0\n" for n in range(1, 7))
    )
    train = {
        "epochs": 20,
        "lr0": 0.01,
        "batch": 32,
        "imgsz": 1280,
        "optimizer": "AdamW",
        "amp": True,
        "device": "cpu",
    }
    write_spec(layout.spec, Spec(train, {"guard": "protect"}, auto=True))
    layout.args_yaml.write_text("".join(f"{name}: {value}\n" for name, value in train.items()))

    class Looked:
        def __init__(self, weights: Path, allow: object = ()) -> None:
            pass

        def files(self) -> list[Any]:
            names = sorted(layout.weights.glob("epoch*.pt"))
            return [SimpleNamespace(path=path, in_backup=False, kind="epoch") for path in names]

        def verdict(self, path: Path) -> Any:
            return fakes.verdict(path, int(path.stem[5:] or -1), train_args=train)

    monkeypatch.setattr(facts_of, "Catalog", Looked)
    return Tale(layout)


def test_the_policy_climbs_goes_further_back_and_gives_up_with_everything_kept(tale: Tale) -> None:
    seen = []
    tale.attempt("diverged", 7)
    for _ in range(6):
        decision = decide(tale.layout.run)
        if decision.action != RECOVER:
            break
        seen.append((decision.options["to"], *decision.options["presets"]))
        tale.recovery(decision)
        tale.attempt("diverged", int(decision.options["to"][5:-3]) + 3)
    assert seen == [
        ("epoch5.pt", "nan-safe"), ("epoch4.pt", "level1"), ("epoch3.pt", "level2"), ("epoch2.pt", "level3"),
    ]  # fmt: skip
    assert decision.action == GIVE_UP and "4 recoveries" in decision.why
    assert len(list(tale.layout.weights.glob("*.pt"))) == 6


def test_getting_past_the_trouble_gives_the_budget_back(tale: Tale, monkeypatch: pytest.MonkeyPatch) -> None:
    tale.attempt("diverged", 7)
    tale.recovery(decide(tale.layout.run))
    tale.attempt("diverged", 15)
    ladder = Ladder(
        ("nan-safe",), ("nan-safe", "level1", "level2", "level3"), {}, max_recoveries=1, probation_epochs=3
    )
    assert unattended_policy.spent(earlier_recoveries(RunRecord(tale.layout)), ladder) == 1
    tale.recovery(decide(tale.layout.run))
    tale.attempt("diverged", 19)
    monkeypatch.setattr(unattended_policy, "load_ladder", lambda: ladder)
    assert unattended_policy.spent(earlier_recoveries(RunRecord(tale.layout)), ladder) == 0
    assert decide(tale.layout.run).action == RECOVER


def test_after_probation_the_same_restore_point_may_serve_again(tale: Tale) -> None:
    tale.attempt("diverged", 7)
    tale.recovery(decide(tale.layout.run))
    tale.attempt("diverged", 11)
    assert decide(tale.layout.run).options == {"to": "epoch5.pt", "presets": ["level1"]}


def test_out_of_memory_halves_the_batch_there_and_costs_no_level(tale: Tale) -> None:
    tale.attempt("diverged", 7)
    tale.recovery(decide(tale.layout.run))
    tale.attempt("failed", 7, "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB")
    decision = decide(tale.layout.run)
    assert decision.options == {"to": "epoch5.pt", "presets": [], "set": {"batch": 16}}
    tale.recovery(decision)
    plan = make_plan(tale.layout.run, "epoch5.pt", propose=False)
    assert plan.in_effect["lr0"] == 0.003 and plan.in_effect["batch"] == 16, "nan-safe stays in force"
    assert plan.carried["optimizer"] == "SGD" and any("stays in force" in words for words in plan.warnings)
    tale.attempt("failed", 7, "CUDA out of memory")
    assert decide(tale.layout.run).options["set"] == {"batch": 8}
    assert unattended_policy.spent(earlier_recoveries(RunRecord(tale.layout)), load_ladder()) == 0


def test_another_failure_is_no_matter_for_the_ladder(tale: Tale) -> None:
    assert decide(tale.layout.run).action == NOTHING
    tale.attempt("failed", 3, "FileNotFoundError: images are gone")
    decision = decide(tale.layout.run)
    assert decision.action == GIVE_UP and "images are gone" in decision.why
    tale.attempt("finished", 20)
    assert decide(tale.layout.run).action == NOTHING


def test_nothing_clean_begins_again_once(tale: Tale) -> None:
    tale.attempt("diverged", 1)
    decision = decide(tale.layout.run)
    assert decision.options == {"presets": ["restart"], "force_restart": True}
    tale.recovery(decision)
    tale.attempt("diverged", 1)
    assert decide(tale.layout.run).action == GIVE_UP


def test_a_repeat_is_warned_of_and_the_next_proposal_is_another(tale: Tale) -> None:
    tale.attempt("diverged", 7)
    plan = make_plan(tale.layout.run)
    assert plan.presets == ("nan-safe",) and not plan.earlier
    tale.recovery(unattended_policy.Decision(RECOVER, "", {"to": "epoch5.pt", "presets": ["nan-safe"]}))
    tale.attempt("diverged", 8)
    again = make_plan(tale.layout.run)
    assert again.presets == ("level1",)
    assert [(one.restore_point, one.failed_at) for one in again.earlier] == [("weights/epoch5.pt", 8)]
    same = Earlier("1", "weights/epoch5.pt", {"lr0": 0.003}, failed_at=8)
    assert "failed before, in epoch 8" in repeats([same], "weights/epoch5.pt", {"lr0": 0.003})
    assert repeats([same], "weights/epoch5.pt", {"lr0": 0.001}) == ""


def ruined(tale: Tale, monkeypatch: pytest.MonkeyPatch, since: int | None = 4) -> None:
    """Let the files prove that the network has been worse than untrained since that epoch."""
    ruin = Ruin(since, 10, 900.0, 9.0, 0.0, 0.4) if since else None
    monkeypatch.setattr(facts_of, "proven_ruin", lambda *facts: ruin)


def test_a_training_that_finished_well_is_left_alone(tale: Tale) -> None:
    tale.attempt("finished", 20)
    assert decide(tale.layout.run).action == NOTHING


def test_one_that_is_proven_to_have_finished_ruined_is_taken_up_from_before(
    tale: Tale, monkeypatch: pytest.MonkeyPatch
) -> None:
    tale.attempt("finished", 20)
    ruined(tale, monkeypatch)
    decision = decide(tale.layout.run)
    assert (decision.action, decision.options) == (RECOVER, {"to": "epoch2.pt", "presets": ["nan-safe"]})
    assert decision.evidence is not None and decision.evidence["epoch"] == 4
    assert "worse than untrained since epoch 4" in decision.why
    tale.attempt("stopped", 20)
    assert decide(tale.layout.run).action == NOTHING, "a person stopped it"


def test_without_a_checkpoint_from_before_it_stays_finished_and_says_so(
    tale: Tale, monkeypatch: pytest.MonkeyPatch
) -> None:
    tale.attempt("finished", 20)
    ruined(tale, monkeypatch, since=1)
    decision = decide(tale.layout.run)
    assert decision.action == TELL and "best.pt is kept" in decision.why
    assert len(list(tale.layout.weights.glob("*.pt"))) == 6


def test_a_diverged_attempt_goes_back_to_before_a_proven_ruin_and_only_then(
    tale: Tale, monkeypatch: pytest.MonkeyPatch
) -> None:
    tale.attempt("diverged", 7)
    assert decide(tale.layout.run).options["to"] == "epoch5.pt"
    judged = Judgement(4, LOST, "the metrics fell to 0")
    monkeypatch.setattr(facts_of, "judge_numbers", lambda *facts: judged)
    assert decide(tale.layout.run).options["to"] == "epoch5.pt", "a judgement is no proof"
    ruined(tale, monkeypatch)
    assert decide(tale.layout.run).options["to"] == "epoch2.pt"


def test_the_second_proposal_is_a_persons_choice(tale: Tale, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = Judgement(4, LOST, "the metrics fell to 0 for good, the best before was 0.4")
    monkeypatch.setattr(facts_of, "judge_numbers", lambda *facts: judged)
    plan = make_plan(tale.layout.run)
    assert plan.restore is not None and plan.restore.name == "epoch5.pt"
    assert plan.second is not None and plan.second.name == "epoch2.pt"
    assert not plan.settings and plan.reason is None, "nothing is changed for a judgement"
    assert plan.to_json()["second"]["words"] == plan.second_words
    assert plan.second_words == f"epoch 3 (epoch2.pt): before the metrics were lost; {judged.in_words}"
    assert f"or --to epoch2.pt: {plan.second_words}; yours to decide" in plan_lines(plan)
    chosen = make_plan(tale.layout.run, "epoch2.pt", propose=True)
    assert chosen.second is None and chosen.reason == judged and chosen.presets == ("nan-safe",)
    assert about(chosen)["incident_epoch"] == 4


def test_a_validation_that_overflows_costs_no_epoch_and_proposes_fp32(tale: Tale) -> None:
    header = "epoch,time,train/box_loss,metrics/mAP50-95(B),val/box_loss\n"
    tale.layout.results_csv.write_text(header + "".join(f"{n},{n},1.0,0.5,nan\n" for n in range(1, 7)))
    plan = make_plan(tale.layout.run)
    assert plan.restore is not None and plan.restore.name == "epoch5.pt" and plan.trouble is None
    assert [(row.name, row.then) for row in plan.settings] == [("amp", False)]
    assert any("epochs 1 to 6 are not finite" in text for text in plan.warnings)
    assert not make_plan(tale.layout.run, settings={"lr0": 0.001}, propose=False).asked.get("amp")
