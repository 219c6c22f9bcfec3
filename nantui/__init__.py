"""nantui: a cockpit and an autopilot for Ultralytics training, in a terminal.

Importing this package costs nothing: no module here pulls in torch, ultralytics, textual, numpy or
pandas. The rooms below are described in docs/architecture.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nantui.entry_points import OldNames
from nantui.version import __version__

if TYPE_CHECKING:
    from nantui.opened_run import OpenRun

__all__ = ["__version__", "attach", "open_run"]
Guarded = TypeVar("Guarded")
sys.meta_path.append(OldNames)


def attach(model: Guarded, **ours: object) -> Guarded:
    """Guard every training of an Ultralytics model from now on, in your own script; returns the model.

    `ours` are nantui's settings, e.g. `grad_clip=5.0`. Raises UserError for a wrong one.
    """
    # By name: the room that imports torch is nobody's dependency, and only a script that trains calls this.
    import importlib

    importlib.import_module("nantui.worker.script.attach").attach(model, **ours)
    return model


def open_run(path: str | Path) -> OpenRun:
    """Return a run for a notebook or script: status, and pandas frames of its epochs, steps and incidents.

    Nothing is changed. Raises UserError where there is no run.
    """
    from nantui.opened_run import OpenRun

    return OpenRun(path)
