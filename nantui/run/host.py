"""Which host this is, in one place, so that locks, process identities and heartbeats agree.

`NANTUI_HOST` replaces the host name and makes another host of this one: tests play two hosts on one
machine, and containers with the same host name can be told apart.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

VARIABLE = "NANTUI_HOST"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host_name() -> str:
    """Return the name of this host."""
    return os.environ.get(VARIABLE) or socket.gethostname()


def boot_id() -> str:
    """Return what tells this boot of this host from every other, empty where the kernel does not say."""
    try:
        kernel = _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        kernel = ""
    played = os.environ.get(VARIABLE)
    return f"{kernel}/{played}" if played else kernel


def host_id() -> str:
    """Return the host's name as a folder can be called."""
    return re.sub(r"[^\w.-]", "_", host_name()).lstrip(".") or "host"
