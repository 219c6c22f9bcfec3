"""How patient the supervisor is, and whom it tells: defaults, and the user's own `supervise.yaml`.

The file lies in the user's configuration directory, never in a run directory: what a run directory says
may come from somebody else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from nantui.errors import UserError
from nantui.paths import user_config_dir

NAME = "supervise.yaml"
SHORTEST_GRACE_S = 2.0
RECOVERED, REWOUND = "recovered", "rewound"
TOLD = ("incident", "diverged", "failed", "finished", "stalled", "lost", RECOVERED, REWOUND)
HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
"""Quiet hours, e.g. 22:00-07:30, on the host's own clock."""


@dataclass(frozen=True)
class Patience:
    """Times in seconds, except `stall_factor`; what each is for stands in configs/tables/supervise.json."""

    tick_s: float = 0.25
    heartbeat_s: float = 4.0
    idle_exit_s: float = 5.0
    stop_s: float = 30.0
    teardown_s: float = 1.5
    terminate_s: float = 2.0
    die_s: float = 10.0
    stall_floor_s: float = 120.0
    stall_factor: float = 30.0
    hung_s: float = 300.0
    grace_s: float = 20.0
    other_phase_s: float = 1800.0
    host_silent_s: float = 60.0
    host_grace_s: float = 15.0
    link_s: float = 20.0
    hosts_wait_s: float = 43200.0
    rejoin_silent_s: float = 600.0


@dataclass(frozen=True)
class Alerts:
    """Whom to tell beside `nantui notify add`, of what, and how often in seconds: `notify:`."""

    command: tuple[str, ...] = ()
    url: str = ""
    on: tuple[str, ...] = TOLD
    quiet: str = ""
    digest_s: float = 300.0
    retry_s: float = 5.0
    heartbeat_s: float = 60.0


@dataclass(frozen=True)
class Config:
    """The user's `supervise.yaml`."""

    patience: Patience = field(default_factory=Patience)
    notify: Alerts = field(default_factory=Alerts)


Section = TypeVar("Section", Patience, Alerts)


def load_config(path: Path | None = None) -> Config:
    """Return the user's configuration, defaults where there is none. Raises UserError for a broken file."""
    path = path or user_config_dir() / NAME
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        return Config()
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"{path}: not readable as YAML ({why}); mend it or move it away") from None
    if not isinstance(document, dict) or set(document) - {"patience", "notify"}:
        raise UserError(f"{path}: may hold 'patience' and 'notify' only")
    patience = _section(path, "patience", Patience, document.get("patience") or {})
    alerts = _section(path, "notify", Alerts, document.get("notify") or {})
    if patience.grace_s < SHORTEST_GRACE_S:
        text = f"{patience.grace_s:g} s is too short to save; give {SHORTEST_GRACE_S:g}"
        raise UserError(f"{path}: grace_s: {text}")
    if alerts.quiet and not HOURS.fullmatch(alerts.quiet):
        raise UserError(f"{path}: quiet: {alerts.quiet} is no span of hours like 22:00-07:00")
    return Config(patience, alerts)


def _section(path: Path, name: str, kind: type[Section], given: object) -> Section:
    defaults = {item.name: item.default for item in fields(kind)}
    if not isinstance(given, dict) or set(given) - set(defaults):
        raise UserError(f"{path}: '{name}' knows {', '.join(sorted(defaults))}")
    try:
        return kind(**{key: _as(type(defaults[key]), value) for key, value in given.items()})
    except (TypeError, ValueError):
        raise UserError(f"{path}: times under '{name}' are numbers of seconds") from None


def _as(kind: type, value: Any) -> Any:
    if kind is tuple:
        return tuple(map(str, value)) if isinstance(value, list) else (str(value),)
    return kind(value)
