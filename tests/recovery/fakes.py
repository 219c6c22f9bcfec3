"""A run without torch: small files with the right names, and the verdicts a scan would give them.

The transaction never looks inside a checkpoint, so random bytes serve to prove that none is lost; tests of
what is inside use a real training (tests/recovery/conftest.py).
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nantui.checkpoint.verdict import Verdict
from nantui.recovery import phase_change, rollback
from nantui.recovery.plan import Plan, put_together
from nantui.recovery.plan_inputs import PlanInputs, why_left_out
from nantui.recovery.restore_points import RestoreCriteria, choose, list_candidates, pick
from nantui.recovery.resume_settings import rows_for, settings_in_effect
from nantui.recovery.trouble import Trouble
from nantui.run.binding import bind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.plan import PlanPhase, new_plan
from nantui.run.points import step_points
from nantui.run.record import RunRecord
from nantui.run.spec import Spec, write_spec
from nantui.settings.lint import Known
from nantui.settings.schema import Schema

EPOCHS, BAD = 8, 4
"""Epochs done (from 1: 1 to 6 of 8), and the first epoch, from 1, with NaN in it."""


def make_run(place: Path, seed: int = 0) -> RunLayout:
    """Write a run whose epochs 4 to 6 are spoilt: epoch0…2.pt are clean, the others are not."""
    dice = random.Random(seed)
    layout = RunLayout(place)
    layout.weights.mkdir(parents=True)
    for name in (*(f"epoch{n}.pt" for n in range(6)), "last.pt", "best.pt"):
        (layout.weights / name).write_bytes(dice.randbytes(dice.randrange(2000, 3000)))
    rows = "".join(f"{n},{n * 10.0},{'nan' if n >= BAD else 1.0 / n},0.{n}\n" for n in range(1, 7))
    layout.results_csv.write_text(f"epoch,time,train/box_loss,metrics/mAP50-95(B)\n{rows}")
    layout.args_yaml.write_text("task: detect\nepochs: 8\nlr0: 0.01\nimgsz: 64\noptimizer: AdamW\n")
    (layout.run / "labels.jpg").write_bytes(dice.randbytes(500))
    (layout.run / "plots").mkdir()
    (layout.run / "plots" / "curve.png").write_bytes(dice.randbytes(300))
    write_spec(layout.spec, Spec({"epochs": 8, "lr0": 0.01}, {"guard": "observe"}))
    bind(layout.run)
    return layout


def verdict(
    path: Path, epoch: int | None, badge: str = "clean", fitness: float | None = None, **fields: Any
) -> Verdict:
    """Return what a scan would say."""
    why = "" if badge == "clean" else "its weights are not sound"
    values: dict[str, Any] = {
        "path": path, "badge": badge, "why_not_resumable": why, "repairable": False,
        "epoch": epoch,
        "date": None, "version": None, "fitness": fitness, "best": path.name == "best.pt", "findings": (),
        "bytes": path.stat().st_size if path.exists() else 0, "seconds": 0.0,
        "train_args": {"epochs": EPOCHS, "lr0": 0.01, "optimizer": "AdamW"},
    }  # fmt: skip
    return Verdict(**{**values, **fields})


def verdicts(layout: RunLayout) -> list[Verdict]:
    """Return the verdicts of `make_run`: clean before the NaN, corrupt after it."""
    epochs = {path: int(path.stem[5:]) for path in layout.weights.glob("epoch*.pt")}
    epochs |= {path: 5 for path in (layout.last, layout.best, layout.stop_point) if path.exists()}
    return [
        verdict(path, epoch, "corrupt" if epoch + 1 >= BAD else "clean", (epoch + 1) / 10)
        for path, epoch in sorted(epochs.items())
    ]


TROUBLE = Trouble(BAD, 2, "nan_loss", "box_loss not finite", "results.csv")


def make_plan(
    layout: RunLayout,
    asked: Mapping[str, Any],
    id: str = "t1",
    presets: tuple[str, ...] = (),
    trouble: Trouble | None = TROUBLE,
    to: str = "",
) -> Plan:
    """Return the plan as `recovery.plan.make_plan` would, from the verdicts above; step points are clean."""
    record = RunRecord(layout)
    reached, points = record.reached, {layout.point(one.name): one for one in step_points(layout)}
    left = why_left_out(record, points, asked)
    criteria = RestoreCriteria(trouble, reached, EPOCHS, frozenset(), left, points)
    inside = [verdict(path, point.epoch - 2, point=True) for path, point in points.items()]
    candidates = list_candidates([*verdicts(layout), *inside], criteria)
    facts = PlanInputs(record, Schema.load(), dict(asked), candidates, trouble, reached)
    restore = pick(candidates, to, layout) if to else choose(candidates)
    in_effect = settings_in_effect(facts, restore)
    known = Known(now=in_effect)
    rows = rows_for(facts, restore, in_effect, presets, known, guard=True, remedies=False)
    return put_together(facts, restore, in_effect, rows, presets, known, id)


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let staging copy the restore point instead of rebasing it, and trust it unread."""

    def copy(request: Mapping[str, Any], python: str) -> dict[str, Any]:
        Path(request["target"]).write_bytes(b"rebased " + Path(request["source"]).read_bytes())
        return {"ok": True}

    monkeypatch.setattr(rollback, "run_rebase", copy)
    monkeypatch.setattr(rollback, "refuse_unfit", lambda path, allow: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a kill of the process loses no page cache
    monkeypatch.setattr(rollback, "verify", lambda layout, restore, allow: None)


def finished_phase(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    """Make a run the finished first phase of a plan of two; its weights are trusted unread."""
    monkeypatch.setattr(phase_change, "clean_weights", lambda layout, number: "weights/best.pt")
    spec = Spec({"epochs": 8, "imgsz": 64, "lr0": 0.01, "model": "m.yaml"}, {"guard": "observe"})
    phases = [
        PlanPhase("small", {"epochs": 8, "imgsz": 64}),
        PlanPhase("large", {"imgsz": 128, "grad_clip": 1.0}),
    ]
    plan = new_plan("two", phases, {"epochs": 20, "lr0": 0.01, "model": "m.yaml"}, spec.ours)
    write_spec(layout.spec, replace(spec, plan=plan))
    if not layout.journal.exists():
        Journal(layout.journal).append("attempt_started", attempt=1, phase={"number": 1})
        Journal(layout.journal).append("attempt_ended", attempt=1, outcome="finished")
    return layout


def tree(layout: RunLayout) -> dict[str, str]:
    """Return everything outside nantui/: relative path to content hash, folders to ""."""
    found = {}
    for path in sorted(layout.run.rglob("*")):
        name = str(path.relative_to(layout.run))
        if name != "nantui" and not name.startswith("nantui/"):
            found[name] = hash_of(path) if path.is_file() else ""
    return found


def contents(layout: RunLayout) -> set[str]:
    """Return the hashes of every file of the run, wherever it lies now; the journal only grows."""
    return {hash_of(path) for path in layout.run.rglob("*") if path.is_file() and path != layout.journal}


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def train_on(layout: RunLayout) -> None:
    """Do to the files what a later attempt does: overwrite in place, append, add, and draw new plots."""
    for path in (layout.last, layout.best, layout.run / "labels.jpg", layout.run / "plots" / "curve.png"):
        path.write_bytes(b"later " + path.read_bytes())
    (layout.weights / "epoch3.pt").write_bytes(b"epoch 3 again")
    layout.stop_point.write_bytes(b"stopped")
    with layout.results_csv.open("a") as file:
        file.write("4,5.0,0.2,0.4\n")
    (layout.run / "results.png").write_bytes(b"a new plot")
    (layout.run / "more").mkdir(exist_ok=True)
    (layout.run / "more" / "file.txt").write_text("later")
    layout.args_yaml.write_text("written by the later attempt\n")
