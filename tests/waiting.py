"""Waiting for what other processes do: until it is so, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 30.0
"""How long one may wait in vain; raised where more is waited for, as the end of a real training."""


def eventually(look: Callable[[], Any], what: Callable[[], str] = lambda: "") -> Any:
    """Wait until `look` is true, and return what it found; fail with `what` it is instead."""
    began = time.monotonic()
    while not (found := look()):
        waited = time.monotonic() - began
        assert waited < PATIENCE_S, what()
        time.sleep(max(0.02, min(waited / 10, 0.5)))  # to look at a run costs the core that it needs
    return found
