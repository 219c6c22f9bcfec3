"""One frozen sample of the GPUs (NVML) and of the host, for panels and for GPU admission.

NVML is asked directly, without torch and without a CUDA context, so that looking costs no GPU memory. Where
there is no GPU, no driver or no pynvml the list of GPUs is empty and `note` says which of these it is.

What `device` means before anything is started: the CPU or which GPUs, how many, and what these can do.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

GIGABYTE, GIBIBYTE = 1e9, 2**30
GIB_GB = GIBIBYTE / GIGABYTE
"""GB in a GiB: the driver's figures are in GB here; PyTorch's, in steps.csv, in GiB."""
BF16_SINCE = 8.0
"""The CUDA compute capability from which a GPU has bfloat16 itself (`torch.cuda.is_bf16_supported`)."""
UNCORRECTED = (1, 1)
"""NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_AGGREGATE_ECC (nvml.h)."""
LOAD_S = 0.2
"""What is shorter says nothing of how busy the cores are."""
ANSWERS_S = 30.0
"""How long the driver may take to answer: seconds a GPU where nothing keeps it awake."""
SILENT = "no answer yet from the GPU driver"
WAITED_FOR = f"{SILENT}: it gets {ANSWERS_S:.0f} s"


@dataclass(frozen=True)
class GpuProcess:
    """A process on a GPU; `gb` is None where the driver does not say, `ours` whether it is of the run."""

    pid: int
    gb: float | None
    ours: bool
    user: str
    command: str = ""


@dataclass(frozen=True)
class Gpu:
    """One GPU: memory in GB, `busy` in percent, degrees Celsius, watts; None where it does not say."""

    index: int
    name: str
    total_gb: float
    used_gb: float
    busy: float | None
    celsius: float | None
    watts: float | None
    watts_limit: float | None
    processes: tuple[GpuProcess, ...]
    capability: float | None = None
    """CUDA compute capability, e.g. 9.0."""
    address: str = ""
    """PCI address as the kernel's log has it, e.g. 0000:3b:00."""
    uncorrected: int | None = None
    """Uncorrectable ECC errors in all its life."""

    @property
    def ours_gb(self) -> float:
        """Memory of the run's own processes in GB."""
        return sum(process.gb or 0.0 for process in self.processes if process.ours)

    @property
    def others_gb(self) -> float:
        """Memory that everybody else holds, in GB."""
        return max(0.0, self.used_gb - self.ours_gb)


@dataclass(frozen=True)
class Host:
    """The host: percent of all cores, memory and disk in GB; `disk` is where the run lies."""

    cpu: float | None
    """None right after the start: a load is measured over a time."""
    cores: int
    load: float
    memory_total_gb: float
    memory_used_gb: float
    shared_total_gb: float
    shared_used_gb: float
    disk_total_gb: float
    disk_free_gb: float
    ours_gb: float
    """Resident memory of the run's own processes."""
    busy: tuple[float, ...] = ()
    """Percent of each core."""
    moved: Mapping[str, float] = field(default_factory=dict)
    """MB/s since the sample before, of all disks and networks: read, written, received, sent."""


@dataclass(frozen=True)
class Sample:
    """Everything at one moment, `t` in s since the epoch."""

    t: float
    gpus: tuple[Gpu, ...]
    host: Host
    note: str = ""
    elsewhere: tuple[tuple[str, Sample], ...] = ()
    """The other hosts of a run on several, by name, as their agents wrote them."""


class Sampler:
    """Takes samples; keep one, since CPU load is measured from one sample to the next."""

    def __init__(self, run: Path | None = None) -> None:
        """`run` is where disk space is measured."""
        self._run = run or Path.cwd()
        psutil.cpu_percent(percpu=True)
        self._moved = _moved()
        self._asking, self._asked = threading.Thread(), 0.0
        self._told: tuple[tuple[Gpu, ...], str] = ((), SILENT)

    def sample(self, pids: Collection[int] = (), within_s: float | None = ANSWERS_S) -> Sample:
        """Return what is now; `pids` are the processes of the run. Never raises for missing hardware.

        What the driver says more than `within_s` after it was asked is for a later sample: one that hangs
        stops nobody, and no sampler for longer than that in all.
        """
        ours = frozenset(pids)
        before, self._moved = self._moved, _moved()
        seconds = max(0.001, self._moved["t"] - before["t"])
        rates = {name: (self._moved[name] - before[name]) / 1e6 / seconds for name in before if name != "t"}
        host = _host(self._run, ours, rates)
        host = host if seconds >= LOAD_S else replace(host, cpu=None)
        if not self._asking.is_alive():
            self._asking = threading.Thread(target=self._ask, args=(ours,), daemon=True)
            self._asked = time.monotonic()
            self._asking.start()
        self._asking.join(within_s and max(0.0, within_s - (time.monotonic() - self._asked)))
        if self._asking.is_alive() and time.monotonic() - self._asked > ANSWERS_S:
            self._told = (), SILENT
        return Sample(time.time(), self._told[0], host, self._told[1])

    def _ask(self, ours: frozenset[int]) -> None:
        nvml, note = self._nvml
        try:
            count = nvml.nvmlDeviceGetCount() if nvml else 0
            self._told = tuple(gpu for index in range(count) if (gpu := _gpu(nvml, index, ours))), note
        except Exception as error:  # NVML's, as a rule: here nobody else would hear of any
            self._told = (), f"no GPU: {error}"

    @cached_property
    def _nvml(self) -> tuple[Any, str]:
        """NVML, opened once, or why it is not there; a failure is not tried again."""
        try:
            import pynvml

            pynvml.nvmlInit()
        except ImportError:
            return None, "no GPU shown: nvidia-ml-py is not installed"
        except Exception as error:  # NVMLError is only known once the import worked
            return None, f"no GPU: {error}"
        return pynvml, ""


def _gpu(nvml: Any, index: int, ours: frozenset[int]) -> Gpu | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = _memory(nvml, handle)
    except nvml.NVMLError:
        return None

    def ask(name: str, *more: Any) -> Any:
        """A card (MIG, virtual) or pynvml that does not know one figure still tells the others."""
        try:
            return getattr(nvml, name)(handle, *more)
        except (nvml.NVMLError, AttributeError):
            return None

    rates = ask("nvmlDeviceGetUtilizationRates")
    version = ask("nvmlDeviceGetCudaComputeCapability")
    watts, limit = ask("nvmlDeviceGetPowerUsage"), ask("nvmlDeviceGetEnforcedPowerLimit")
    running = ask("nvmlDeviceGetComputeRunningProcesses") or ()
    return Gpu(
        index=index, name=ask("nvmlDeviceGetName") or "GPU",
        total_gb=memory.total / GIGABYTE, used_gb=memory.used / GIGABYTE,
        busy=None if rates is None else float(rates.gpu),
        celsius=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        watts=None if watts is None else watts / 1000, watts_limit=None if limit is None else limit / 1000,
        processes=tuple(_process(one.pid, one.usedGpuMemory, one.pid in ours) for one in running),
        capability=None if version is None else version[0] + version[1] / 10,
        address=getattr(ask("nvmlDeviceGetPciInfo"), "busId", "").lower().partition(".")[0][-10:],
        uncorrected=ask("nvmlDeviceGetTotalEccErrors", *UNCORRECTED),
    )  # fmt: skip


def _memory(nvml: Any, handle: Any) -> Any:
    """Return what nvidia-smi shows: without the part that the driver reserves, where the driver can tell.

    The first version of the call counts that part as used (615 MiB of an H200, seen).
    """
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (AttributeError, TypeError, nvml.NVMLError):
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def _process(pid: int, used: int | None, ours: bool) -> GpuProcess:
    user = command = ""
    with suppress(psutil.Error, KeyError):
        process = psutil.Process(pid)
        user, command = process.username(), " ".join(process.cmdline())[:400]
    return GpuProcess(pid, None if used is None else used / GIGABYTE, ours, user, command)


def _moved() -> dict[str, float]:
    """Return the bytes so far by name, and `t` in s; where the system counts none, zeros."""
    disk, net = psutil.disk_io_counters(), psutil.net_io_counters()
    return {
        "t": time.monotonic(), "read": disk.read_bytes if disk else 0,
        "written": disk.write_bytes if disk else 0, "received": net.bytes_recv if net else 0,
        "sent": net.bytes_sent if net else 0,
    }  # fmt: skip


def _host(run: Path, ours: frozenset[int], rates: Mapping[str, float]) -> Host:
    memory = psutil.virtual_memory()
    shared, disk = _disk(Path("/dev/shm")), _disk(run)
    busy = psutil.cpu_percent(percpu=True)
    return Host(
        cpu=sum(busy) / len(busy) if busy else 0.0, cores=psutil.cpu_count() or 1,
        load=psutil.getloadavg()[0], memory_total_gb=memory.total / GIGABYTE,
        memory_used_gb=(memory.total - memory.available) / GIGABYTE,
        shared_total_gb=shared[0], shared_used_gb=shared[0] - shared[1],
        disk_total_gb=disk[0], disk_free_gb=disk[1],
        ours_gb=sum(map(_resident_gb, ours)), busy=tuple(busy), moved=rates,
    )  # fmt: skip


def _disk(path: Path) -> tuple[float, float]:
    with suppress(OSError):
        usage = shutil.disk_usage(path)
        return usage.total / GIGABYTE, usage.free / GIGABYTE
    return 0.0, 0.0


def _resident_gb(pid: int) -> float:
    try:
        return psutil.Process(pid).memory_info().rss / GIGABYTE
    except psutil.Error:
        return 0.0


def uses_no_gpu(device: object) -> bool:
    """Tell whether `device` names no CUDA GPU for certain: "cpu", "cpu,cpu" (two ranks on it), "mps"."""
    return str(device).strip().lower().startswith(("cpu", "mps"))


def device_count(device: object) -> int:
    """Return how many devices `device` means, as Ultralytics reads it."""
    return max(1, len(words_of(device)))


def words_of(device: object) -> list[str]:
    """Return the devices named one by one: "0,1", [0, 1] and 0 name GPUs; nothing where it is left open."""
    if device is None:
        return []
    parts = device if isinstance(device, (list, tuple)) else str(device).strip("[]() ").split(",")
    return [word for part in parts if (word := str(part).strip())]


def chosen(gpus: tuple[Gpu, ...], device: object, environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Return the GPUs that `device` names ("1,0", [1, 0], 0), in its order, which is that of the ranks: none
    for the CPU, the first where unset.

    CUDA counts from 0 within CUDA_VISIBLE_DEVICES (Ultralytics 8.4 leaves that variable alone), NVML counts
    all; where the variable holds no plain numbers nothing can be said.
    """
    visible = visible_indexes(gpus, environment.get("CUDA_VISIBLE_DEVICES"))
    words = [word.removeprefix("cuda:") for word in words_of(device)]
    wanted = ["0"] if words in ([], ["cuda"]) else dict.fromkeys(words)
    by_index = {gpu.index: gpu for gpu in gpus}
    by_place = {str(place): by_index[index] for place, index in enumerate(visible) if index in by_index}
    return [by_place[word] for word in wanted if word in by_place]


def visible_indexes(gpus: tuple[Gpu, ...], variable: str | None) -> list[int]:
    """Return the indexes of the GPUs that CUDA sees, in its order."""
    if variable is None:
        return [gpu.index for gpu in gpus]
    words = [word.strip() for word in variable.split(",")]
    return [int(word) for word in words] if all(word.isdigit() for word in words) else []


def has_bf16(gpus: Iterable[Gpu]) -> bool | None:
    """Tell whether every one of `gpus` supports bfloat16; None where that is not known, or there is none."""
    known = [gpu.capability for gpu in gpus]
    if any(one is not None and one < BF16_SINCE for one in known):
        return False
    return True if known and None not in known else None
