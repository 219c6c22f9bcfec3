"""What the file alone cannot explain, and an older checkpoint of the run can."""

from __future__ import annotations

from dataclasses import dataclass

ZERO = "zero"
LIMIT = "limit"


@dataclass(frozen=True)
class Suspect:
    """Zeros, or values at the dtype's limit, in a tensor of the weights.

    `rows` are output channels (values, in a vector); empty means the whole tensor. `kind` is ZERO or LIMIT.
    """

    name: str
    part: str
    kind: str
    rows: tuple[int, ...]
    shape: tuple[int, ...]
