"""The checkpoint that an agreed stop leaves: the advanced weights, with the last completed epoch's number.

`trainer.stop = True` would finish and strip the run for good. This file is written beside the others
and never is best.pt or epochN.pt; resuming from it repeats the interrupted epoch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nantui.run.files import sync_directory
from nantui.training import touchpoints
from nantui.training.saves import clean_staging, settle


def write_stop_point(trainer: Any, save: Any, path: Path) -> None:
    """Write `path` from the trainer's present state, atomically. Raises OSError when it cannot be kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = clean_staging(path.parent)
    staging.mkdir()
    epoch, trainer.epoch = trainer.epoch, trainer.epoch - 1
    try:
        with touchpoints.redirected_saves(trainer, staging):
            save()
        settle(staging / "last.pt")
        os.replace(staging / "last.pt", path)
        sync_directory(path.parent)
    finally:
        trainer.epoch = epoch
        clean_staging(path.parent)
