"""No false alarms: what real trainings leave is clean, whatever the architecture, task or optimizer."""

import pytest
import torch

from nantui.checkpoint.scan import scan
from tests.checkpoint import editing
from tests.checkpoint.trainings import HEALTHY, RECIPES


@pytest.mark.parametrize("name", HEALTHY)
def test_every_file_of_a_healthy_training(name, run_of):
    run = run_of(name)
    verdicts = {path.name: scan(path, crc=True) for path in (run / "weights").glob("*.pt")}
    assert {"best.pt", "last.pt", "epoch0.pt", "epoch1.pt"} <= verdicts.keys()
    for file, verdict in verdicts.items():
        assert (file, verdict.badge, verdict.findings) == (file, "clean", ())
        assert verdict.version and verdict.date
    first = verdicts["epoch0.pt"]
    assert first.resumable and first.epoch == 0 and first.work_epoch == 1
    assert first.train_args["epochs"] == RECIPES[name].epochs
    assert verdicts["last.pt"].stripped and not verdicts["last.pt"].resumable
    assert verdicts["last.pt"].epoch is None and "stripped" in verdicts["last.pt"].why_not_resumable


def test_the_young_network_has_all_zero_biases(run_of):
    """The premise of the rules: a healthy young file has tensors that are exactly zero."""
    state = editing.weights(editing.load(run_of("detect8") / "weights" / "epoch0.pt"))
    zero = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.any()]
    assert zero and all(name.endswith("bn.bias") for name in zero)


def test_the_frozen_transformer_has_all_zero_matrices(run_of):
    state = editing.weights(editing.load(run_of("rtdetr8") / "weights" / "epoch1.pt"))
    zero = [name for name, tensor in state.items() if tensor.ndim > 1 and not tensor.any()]
    assert any("sampling_offsets" in name for name in zero) and any("bbox_head" in name for name in zero)


def in_dtype(dtype):
    def change(checkpoint):
        checkpoint["ema"].to(dtype)

    return change


def weights_only(checkpoint):
    return {"model": checkpoint["ema"]}


def state_dict(checkpoint):
    return checkpoint["ema"].state_dict()


def plain_state_dict(checkpoint):
    return dict(checkpoint["ema"].state_dict())


def nested_state_dict(checkpoint):
    return {"epoch": 3, "state_dict": checkpoint["ema"].state_dict()}


def module_alone(checkpoint):
    return checkpoint["ema"]


def previous_generation(checkpoint):
    """Ultralytics 8.0 kept the live model beside the EMA."""
    checkpoint["model"] = checkpoint["ema"]


def shared_storage(checkpoint):
    state = checkpoint["ema"].state_dict()
    flat = torch.cat([tensor.reshape(-1) for tensor in state.values() if tensor.is_floating_point()])
    views, at = {}, 0
    for name, tensor in state.items():
        if tensor.is_floating_point():
            views[name] = flat[at : at + tensor.numel()].view(tensor.shape)
            at += tensor.numel()
    return views


def tied(checkpoint):
    state = checkpoint["ema"].state_dict()
    state["tied.weight"] = state[editing.CONV]
    return state


def channels_last(checkpoint):
    checkpoint["ema"].to(memory_format=torch.channels_last)


def transposed(checkpoint):
    state = checkpoint["ema"].state_dict()
    state["other.weight"] = torch.randn(8, 512).t()
    return state


def gaps_with_nan(checkpoint):
    """NaN in a storage between the values that the tensor shows."""
    wide = torch.randn(64, 10)
    wide[:, 7:] = float("nan")
    state = checkpoint["ema"].state_dict()
    state["view.weight"] = wide[:, :7]
    return state


def empty_tensors(checkpoint):
    state = checkpoint["ema"].state_dict()
    state["none.weight"] = torch.empty(0, 3)
    state["scalar.weight"] = torch.tensor(1.5)
    return state


def exact_dtypes(checkpoint):
    state = checkpoint["ema"].state_dict()
    for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        state[f"buffer.{dtype}"] = torch.zeros(4, dtype=dtype)
    state["complex.weight"] = torch.ones(4, dtype=torch.complex64)
    return state


def expanded(checkpoint):
    state = checkpoint["ema"].state_dict()
    state["wide.weight"] = torch.ones(1, 3).expand(1 << 40, 3)
    return state


@pytest.mark.parametrize(
    "change",
    [in_dtype(torch.float32), in_dtype(torch.bfloat16), in_dtype(torch.float64), previous_generation,
     channels_last, weights_only, state_dict, plain_state_dict, nested_state_dict, module_alone,
     shared_storage, tied, transposed, gaps_with_nan, empty_tensors, exact_dtypes, expanded],
)  # fmt: skip
def test_other_ways_to_hold_the_same_weights(change, healthy, tmp_path):
    verdict = scan(editing.edited(healthy, tmp_path / "copy.pt", change), crc=True)
    assert verdict.badge == "clean"
    assert {finding.kind for finding in verdict.findings} <= {"not-ultralytics"}


@pytest.mark.parametrize("change", [state_dict, module_alone, nested_state_dict])
def test_what_is_no_training_checkpoint_cannot_be_resumed(change, healthy, tmp_path):
    verdict = scan(editing.edited(healthy, tmp_path / "copy.pt", change))
    assert not verdict.resumable and not verdict.repairable and verdict.why_not_resumable


@pytest.mark.parametrize(
    "name", ["model.0.bn.running_var", editing.CONV, "model.22.cv2.0.2.bias", "model.0.bn.weight"]
)
@pytest.mark.parametrize("value", [65504.0, -65504.0, 1e9])
def test_large_values_clamped_to_the_limit_are_a_warning(name, value, healthy, tmp_path):
    change = editing.both(editing.put(value, name), lambda checkpoint: editing.wash(checkpoint))
    verdict = scan(editing.edited(healthy, tmp_path / "copy.pt", change))
    assert verdict.badge == "clean" and verdict.resumable
    assert [(finding.kind, finding.where) for finding in verdict.findings] == [("saturated", name)]
    assert verdict.findings[0].detail.startswith("1 of ")


def test_masks_may_hold_infinities(healthy, tmp_path):
    """A buffer outside the state_dict (an attention mask) is no weight."""

    def change(checkpoint):
        mask = torch.full((4, 4), float("-inf"), dtype=torch.float16).triu(1)
        checkpoint["ema"].register_buffer("mask", mask, persistent=False)
        checkpoint["ema"].anchors_seen = torch.tensor([float("inf"), 1.0])

    verdict = scan(editing.edited(healthy, tmp_path / "copy.pt", change))
    assert (verdict.badge, verdict.findings) == ("clean", ())


def test_nan_rows_of_other_epochs_are_no_evidence(healthy, tmp_path):
    def change(checkpoint):
        checkpoint["train_results"]["train/box_loss"][0] = float("nan")

    verdict = scan(editing.edited(healthy, tmp_path / "copy.pt", change))
    assert (verdict.badge, verdict.findings) == ("clean", ())


def test_a_repeated_epoch_counts_by_its_last_row(healthy, tmp_path):
    """After a rollback results.csv has the epoch twice; the last one is this checkpoint's."""

    def change(checkpoint):
        rows = checkpoint["train_results"]
        for values in rows.values():
            values.append(values[2])
        rows["val/box_loss"][2] = float("nan")

    verdict = scan(editing.edited(healthy, tmp_path / "copy.pt", change))
    assert (verdict.badge, verdict.findings) == ("clean", ())
