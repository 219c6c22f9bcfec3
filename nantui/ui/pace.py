"""How often something large is repainted: over a slow link every repaint is felt."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Allows a few repaints at once, and then one every `every` seconds."""

    def __init__(self, every: float, at_once: int = 3, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._most, self._clock = every, at_once, clock
        self._left, self._counted = float(at_once), clock()

    def allows(self) -> bool:
        """Tell whether to repaint now; a yes counts."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._counted) / self._every)
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
