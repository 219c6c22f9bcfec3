"""Verdicts that are remembered: scanning an unchanged file again costs a `stat`.

One JSON file per weights directory (and set of allowed names) in the user's own cache directory, never
beside the checkpoints: somebody else who may write there must not be able to say that a file is clean. An
entry belongs to a file's identity (device, inode, size, mtime in ns); a comparison to the identities of
both files. Helper processes answer with the same JSON.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import time
import zlib
from collections.abc import Collection
from dataclasses import asdict, astuple, replace
from pathlib import Path

from nantui.checkpoint.pickle.allowlist import root
from nantui.checkpoint.verdict import Finding, ScannedFile, Stamp
from nantui.paths import user_cache_dir
from nantui.run.atomic_files import write_atomic
from nantui.run.documents import Document, known_fields
from nantui.version import __version__

RULES = f"{__version__}.4"  # change it whenever the same file would now get another verdict or other rows
_SAVE_EVERY = 1.0  # seconds
SETTLED = 2.0  # seconds: a file changed twice within a clock tick keeps its identity, so wait that long


def row_of(seen: ScannedFile) -> Document:
    """Return a look as JSON values. The results of all epochs, used for judging only, are left out."""
    return asdict(replace(seen, metadata=seen.metadata.without_history()))


class Cache:
    """Looks and comparisons by identity, in memory and on disk. Nothing here can fail a scan."""

    def __init__(self, directory: Path, allowed: Collection[str] = ()) -> None:
        self._belongs = [RULES, os.path.abspath(directory), str(root()), *sorted(allowed)]
        name = zlib.crc32(os.fsencode("\n".join(self._belongs[1:])))
        self.file = user_cache_dir() / "checkpoints" / f"{name:08x}.json"
        self._scanned: dict[str, Document] = {}
        self._compared: dict[str, list[tuple[str, str, str]]] = {}
        self._changed = False
        self._saved = -math.inf
        self._load()

    def scanned(self, stamp: Stamp | None) -> ScannedFile | None:
        """Return what is remembered of the file of this identity."""
        return known_fields(ScannedFile, self._scanned.get(_key(stamp))) if stamp else None

    def keep_scanned(self, seen: ScannedFile) -> None:
        """Remember a scanned file, unless the file was still moving or is too young to tell."""
        if seen.stamp is None or seen.moving or time.time() - seen.stamp[3] / 1e9 < SETTLED:
            return
        self._scanned[_key(seen.stamp)] = row_of(seen)
        self._changed = True

    def compared(self, stamp: Stamp, older: Stamp) -> tuple[Finding, ...] | None:
        """Return what a comparison of these two files found."""
        rows = self._compared.get(f"{_key(stamp)} {_key(older)}")
        return tuple(Finding(*row) for row in rows) if rows is not None else None

    def keep_compared(self, stamp: Stamp, older: Stamp, findings: tuple[Finding, ...]) -> None:
        self._compared[f"{_key(stamp)} {_key(older)}"] = [astuple(finding) for finding in findings]
        self._changed = True

    def due(self) -> bool:
        """Tell whether there is something to save, and the last time was not just now."""
        return self._changed and time.monotonic() - self._saved > _SAVE_EVERY

    def save(self, present: set[Stamp]) -> None:
        """Write what is known of the files that are still there; a full or read-only disk is no error."""
        if not self._changed:
            return
        self._saved = time.monotonic()
        keys = set(map(_key, present))
        document = {
            "belongs": self._belongs,
            "looks": {key: row for key, row in self._scanned.items() if key in keys},
            "compared": {key: row for key, row in self._compared.items() if set(key.split()) <= keys},
        }
        with contextlib.suppress(OSError, ValueError):
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(self.file, json.dumps(document, separators=(",", ":")), mode=0o600)
            self._changed = False

    def _load(self) -> None:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            status = self.file.stat()
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return
            document = json.loads(self.file.read_text())
            if document["belongs"] == self._belongs:
                self._scanned, self._compared = dict(document["looks"]), dict(document["compared"])


def _key(stamp: Stamp) -> str:
    return ":".join(map(str, stamp))
