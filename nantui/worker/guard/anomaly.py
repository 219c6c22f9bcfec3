"""When skipped steps or strange losses are no longer an accident: rules on plain numbers.

No torch here, and nothing that differs between ranks goes in, so that every rank comes to the same
verdict at the same step.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque

A_FEW = 3  # values before a distribution tells anything
WINDOW, LAG = 200, 20  # values that are compared with, and the newest ones that are not among them yet
SPREAD_FLOOR = 0.15  # in log units: a run whose loss hardly moves must not become a tripwire
SPREAD_CEILING = 0.75  # two levels far apart must not hide a jump; also the spread while nothing was learnt
NEARLY_ALL = 0.95  # the share of what was usual that lies below its upper end, for what takes many steps
CALM = 20  # steps in range after which an episode is over
BEGINNING, GREW = 20, 1e7  # batches that show how large BatchNorm's statistics are, and times that
GREW_FP16 = 1e4  # under fp16, which ends where they have grown 1e7 times
LEARNT = 0.5  # the losses of a network that has begun to learn are below this share of an untrained one's
LONG = 1000  # steps after which a network counts as trained whatever its loss: it may have been so before
WORSE = 2.0  # times the best upper end that there was: what was learnt is being lost
TRIFLE = 0.05  # below this share of an untrained network's loss it is learnt by heart: scatter means nothing


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

    A value is compared with the upper end of what was usual, not with its middle: a young network that
    assigns no boxes in most batches, or data with few objects, has a low middle and healthy losses a hundred
    times above it. The newest values wait, so that what grows from step to step is not usual at once.
    Kept sorted beside its order of arrival: this is asked several times a training step.
    """

    def __init__(self, upper: float = 1.0, window: int = WINDOW) -> None:
        """`upper` is the share of the values up to the upper end, 1.0 for the highest."""
        self._share = upper
        self._logs: deque[float] = deque(maxlen=window)
        self._sorted: list[float] = []
        self._waiting: deque[float] = deque()

    def score(self, value: float, floor: float = SPREAD_FLOOR) -> float:
        """Return how many spreads `value` lies above the upper end; 0.0 below it, or after too few.

        A spread is at least `floor` and at most SPREAD_CEILING, in log units.
        """
        if len(self._logs) < A_FEW or not value > 0:
            return 0.0
        above = math.log(value) - self._upper()
        return 0.0 if above <= 0 else above / min(max(1.4826 * self._deviation(), floor), SPREAD_CEILING)

    def add(self, value: float) -> None:
        """Take a value into the distribution; values that are not positive and finite stay out."""
        if not (value > 0 and math.isfinite(value)):
            return
        self._waiting.append(math.log(value))
        if len(self._logs) < LAG or len(self._waiting) > LAG:
            self._take_in(self._waiting.popleft())

    def _take_in(self, log: float) -> None:
        if len(self._logs) == self._logs.maxlen:
            del self._sorted[bisect_left(self._sorted, self._logs[0])]
        self._logs.append(log)
        insort(self._sorted, log)

    @property
    def typical(self) -> float:
        """The median, NaN while nothing was seen."""
        return math.exp(self._middle()) if self._logs else math.nan

    @property
    def highest(self) -> float:
        """The upper end, NaN while nothing was seen."""
        return math.exp(self._upper()) if self._logs else math.nan

    def _upper(self) -> float:
        return self._sorted[math.ceil(self._share * len(self._sorted)) - 1]

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

    def __init__(self, limit: float) -> None:
        self.seen = Distribution()
        self._limit = limit
        self._recent: deque[float] = deque(maxlen=5)
        self._calm = CALM

    def add(self, value: float, floor: float = SPREAD_FLOOR) -> float | None:
        """Take in a value; returns its score when it is time to warn, else None."""
        score = self.seen.score(value, floor)
        self.seen.add(value)
        self._recent.append(score)
        high = score > self._limit or sum(past > self._limit * 2 / 3 for past in self._recent) >= 3
        was_calm = self._calm >= CALM
        self._calm = 0 if high else self._calm + 1
        return score if high and was_calm else None


class Growth:
    """Early warning: BatchNorm's largest statistic is far beyond all that it was when the training began.

    BatchNorm hides weights that run away until a variance overflows. What a trained network, or inputs of
    their own size, begin with counts as usual. docs/lead-time.md has the curves that `times` is taken from.
    """

    def __init__(self) -> None:
        self.usual, self._batches, self._calm = 1.0, 0, CALM

    def add(self, largest: float, times: float = GREW) -> bool:
        """Take in a batch; returns whether it is time to warn, once until it has been calm for a while."""
        self._batches += 1
        self.usual = max(self.usual, largest) if self._batches <= BEGINNING else self.usual
        high, was_calm = largest > times * self.usual, self._calm >= CALM
        self._calm = 0 if high else self._calm + 1
        return high and was_calm


class Explosion:
    """Tells when a loss has left its distribution for good, or what was learnt is being lost.

    The loss of an untrained network is the highest that the upper end of the distribution has been. It may
    still rise while a young network begins to assign boxes, until that end has halved.
    """

    def __init__(self, limit: float, patience: int) -> None:
        self._limit, self._patience = limit, max(patience, 1)
        self._begin()

    def _begin(self) -> None:
        self.seen = Distribution(NEARLY_ALL)
        self.untrained, self.best = 0.0, math.inf
        self.in_a_row = self.calm = self._steps = 0

    @property
    def learnt(self) -> bool:
        """Whether the network is no longer young."""
        return math.isfinite(self.best)

    @property
    def floor(self) -> float:
        """The least spread at this age of the network, in log units."""
        return SPREAD_FLOOR if self.learnt else SPREAD_CEILING

    @property
    def trifle(self) -> float:
        """The loss below which differences mean nothing."""
        return TRIFLE * self.untrained

    def add(self, loss: float, suspicion: float = 1.0) -> tuple[float, bool]:
        """Take in a finite loss; returns its score, and whether the patience is at an end.

        `suspicion` above 1 lowers limit and patience (probation after a recovery). A step beyond the limit
        stays out of the distribution, which would else get used to it; what lasts for a whole window is what
        is usual from then on.
        """
        if self.in_a_row >= self._patience + WINDOW:
            self._begin()
        counted = max(loss, self.trifle)
        score = self.seen.score(counted, self.floor)
        if score <= self._limit / suspicion and counted <= WORSE * max(self.best, self.trifle):
            self.in_a_row, self.calm = 0, self.calm + 1
            self._take_in(counted)
            return score, False
        self.in_a_row, self.calm = self.in_a_row + 1, 0
        return score, self.in_a_row >= self._patience / suspicion

    def _take_in(self, loss: float) -> None:
        self.seen.add(loss)
        self._steps += 1
        self.untrained = self.untrained if self.learnt else max(self.untrained, self.seen.highest)
        halved = self._steps >= WINDOW and self.seen.highest < LEARNT * self.untrained
        if self.learnt or halved or self._steps >= LONG:
            self.best = min(self.best, self.seen.highest)
