"""A sample of the machine: whole where there is a GPU, silent where there is none."""

from __future__ import annotations

import os
import sys
import threading
from types import SimpleNamespace

import pytest

from nantui.machine import gpus
from nantui.machine.gpus import Sampler


class NVMLError(Exception):
    pass


def refuse(*arguments):
    raise NVMLError("Not Supported")


def memory(handle, version=1):
    """The first version counts 600 MB that the driver keeps for itself as used."""
    return SimpleNamespace(total=80e9, used=10e9 if version == 2 else 10.6e9)


@pytest.fixture
def sampler_with(tmp_path, monkeypatch):
    """Return a sampler that finds such a pynvml (None: that it is not installed)."""

    def make(nvml):
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return Sampler(tmp_path)

    return make


def nvml_of(**changes):
    """Return a stand-in for pynvml with one GPU of 80 GB, which this process and another one use."""
    processes = [
        SimpleNamespace(pid=os.getpid(), usedGpuMemory=3e9),
        SimpleNamespace(pid=1, usedGpuMemory=None),
    ]
    functions = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlMemory_v2": 2,
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetName": lambda handle: "NVIDIA H100",
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=97),
        "nvmlDeviceGetTemperature": lambda handle, kind: 61,
        "nvmlDeviceGetPowerUsage": lambda handle: 650_000,
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle: 700_000,
        "nvmlDeviceGetCudaComputeCapability": lambda handle: [9, 0],
        "nvmlDeviceGetComputeRunningProcesses": lambda handle: processes,
    }
    return SimpleNamespace(NVMLError=NVMLError, NVML_TEMPERATURE_GPU=0, **{**functions, **changes})


def test_gpu_memory_is_split_into_ours_and_others(sampler_with):
    sample = sampler_with(nvml_of()).sample([os.getpid()])
    gpu = sample.gpus[0]
    assert (gpu.name, gpu.busy, gpu.celsius, gpu.watts, gpu.watts_limit) == ("NVIDIA H100", 97, 61, 650, 700)
    assert (gpu.ours_gb, gpu.others_gb, gpu.total_gb - gpu.used_gb) == (3, 7, 70)
    assert [process.gb for process in gpu.processes] == [3, None]
    assert gpu.capability == 9.0


def test_a_driver_without_the_second_version_is_asked_for_the_first(sampler_with):
    def old(handle, version=1):
        return memory(handle) if version == 1 else refuse()

    gpu = sampler_with(nvml_of(nvmlDeviceGetMemoryInfo=old)).sample().gpus[0]
    assert gpu.used_gb == 10.6


def test_a_figure_that_the_card_does_not_know_is_none_and_the_rest_stays(sampler_with):
    nvml = nvml_of(nvmlDeviceGetPowerUsage=refuse, nvmlDeviceGetUtilizationRates=refuse)
    gpu = sampler_with(nvml).sample().gpus[0]
    assert gpu.watts is None and gpu.busy is None
    assert gpu.total_gb == 80


def test_no_driver_is_no_gpu_and_is_asked_once(sampler_with):
    calls = []
    sampler = sampler_with(nvml_of(nvmlInit=lambda: calls.append(1) or refuse()))
    assert sampler.sample().gpus == ()
    assert "Not Supported" in sampler.sample().note
    assert calls == [1]


def test_no_pynvml_is_said(sampler_with):
    sample = sampler_with(None).sample()
    assert sample.gpus == () and "nvidia-ml-py" in sample.note


def test_the_host_is_this_one(tmp_path):
    host = Sampler(tmp_path).sample([os.getpid(), 2**22 + 1]).host
    assert host.cores >= 1
    assert 0 < host.memory_used_gb < host.memory_total_gb
    assert 0 < host.disk_free_gb <= host.disk_total_gb
    assert 0 < host.ours_gb < host.memory_total_gb


def test_a_driver_that_hangs_stops_nobody_and_is_asked_again_once_it_answers(sampler_with, monkeypatch):
    goes_on = threading.Event()
    goes_on.set()
    sampler = sampler_with(nvml_of(nvmlDeviceGetHandleByIndex=lambda index: goes_on.wait() and index))
    assert [gpu.name for gpu in sampler.sample().gpus] == ["NVIDIA H100"]
    goes_on.clear()
    late = sampler.sample(within_s=0.01)
    assert [gpu.name for gpu in late.gpus] == ["NVIDIA H100"], "as it was, for a while"
    monkeypatch.setattr(gpus, "ANSWERS_S", 0.0)
    hung = sampler.sample(within_s=0.01)
    assert (hung.gpus, hung.note) == ((), gpus.SILENT) and hung.host.memory_total_gb > 0
    goes_on.set()
    assert [gpu.name for gpu in sampler.sample(within_s=60).gpus] == ["NVIDIA H100"]
    assert sampler.sample(within_s=60).note == ""
