"""Room on the GPUs: what others hold against what this run needs."""

from __future__ import annotations

import pytest

from nantui.errors import UserError
from nantui.hardware import Gpu, GpuProcess
from nantui.run.layout import RunLayout
from nantui.run.steps import header
from nantui.supervise import room


def gpu(index=0, others_gb=0.0):
    processes = (GpuProcess(1, others_gb, False, "eve"),) if others_gb else ()
    return Gpu(index, "GPU", 80.0, others_gb, None, None, None, None, processes)


@pytest.fixture
def layout(tmp_path):
    """A run whose first attempt once needed 30 GB."""
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    layout.attempt(1).write_text("{}")
    row = "1.0,1,1,5,0,,3.5,1,0.1,1,0.2,40,28,{},9,640\n"
    lines = [",".join(header(("box_loss",))), row.format(30).strip(), row.format(29).strip(), ""]
    layout.steps(1).write_text("\n".join(lines))
    return layout


def test_the_earlier_peak_is_what_it_needs(layout):
    assert room.earlier_peak_gb(layout) == 30
    room.ensure_room(layout, "0", wait_for_it=False, look=lambda: (gpu(others_gb=49),))
    with pytest.raises(UserError, match=r"51\.0 of 80\.0 GB are held by eve, this run needed 30\.0 GB"):
        room.ensure_room(layout, "0", wait_for_it=False, look=lambda: (gpu(others_gb=51),))


def test_without_an_earlier_peak_only_a_full_gpu_is_refused():
    room.ensure_room(None, 0, wait_for_it=False, look=lambda: (gpu(others_gb=60),))
    with pytest.raises(UserError, match="--wait-gpu"):
        room.ensure_room(None, 0, wait_for_it=False, look=lambda: (gpu(others_gb=79),))


@pytest.mark.parametrize(
    ("device", "indexes"), [("0,2", [0, 2]), ([1], [1]), (2, [2]), ("cuda:1", [1]), ("cpu", []), (None, [0])]
)
def test_only_the_devices_that_train_matter(device, indexes):
    assert [one.index for one in room.chosen((gpu(0), gpu(1), gpu(2)), device)] == indexes


def test_waiting_says_for_whom(layout, monkeypatch):
    looks = iter([(gpu(others_gb=70),), (gpu(others_gb=70),), (gpu(),)])
    monkeypatch.setattr(room, "LOOK_S", 0.0)
    said = []
    room.ensure_room(layout, "0", wait_for_it=True, look=lambda: next(looks), say=said.append)
    assert len(said) == 2 and "eve" in said[0]
