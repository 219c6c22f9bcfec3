"""How patient the supervisor is, and whom it tells: defaults, and the user's own `supervise.yaml`.

The file lies in the user's configuration directory, never in a run directory: what a run directory says
may come from somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from nantui.errors import UserError
from nantui.paths import user_config_dir

NAME = "supervise.yaml"


@dataclass(frozen=True)
class Patience:
    """Times in seconds."""

    tick_s: float = 0.25
    heartbeat_s: float = 4.0
    idle_exit_s: float = 5.0
    stop_s: float = 30.0
    """How long the ranks may take to agree on a step beyond 20 usual steps, before SIGTERM."""
    teardown_s: float = 1.5
    """How long processes may live on once all ranks have written how they ended."""
    terminate_s: float = 2.0
    """From SIGTERM to SIGKILL."""
    die_s: float = 10.0
    """From SIGKILL to reporting what does not die."""
    stall_floor_s: float = 120.0
    stall_factor: float = 30.0
    """No step for this many usual steps (and at least the floor) is a standstill."""
    other_phase_s: float = 1800.0
    """As the floor, while importing, setting up, validating or saving; also what a stop grants these."""
    host_silent_s: float = 60.0
    """Another host that has not been heard of for so long is given up."""
    host_grace_s: float = 15.0
    """How long ranks may live on once another host's have ended, and an agent once nobody holds the run."""
    link_s: float = 20.0
    """How long the leading host's endpoint may be out of reach, before a joined host ends its ranks."""
    hosts_wait_s: float = 43200.0
    """How long supervisor and agents wait for a next attempt, after one that did not finish."""
    rejoin_silent_s: float = 600.0
    """How long an agent without ranks waits for a supervisor that is silent."""


@dataclass(frozen=True)
class Config:
    """The user's `supervise.yaml`."""

    patience: Patience = field(default_factory=Patience)
    notify: dict[str, Any] = field(default_factory=dict)


def load_config(path: Path | None = None) -> Config:
    """Return the user's configuration, defaults where there is none. Raises UserError for a broken file."""
    path = path or user_config_dir() / NAME
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Config()
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: not readable as YAML ({str(error).splitlines()[0]}); mend it or move it away"
        ) from None
    if document is None:
        return Config()
    if not isinstance(document, dict) or set(document) - {"patience", "notify"}:
        raise UserError(f"{path}: may hold 'patience' and 'notify' only")
    notify = document.get("notify") or {}
    if not isinstance(notify, dict):
        raise UserError(f"{path}: 'notify' must be a mapping")
    return Config(_patience(path, document.get("patience") or {}), notify)


def _patience(path: Path, given: Any) -> Patience:
    known = {item.name for item in fields(Patience)}
    if not isinstance(given, dict) or set(given) - known:
        raise UserError(f"{path}: 'patience' knows {', '.join(sorted(known))}")
    try:
        return Patience(**{name: float(value) for name, value in given.items()})
    except (TypeError, ValueError):
        raise UserError(f"{path}: times under 'patience' are numbers of seconds") from None
