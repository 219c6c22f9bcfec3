"""Never a wrong clean: NaN, infinities and what Ultralytics washes them into, wherever they are."""

from pathlib import Path

import pytest
import torch

from nantui.checkpoint.scan import scan
from tests.checkpoint import editing
from tests.checkpoint.editing import CONV, INF, NAN, all_momentum, both, edited, found, kinds, put, strip

BUFFER = "momentum_buffer_SGD"


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


@pytest.mark.parametrize("after", [[], [strip]], ids=["saved", "stripped"])
def test_nan_in_validation_losses_beside_metrics_above_zero_is_a_warning(after, healthy, tmp_path):
    """A network with NaN in it finds nothing; it is the validation's loss that overflowed."""

    def works(value):
        return both(metric("val/cls_loss", NAN), metric("metrics/mAP50(B)", value))

    verdict = scan(edited(healthy, tmp_path / "copy.pt", both(works(0.5), *after)))
    assert verdict.badge == "clean" and kinds(verdict) == {"validation"}
    assert scan(edited(healthy, tmp_path / "none.pt", both(works(NAN), *after))).badge == "corrupt"
    bad = both(works(0.5), metric("train/cls_loss", NAN), *after)
    assert scan(edited(healthy, tmp_path / "train.pt", bad)).badge == "corrupt"


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
