"""What one batch shows: everything the host must know, brought over in a single read.

A read makes the host wait for the GPU, so there is exactly one a batch, and it waits for nothing that was
queued after it. With several ranks one small all-reduce (MAX) goes before it, and every decision is taken
from its result, so that it is the same on all ranks; the raw values serve only for reports.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import torch

from nantui.worker import distributed
from nantui.worker.guard.tensor_copies import largest_magnitude, recorded

Wishes: TypeAlias = tuple[bool, bool, bool]
"""Whether a rank wants a stop, a step point, and to go back in memory."""
NO_WISHES: Wishes = (False, False, False)


@dataclass(frozen=True)
class BatchProbe:
    """What one batch looked like.

    `losses` are this rank's, `loss` the largest sum of losses on any rank (finite), `zero_loss` whether that
    sum is exactly zero on some rank, `norm` the gradient norm before clipping or None for a batch without an
    optimizer step, `scale` the loss scale or None. The `bad_…`, `zero_loss`, `asked_…` and `point_due`
    are the same on every rank, as is `statistics`, the largest finite magnitude in BatchNorm's on any rank;
    `mine` tells whether this rank's own batch was bad.
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
    asked_to_go_back: bool = False
    statistics: float = 0.0

    @property
    def bad(self) -> bool:
        return self.bad_loss or self.bad_norm or self.bad_buffers

    @property
    def scaler_at_work(self) -> bool:
        """Under fp16 a non-finite norm of finite losses: the loss scale was too high, no incident."""
        return self.bad_norm and not self.bad_loss and self.scale is not None

    @property
    def to_be_undone(self) -> bool:
        return self.bad_loss or self.bad_buffers or (self.bad_norm and not self.scaler_at_work)


@dataclass(frozen=True)
class PendingProbe:
    """A probe on its way to the host: losses, their total, the peaks of statistics and targets, then the norm
    and the loss scale where it is `with_` them; with several ranks what they agree on follows.
    """

    names: tuple[str, ...]
    values: torch.Tensor
    arrived: torch.cuda.Event | None
    with_norm: bool
    with_scale: bool
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
        values, count = self.values.tolist(), len(self.names)
        size, norm_at = count + 3 + self.with_norm + self.with_scale, count + 3
        own, agreed = values[:size], values[size:]
        if not agreed:
            loss = sum(value for value in own[:count] if math.isfinite(value))
            peak = own[count + 1] if math.isfinite(own[count + 1]) else 0.0
            agreed = [*(not math.isfinite(value) for value in own), loss, peak, loss == 0, *self.wishes]
        *bad, loss, peak, zero, stop, point, back = agreed
        bad_loss = any(bad[: count + 1])
        others = norm_at if self.with_norm and bad_loss else None  # one bad loss spoils everybody's norm
        return BatchProbe(
            names=self.names, losses=tuple(own[:count]), loss=loss, zero_loss=zero > 0,
            norm=own[norm_at] if self.with_norm else None, scale=own[-1] if self.with_scale else None,
            bad_loss=bad_loss, bad_norm=self.with_norm and bad[norm_at] > 0, bad_buffers=bad[count + 1] > 0,
            bad_targets=bad[count + 2] > 0, asked_to_stop=stop > 0, point_due=point > 0,
            asked_to_go_back=back > 0, statistics=peak,
            mine=not all(math.isfinite(value) for at, value in enumerate(own) if at != others),
        )  # fmt: skip


@torch.no_grad()
def probe_batch(
    names: tuple[str, ...], losses: list[torch.Tensor], total: torch.Tensor, statistics: torch.Tensor | None,
    targets: Iterable[torch.Tensor], norm: torch.Tensor | None, scale: torch.Tensor | None, wishes: Wishes,
) -> PendingProbe:  # fmt: skip
    """Send for the batch; `statistics` is their largest magnitude, `wishes` are what this rank wants.

    Losses, total, statistics, norm and scale are 0-dim; all are on one device. Every rank must call it, and
    read it before it looks again.

    In a training each call of PyTorch gives up the interpreter, which the loader's thread wants too: a call
    that is not made is worth five times what it takes on an idle host.
    """
    peaks = [
        total.new_zeros(()) if peak is None else peak for peak in (statistics, largest_magnitude(targets))
    ]
    scalars = (*losses, total, *peaks, *(one for one in (norm, scale) if one is not None))
    place = _gathering(len(scalars), len(losses), total.device, distributed.together())
    values = place.gather([plain(one, total.device) for one in scalars], wishes)
    return PendingProbe(names, values, place.arrived, norm is not None, scale is not None, wishes)


def plain(scalar: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a 0-dim fp32 tensor on a device, the same where it is one.

    Targets may lie on the host: in Ultralytics 8.3.150 `preprocess_batch` moves the images alone.
    """
    if scalar.dtype is torch.float32 and scalar.device == device and not scalar.dim():
        return scalar
    return scalar.to(device, torch.float32, non_blocking=True).reshape(())


class Gathering:
    """Where the values of a batch come together, are agreed upon by ranks, and reach the host.

    Used again for each batch, of which only one is under way.
    """

    def __init__(self, size: int, losses: int, device: torch.device, together: bool) -> None:
        self._all = torch.zeros(size + (size + 3 + len(NO_WISHES) if together else 0), device=device)
        self._own, self._agreed, self._losses = self._all[:size], self._all[size:], losses
        self._wishes, self._wanted = torch.zeros(len(NO_WISHES), device=device), NO_WISHES
        self.arrived = torch.cuda.Event() if device.type == "cuda" else None
        self._host = torch.empty(len(self._all), pin_memory=True) if self.arrived else self._all
        once = self.arrived is not None and together
        self._tell = (recorded(self._say, device, self._has_said) if once else None) or self._say

    def _say(self) -> None:
        """Put beside this rank's values what the others are to know of them."""
        own, peak = self._own, self._own[self._losses + 1 : self._losses + 2]
        two = torch.cat([own[: self._losses].sum().reshape(1), peak]).nan_to_num(0.0, 0.0, 0.0)
        bad, zero = (~torch.isfinite(own)).float(), (two[:1] == 0).float()
        torch.cat([bad, two, zero, self._wishes], out=self._agreed)

    def _has_said(self) -> bool:
        said = self._agreed.clone()
        self._say()
        return torch.equal(said, self._agreed)

    def gather(self, scalars: list[torch.Tensor], wishes: Wishes) -> torch.Tensor:
        """Return where the values will be on the host, once they have arrived."""
        torch.stack(scalars, out=self._own)
        if len(self._agreed):
            if wishes != self._wanted:
                self._wishes.copy_(torch.tensor(wishes))
                self._wanted = wishes
            self._tell()
            distributed.largest(self._agreed)
        if self.arrived is not None:
            self._host.copy_(self._all, non_blocking=True)
            self.arrived.record()
        return self._host


_gathering = lru_cache(maxsize=8)(Gathering)
