"""Whether a GPU failed a training: what it counted before and after it, and what the kernel says of it.

What it counts before is asked when the training is let onto it (`gpu_admission`). `python -m
nantui.supervisor.gpu_marks REQUEST.json` asks afterwards, in a process of its own: a driver that hangs holds
up nobody. Xids come from the kernel's log, where that may be read: NVML tells them only to who waits for
them all the time. Not 43 and 45, which follow on the end of a process, whatever ended it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from nantui import entry_points
from nantui.errors import UserError
from nantui.machine.gpus import Gpu, Sampler
from nantui.run.atomic_files import read_json
from nantui.run.documents import JsonObject
from nantui.supervisor.helper_process import helper

SOON_S = 5.0  # a driver that is awake answers within it
XID = re.compile(r"^\d+,\d+,(\d+),.*?;NVRM: Xid \(PCI:([0-9a-f:]+).*?\): (?!4[35]\b)(\d.*)", re.M | re.I)
"""A record: priority, number, microseconds since the boot, flags; text (Linux' dev-kmsg)."""


def uncorrected(gpus: Iterable[Gpu]) -> JsonObject:
    """Return uncorrectable ECC errors by PCI address, None where a GPU has no ECC."""
    return {gpu.address: gpu.uncorrected for gpu in gpus}


def gpu_fault(marks: Mapping[str, object], started: Callable[..., None] = lambda child: None) -> str:
    """Return in one line how the GPUs with `marks` failed since, "" where nothing tells so. They are what was
    `uncorrected` before ("gpus"), and the kernel's time in s then ("kernel_s"). What asks is `started` first.
    """
    before = marks.get("gpus")
    answer = _ask({"since": marks["kernel_s"]}, started) if before else {}
    now = answer.get("gpus")
    if not isinstance(before, dict) or not isinstance(now, dict):
        return ""
    told = [f"GPU {gpu}: Xid {text}" for gpu, text in answer.get("xids") or () if gpu in before][:3]
    if not now:
        return "; ".join([*told, f"the driver no longer answers: {answer.get('note')}"])
    told += [f"GPU {gpu} is gone from the bus" for gpu in before if gpu not in now]
    more = {gpu: (now.get(gpu) or 0) - (errors or 0) for gpu, errors in before.items()}
    told += [f"GPU {gpu}: {n} more uncorrectable ECC errors" for gpu, n in more.items() if n > 0]
    return "; ".join(told)


def kernel_xids(since_s: float, log: str = "/dev/kmsg") -> list[tuple[str, str]]:
    """Return the (PCI address, number and text) of each Xid since the kernel's time `since_s`."""
    text = b""
    with suppress(OSError), open(os.open(log, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
        while record := file.read(8192):
            text += record
    found = XID.findall(text.decode("utf-8", errors="replace"))
    return [(gpu.lower(), told) for us, gpu, told in found if float(us) / 1e6 >= since_s]


def _ask(request: JsonObject, started: Callable[..., None]) -> JsonObject:
    try:
        name, python = entry_points.GPU_MARKS, sys.executable
        return helper(name, request, python=python, started=started, limit_s=SOON_S)
    except TimeoutError as error:
        return {"gpus": {}, "note": str(error)}
    except (OSError, UserError):
        return {}


if __name__ == "__main__":
    asked, sample = read_json(Path(sys.argv[1])) or {}, Sampler().sample(within_s=None)
    xids = kernel_xids(float(str(asked["since"])))
    print(json.dumps({"gpus": uncorrected(sample.gpus), "note": sample.note, "xids": xids}))
