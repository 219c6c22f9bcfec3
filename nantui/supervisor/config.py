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


def _seconds(default: float, meaning: str) -> float:
    """A field of Patience; docs/settings.md is made from what it means."""
    time: float = field(default=default, metadata={"help": meaning})
    return time


@dataclass(frozen=True)
class Patience:
    """Times in seconds, except `stall_factor`."""

    tick_s: float = _seconds(0.25, "between two looks at the run")
    heartbeat_s: float = _seconds(
        4.0, "between two signs of life in `supervisor.json`, where nothing else is new"
    )
    idle_exit_s: float = _seconds(5.0, "how long a supervisor stays when nothing is left to do")
    stop_s: float = _seconds(
        30.0, "how long the ranks may take to agree on a step beyond 20 usual steps, before SIGTERM"
    )
    teardown_s: float = _seconds(
        1.5, "how long processes may live on once all ranks have written how they ended"
    )
    terminate_s: float = _seconds(2.0, "from SIGTERM to SIGKILL")
    die_s: float = _seconds(10.0, "from SIGKILL to reporting what does not die")
    stall_floor_s: float = _seconds(
        120.0, "no step for `stall_factor` usual steps, and at least this, is a standstill"
    )
    stall_factor: float = _seconds(30.0, "a number of usual steps, see `stall_floor_s`")
    hung_s: float = _seconds(
        300.0,
        "under `--auto`: a standstill that lasts so long beyond that is a hang, which is ended and resumed",
    )
    grace_s: float = _seconds(
        20.0,
        "from a SIGTERM or SIGUSR1 to the point on disk: as long as a batch system waits before it kills",
    )
    other_phase_s: float = _seconds(
        1800.0,
        "like `stall_floor_s`, while it imports, sets up, validates or saves; a stop waits for these as long",
    )
    host_silent_s: float = _seconds(60.0, "another host that has not been heard of for so long is given up")
    host_grace_s: float = _seconds(
        15.0,
        "how long ranks may live on once another host's have ended, and an agent once nobody holds the run",
    )
    link_s: float = _seconds(
        20.0, "how long the leading host's endpoint may be out of reach, before a joined host ends its ranks"
    )
    hosts_wait_s: float = _seconds(
        43200.0, "how long supervisor and agents wait for a next attempt, after one that did not finish"
    )
    rejoin_silent_s: float = _seconds(
        600.0, "how long an agent without ranks waits for a supervisor that is silent"
    )


@dataclass(frozen=True)
class Alerts:
    """Whom to tell beside `nantui notify add`, of what, and how often: `notify:`."""

    command: tuple[str, ...] = ()
    url: str = ""
    on: tuple[str, ...] = TOLD
    quiet: str = ""
    digest_s: float = _seconds(
        300.0, "from a message to the next, unless an end or a standstill is to be told"
    )
    retry_s: float = _seconds(5.0, "to the second try; later ones wait twice as long each, up to 10 minutes")
    heartbeat_s: float = _seconds(60.0, "between two calls of the heartbeat URL, while all is well")


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
