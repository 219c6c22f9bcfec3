"""nantui's own settings of a run, as the training uses them: defaults filled in, types checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nantui.errors import UserError
from nantui.run.spec import OURS_DEFAULTS

PROTECT, OBSERVE, OFF = "protect", "observe", "off"


@dataclass(frozen=True)
class Options:
    """The settings under `ours`; docs/file-formats.md says what each means."""

    guard: str
    grad_clip: float
    rewarmup: int
    restore_every_minutes: float
    keep_restore_points: int
    max_consecutive_skips: int
    skip_window: int
    max_skip_share: float
    loss_limit: float
    loss_patience: int
    min_loss_scale: float

    @property
    def protects(self) -> bool:
        return self.guard == PROTECT

    @property
    def watches(self) -> bool:
        """Whether steps are looked at at all (protect and observe)."""
        return self.guard != OFF


def read_options(ours: Mapping[str, Any]) -> Options:
    """Return the settings with the defaults filled in. Raises UserError for a value of the wrong kind."""
    if ours.get("guard", PROTECT) not in (PROTECT, OBSERVE, OFF):
        raise UserError(f"guard: {ours['guard']!r} is not a mode; use {PROTECT}, {OBSERVE} or {OFF}")
    values = {name: _typed(name, ours.get(name, default), default) for name, default in OURS_DEFAULTS.items()}
    return Options(**{name: values[name] for name in Options.__dataclass_fields__})


def _typed(name: str, value: Any, default: Any) -> Any:
    try:
        typed = type(default)(value)
    except (TypeError, ValueError):
        raise UserError(f"{name}: {value!r} is not a number; give one, e.g. {default}") from None
    if not isinstance(typed, str) and not 0 <= typed < float("inf"):
        raise UserError(f"{name}: {value!r} is out of range; give a number of 0 or more")
    return typed
