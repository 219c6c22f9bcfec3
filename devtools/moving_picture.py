"""A tour of the cockpit in half a minute, as one SVG that moves by itself: the gallery's scenes, one by one.

python -m devtools.moving_picture screenshots/tour.svg
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from devtools import gallery
from devtools.screen_svg import screen_svg

TOUR = (
    ("fleet", "two H200: six runs, two more in the queue, one alarm", 5.0),
    ("alarm", "Enter: NaN since epoch 24, and six ruined checkpoints", 5.0),
    ("recover", "R: which epoch comes back, what it costs, what changes", 6.0),
    ("run", "another run, on both GPUs, recovered in epoch 9; since then one NaN, skipped", 4.5),
    ("diagnosis", "d: why: the broken image by its name", 3.5),
    ("compare", "v: before and after the recovery", 3.0),
    ("machine", "M: the GPUs, and who holds their memory", 3.0),
)
SIZE = (120, 36)


def moving(frames: Sequence[tuple[str, float]]) -> str:
    """Return SVG documents of one size as one that shows each for its seconds, over and over."""
    whole, begins = sum(seconds for _, seconds in frames), 0.0
    rules, parts = [], []
    for number, (svg, seconds) in enumerate(frames):
        first, last = 100 * begins / whole, 100 * (begins + seconds) / whole
        shown = f"{first:.2f}%{{visibility:visible}}{last:.2f}%{{visibility:hidden}}"
        before = "" if number == 0 else "0%{visibility:hidden}"
        rules.append(f"@keyframes f{number}{{{before}{shown}}}")
        rules.append(f"#f{number}{{animation:f{number} {whole:g}s step-end infinite}}")
        still = "visible" if number == 0 else "hidden"  # where nothing moves, the first is seen
        inside = svg[svg.index(">") + 1 : svg.rindex("</svg>")]
        parts.append(f'<g id="f{number}" visibility="{still}">{inside}</g>')
        begins += seconds
    head = frames[0][0][: frames[0][0].index(">") + 1]
    return f"{head}<style>{''.join(rules)}</style>{''.join(parts)}</svg>\n"


def tour() -> str:
    """Return the scenes of the tour, from the real app on recorded runs."""
    scenes = {scene.name: scene for scene in (*gallery.SCENES, gallery.MACHINE)}
    frames = []
    with gallery.quiet_place(), gallery.on_gpus() as found:
        for name, title, seconds in TOUR:
            drawn = asyncio.run(
                gallery.in_sizes(scenes[name], [SIZE], None, partial(screen_svg, title=title), found)
            )
            frames.append((drawn[SIZE], seconds))
    return moving(frames)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(tour(), encoding="utf-8")
