"""What one batch shows: everything the host must know, brought over in a single read.

A read makes the host wait for the GPU, so there is exactly one a batch, and it waits for nothing that was
queued after it. With several ranks one small all-reduce (MAX) goes before it, and every decision is taken
from its result, so that it is the same on all ranks; the raw values serve only for reports.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch

from nantui.worker import distributed

Wishes: TypeAlias = tuple[bool, bool]


@dataclass(frozen=True)
class BatchProbe:
    """What one batch looked like.

    `losses` are this rank's, `loss` the largest sum of losses on any rank (finite), `zero_loss` whether that
    sum is exactly zero on some rank, `norm` the gradient norm before clipping or None for a batch without an
    optimizer step, `scale` the loss scale or None. The `bad_…`, `zero_loss`, `asked_to_stop` and `point_due`
    are the same on every rank; `mine` tells whether this rank's own batch was bad.
    """

    names: tuple[str, ...]
    losses: tuple[float, ...]
    loss: float
    zero_loss: bool
    norm: float | None
    scale: float | None
    bad_loss: bool
    bad_norm: bool
    bad_buffers: bool
    bad_targets: bool
    asked_to_stop: bool
    mine: bool
    point_due: bool = False

    @property
    def bad(self) -> bool:
        return self.bad_loss or self.bad_norm or self.bad_buffers

    @property
    def scaler_at_work(self) -> bool:
        """Under fp16 a non-finite norm of finite losses: the loss scale was too high, no incident."""
        return self.bad_norm and not self.bad_loss and self.scale is not None


@dataclass(frozen=True)
class PendingProbe:
    """A probe on its way to the host. `flagged` tells whether the ranks' agreement follows the values."""

    names: tuple[str, ...]
    values: torch.Tensor
    arrived: torch.cuda.Event | None
    flagged: bool
    has_norm: bool
    has_scale: bool
    wishes: Wishes

    def arrives_within(self, seconds: float) -> bool:
        """Wait for the values at most so long on a GPU; returns whether they are here."""
        if self.arrived is None or not seconds:
            return False
        until = time.perf_counter() + seconds
        while not self.arrived.query():
            if time.perf_counter() > until:
                return False
        return True

    def read(self) -> BatchProbe:
        """Wait until the values are here."""
        if self.arrived is not None:
            self.arrived.synchronize()
        values = self.values.tolist()
        if not self.flagged:
            flags = [0.0 if math.isfinite(value) else 1.0 for value in values]
            loss = sum(value for value in values[: len(self.names)] if math.isfinite(value))
            return _probe_of(self, values, flags, (loss, float(loss == 0), *map(float, self.wishes)))
        *read, loss, zero, stop, point = values
        half = len(read) // 2
        return _probe_of(self, read[:half], read[half:], (loss, zero, stop, point))


def probe_batch(
    names: tuple[str, ...],
    losses: list[torch.Tensor],
    total: torch.Tensor,
    peak: torch.Tensor,
    targets: torch.Tensor,
    norm: torch.Tensor | None,
    scale: torch.Tensor | None,
    wishes: Wishes,
) -> PendingProbe:
    """Send for the batch; `wishes` are whether this rank wants a stop, and a step point.

    All tensors are 0-dim, on one device. Every rank must call it, and read it before it looks again.
    """
    scalars = (*losses, total.detach(), peak, targets, *(x for x in (norm, scale) if x is not None))
    probe = torch.stack([scalar.float().reshape(()) for scalar in scalars])
    if distributed.together():
        probe = _agreed(probe, len(losses), wishes)
    kinds = distributed.together(), norm is not None, scale is not None
    return PendingProbe(names, *_sent(probe), *kinds, wishes)


def _agreed(probe: torch.Tensor, losses: int, wishes: Wishes) -> torch.Tensor:
    """Return the probe, which of its values are bad on any rank, then the largest loss of the ranks, whether
    one of them has a loss of zero, and which of the wishes one has.
    """
    mine = (~torch.isfinite(probe)).float()
    sum_of_losses = torch.nan_to_num(probe[:losses].sum(), nan=0.0, posinf=0.0, neginf=0.0)
    wish = [torch.full_like(sum_of_losses, float(one)) for one in wishes]
    asked = torch.stack([sum_of_losses, (sum_of_losses == 0).float(), *wish])
    return torch.cat([probe, distributed.largest(torch.cat([mine, asked]))])


def _sent(values: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """Return the values on their way to the host, and what tells that they have arrived."""
    if values.device.type != "cuda":
        return values, None
    here = _pinned(values.numel())
    here.copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return here, arrived


@lru_cache(maxsize=8)
def _pinned(count: int) -> torch.Tensor:
    """Return the page-locked place for so many values; only one probe at a time is under way."""
    return torch.empty(count, pin_memory=True)


def _probe_of(
    sent: PendingProbe, values: list[float], flags: list[float], agreed: tuple[float, ...]
) -> BatchProbe:
    count = len(sent.names)
    loss, zero, stop, point = agreed
    norm_at, scale_at = count + 3, count + 3 + sent.has_norm
    return BatchProbe(
        names=sent.names,
        losses=tuple(values[:count]),
        loss=loss,
        zero_loss=zero > 0,
        norm=values[norm_at] if sent.has_norm else None,
        scale=values[scale_at] if sent.has_scale else None,
        bad_loss=any(flags[: count + 1]),
        bad_norm=sent.has_norm and flags[norm_at] > 0,
        bad_buffers=flags[count + 1] > 0,
        bad_targets=flags[count + 2] > 0,
        asked_to_stop=stop > 0,
        point_due=point > 0,
        mine=_mine(values, norm_at if sent.has_norm else None, any(flags[: count + 1])),
    )


def _mine(values: list[float], norm_at: int | None, loss_explains: bool) -> bool:
    """Tell whether this rank's own batch is bad: one bad loss spoils everybody's norm."""
    own = [value for at, value in enumerate(values) if at != norm_at or not loss_explains]
    return not all(math.isfinite(value) for value in own)
