"""How a GPU failed is told by what it counted before and after, and by the kernel; nothing without NVML."""

from __future__ import annotations

import json
import signal
import time
from types import SimpleNamespace

import pytest

from nantui import entry_points
from nantui.run.commands import Command
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec
from nantui.supervisor import gpu_admission, gpu_marks
from nantui.supervisor.gpu_marks import gpu_fault, kernel_xids
from nantui.supervisor.helper_process import helper

DRIVER = """
import json, os, time
from types import SimpleNamespace

class NVMLError(Exception):
    pass

NVML_TEMPERATURE_GPU = 0
with open(os.environ["FAKE_GPUS"]) as file:
    gpus = json.load(file)

def nvmlInit():
    if gpus is None:
        raise NVMLError("Unknown Error")
    time.sleep(gpus.pop("sleep", 0))

def nvmlDeviceGetMemoryInfo(handle):
    if "lost" in gpus[handle]:
        raise NVMLError("GPU is lost")
    return SimpleNamespace(total=80e9, used=1e9)

def nvmlDeviceGetTotalEccErrors(handle, kind, counter):
    if (kind, counter) != (1, 1) or "ecc" not in gpus[handle]:
        raise NVMLError("Not Supported")
    return gpus[handle]["ecc"]

nvmlDeviceGetCount = lambda: len(gpus)
nvmlDeviceGetHandleByIndex = lambda index: list(gpus)[index]
nvmlDeviceGetPciInfo = lambda handle: SimpleNamespace(busId=handle)

def __getattr__(name):
    if name.startswith("nvmlDeviceGet"):
        def refuse(*arguments):
            raise NVMLError("not known here")
        return refuse
    raise AttributeError(name)
"""
FIRST, SECOND, OTHER = "00000000:3B:00.0", "00000000:AF:00.0", "00000000:D8:00.0"
HEALTHY = {FIRST: {"ecc": 2}, SECOND: {}, OTHER: {"ecc": 0}}


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A machine with GPUs; returns how to set how they are."""
    (tmp_path / "pynvml.py").write_text(DRIVER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FAKE_GPUS", str(tmp_path / "gpus.json"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda gpus: (tmp_path / "gpus.json").write_text(json.dumps(gpus))


def before(device):
    """Return the marks that a training on `device` is started with."""
    answer = helper(entry_points.GPU_ADMISSION, {"run": "/none", "device": device, "train": {}})
    assert answer["lacks"] == []
    return {"gpus": answer["gpus"], "kernel_s": time.monotonic()}


def test_what_a_gpu_counts_more_and_which_is_gone_is_told_of_the_run_s_own(driver, monkeypatch):
    driver(HEALTHY)
    marks = before("0,1")
    assert marks["gpus"] == {"0000:3b:00": 2, "0000:af:00": None}, "the third is not of this run"
    assert gpu_fault(marks) == "", "nothing has changed"
    driver({**HEALTHY, FIRST: {"ecc": 5}, SECOND: {"lost": True}, OTHER: {"ecc": 9}})
    assert gpu_fault(marks) == (
        "GPU 0000:af:00 is gone from the bus; GPU 0000:3b:00: 3 more uncorrectable ECC errors"
    )
    driver(None)
    assert gpu_fault(marks) == "the driver no longer answers: no GPU: Unknown Error"
    driver({**HEALTHY, "sleep": 60})
    monkeypatch.setattr(gpu_marks, "SOON_S", 1.0)
    started = []
    assert gpu_fault(marks, started.append) == "the driver no longer answers: nothing for 1 s"
    assert started[0].wait(10) == -signal.SIGKILL, "known to be no part of a training, should it not die"


@pytest.fixture
def port(tmp_path):
    """What a start asks through; `said` and `started` tell what it did."""
    said, started = [], []
    made = SimpleNamespace(said=said, started=started, say=said.append, start_helper=started.append)
    return SimpleNamespace(**vars(made), layout=RunLayout(tmp_path), pump=time.sleep)


def admitted(port, kind="train", **options):
    spec = Spec(train={} if kind == "exec" else {"device": "0"}, kind=kind)
    return gpu_admission.admit(port, Command("start", options), spec)


def test_a_driver_that_hangs_refuses_nobody(driver, port, monkeypatch):
    driver({**HEALTHY, "sleep": 60})
    monkeypatch.setattr(gpu_admission, "ANSWERS_S", 1.0)
    assert admitted(port) == {}
    assert port.said == ["the GPUs cannot be asked: nothing for 1 s"]
    assert port.started[0].wait(10) == -signal.SIGKILL


def test_nor_does_one_that_hangs_after_it_has_answered(port, monkeypatch):
    answers = [{"lacks": ["GPU 0: full"], "gpus": {"0000:3b:00": 2}}, TimeoutError("nothing for 30 s")]

    def answer(*_, **__):
        if isinstance(one := answers.pop(0), Exception):
            raise one
        return one

    monkeypatch.setattr(gpu_admission, "helper", answer)
    assert admitted(port) == {} and not answers


def test_of_a_driver_that_is_slow_to_wake_nothing_is_noted(driver, port, monkeypatch):
    """After an end it would be as slow, and would seem dead."""
    driver(HEALTHY)
    assert admitted(port) == {"0000:3b:00": 2}
    monkeypatch.setattr(gpu_admission, "SOON_S", 0.01)
    assert admitted(port) == {}


def test_a_script_that_names_no_device_is_not_refused_and_marked_all_the_same(port, monkeypatch):
    full = {"lacks": ["GPU 0: full"], "gpus": {"0000:3b:00": None}}
    monkeypatch.setattr(gpu_admission, "helper", lambda *_, **__: full)
    assert admitted(port, "exec") == {"0000:3b:00": None}


def test_marks_are_in_the_order_of_the_ranks(driver):
    driver(HEALTHY)
    assert list(before("2,0")["gpus"]) == ["0000:d8:00", "0000:3b:00"]


def test_without_nvml_there_are_no_marks_and_no_fault(driver):
    driver(None)
    assert before("0")["gpus"] == {}
    assert gpu_fault({}) == "" and gpu_fault({"boot_id": "one of a version before"}) == ""


RECORDS = """\
6,4711,100000000,-;NVRM: Xid (PCI:0000:3b:00): 31, pid=9, name=python, Ch 00000008, MMU Fault
6,4712,200000000,-;NVRM: Xid (PCI:0000:3B:00): 79, pid='?', name=?, GPU has fallen off the bus.
 SUBSYSTEM=pci
6,4713,200000001,-,caller=T9;NVRM: Xid (PCI:0000:d8:00): 94, pid=8, name=python, Contained: ECC
4,4714,200000002,-;NVRM: Xid (PCI:0000:3b:00): 45, pid=9, name=python, Ch 00000008
6,4715,200000003,-;usb 1-1: Xid is no word of its
"""


def test_xids_since_the_beginning_are_read_from_the_kernel_s_log(tmp_path, monkeypatch):
    log = tmp_path / "kmsg"
    log.write_text(RECORDS)
    fallen, contained = kernel_xids(150.0, str(log))
    assert fallen == ("0000:3b:00", "79, pid='?', name=?, GPU has fallen off the bus.")
    assert contained[0] == "0000:d8:00" and len(kernel_xids(0.0, str(log))) == 3
    assert kernel_xids(0.0, str(tmp_path / "unreadable")) == []
    assert kernel_xids(time.monotonic() + 3600) == [], "the real one, where it may be read, ends"
    answer = {"gpus": {"0000:3b:00": None}, "xids": [fallen, contained]}
    monkeypatch.setattr(gpu_marks, "_ask", lambda *_: answer)
    assert gpu_fault({"gpus": {"0000:3b:00": None}, "kernel_s": 150.0}) == f"GPU 0000:3b:00: Xid {fallen[1]}"
