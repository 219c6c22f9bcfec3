"""What `--auto` may act on: a network proven to be worse than untrained, validated in fp32."""

from __future__ import annotations

from pathlib import Path

import pytest

from nantui.diagnosis.causes import noted
from nantui.diagnosis.facts import gather_facts
from nantui.recovery.plan_inputs import gather_inputs
from nantui.recovery.trouble import LASTING, MARGIN, overflows, proven_ruin, validated_in_fp32
from nantui.run.atomic_files import to_json
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from tests.recovery.test_collapse import learning, lost, rows

EVERYWHERE = range(1, 1000)
RUINED = [*learning(30), *lost(LASTING, 12 * MARGIN + 1)]


def test_worse_than_untrained_over_many_epochs_in_fp32_is_proof() -> None:
    found = proven_ruin(rows(*RUINED), EVERYWHERE)
    assert found is not None and (found.epoch, found.epochs, found.metric) == (31, LASTING, 0.0)
    assert found.untrained == 12.0 and found.loss > MARGIN * found.untrained
    assert found.text == (
        "worse than untrained since epoch 31 (10 epochs, validated in fp32): validation losses of at least "
        "121, before it learned at most 12; metrics of at most 0, the best before was 0.483"
    )


def test_anything_less_is_none() -> None:
    """Not in fp32, or not always; losses that stayed; too few epochs; a pretrained network, of which nobody
    knows what untrained means; one that never learned; one that came back.
    """
    whole = rows(*RUINED)
    assert proven_ruin(whole, range(1, 31)) is None
    assert proven_ruin(whole, set(EVERYWHERE) - {39}) is None
    assert proven_ruin(rows(*learning(30), *lost(50)), EVERYWHERE) is None
    assert proven_ruin(whole[:-1], EVERYWHERE) is None
    assert proven_ruin(rows(*[(5, 6, 0.5)] * 30, *RUINED[30:]), EVERYWHERE) is None
    assert proven_ruin(rows(*learning(30, best=0.2), *RUINED[30:]), EVERYWHERE) is None
    assert proven_ruin(rows(*RUINED, (5, 7, 0.3)), EVERYWHERE) is None
    assert proven_ruin(whole[1:], EVERYWHERE) is None, "epoch 1 is not there"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"device": "cpu", "amp": True}, {1, 2, 3, 4, 5}),
        ({"device": "cuda:0", "amp": False}, {1, 2, 3, 4, 5}),
        ({"device": "cuda:0", "amp": True}, {2, 3}),
        ({"device": "cuda:0", "amp": "bf16"}, {2, 3}),
        ({}, {2, 3}),
    ],
)
def test_what_was_validated_in_fp32(tmp_path: Path, values: dict[str, object], expected: set[int]) -> None:
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    layout.attempt(1).write_text("{}")
    events = [
        {"kind": "in_effect", "values": values}, {"kind": "epoch", "epoch": 1},
        {"kind": "validation_precision", "precision": "fp32", "epoch": 2}, {"kind": "epoch", "epoch": 2},
        {"kind": "epoch", "epoch": 3},
        {"kind": "validation_precision", "precision": "fp16", "epoch": 4}, {"kind": "epoch", "epoch": 4},
        {"kind": "validation_precision", "precision": "fp32", "epoch": None}, {"kind": "epoch", "epoch": 5},
    ]  # fmt: skip
    layout.events(1, 0).write_text("".join(to_json(event) + "\n" for event in events))
    assert validated_in_fp32(RunRecord(layout)) == expected


@pytest.mark.parametrize(
    ("device", "metric", "expected"),
    [("cuda:0", 0.3, (2,)), ("cpu", 0.3, ()), ("cuda:0", 6e-5, ())],
    ids=["in half precision", "in fp32", "nothing learned"],
)
def test_a_validation_overflowed_only_in_half_precision_and_of_a_network_that_works(
    tmp_path: Path, device: str, metric: float, expected: tuple[int, ...]
) -> None:
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    layout.attempt(1).write_text("{}")
    lines = "".join(f"{n},{n},1,{metric},{'nan' if n == 2 else 1}\n" for n in (1, 2, 3))
    layout.results_csv.write_text(f"epoch,time,train/box_loss,metrics/mAP50-95(B),val/box_loss\n{lines}")
    events = [{"kind": "in_effect", "values": {"device": device, "amp": True}}]
    events += [{"kind": "epoch", "epoch": epoch} for epoch in (1, 2, 3)]
    layout.events(1, 0).write_text("".join(f"{to_json(event)}\n" for event in events))
    record = RunRecord(layout)
    assert overflows(record) == expected
    said = " ".join(noted(gather_facts(record)))
    assert ("half precision" in said and "sound network" in said) == bool(expected)
    assert gather_inputs(record, {}).overflowed == expected, "no plan proposes amp=False for anything else"
