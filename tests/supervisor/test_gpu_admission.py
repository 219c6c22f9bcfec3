"""Room on the GPUs: what others hold against what this run needs."""

from __future__ import annotations

import json

import pytest

from nantui.errors import UserError
from nantui.machine import gpus
from nantui.machine.gpus import Gpu, GpuProcess, Sample
from nantui.run.atomic_files import write_json
from nantui.run.attempts import read_attempt
from nantui.run.commands import Command
from nantui.run.layout import RunLayout
from nantui.run.telemetry import header
from nantui.supervisor import gpu_admission
from nantui.supervisor.client import submit, wait
from tests.waiting import eventually


def gpu(index=0, others_gb=0.0, total_gb=80.0):
    processes = (GpuProcess(1, others_gb, False, "eve"),) if others_gb else ()
    return Gpu(index, "GPU", total_gb, others_gb, None, None, None, None, processes)


@pytest.fixture
def layout(tmp_path):
    """A run whose first attempt once needed 30 GB."""
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    layout.attempt(1).write_text("{}")
    write_steps(layout, 1, "30,")
    return layout


def write_steps(layout, number, peaks):
    """`peaks` in GiB: what was reserved, what tensors filled."""
    rows = f"1.0,1,1,5,0,,3.5,1,0.1,1,0.2,40,28,{peaks},9,640,0.01\n"
    layout.steps(number).write_text(",".join(header(("box_loss",))) + "\n" + rows)


@pytest.fixture
def held_gb(monkeypatch):
    """Returns how to set what somebody else holds of the one GPU."""

    def hold(others_gb):
        sample = Sample(0.0, (gpu(others_gb=others_gb),), None)
        monkeypatch.setattr(gpus.Sampler, "sample", lambda self, pids=(): sample)

    return hold


def shortages(layout, train=None):
    """Return what the one GPU lacks for a run."""
    return gpu_admission.gpu_shortages(gpus.Sampler().sample().gpus, layout, train or {})


def test_the_earlier_peak_and_what_cuda_itself_takes_is_what_it_needs(layout, held_gb):
    assert gpu_admission.earlier_peak_gb(layout) == pytest.approx((30 + 0.7) * 1.0737, rel=1e-3)
    held_gb(47)
    assert shortages(layout) == []
    held_gb(48)
    assert shortages(layout) == ["GPU 0: 48.0 of 80.0 GB are held by eve, this run needs 33.0 GB"]


def test_what_tensors_filled_and_the_allocators_usual_part_is_needed_not_what_it_kept(layout):
    write_steps(layout, 1, "30,20")
    assert gpu_admission.earlier_peak_gb(layout) == pytest.approx((20 * 1.04 + 0.7) * 1.0737, rel=1e-3)


def test_an_attempt_of_an_older_version_has_no_such_column(layout):
    text = layout.steps(1).read_text().replace("mem_peak_gb,alloc_peak_gb,", "mem_peak_gb,")
    layout.steps(1).write_text(text.replace("30,,", "30,"))
    assert gpu_admission.earlier_peak_gb(layout) == pytest.approx((30 + 0.7) * 1.0737, rel=1e-3)


def test_after_the_gpu_ran_full_a_smaller_batch_needs_less(layout, held_gb):
    attempt = {"attempt": 1, "uuid": "u", "created": 1.0, "mode": "start", "checkpoint": None, "ours": {}}
    write_json(layout.attempt(1), {**attempt, "train": {"batch": 32, "imgsz": 640}, "python": "python"})
    write_steps(layout, 1, "74,74")
    held_gb(20)
    for batch, fits in ((32, False), (24, False), (16, True), (-1, True)):
        found = shortages(layout, {"batch": batch, "imgsz": 640})
        assert (found == []) is fits, (batch, found)


def test_what_nobody_asked_for_counts_as_it_was_in_effect(layout, held_gb):
    """A run of the usual batch, of which its spec says nothing, resumes with half of it."""
    layout.events(1, 0).write_text(
        json.dumps({"t": 1.0, "kind": "in_effect", "values": {"batch": 16, "imgsz": 640}}) + "\n"
    )
    write_steps(layout, 1, "74,74")
    held_gb(20)
    for train, fits in (({}, False), ({"batch": 16}, False), ({"batch": 8}, True), ({"imgsz": 320}, True)):
        found = shortages(layout, train)
        assert (found == []) is fits, (train, found)


@pytest.mark.parametrize("filled_gib", [73, 80])
def test_a_run_that_nearly_filled_its_gpu_may_have_it_again(layout, held_gb, filled_gib):
    """The allocator gives back what it only keeps; and more than the whole GPU nobody can wait for."""
    write_steps(layout, 1, f"{filled_gib},{filled_gib}")
    held_gb(0.5)
    assert shortages(layout) == []
    held_gb(4)
    assert "held by eve" in shortages(layout)[0]


@pytest.mark.parametrize(("total_gb", "enough_gb"), [(150.8, 5), (80, 5), (24, 3), (8, 1)])
def test_without_an_earlier_peak_only_a_gpu_of_which_little_is_left_is_refused(total_gb, enough_gb):
    def found(left_gb):
        one = gpu(total_gb=total_gb, others_gb=total_gb - left_gb)
        return gpu_admission.gpu_shortages([one], None, {})

    assert found(enough_gb) == []
    assert "held by eve" in found(enough_gb / 2)[0]


def test_a_refusal_says_what_to_do_after_a_moment_for_what_has_just_ended(monkeypatch):
    waited = []
    monkeypatch.setattr(gpu_admission, "JUST_ENDED_S", 0.0)
    with pytest.raises(UserError, match="GPU 0 is full; .*--wait-gpu"):
        gpu_admission.ensure_gpu_memory(lambda: ["GPU 0 is full"], wait_for_it=False, pump=waited.append)
    assert waited == []
    monkeypatch.setattr(gpu_admission, "JUST_ENDED_S", 60.0)
    answers = [["GPU 0 is full"], []]
    gpu_admission.ensure_gpu_memory(lambda: answers.pop(0), wait_for_it=False, pump=waited.append)
    assert waited == [gpu_admission.JUST_ENDED_LOOK_S]


@pytest.mark.parametrize(
    ("device", "indexes"), [("0,2", [0, 2]), ([1], [1]), (2, [2]), ("cuda:1", [1]), ("cpu", []), (None, [0])]
)
def test_only_the_devices_that_train_matter(device, indexes):
    assert [one.index for one in gpus.chosen((gpu(0), gpu(1), gpu(2)), device, {})] == indexes


@pytest.mark.parametrize(
    ("variable", "device", "indexes"),
    [("2", "0", [2]), ("2,1", "0,1", [2, 1]), ("", None, []), ("GPU-8a", "0", []), ("1,2", None, [1])],
)
def test_cuda_counts_among_the_visible_ones(variable, device, indexes):
    found = gpus.chosen((gpu(0), gpu(1), gpu(2)), device, {"CUDA_VISIBLE_DEVICES": variable})
    assert [one.index for one in found] == indexes


def test_waiting_says_for_whom():
    answers = [["GPU 0: held by eve"], ["GPU 0: held by eve"], []]
    said = []
    gpu_admission.ensure_gpu_memory(
        lambda: answers.pop(0), wait_for_it=True, say=said.append, pump=lambda seconds: None
    )
    assert said == ["waiting for room: GPU 0: held by eve"] * 2


FAKE_DRIVER = """
import os

class NVMLError(Exception):
    pass

NVML_TEMPERATURE_GPU = 0
nvmlInit = lambda: None
nvmlDeviceGetCount = lambda: 1
nvmlDeviceGetHandleByIndex = lambda index: index

class nvmlDeviceGetMemoryInfo:
    total = 80e9

    def __init__(self, handle):
        with open(os.environ["FAKE_USED_GB"]) as file:
            self.used = float(file.read()) * 1e9

def refuse(*arguments):
    raise NVMLError("not known here")

def __getattr__(name):
    if name.startswith("nvmlDeviceGet"):
        return refuse
    raise AttributeError(name)
"""


@pytest.fixture
def used_gb(tmp_path, monkeypatch):
    """A machine with one GPU of 80 GB; returns how to set what others hold of it."""
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "pynvml.py").write_text(FAKE_DRIVER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "driver"))
    monkeypatch.setenv("FAKE_USED_GB", str(tmp_path / "used"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return (tmp_path / "used").write_text


def test_every_start_is_refused_on_a_full_gpu_and_may_wait_for_it(make_run, used_gb):
    used_gb("79")
    run = make_run(epochs=100000)
    assert "79.0 of 80.0 GB are held by others" in run.await_state("failed").text
    for kind in ("start", "recover"):
        refused = run.do(kind, set={"lr0": 0.002})
        assert not refused.ok and "--wait-gpu" in refused.text, "what s and R leave in the spool"
    waiting = submit(run.path, Command("start", {"wait_gpu": True}))
    eventually(lambda: "waiting for room" in str(run.status().doing))
    stopped = submit(run.path, Command("stop"))
    assert "no longer waiting" in wait(run.path, waiting).text
    assert wait(run.path, stopped).ok
    waiting = submit(run.path, Command("start", {"wait_gpu": True}))
    eventually(lambda: "waiting for room" in str(run.status().doing))
    used_gb("1")
    assert wait(run.path, waiting).ok
    run.await_step()
    attempt = read_attempt(run.layout, 1)
    assert attempt.train["lr0"] == 0.002
    assert attempt.marks["gpus"] == {"": None} and attempt.marks["kernel_s"] > 0, (
        "of a GPU without address or ECC"
    )
