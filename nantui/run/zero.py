"""When a loss is zero for all purposes: one rule for the guard, step by step, and for results.csv."""

from __future__ import annotations

import math
from collections.abc import Sized

NOTHING = 1e-9  # zero whatever was usual: a resume knows no earlier level
SHARE, MOST = 1e-6, 1e-3  # of the usual level, and what is never called zero


def practically_zero(loss: float, usual: float) -> bool:
    """Tell whether a sum of losses is zero for all purposes, where `usual` (NaN: not known) was its level.

    A dead network's loss need not be 0.0: a saturated sigmoid leaves 1e-17.
    """
    share = min(usual * SHARE, MOST) if math.isfinite(usual) else 0.0
    return abs(loss) <= max(share, NOTHING)


def can_be_learnt_to_zero(losses: Sized) -> bool:
    """Tell whether zero may mean that there is nothing left to learn; `losses` are all by name.

    A lone loss is a classifier's cross-entropy (`v8ClassificationLoss`, utils/loss.py), 0 for one that is
    right and sure. A detector's losses are several, and those of its boxes do not get there.
    """
    return len(losses) == 1
