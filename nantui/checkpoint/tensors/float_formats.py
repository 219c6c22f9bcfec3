"""How floating-point values look as integers: enough to find NaN, infinity, zero and saturation by maxima.

A non-finite value has all exponent bits set, so it is the largest there is. The maximum over the signed
view finds positive ones, over the unsigned view negative ones; the same two numbers tell whether all
values are zero and whether one sits at the dtype's limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Format:
    """Bit patterns of one float format; `limits` are magnitudes that a clamp leaves behind.

    Ultralytics clamps in fp16, so 65504 counts as a limit in the wider formats too (65536 in bf16, which
    cannot hold 65504): a laundered file that was converted afterwards still shows it.
    """

    bits: int
    infinity: int
    limits: tuple[int, ...]

    @cached_property
    def size(self) -> int:
        """Bytes of one value."""
        return self.bits // 8

    @cached_property
    def sign(self) -> int:
        """The sign bit alone."""
        return 1 << (self.bits - 1)


_SINGLE = Format(32, 0x7F800000, (0x7F7FFFFF, 0x477FE000))
_DOUBLE = Format(64, 0x7FF0000000000000, (0x7FEFFFFFFFFFFFFF, 0x40EFFC0000000000))

FLOATS: dict[str, Format] = {
    "float16": Format(16, 0x7C00, (0x7BFF,)),
    "bfloat16": Format(16, 0x7F80, (0x7F7F, 0x4780)),
    "float32": _SINGLE,
    "float64": _DOUBLE,
    "complex64": _SINGLE,
    "complex128": _DOUBLE,
}
SIZES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8,
    "uint64": 8, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip
