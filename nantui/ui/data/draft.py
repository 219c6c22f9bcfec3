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
from nantui.ui.data.settings_now import SettingsNow


def drafts_dir() -> Path:
    """Return the user's own folder of drafts: a run may belong to somebody else."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "nantui" / "drafts"


class Draft:
    """Changed settings over the ones in effect and the ones that are saved for the next start."""

    def __init__(self, run: Path, now: SettingsNow) -> None:
        self.now, self.saved = now, dict(now.saved)
        self._path = drafts_dir() / f"{hashlib.sha1(str(run).encode()).hexdigest()[:16]}.json"
        self._run = run
        kept = (read_json(self._path) or {}).get("changes")
        self.changes: dict[str, Any] = dict(kept) if isinstance(kept, dict) else {}
        self._leave_out_what_is_so()
        self.why: dict[str, str] = {}
        self._before: list[tuple[dict[str, Any], dict[str, str]]] = []

    def value(self, name: str) -> Any:
        """Return the drafted value, else the one without the draft."""
        return self.changes[name] if name in self.changes else self.before(name)

    def before(self, name: str) -> Any:
        """Return the value without the draft: the one saved for the next start, else the one in effect."""
        return self.saved[name] if name in self.saved else self.in_effect(name)

    def in_effect(self, name: str) -> Any:
        """Return what the newest attempt uses."""
        return self.now.in_effect.get(name)

    def waits(self, name: str) -> bool:
        """Tell whether another value than the one in effect is saved for the next start."""
        return name in self.saved and not same_value(self.saved[name], self.in_effect(name))

    def set(self, values: Mapping[str, Any], why: Mapping[str, str] | None = None) -> None:
        """Change some settings; one set back to what it was leaves the draft."""
        self._before.append((dict(self.changes), dict(self.why)))
        for name, value in values.items():
            self.changes[name] = value
            if why and name in why:
                self.why[name] = why[name]
        self._leave_out_what_is_so()
        self._keep()

    def undo(self) -> bool:
        """Take the last change back; False when there is none."""
        if not self._before:
            return False
        self.changes, self.why = self._before.pop()
        self._keep()
        return True

    def was_taken(self, values: Mapping[str, Any], waits: bool) -> None:
        """Take note that the supervisor has these values now; what was drafted since stays drafted.

        `waits`: they are saved for the next start, else the training has begun with them.
        """
        self.saved.update(values if waits else {})
        self._before = []
        for name in [name for name, value in values.items() if same_value(self.changes.get(name), value)]:
            self.changes.pop(name, None)
        self._keep()

    def whole(self) -> dict[str, Any]:
        """Return all settings as the next start would be asked for them."""
        return {**self.now.next_start, **self.saved, **self.changes}

    def as_used(self) -> dict[str, Any]:
        """Return all settings as shown: where the worker reported a value, that one and not the one asked."""
        return {**self.now.next_start, **self.now.in_effect, **self.saved, **self.changes}

    def _leave_out_what_is_so(self) -> None:
        for name in [name for name, value in self.changes.items() if same_value(value, self.before(name))]:
            del self.changes[name]

    def _keep(self) -> None:
        with contextlib.suppress(OSError):
            if self.changes:
                drafts_dir().mkdir(parents=True, exist_ok=True)
                write_json(self._path, {"run": str(self._run), "changes": self.changes}, mode=0o600)
            else:
                self._path.unlink(missing_ok=True)
