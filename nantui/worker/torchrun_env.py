"""Who this process is among the ranks, from what torchrun put into the environment. No torch here:
a worker registers itself before the ten seconds of imports."""

from __future__ import annotations

import os

from nantui.run.documents import JsonObject

DEVICE = "NANTUI_DEVICE"
OFFLINE = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
"""For helpers only, never for a training: checking arguments or loading a checkpoint must not install
packages or ask the network, as `torch_safe_load` otherwise does."""


def rank() -> int:
    """Return this process' rank among all, 0 when it is alone."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def world_size() -> int:
    """Return the number of processes that train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def ranks_here() -> range:
    """Return the ranks that this host's torchrun started: one after the other, whatever others start."""
    first = rank() - int(os.environ.get("LOCAL_RANK", rank()))
    return range(first, first + int(os.environ.get("LOCAL_WORLD_SIZE", world_size())))


def several_hosts() -> bool:
    """Tell whether ranks train on other machines too, so that the first rank here may not be the first."""
    return len(ranks_here()) < world_size()


def device_here(train: JsonObject) -> JsonObject:
    """Return the arguments with the devices of this host, which a joined host names itself."""
    device = os.environ.get(DEVICE)
    return {**train, "device": device} if device else train
