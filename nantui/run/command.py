"""A user's own command, as it is kept to be run again: words, directory, environment less secrets."""

from __future__ import annotations

import os
import re

SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|CREDENTIAL|APIKEY|PRIVATE|SESSION|COOKIE|AUTH|WEBHOOK|DSN|(^|_)(KEYS?|PASS|PWD)(_|$)",
    re.IGNORECASE,
)
USER_IN_URL = re.compile(r"://[^/@\s]+@")
_NO_SECRET = {"PWD"}
_OF_THIS_TERMINAL = ("NANTUI_", "TERM", "SSH_", "DISPLAY", "TMUX")
_OF_THIS_LAUNCH = ("RANK", "LOCAL_", "GROUP_", "ROLE_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_")


def kept_environment() -> dict[str, str]:
    """Return this environment without secrets and without what belongs to this terminal or this launch."""
    return {
        name: value
        for name, value in os.environ.items()
        if not is_secret(name, value) and not name.startswith((*_OF_THIS_TERMINAL, *_OF_THIS_LAUNCH))
    }


def is_secret(name: str, value: str) -> bool:
    """Tell whether a variable looks like a secret: by its name, or by a user and password in a URL."""
    return bool(name not in _NO_SECRET and SECRET.search(name)) or bool(USER_IN_URL.search(value))
