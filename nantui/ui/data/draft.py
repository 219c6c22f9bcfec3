"""An edit of a run's settings that is not saved yet: it survives a closed terminal,
and every step can be undone.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nantui.run.files import read_json, write_json
from nantui.settings.values import same_value


def drafts_dir() -> Path:
    """Return the user's own folder of drafts: a run may belong to somebody else."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "nantui" / "drafts"


class Draft:
    """Changed settings over the ones in effect."""

    def __init__(self, run: Path, original: Mapping[str, Any]) -> None:
        self.original = dict(original)
        self._path = drafts_dir() / f"{hashlib.sha1(str(run).encode()).hexdigest()[:16]}.json"
        self._run = run
        kept = (read_json(self._path) or {}).get("changes")
        self.changes: dict[str, Any] = dict(kept) if isinstance(kept, dict) else {}
        self.why: dict[str, str] = {}
        self._before: list[tuple[dict[str, Any], dict[str, str]]] = []

    def value(self, name: str) -> Any:
        """Return the drafted value, else the one in effect."""
        return self.changes.get(name, self.original.get(name))

    def set(self, values: Mapping[str, Any], why: Mapping[str, str] | None = None) -> None:
        """Change some settings; one set back to what is in effect leaves the draft."""
        self._before.append((dict(self.changes), dict(self.why)))
        for name, value in values.items():
            self.changes[name] = value
            if why and name in why:
                self.why[name] = why[name]
            if name in self.original and same_value(value, self.original[name]):
                del self.changes[name]
        self._keep()

    def undo(self) -> bool:
        """Take the last change back; False when there is none."""
        if not self._before:
            return False
        self.changes, self.why = self._before.pop()
        self._keep()
        return True

    def clear(self) -> None:
        """Forget the draft: it was saved, or given up."""
        self._before.append((dict(self.changes), dict(self.why)))
        self.changes, self.why = {}, {}
        self._keep()

    def whole(self) -> dict[str, Any]:
        """Return all settings as they would be."""
        return {**self.original, **self.changes}

    def _keep(self) -> None:
        with contextlib.suppress(OSError):
            if self.changes:
                drafts_dir().mkdir(parents=True, exist_ok=True)
                write_json(self._path, {"run": str(self._run), "changes": self.changes}, mode=0o600)
            else:
                self._path.unlink(missing_ok=True)
