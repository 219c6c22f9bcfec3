"""nantui's own settings of a run, as the training uses them: defaults filled in, types checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nantui.errors import UserError
from nantui.run.documents import Settings
from nantui.run.spec import OURS_CHOICES, OURS_DEFAULTS, OURS_NUMBERS

PROTECT, OFF, END = "protect", "off", "end"


@dataclass(frozen=True)
class Options:
    """The settings under `ours`; docs/file-formats.md says what each means."""

    guard: str
    on_suspicion: str
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
    step_points: str | float
    exact: bool

    @property
    def protects(self) -> bool:
        return self.guard == PROTECT

    @property
    def watches(self) -> bool:
        """Whether steps are looked at at all (protect and observe)."""
        return self.guard != OFF

    @property
    def ends_on_suspicion(self) -> bool:
        """Whether a judgement on finite numbers ends the training instead of being said."""
        return self.protects and self.on_suspicion == END


def read_options(ours: Settings) -> Options:
    """Return the settings with the defaults filled in. Raises UserError for a value of the wrong kind."""
    values = {name: _typed(name, ours.get(name, default), default) for name, default in OURS_DEFAULTS.items()}
    return Options(**{name: values[name] for name in Options.__dataclass_fields__})


def _typed(name: str, value: object, default: Any) -> Any:
    choices = OURS_CHOICES.get(name)
    if name in OURS_NUMBERS and isinstance(value, (int, float)) and not isinstance(value, bool):
        default = 0.0
    elif choices is not None and value not in choices:
        raise UserError(f"{name}: {value!r} is not one of its values; use {' or '.join(choices)}")
    try:
        typed = type(default)(value)
    except (TypeError, ValueError):
        raise UserError(f"{name}: {value!r} is not a number; give one, e.g. {default}") from None
    if not isinstance(typed, str) and not 0 <= typed < float("inf"):
        raise UserError(f"{name}: {value!r} is out of range; give a number of 0 or more")
    return typed
