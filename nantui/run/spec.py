"""spec.yaml: what to train, as asked. Ultralytics' arguments and nantui's own settings stay apart.

For `nantui exec` it is the user's own command, kept to be run again: words, directory, and environment less
secrets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import yaml

from nantui.errors import UserError
from nantui.run.atomic_files import read_owned, read_yaml, write_atomic
from nantui.run.binding import HERE, standing
from nantui.run.documents import LARGEST_YAML, Document, JsonObject, Settings, fields_of, parse_yaml, table
from nantui.run.growing_files import head

OURS = table("settings")
"""What there is to say of each of nantui's own settings."""
OURS_DEFAULTS: Settings = {name: row["default"] for name, row in OURS.items()}
OURS_CHOICES = {name: tuple(row["choices"]) for name, row in OURS.items() if "choices" in row}
OURS_NUMBERS = frozenset(name for name, row in OURS.items() if row.get("number"))
"""Settings with choices that may also be a number."""
SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|CREDENTIAL|APIKEY|PRIVATE|SESSION|COOKIE|AUTH|WEBHOOK|DSN|(^|_)(KEYS?|PASS|PWD)(_|$)",
    re.IGNORECASE,
)
USER_IN_URL = re.compile(r"://[^/@\s]+@")
HOOK_FOLDER = "hook"
"""Name of the folder in the package that holds the sitecustomize of nantui.attach and nantui exec."""
_NO_SECRET = {"PWD"}
_EPOCHS = re.compile(r"^epochs:\s*(\d{1,9})\s*$", re.MULTILINE)
_TIMED = re.compile(r"^time:\s*[\d.]", re.MULTILINE)
_OF_THIS_TERMINAL = ("NANTUI_", "TERM", "SSH_", "DISPLAY", "TMUX")
_OF_THIS_LAUNCH = ("RANK", "LOCAL_", "GROUP_", "ROLE_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_")


@dataclass(frozen=True)
class Spec:
    """What a run is asked to be; `train` are Ultralytics' arguments, `ours` nantui's settings that differ."""

    train: dict[str, object]
    ours: dict[str, object] = field(default_factory=dict)
    python: str = ""
    auto: bool = False
    kind: str = "train"
    created: float = 0.0
    faults: list[JsonObject] = field(default_factory=list)
    exec: JsonObject | None = None
    plan: JsonObject | None = None
    nnodes: int = 1
    endpoint: str = ""
    format: int = 1


def read_spec(path: Path, trusted: Collection[int] = (), *, agreed: bool = False) -> Spec | None:
    """Return the spec in `path`, None where there is no file. Raises UserError when it makes no sense.

    What it would run (`python`, `exec`, `auto`) is left out unless this user or root wrote it, or one of the
    `trusted` user ids, and the run was made here (`agreed`: the caller was started for it): looking at
    somebody's run must not start their programs.
    """
    found = read_owned(path, LARGEST_YAML)
    if found is None:
        return None
    content, owner = found
    try:
        document = parse_yaml(content.decode("utf-8", errors="replace"))
    except ValueError as error:
        raise UserError(f"{path}: not readable as YAML ({error}); mend it or move it away") from error
    if not isinstance(document, dict) or "train" not in (known := fields_of(Spec, document)):
        raise UserError(f"{path}: not a spec (no 'train:' mapping); mend it or move it away")
    if owner in {os.getuid(), 0, *trusted} and (agreed or standing(path.parent.parent) == HERE):
        return Spec(**known)
    return Spec(**{**known, "python": "", "exec": None, "auto": False})


def own_uids(lock: Path) -> frozenset[int]:
    """Return the user ids under which this user's files appear beside `lock`, which this process holds.

    Where a mount squashes owners, the lock that was just made shows whose name everything has.
    """
    try:
        return frozenset({os.getuid(), os.stat(lock).st_uid})
    except OSError:
        return frozenset({os.getuid()})


def write_spec(path: Path, spec: Spec) -> None:
    """Write the spec, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, to_yaml(asdict(spec)))


def to_yaml(document: Mapping[str, object]) -> str:
    """Return a document as a person would write it: names in their order, letters as they are."""
    return str(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True))


def divided(settings: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Return Ultralytics' arguments and nantui's own settings out of a mixture of both."""
    ours = {name: value for name, value in settings.items() if name in OURS_DEFAULTS}
    return {name: value for name, value in settings.items() if name not in ours}, ours


def with_settings(spec: Spec, settings: Settings) -> Spec:
    """Return the spec with changed settings, each where it belongs."""
    train, ours = divided(settings)
    return replace(spec, train={**spec.train, **train}, ours={**spec.ours, **ours})


def read_args(path: Path) -> Document:
    """Return Ultralytics' args.yaml as plain values, empty where it is missing or broken."""
    return read_yaml(path) or {}


def epochs_asked(path: Path) -> int | None:
    """Return `epochs` of an args.yaml, found without reading it as YAML: that takes 10 ms a run.

    None under `time=`: Ultralytics reckons anew after each epoch how many there will be (`_do_train`).
    """
    text = head(path, LARGEST_YAML)
    found = None if _TIMED.search(text) else _EPOCHS.search(text)
    return int(found[1]) if found else None


def kept_environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return an environment without secrets and without what belongs to a terminal or a launch.

    The hook of nantui.attach is no part of the user's own path: whoever runs the command again adds its own.
    """
    kept = {
        name: value
        for name, value in variables.items()
        if not is_secret(name, value) and not name.startswith((*_OF_THIS_TERMINAL, *_OF_THIS_LAUNCH))
    }
    entries = filter(None, kept.pop("PYTHONPATH", "").split(os.pathsep))
    own = [one for one in entries if not (Path(one).name == HOOK_FOLDER and "nantui" in Path(one).parts)]
    return {**kept, "PYTHONPATH": os.pathsep.join(own)} if own else kept


def is_secret(name: str, value: str) -> bool:
    """Tell whether a variable looks like a secret: by its name, or by a user and password in a URL."""
    return bool(name not in _NO_SECRET and SECRET.search(name)) or bool(USER_IN_URL.search(value))
