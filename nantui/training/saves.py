"""Saves that cannot tear: Ultralytics' own `save_model` into a staging folder, then rename.

Ultralytics truncates last.pt and writes it in place (`write_bytes`); a kill or a full disk in between
leaves neither the old file nor the new one. Here the old file stays whole until the new one is on disk.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nantui.run.files import sync_directory
from nantui.training import touchpoints

STAGING = ".nantui-staging"


def save_staged(
    trainer: Any, save: Callable[[], bool | None], before_rename: Callable[[], None]
) -> list[Path]:
    """Let `save` write its files aside, check them, and rename them into place; returns the files.

    Raises OSError (disk full, no permission) or zipfile.BadZipFile; then every old file is as it was.
    `before_rename` is called once all are written (faults for tests raise there).
    """
    target = Path(trainer.wdir)
    staging = clean_staging(target)
    staging.mkdir(parents=True)
    try:
        with touchpoints.redirected_saves(trainer, staging):
            if save() is False:  # before 8.4 it told nothing
                return []
        staged = sorted(staging.iterdir())
        before_rename()
        for file in staged:
            settle(file)
        for file in staged:
            os.replace(file, target / file.name)
        sync_directory(target)
        return [target / file.name for file in staged]
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def strip_staged(
    stock_strip: Callable[..., Any], file: Any, s: str = "", updates: Any = None, before_rename: Any = None
) -> Any:
    """Strip a checkpoint as Ultralytics' `strip_optimizer` does, beside the old file, then take its place.

    It would write over the only copy of the trained weights. Raises OSError (disk full) or
    zipfile.BadZipFile; then the file is as it was.
    """
    target = Path(s or file)
    staging = clean_staging(target.parent)
    staging.mkdir()
    try:
        stripped = stock_strip(file, s=str(staging / target.name), updates=updates)
        if stripped:
            if before_rename:
                before_rename()
            settle(staging / target.name)
            os.replace(staging / target.name, target)
            sync_directory(target.parent)
        return stripped
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def clean_staging(directory: Path) -> Path:
    """Return the staging folder inside `directory`, removed if a killed save left one."""
    staging = directory / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    return staging


def settle(file: Path) -> None:
    """Check that a written checkpoint is a whole archive, and wait until it is on the disk.

    Raises zipfile.BadZipFile for a torn one: the directory of a zip is at its end.
    """
    with zipfile.ZipFile(file) as archive:
        if not any(name.endswith("data.pkl") for name in archive.namelist()):
            raise zipfile.BadZipFile(f"{file.name}: no checkpoint inside")
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
