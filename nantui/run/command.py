"""A user's own command, as it is kept to be run again: words, directory, environment less secrets."""

from __future__ import annotations

import os
import re

SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|PRIVATE|SESSION|COOKIE|AUTH", re.IGNORECASE)
_OF_THIS_TERMINAL = ("NANTUI_", "TERM", "SSH_", "DISPLAY", "TMUX")
_OF_THIS_LAUNCH = ("RANK", "LOCAL_", "GROUP_", "ROLE_", "WORLD_SIZE", "MASTER_", "TORCHELASTIC_")


def kept_environment() -> dict[str, str]:
    """Return this environment without secrets and without what belongs to this terminal or this launch."""
    return {
        name: value
        for name, value in os.environ.items()
        if not SECRET.search(name) and not name.startswith((*_OF_THIS_TERMINAL, *_OF_THIS_LAUNCH))
    }
