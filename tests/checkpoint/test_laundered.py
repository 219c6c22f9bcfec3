"""Washed weights: what tells them, in the file alone and beside an older one, and what must not."""

import pytest
import torch

from nantui.checkpoint.scan import scan
from tests.checkpoint import editing
from tests.checkpoint.editing import (
    CONV,
    INF,
    LAYER,
    NAN,
    all_momentum,
    both,
    edited,
    found,
    kinds,
    poison,
    put,
    strip,
    wash,
)


def everything(name):
    return True


def one_layer(name):
    return name.startswith(LAYER)


def one_matrix(name):
    return name == CONV


def norms(name):
    return name.endswith(("running_mean", "running_var"))


@pytest.mark.parametrize("chosen", [everything, one_layer, one_matrix, norms])
@pytest.mark.parametrize("after", [[], [strip]], ids=["saved", "stripped"])
def test_washed_nan_shows_in_the_file_itself(chosen, after, healthy, tmp_path):
    verdict = scan(edited(healthy, tmp_path / "copy.pt", both(poison(chosen, NAN), *after)))
    assert verdict.badge == "corrupt" and kinds(verdict) == {"laundered"}
    assert all("exactly 0" in finding.detail for finding in verdict.findings)
    if chosen is one_matrix:
        assert [finding.where for finding in verdict.findings] == [CONV]


@pytest.mark.parametrize("chosen", [everything, one_layer, one_matrix])
@pytest.mark.parametrize("value", [INF, -INF])
@pytest.mark.parametrize("after", [[], [strip]], ids=["saved", "stripped"])
def test_washed_infinities_show_in_the_file_itself(chosen, value, after, healthy, tmp_path):
    verdict = scan(edited(healthy, tmp_path / "copy.pt", both(poison(chosen, value), *after)))
    assert verdict.badge == "corrupt" and "laundered" in kinds(verdict)
    assert any(finding.where == CONV and "limit" in finding.detail for finding in found(verdict, "laundered"))


def test_washed_nan_and_infinities_in_one_tensor(healthy, tmp_path):
    def change(checkpoint):
        tensor = editing.weights(checkpoint)[CONV]
        tensor[3].fill_(NAN)
        tensor[4].view(-1)[0] = INF
        wash(checkpoint)

    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    assert verdict.badge == "corrupt" and kinds(verdict) == {"laundered"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_washed_infinities_in_a_converted_file(dtype, healthy, tmp_path):
    change = both(poison(one_matrix, INF), lambda checkpoint: checkpoint["ema"].to(dtype) and None)
    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    assert verdict.badge == "corrupt" and kinds(verdict) == {"laundered"}


@pytest.mark.parametrize("evidence", [all_momentum, "metrics"])
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_washed_value_beside_nan_in_optimizer_or_metrics(evidence, value, healthy, tmp_path):
    def note(checkpoint):
        checkpoint["train_metrics"]["val/box_loss"] = NAN

    change = both(poison(one_matrix, value, channel=7), note if evidence == "metrics" else evidence)
    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    assert verdict.badge == "corrupt" and "laundered" in kinds(verdict)
    assert [finding.where for finding in found(verdict, "laundered")] == [CONV]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("after", [[], [strip]], ids=["saved", "stripped"])
def test_one_washed_channel_needs_the_older_file(value, after, healthy, older, tmp_path):
    copy = edited(healthy, tmp_path / "copy.pt", both(poison(one_matrix, value, channel=7), *after))
    verdict = scan(copy, older=older)
    assert verdict.badge == "corrupt"
    (finding,) = found(verdict, "laundered")
    assert finding.where == CONV
    if value != value:
        assert scan(copy).badge == "clean", "the file alone cannot tell a pruned channel from a washed one"
        assert "1 of 64 channels (7) became exactly 0 since epoch1.pt" in finding.detail


@pytest.mark.parametrize(
    ("name", "value", "badge"),
    [("model.4.cv1.bn.weight", NAN, "corrupt"), ("model.4.cv1.bn.weight", INF, "corrupt"),
     ("model.4.cv1.bn.running_var", NAN, "corrupt"), ("model.4.cv1.bn.running_var", INF, "clean")],
)  # fmt: skip
def test_one_washed_value_of_a_norm_needs_the_older_file(name, value, badge, healthy, older, tmp_path):
    """A single variance at the limit stays a warning: activations of a healthy network can be that large."""
    copy = edited(healthy, tmp_path / "copy.pt", both(put(value, name, 3), wash))
    assert scan(copy).badge == "clean"
    assert scan(copy, older=older).badge == badge


def test_a_variance_cannot_die_within_few_steps_of_a_late_epoch(healthy, older, tmp_path):
    """Late in a training the EMA moves by a ten-thousandth a step: zero within ten steps was washed."""
    name = "model.4.cv1.bn.running_var"

    def late(updates):
        def change(checkpoint):
            checkpoint["updates"] = updates

        return change

    before = edited(older, tmp_path / "before.pt", late(40_000))
    soon = edited(healthy, tmp_path / "soon.pt", both(late(40_010), put(NAN, name, 3), wash))
    much_later = edited(healthy, tmp_path / "later.pt", both(late(400_000), put(NAN, name, 3), wash))
    assert scan(soon, older=before).badge == "corrupt"
    assert scan(much_later, older=before).badge == "clean"


def test_a_channel_that_died_slowly_is_no_evidence(healthy, older, tmp_path):
    def fade(checkpoint):
        editing.weights(checkpoint)[CONV][7].fill_(1e-6)

    before = edited(older, tmp_path / "before.pt", fade)
    now = edited(healthy, tmp_path / "now.pt", poison(one_matrix, 0.0, channel=7))
    assert scan(now, older=before).badge == "clean"


def test_a_channel_that_was_always_zero_is_no_evidence(healthy, older, tmp_path):
    change = poison(one_matrix, 0.0, channel=7)
    before, now = edited(older, tmp_path / "a.pt", change), edited(healthy, tmp_path / "b.pt", change)
    assert scan(now, older=before).badge == "clean"


def test_an_older_file_that_cannot_be_read_proves_nothing(healthy, tmp_path):
    torn = tmp_path / "torn.pt"
    torn.write_bytes(healthy.read_bytes()[:5000])
    copy = edited(healthy, tmp_path / "copy.pt", poison(one_matrix, NAN, channel=7))
    assert scan(copy, older=torn).badge == "clean"
    assert scan(copy, older=tmp_path / "missing.pt").badge == "clean"


def test_the_real_thing_nan_weights(run_of):
    """Ultralytics' own save after a NaN in the first step: nothing is NaN, everything is zero."""
    for path in (run_of("weights_poisoned") / "weights").glob("*.pt"):
        state = editing.weights(editing.load(path))
        assert all(torch.isfinite(tensor).all() for tensor in state.values()), "the usual check says clean"
        verdict = scan(path)
        assert verdict.badge == "corrupt" and "laundered" in kinds(verdict), path.name
        assert not verdict.resumable and not verdict.usable


def test_the_real_thing_nan_in_batchnorm(run_of):
    """Training losses stay finite to the end; every file from that epoch on is washed, best.pt too."""
    weights = run_of("buffers_poisoned") / "weights"
    badges = {path.name: scan(path).badge for path in weights.glob("*.pt")}
    assert badges == {
        "epoch0.pt": "clean", "epoch1.pt": "corrupt", "epoch2.pt": "corrupt", "last.pt": "corrupt",
        "best.pt": "corrupt",
    }  # fmt: skip
    verdict = scan(weights / "last.pt")
    assert {"laundered", "metrics"} <= kinds(verdict)
    assert all(finding.where.endswith("running_var") for finding in found(verdict, "laundered"))


@pytest.mark.parametrize("shape", ["state_dict", "unknown classes"])
def test_washed_whole_where_classes_are_not_known(shape, healthy, tmp_path):
    def change(checkpoint):
        poison(everything, NAN)(checkpoint)
        state = checkpoint["ema"].state_dict()
        if shape == "unknown classes":
            return {"net": {name: value for name, value in state.items() if value.ndim > 1}}
        return state

    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    assert verdict.badge == "corrupt" and "laundered" in kinds(verdict)
