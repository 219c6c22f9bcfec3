"""A hundred thousand epochs: what is worked out grows with them, not with their square."""

from __future__ import annotations

import math

from nantui.recovery import trouble
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.results import EpochRow

MANY = 3000


def rows(finite_at: int | None) -> list[EpochRow]:
    """Return epochs without metrics whose validation is not finite, but for one."""
    loss = {number: 1.0 if number == finite_at else math.nan for number in range(1, MANY + 1)}
    return [
        EpochRow(n, float(n), {"train/box_loss": 1.0, "val/box_loss": loss[n]}, segment=1)
        for n in range(1, MANY + 1)
    ]


def test_each_epoch_is_looked_at_once(monkeypatch):
    resumed, asked = trouble.resumed, []

    def counted(before: EpochRow, later: EpochRow) -> bool:
        asked.append(later.epoch)
        return resumed(before, later)

    monkeypatch.setattr(trouble, "resumed", counted)
    assert trouble.vouched_for(rows(None)) == set()
    assert len(asked) == MANY - 1
    assert trouble.vouched_for(rows(MANY)) == set(range(1, MANY)), "a later one was finite"
    assert trouble.vouched_for(rows(2)) == {1}


def test_of_a_healthy_training_no_metric_is_asked_for_but_the_last(monkeypatch, tmp_path):
    quality, asked = trouble.quality, []

    def counted(row: EpochRow) -> float:
        asked.append(row.epoch)
        return quality(row)

    monkeypatch.setattr(trouble, "quality", counted)
    record = RunRecord(RunLayout(tmp_path))
    header = "epoch,time,train/box_loss,val/box_loss,metrics/mAP50-95(B)"
    lines = "".join(f"{n},{n}.0,1.0,1.0,0.5\n" for n in range(1, MANY + 1))
    record.layout.results_csv.write_text(f"{header}\n{lines}")
    assert trouble.vouched_for(record.epochs) == set(range(1, MANY + 1))
    assert trouble.judge_warnings(record) is None and asked == [MANY]
