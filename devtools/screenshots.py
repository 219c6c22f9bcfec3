"""Write pictures of every screen from the real app, on runs recorded on GPUs (devtools.gpu_runs).

python -m devtools.screenshots [--to DIR] [--only NAME] [--size 80x24] [--theme day] [--colours 256]
       [--record RUN]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from devtools import gallery
from nantui.commands import common


def main() -> int:
    """Record a run, or draw every screen of the recorded ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--to", type=Path, default=Path("screenshots"), metavar="DIR", help="where to write them"
    )
    parser.add_argument("--only", metavar="NAME", help="only the screens with this in their name")
    parser.add_argument("--size", action="append", metavar="80x24", help="another size; may be repeated")
    parser.add_argument("--theme", help="night (default), day, contrast or sixteen")
    parser.add_argument("--colours", choices=("256",), default="", help="as in a terminal of so many")
    parser.add_argument("--record", type=Path, metavar="RUN", help="record RUN instead, for tests")
    parser.add_argument(
        "--as", dest="moment", metavar="NAME", default="alarm", help="name of what is recorded"
    )

    arguments = parser.parse_args()
    if arguments.record is not None:
        gallery.record_run(arguments.record, gallery.SMALL.of(arguments.moment))
        common.say(f"recorded in {gallery.SMALL.of(arguments.moment)}")
        return 0
    sizes = [gallery.parse_size(size) for size in arguments.size or gallery.SIZES]
    arguments.to.mkdir(parents=True, exist_ok=True)
    for path in gallery.draw(arguments.to, sizes, arguments.only, arguments.theme, arguments.colours):
        common.say(str(path))
    if shutil.which("rsvg-convert") is None:
        common.say("PNG files need rsvg-convert (apt-get install librsvg2-bin); the SVG files are complete")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
