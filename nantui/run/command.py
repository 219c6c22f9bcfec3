"""A user's own command, as it is kept to be run again: words, directory, environment less secrets."""

from __future__ import annotations

import os
import re

SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|CREDENTIAL|APIKEY|PRIVATE|SESSION|COOKIE|AUTH|WEBHOOK|DSN|(^|_)(KEYS?|PASS|PWD)(_|$)",
    re.IGNORECASE,
)
USER_IN_URL = re.compile(r"://[^/@\s]+@")
HOOK_FOLDER = "hook"
"""Name of the folder in the package that holds the sitecustomize of nantui.attach and nantui exec."""
_NO_SECRET = {"PWD"}
_OF_THIS_TERMINAL = ("NANTUI_", "TERM", "SSH_", "DISPLAY", "TMUX")
_OF_THIS_LAUNCH = ("RANK", "LOCAL_", "GROUP_", "ROLE_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_")


def kept_environment() -> dict[str, str]:
    """Return this environment without secrets and without what belongs to this terminal or this launch.

    The hook of nantui.attach is no part of the user's own path: whoever runs the command again adds its own.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not is_secret(name, value) and not name.startswith((*_OF_THIS_TERMINAL, *_OF_THIS_LAUNCH))
    }
    own = [entry for entry in kept.pop("PYTHONPATH", "").split(os.pathsep) if entry and not _is_hook(entry)]
    return {**kept, "PYTHONPATH": os.pathsep.join(own)} if own else kept


def _is_hook(folder: str) -> bool:
    parts = os.path.normpath(folder).split(os.sep)
    return parts[-1] == HOOK_FOLDER and "nantui" in parts


def is_secret(name: str, value: str) -> bool:
    """Tell whether a variable looks like a secret: by its name, or by a user and password in a URL."""
    return bool(name not in _NO_SECRET and SECRET.search(name)) or bool(USER_IN_URL.search(value))
