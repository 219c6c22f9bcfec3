"""Verdicts that are remembered: a second look at an unchanged file costs a `stat`.

One JSON file per weights directory in the user's own cache directory, never beside the checkpoints:
somebody else who may write there must not be able to say that a file is clean. An entry belongs to a
file's identity (device, inode, size, mtime in ns); a comparison to the identities of both files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nantui import __version__
from nantui.checkpoint.contents import Contents
from nantui.checkpoint.metadata import Metadata
from nantui.checkpoint.scan import Look, Stamp
from nantui.checkpoint.suspect import Suspect
from nantui.checkpoint.verdict import Finding
from nantui.run.files import write_atomic

RULES = f"{__version__}.1"  # change it whenever the same file would now be judged differently
SETTLED = 2.0  # seconds: a file changed twice within a clock tick keeps its identity, so wait that long


class Cache:
    """Looks and comparisons by identity, in memory and on disk. Nothing here can fail a scan."""

    def __init__(self, directory: Path) -> None:
        name = hashlib.sha256(os.fsencode(directory.absolute())).hexdigest()[:24]
        self.file = cache_directory() / f"{name}.json"
        self._looks: dict[str, dict[str, Any]] = {}
        self._compared: dict[str, list[list[str]]] = {}
        self._changed = False
        self._load()

    def look(self, stamp: Stamp | None) -> Look | None:
        """Return the remembered look at the file of this identity."""
        known = self._looks.get(_key(stamp)) if stamp else None
        try:
            return _look_of(known, stamp) if known else None
        except (KeyError, TypeError, ValueError):
            return None

    def keep_look(self, seen: Look) -> None:
        """Remember a look, unless the file was still moving or is too young to tell."""
        if seen.stamp is None or seen.moving or time.time() - seen.stamp[3] / 1e9 < SETTLED:
            return
        self._looks[_key(seen.stamp)] = _row_of(seen)
        self._changed = True

    def compared(self, stamp: Stamp, older: Stamp) -> tuple[Finding, ...] | None:
        """Return what a comparison of these two files found."""
        rows = self._compared.get(f"{_key(stamp)} {_key(older)}")
        return tuple(Finding(*row) for row in rows) if rows is not None else None

    def keep_compared(self, stamp: Stamp, older: Stamp, findings: tuple[Finding, ...]) -> None:
        """Remember a comparison."""
        rows = [[finding.kind, finding.where, finding.detail] for finding in findings]
        self._compared[f"{_key(stamp)} {_key(older)}"] = rows
        self._changed = True

    def save(self, present: set[Stamp]) -> None:
        """Write what is known of the files that are still there; a full or read-only disk is no error."""
        if not self._changed:
            return
        keys = set(map(_key, present))
        document = {
            "rules": RULES,
            "looks": {key: row for key, row in self._looks.items() if key in keys},
            "compared": {key: row for key, row in self._compared.items() if set(key.split()) <= keys},
        }
        with contextlib.suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(self.file, json.dumps(document, separators=(",", ":")), mode=0o600)
            self._changed = False

    def _load(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
            status = self.file.stat()
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return
            document = json.loads(self.file.read_text())
            if document.get("rules") == RULES:
                self._looks, self._compared = dict(document["looks"]), dict(document["compared"])


def cache_directory() -> Path:
    """Return the user's own cache directory for verdicts (XDG)."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "nantui" / "checkpoints"


def _key(stamp: Stamp) -> str:
    return ":".join(map(str, stamp))


def _row_of(seen: Look) -> dict[str, Any]:
    found = seen.contents
    said = asdict(found.metadata)
    said.pop("results")
    said.pop("bad_state")
    return {
        "findings": [[finding.kind, finding.where, finding.detail] for finding in found.findings],
        "metadata": said,
        "suspects": [asdict(suspect) for suspect in found.suspects],
        "bytes": seen.bytes,
        "seconds": seen.seconds,
    }


def _look_of(row: dict[str, Any], stamp: Stamp | None) -> Look:
    found = Contents(
        tuple(Finding(*finding) for finding in row["findings"]),
        Metadata(**row["metadata"]),
        tuple(
            Suspect(**{**suspect, "rows": tuple(suspect["rows"]), "shape": tuple(suspect["shape"])})
            for suspect in row["suspects"]
        ),
    )
    return Look(found, stamp, False, row["bytes"], row["seconds"])
