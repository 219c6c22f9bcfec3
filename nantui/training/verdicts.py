"""When skipped steps or strange losses are no longer an accident: rules on plain numbers.

No torch here, and nothing that differs between ranks goes in, so that every rank comes to the same
verdict at the same step.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

A_FEW, ENOUGH = 3, 30  # steps before a distribution tells anything, and before it is trusted
WINDOW = 200
SPREAD_FLOOR = 0.15  # in log units: a run whose loss hardly moves must not become a tripwire
EARLY_FLOOR = 0.5  # while little was seen, only a jump by orders of magnitude counts


class Skips:
    """Counts skipped optimizer steps: in a row, and as a share of a window."""

    def __init__(self, most_in_a_row: int, window: int, largest_share: float) -> None:
        self.in_a_row = 0
        self.total = 0
        self._most, self._share = most_in_a_row, largest_share
        self._window: deque[bool] = deque(maxlen=max(window, 1))

    def add(self, skipped: bool) -> str | None:
        """Take in one step; returns why this is divergence, or None while it is not."""
        self._window.append(skipped)
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        self.total += skipped
        if self.in_a_row > self._most:
            return f"{self.in_a_row} steps in a row had to be skipped (limit {self._most})"
        share = sum(self._window) / len(self._window)
        if skipped and len(self._window) == self._window.maxlen and share > self._share:
            return f"{share:.0%} of the last {len(self._window)} steps were skipped (limit {self._share:.0%})"
        return None


class Distribution:
    """Running distribution of a positive quantity; scores a new value robustly, on its logarithm.

    Kept sorted beside its order of arrival: this is asked several times a training step.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._logs: deque[float] = deque(maxlen=window)
        self._sorted: list[float] = []

    def score(self, value: float) -> float:
        """Return how many spreads `value` lies above the median; 0.0 while too little was seen."""
        if len(self._logs) < A_FEW or not value > 0:
            return 0.0
        floor = SPREAD_FLOOR if len(self._logs) >= ENOUGH else EARLY_FLOOR
        return (math.log(value) - self._middle()) / max(1.4826 * self._deviation(), floor)

    def add(self, value: float) -> None:
        """Take a value into the distribution; values that are not positive and finite stay out."""
        if not (value > 0 and math.isfinite(value)):
            return
        if len(self._logs) == self._logs.maxlen:
            del self._sorted[bisect_left(self._sorted, self._logs[0])]
        self._logs.append(math.log(value))
        insort(self._sorted, self._logs[-1])

    @property
    def typical(self) -> float:
        """The median, NaN while nothing was seen."""
        return math.exp(self._middle()) if self._logs else math.nan

    def _middle(self) -> float:
        half = len(self._sorted) // 2
        return (self._sorted[half] + self._sorted[~half]) / 2

    def _deviation(self) -> float:
        """Return the median distance from the median."""
        count, middle = len(self._sorted), self._middle()
        return (self._nearest((count + 1) // 2, middle) + self._nearest(count // 2 + 1, middle)) / 2

    def _nearest(self, rank: int, middle: float) -> float:
        """Return the `rank`-th smallest distance: the nearest values are a run of the sorted ones."""
        low, high = 0, len(self._sorted) - rank
        while low < high:
            begin = (low + high) // 2
            if middle - self._sorted[begin] > self._sorted[begin + rank] - middle:
                low = begin + 1
            else:
                high = begin
        return max(middle - self._sorted[low], self._sorted[low + rank - 1] - middle)


class Trend:
    """Early warning: a quantity climbing far out of its running distribution, before anything is NaN.

    One step beyond `limit`, or three of five beyond two thirds of it, raise a warning; the next one only
    after the quantity has been back in its range for a while.
    """

    CALM = 20

    def __init__(self, limit: float) -> None:
        self.seen = Distribution()
        self._limit = limit
        self._recent: deque[float] = deque(maxlen=5)
        self._calm = self.CALM

    def add(self, value: float) -> float | None:
        """Take in a value; returns its score when it is time to warn, else None."""
        score = self.seen.score(value)
        self.seen.add(value)
        self._recent.append(score)
        high = score > self._limit or sum(past > self._limit * 2 / 3 for past in self._recent) >= 3
        was_calm = self._calm >= self.CALM
        self._calm = 0 if high else self._calm + 1
        return score if high and was_calm else None


class Explosion:
    """Tells when a loss has left its distribution for good."""

    def __init__(self, limit: float, patience: int) -> None:
        self.seen = Distribution()
        self.in_a_row = 0
        self._limit, self._patience = limit, max(patience, 1)

    def add(self, loss: float, suspicion: float = 1.0) -> tuple[float, bool]:
        """Take in a finite loss; returns its score, and whether the patience is at an end.

        `suspicion` above 1 lowers limit and patience (probation after a recovery). A step that scores
        beyond the limit stays out of the distribution, which would else get used to it.
        """
        score = self.seen.score(loss)
        if score <= self._limit / suspicion:
            self.in_a_row = 0
            self.seen.add(loss)
            return score, False
        self.in_a_row += 1
        return score, self.in_a_row >= self._patience / suspicion
