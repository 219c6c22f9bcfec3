"""The collective that a rank is in, from PyTorch's flight recorder, for a rank that hangs.

The recorder keeps the last collectives of a process and the lines that asked for them. In PyTorch 2.15 it is
on by itself (2,000 entries, torch/csrc/distributed/c10d/FlightRecorder.hpp), for gloo as for NCCL; in older
ones TORCH_NCCL_TRACE_BUFFER_SIZE turns it on. Nothing is set here; the dump is asked for in this process.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from typing import Any

from nantui.worker.torchrun_env import rank


def say_collective() -> None:
    """Write it to stderr, as faulthandler does with stacks (`COLLECTIVE_SAID`), nothing without a recorder.

    Twice, the second time with the line: to look that up takes PyTorch seconds, the first time.
    """
    for lines in (False, True):
        entries: list[dict[str, Any]] = []
        for name in ("_dump_nccl_trace", "_dump_fr_trace"):
            with contextlib.suppress(Exception):
                dump = getattr(sys.modules["torch._C._distributed_c10d"], name)
                entries += pickle.loads(dump(includeStackTraces=lines))["entries"]
        with contextlib.suppress(Exception):
            os.write(2, f"flight recorder, rank {rank()}: {collective_text(entries)}\n".encode())


def collective_text(entries: list[dict[str, Any]]) -> str:
    """Return the first collective after the last finished one, or else that one: name, number, group, line.

    An entry is `retired` once its work was seen to end (FlightRecorder.hpp). Raises IndexError for none.
    """
    entries = sorted(entries, key=lambda entry: int(entry["time_created_ns"]))
    ended = max((at for at, entry in enumerate(entries) if entry["retired"]), default=-1)
    entry = entries[min(ended + 1, len(entries) - 1)]
    number = entry["p2p_seq_id" if entry.get("is_p2p") else "collective_seq_id"]
    frames = [frame for frame in entry.get("frames") or () if "/torch/" not in frame["filename"]]
    line = f" from {os.path.basename(frames[0]['filename'])}:{frames[0]['line']}" if frames else ""
    done = "finished" if entry["retired"] else "not finished"
    return f"{entry['profiling_name']} {number} of {entry['process_group'][-1]}{line} {done}"
