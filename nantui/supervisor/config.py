"""How patient the supervisor is, and whom it tells: defaults, and the user's own `supervise.yaml`.

The file lies in the user's configuration directory, never in a run directory: what a run directory says
may come from somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from nantui.errors import UserError
from nantui.paths import user_config_dir

NAME = "supervise.yaml"
SHORTEST_GRACE_S = 2.0


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
class Config:
    """The user's `supervise.yaml`."""

    patience: Patience = field(default_factory=Patience)
    notify: dict[str, object] = field(default_factory=dict)


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


def _patience(path: Path, given: object) -> Patience:
    known = {item.name for item in fields(Patience)}
    if not isinstance(given, dict) or set(given) - known:
        raise UserError(f"{path}: 'patience' knows {', '.join(sorted(known))}")
    try:
        patience = Patience(**{name: float(value) for name, value in given.items()})
    except (TypeError, ValueError):
        raise UserError(f"{path}: times under 'patience' are numbers of seconds") from None
    if patience.grace_s < SHORTEST_GRACE_S:
        raise UserError(
            f"{path}: grace_s: {patience.grace_s:g} s is too short to save; give {SHORTEST_GRACE_S:g}"
        )
    return patience
