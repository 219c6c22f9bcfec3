"""When silence is a standstill: much longer than usual, with set-up, validation and saves allowed for.

Only time in which this process itself was awake counts: a supervisor whose own reads hang on a dead NFS
server, or that was suspended with its laptop, must not call the training stalled.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from nantui.supervisor.attempt_watch import ELSEWHERE, TRAINING
from nantui.supervisor.config import Patience

LONGEST_GAP_S = 1.0
TIMES_LONGEST = 10.0


class Silence:
    """For how long something has been the same, such as a heartbeat: no clock of another host is read.

    Adds up the time in which this process itself was awake.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[float, float, float]] = {}

    def quiet_s(self, name: str, heartbeat: float) -> float:
        now = self._clock()
        beat, quiet, looked = self._heard.get(name, (heartbeat, 0.0, now))
        quiet = quiet + min(now - looked, LONGEST_GAP_S) if beat == heartbeat else 0.0
        self._heard[name] = heartbeat, quiet, now
        return quiet


class Standstill:
    """Tells when the time without anything new is too long."""

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self.reset()

    def reset(self) -> None:
        """Begin anew, with a new attempt."""
        self._silence, self._allowed_s = Silence(self._clock), math.inf

    def observe(self, moved: int, activity: str, usual_step_s: float, longest_s: float = 0.0) -> float:
        """Return for how many seconds nothing moved once that is a standstill, else 0.0.

        `moved` counts everything new that the ranks wrote; `usual_step_s` is 0 before the first step,
        `longest_s` is how long this phase took at most so far, 0 for its first time.
        """
        quiet_s = self._silence.quiet_s("", moved)
        self._allowed_s = self.allowed_s(activity, usual_step_s, longest_s)
        return quiet_s if quiet_s > self._allowed_s else 0.0

    @property
    def hung_after_s(self) -> float:
        """How long silence lasts, in s, when it is no longer waited for under `--auto`."""
        return self._allowed_s + self._patience.hung_s

    def allowed_s(self, activity: str, usual_step_s: float, longest_s: float = 0.0) -> float:
        """Return how long silence is normal in this phase."""
        if activity == ELSEWHERE:
            return math.inf
        if activity == TRAINING and usual_step_s > 0:
            return max(self._patience.stall_floor_s, self._patience.stall_factor * usual_step_s)
        other_s = self._patience.other_phase_s
        return max(self._patience.stall_floor_s, min(other_s, TIMES_LONGEST * longest_s or other_s))
