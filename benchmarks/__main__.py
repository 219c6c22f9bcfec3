"""`make bench`: every figure, one after another, each part in a process of its own; writes a page.

python -m benchmarks [NAME…] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import HEAD, Figure, description, kept

HERE = Path(__file__).resolve().parent
PARTS = {
    "checkpoint": "Checkpoints",
    "guard": "The guard",
    "supervise": "Run control",
    "recovery": "Recovery",
    "cockpit": "The cockpit",
    "labels": "The label check",
}
ABOUT = """\
Every row was measured within one run of this command, beside what one would otherwise do; the two were taken
in turn, so that whatever else the machine did met both. Shown are the median and, in brackets, the smallest
and the largest. *MISSED* stays in the table. What needs a GPU is in [gpu-results](gpu-results.md).
Which endings `--auto` brings a training back from, in how many seconds and steps, is in
[unattended](unattended.md#tried).
"""


@dataclass(frozen=True)
class Part:
    """What one benchmark gave. `failed` holds the end of its output where it broke."""

    title: str
    figures: list[Figure]
    seconds: float
    load: float
    failed: str = ""


def main() -> int:
    parser = description(__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--write", type=Path, help="write the page here as well")
    arguments = parser.parse_args()
    parts = [measured(name) for name in arguments.parts]
    if arguments.write:
        arguments.write.write_text(page(parts), encoding="utf-8")
    good = all(not part.failed and all(figure.held for figure in part.figures) for part in parts)
    return 0 if good else 1


def measured(name: str) -> Part:
    """Run one benchmark, showing what it prints."""
    load, begun = os.getloadavg()[0], time.monotonic()
    print(f"\n{PARTS[name]}, load before {load:.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "figures.json", Path(folder) / "errors"
        with log.open("w") as errors:
            argv = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)]
            subprocess.run(argv, stderr=errors, cwd=HERE.parent)
        failed = "" if file.exists() else log.read_text(errors="replace")[-2000:] or "it gave no figures"
        figures = kept(file) if file.exists() else []
    print(failed, end="", flush=True)
    return Part(PARTS[name], figures, time.monotonic() - begun, load, failed)


def page(parts: list[Part]) -> str:
    """Return the page: one table, a heading row for each part."""
    machine = f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    lines = [
        "# Benchmarks",
        "",
        f"Written by `make bench` on {time.strftime('%Y-%m-%d')}: {machine}, {os.cpu_count()} cores.",
        "",
        ABOUT,
        row(HEAD),
        row(["---"] * len(HEAD)),
    ]
    for part in parts:
        lines.append(row([f"**{part.title}** (load {part.load:.1f}, {part.seconds:.0f} s)", *[""] * 4]))
        lines += [row(figure.cells()) for figure in part.figures]
    for part in parts:
        lines += ["", f"{part.title} broke off:", "```", part.failed, "```"] if part.failed else []
    return "\n".join([*lines, ""])


def row(cells: list[str] | tuple[str, ...]) -> str:
    """Return a row of the table."""
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
