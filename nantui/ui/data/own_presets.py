"""A draft in other forms: as a preset of one's own, and as Python for one's own script."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nantui.errors import FAILED, UserError
from nantui.paths import user_config_dir
from nantui.run.files import write_atomic


def save_preset(name: str, changes: Mapping[str, Any]) -> Path:
    """Write `changes` as a preset that sets exactly these values.
    Raises UserError for a bad or taken name.
    """
    name = name.strip()
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,60}", name):
        raise UserError(f"{name!r}: a preset's name is made of letters, digits, - and _")
    path = user_config_dir() / "presets" / f"{name}.yaml"
    if path.exists():
        raise UserError(f"there is a preset {name} already ({path}); choose another name")
    settings = {
        key: {"exactly": value, "why": "saved from the config editor"} for key, value in changes.items()
    }
    document = {
        "name": name,
        "title": f"saved from the config editor: {', '.join(changes)}",
        "settings": settings,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", FAILED) from None
    return path


def as_dict(values: Mapping[str, Any]) -> str:
    """Return `settings = dict(...)`, ready for `model.train(**settings)`."""
    lines = [f"    {name}={value!r}," for name, value in values.items()]
    return "\n".join(["settings = dict(", *lines, ")"])
