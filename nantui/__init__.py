"""nantui: a cockpit and an autopilot for Ultralytics training, in a terminal.

Importing this package costs nothing: no module here pulls in torch, ultralytics, textual, numpy or
pandas. The rooms below are described in docs/architecture.md.
"""

from __future__ import annotations

from typing import TypeVar

__version__ = "0.1.0"
__all__ = ["attach"]
Guarded = TypeVar("Guarded")


def attach(model: Guarded, **ours: object) -> Guarded:
    """Guard every training of an Ultralytics model from now on, in your own script; returns the model.

    `ours` are nantui's settings, e.g. `grad_clip=5.0`. Raises UserError for a wrong one.
    """
    # By name: the room that imports torch is nobody's dependency, and only a script that trains calls this.
    import importlib

    importlib.import_module("nantui.worker.script.attach").attach(model, **ours)
    return model
