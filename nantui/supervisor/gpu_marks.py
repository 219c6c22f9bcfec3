"""Whether a GPU failed a training: what it counted before and after it, and what the kernel says of it.

`python -m nantui.supervisor.gpu_marks REQUEST.json` asks, in a process of its own: a driver that hangs holds
up nobody. Xids come from the kernel's log, where that may be read: NVML tells them only to who waits for
them all the time. Not 43 and 45, which follow on the end of a process, whatever ended it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from nantui import entry_points
from nantui.errors import UserError
from nantui.machine.gpus import Sampler, chosen, uses_no_gpu
from nantui.run.atomic_files import read_json
from nantui.run.documents import JsonObject
from nantui.supervisor.helper_process import helper

LIMIT_S = 5.0
DEVICES = ("/dev/nvidiactl", "/dev/dxg")
"""Without the driver's (or, under WSL, Windows') device there is nothing to ask, and no start pays for it."""
XID = re.compile(r"^\d+,\d+,(\d+),.*?;NVRM: Xid \(PCI:([0-9a-f:]+).*?\): (?!4[35]\b)(\d.*)", re.M | re.I)
"""A record: priority, number, microseconds since the boot, flags; text (Linux' dev-kmsg)."""


def gpu_marks(device: object) -> JsonObject:
    """Return what to note of the GPUs of `device` before a training, {} where none can be asked:
    uncorrectable ECC errors by PCI address, None where the GPU has no ECC; and the kernel's time in s.
    """
    none = uses_no_gpu(device) or not any(map(os.path.exists, DEVICES))
    gpus = {} if none else _ask({"device": device}).get("gpus")
    return {"gpus": gpus, "kernel_s": time.monotonic()} if gpus else {}


def gpu_fault(marks: Mapping[str, object]) -> str:
    """Return in one line how the GPUs with `marks` failed since, "" where nothing tells so."""
    before, answer = marks.get("gpus"), _ask({"since": marks["kernel_s"]}) if marks.get("gpus") else {}
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


def _ask(request: JsonObject) -> JsonObject:
    children: list[subprocess.Popen[bytes]] = []
    until = time.monotonic() + LIMIT_S

    def wait(seconds: float) -> None:
        time.sleep(seconds)
        if time.monotonic() > until:
            children[0].kill()  # and not waited for: it may hang in the driver
            raise TimeoutError

    try:
        return helper(
            entry_points.GPU_MARKS, request, python=sys.executable, pump=wait, started=children.append
        )
    except TimeoutError:
        return {"gpus": {}, "note": f"nothing for {LIMIT_S:.0f} s"}
    except (OSError, UserError):
        return {}


if __name__ == "__main__":
    asked, sample = read_json(Path(sys.argv[1])) or {}, Sampler().sample()
    gpus = chosen(sample.gpus, asked["device"]) if "device" in asked else sample.gpus
    xids = kernel_xids(float(str(asked["since"]))) if "since" in asked else []
    errors = {gpu.address: gpu.uncorrected for gpu in gpus}
    print(json.dumps({"gpus": errors, "note": sample.note, "xids": xids}))
