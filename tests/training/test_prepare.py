"""What is refused before a run is made: a device that is not there."""

from __future__ import annotations

import pytest
import torch

from nantui.errors import UserError
from nantui.training.prepare import refuse_missing_device


@pytest.mark.parametrize("device", ["0", "0,1", 1, [0, 1], "cuda:1"])
def test_devices_that_are_there_pass(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refuse_missing_device(device)


@pytest.mark.parametrize(
    ("device", "there", "says"),
    [
        ("0", 0, "sees no CUDA device here.*device=cpu"),
        ("cuda:0", 0, "no CUDA device"),
        ([0, 2], 2, "devices 0 to 1 here"),
        (7, 1, "device=7: "),
    ],
)
def test_devices_that_are_not_there_are_named(monkeypatch, device, there, says):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(UserError, match=says):
        refuse_missing_device(device)


@pytest.mark.parametrize("device", [None, "", "cpu", "cpu,cpu", "mps", "-1", "-1,-1", "npu:0"])
def test_other_words_are_ultralytics_affair(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    refuse_missing_device(device)
