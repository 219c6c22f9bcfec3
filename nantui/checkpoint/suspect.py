"""What the file alone cannot explain, and an older checkpoint of the run can."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Suspect:
    """Zeros or values at the dtype's limit in a tensor of the weights.

    `rows` are output channels; empty means the whole tensor. `kind` is "zero" or "limit".
    """

    name: str
    part: str
    kind: str
    rows: tuple[int, ...]
    shape: tuple[int, ...]
