"""The transactional step, on real trainings."""

from __future__ import annotations

import torch

from nantui.run.results import read_results
from tests.training.runs import tensors_of


def test_a_healthy_run_is_bit_equal_with_the_guard_on_and_off(trainings, tmp_path):
    protected = trainings(tmp_path / "protect", ours={"guard": "protect"})
    plain = trainings(tmp_path / "off", ours={"guard": "off"})
    assert protected.code == plain.code == 0
    ours, theirs = (tensors_of(outcome.checkpoint("last.pt")) for outcome in (protected, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rows = [[row.values for row in read_results(o.run / "results.csv")] for o in (protected, plain)]
    assert rows[0] == rows[1] and len(rows[0]) == 3
    assert protected.incidents == []
