"""The few glyphs that are not letters, once for terminals with them and once in plain ASCII.

Only characters that are one cell wide everywhere are used: box drawing lines, dots and arrows of
"ambiguous" width are two cells wide in many East Asian set-ups and break every column after them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Glyphs:
    """One set of glyphs. `meter` is (full, half, empty)."""

    rule: str
    good: str
    bad: str
    warn: str
    busy: str
    unknown: str
    cursor: str
    mark: str
    skip: str
    rollback: str
    above: str
    below: str
    left: str
    then: str
    separator: str
    meter: tuple[str, str, str]
    dot: str
    braille: bool


UNICODE = Glyphs(
    rule="╌", good="✓", bad="✗", warn="⚠", busy="◌", unknown="?", cursor="▸", mark="▪",
    skip="↷", rollback="↩", above="▴", below="▾", left="◂", then="➜", separator="╎",
    meter=("⣶", "⡆", "⣀"), dot="▪", braille=True,
)  # fmt: skip
ASCII = Glyphs(
    rule="-", good="+", bad="x", warn="!", busy="~", unknown="?", cursor=">", mark="#",
    skip="s", rollback="<", above="^", below="v", left="<", then="->", separator="|",
    meter=("#", "=", "."), dot="*", braille=False,
)  # fmt: skip


def legend(glyphs: Glyphs) -> tuple[tuple[str, str], ...]:
    """Return what the glyphs on the screens mean."""
    return (
        (f"{glyphs.good} {glyphs.bad} {glyphs.busy}", "a checkpoint is clean, is not, is being written"),
        (glyphs.left, "the restore point, the newest clean checkpoint: where a recovery goes back to"),
        ("repairable", "clean weights, a bad or missing optimizer state: a recovery rebuilds that"),
        (glyphs.cursor, "among the restore points of a plan: the chosen one"),
        (glyphs.warn, "a warning: of a plan, or of a setting (the text below or beside says it)"),
        (glyphs.mark, "in a list: a changed setting, or a marked run"),
        (glyphs.dot, "on a chart: a value with none beside it"),
        (glyphs.bad, "below a curve: NaN, or an incident"),
        (glyphs.skip, "below a curve: a step that was skipped"),
        (glyphs.above, "at the upper edge: a value above the range; w shows all of it"),
        ("⠒⠒  ⠒⠒" if glyphs.braille else "--  --", "a broken curve: validation; an unbroken one: training"),
        (glyphs.rollback, "a rollback; what it took back stays as a dim curve"),
        (glyphs.separator, "below a curve: another attempt begins"),
    )


SAMPLE = "⠑⠢⣀⣀⠤⠒⠉ ⣶⣶⡆⣀ ✓ ✗ ⚠ ▸ ➜ ↩ ↷ ✦ ╌╎"


def meter(share: float, width: int, glyphs: Glyphs, ink: str = "accent") -> list[tuple[str, str]]:
    """Return a meter `width` cells wide for a share from 0 to 1: its filled and its empty part, as spans."""
    full, half, empty = glyphs.meter
    halves = round(min(1.0, max(0.0, share)) * width * 2)
    filled = full * (halves // 2) + half * (halves % 2)
    return [(filled, ink), (empty * (width - len(filled)), "faint")]
