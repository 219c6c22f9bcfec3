"""Never a wrong clean: NaN, infinities and what Ultralytics washes them into, wherever they are."""

from pathlib import Path

import pytest
import torch

from nantui.checkpoint.scan import scan
from tests.checkpoint import editing
from tests.checkpoint.editing import CONV, INF, NAN, both, edited, poison, put, strip, wash

LAYER = "model.4.cv1"
BUFFER = "momentum_buffer_SGD"


def kinds(verdict):
    return {finding.kind for finding in verdict.findings}


def found(verdict, kind):
    return [finding for finding in verdict.findings if finding.kind == kind]


PLACES = [
    CONV,
    "model.0.conv.weight",
    "model.0.bn.bias",
    "model.9.cv2.bn.running_var",
    "model.22.cv3.2.2.bias",
]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("value", [NAN, -NAN, INF, -INF])
def test_one_value_in_one_tensor(name, value, healthy, tmp_path):
    verdict = scan(edited(healthy, tmp_path / "copy.pt", put(value, name, 1)))
    kind = "nan" if value != value else "inf"
    assert verdict.badge == "corrupt" and not verdict.resumable and not verdict.repairable
    assert [(finding.kind, finding.where) for finding in verdict.findings] == [(kind, name)]
    assert verdict.findings[0].detail.startswith("1 of ")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_in_every_precision(dtype, value, healthy, tmp_path):
    change = both(lambda checkpoint: checkpoint["ema"].to(dtype) and None, put(value))
    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    assert (verdict.badge, len(verdict.findings)) == ("corrupt", 1)


def test_all_values_are_counted(healthy, tmp_path):
    def change(checkpoint):
        tensor = editing.weights(checkpoint)[CONV]
        tensor.view(-1)[::2] = NAN
        tensor.view(-1)[1::4] = INF

    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    size = 4096
    assert [finding.detail for finding in verdict.findings] == [
        f"{size // 2} of {size} values are NaN", f"{size // 4} of {size} values are infinite",
    ]  # fmt: skip


def test_in_the_live_model_beside_a_clean_ema(healthy, tmp_path):
    """Ultralytics 8.0 to about 8.3 kept both, and did not wash."""

    def change(checkpoint):
        checkpoint["model"] = editing.load(healthy)["ema"]
        checkpoint["model"].state_dict()[CONV].view(-1)[3] = NAN

    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    assert verdict.badge == "corrupt"
    assert [finding.where for finding in verdict.findings] == [f"model: {CONV}"]


@pytest.mark.parametrize("kind", ["state_dict", "strided", "tied"])
def test_in_odd_layouts(kind, healthy, tmp_path):
    def change(checkpoint):
        state = checkpoint["ema"].state_dict()
        if kind == "state_dict":
            state[CONV].view(-1)[-1] = NAN
        elif kind == "strided":
            state["odd.weight"] = torch.randn(64, 10)[:, :7]
            state["odd.weight"][63, 6] = NAN
        else:
            state["odd.weight"] = state[CONV]
            state[CONV].view(-1)[0] = NAN
        return state

    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    assert verdict.badge == "corrupt"
    expected = {"state_dict": {CONV}, "strided": {"odd.weight"}, "tied": {CONV, "odd.weight"}}[kind]
    assert {finding.where for finding in found(verdict, "nan")} == expected


# -- optimizer and scaler: clean, and repairable ------------------------------------------------------


def momentum(value):
    def change(checkpoint):
        checkpoint["optimizer"]["state"][12]["momentum_buffer"].view(-1)[0] = value

    return change


def all_momentum(checkpoint):
    for state in checkpoint["optimizer"]["state"].values():
        state["momentum_buffer"].fill_(NAN)


def scaler(checkpoint):
    checkpoint["scaler"] = {"scale": NAN, "growth_factor": 2.0, "_growth_tracker": 0}


def collapsed_scaler(checkpoint):
    checkpoint["scaler"] = {"scale": 0.0, "growth_factor": 2.0}


def group(checkpoint):
    checkpoint["optimizer"]["param_groups"][1]["lr"] = NAN


@pytest.mark.parametrize(
    ("change", "where"),
    [(momentum(NAN), "optimizer.state[12].momentum_buffer"),
     (momentum(INF), "optimizer.state[12].momentum_buffer"),
     (all_momentum, "optimizer.state["), (scaler, "scaler.scale"), (collapsed_scaler, "scaler.scale"),
     (group, "optimizer.param_groups[1].lr")],
)  # fmt: skip
def test_only_optimizer_state_is_bad(change, where, healthy, tmp_path):
    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    assert verdict.badge == "clean" and verdict.repairable and not verdict.resumable and verdict.usable
    assert kinds(verdict) == {"optimizer"} and verdict.findings[0].where.startswith(where)
    assert "rebase" in verdict.why_not_resumable


@pytest.mark.parametrize("name", ["segment11", "rtdetr8"])
@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq"])
def test_adams_moments(name, key, run_of, tmp_path):
    def change(checkpoint):
        checkpoint["optimizer"]["state"][3][key].view(-1)[1] = NAN

    verdict = scan(edited(run_of(name) / "weights" / "epoch0.pt", tmp_path / "copy.pt", change))
    assert verdict.badge == "clean" and verdict.repairable
    assert [finding.where for finding in verdict.findings] == [f"optimizer.state[3].{key}"]


def test_muons_second_buffer(run_of, tmp_path):
    def change(checkpoint):
        states = checkpoint["optimizer"]["state"]
        next(state for state in states.values() if "momentum_buffer_SGD" in state)[
            "momentum_buffer_SGD"
        ].fill_(INF)

    verdict = scan(edited(run_of("detect26") / "weights" / "epoch0.pt", tmp_path / "copy.pt", change))
    assert verdict.badge == "clean" and verdict.repairable
    assert verdict.findings[0].where.endswith(BUFFER)


def test_without_an_optimizer_a_resume_would_start_anew(healthy, tmp_path):
    def change(checkpoint):
        checkpoint["optimizer"] = None

    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    assert verdict.badge == "clean" and not verdict.resumable and verdict.repairable


# -- laundered ------------------------------------------------------------------------------------------


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
        assert verdict.compared_with == older


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


# -- recorded metrics -----------------------------------------------------------------------------------


def metric(key, value):
    def change(checkpoint):
        checkpoint["train_metrics"][key] = value

    return change


def result(key, row, value):
    def change(checkpoint):
        checkpoint["train_results"][key][row] = value

    return change


@pytest.mark.parametrize(
    ("change", "where"),
    [(metric("val/cls_loss", NAN), "train_metrics"), (metric("fitness", NAN), "train_metrics"),
     (metric("metrics/mAP50(B)", INF), "train_metrics"), (result("train/box_loss", 2, NAN), "train_results"),
     (result("train/dfl_loss", 2, "nan"), "train_results")],
)  # fmt: skip
@pytest.mark.parametrize("after", [[], [strip]], ids=["saved", "stripped"])
def test_nan_in_the_metrics_of_its_own_epoch(change, where, after, healthy, tmp_path):
    verdict = scan(edited(healthy, tmp_path / "copy.pt", both(change, *after)))
    assert verdict.badge == "corrupt" and kinds(verdict) == {"metrics"}
    assert where in {finding.where for finding in verdict.findings}


def test_a_stripped_best_is_judged_by_its_own_row(run_of, tmp_path):
    """Ultralytics puts the results of last.pt into best.pt: a NaN of the last epoch is not best's."""

    def change(checkpoint):
        results = checkpoint["train_results"]
        results["train/box_loss"][-1] = NAN
        for key in results:
            if key.startswith(("metrics/", "val/")):
                results[key][-1] += 0.5

    best = run_of("detect8") / "weights" / "best.pt"
    verdict = scan(edited(best, tmp_path / "best.pt", change))
    assert (verdict.badge, verdict.findings) == ("clean", ())
    assert verdict.best


def test_findings_come_worst_first(healthy, tmp_path):
    change = both(put(NAN, "model.0.bn.bias", 0), momentum(NAN), put(65504.0, "model.1.bn.running_var"))
    verdict = scan(edited(healthy, tmp_path / "copy.pt", change))
    assert [finding.kind for finding in verdict.findings] == ["nan", "laundered", "optimizer"]


def test_verdict_row_is_json(healthy: Path):
    row = scan(healthy).to_json()
    assert list(row) == ["path", "badge", "resumable", "repairable", "epoch", "date", "version", "fitness",
                         "best", "findings", "bytes", "seconds"]  # fmt: skip
    assert row["bytes"] == healthy.stat().st_size and row["epoch"] == 2
