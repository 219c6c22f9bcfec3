"""`make bench`: every figure, one after another, each measured in a process of its own; writes a page.

python -m benchmarks [NAME…] [--write docs/benchmarks.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = ("checkpoint", "guard", "supervise", "cockpit", "labels")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=PARTS, metavar="NAME", help=", ".join(PARTS))
    parser.add_argument("--write", type=Path, help="write the page here as well")
    arguments = parser.parse_args()
    sections, missed = [], []
    for name in arguments.parts:
        begun, load = time.monotonic(), os.getloadavg()[0]
        done = subprocess.run([sys.executable, str(HERE / f"{name}.py")], capture_output=True, text=True)
        text = (done.stdout + done.stderr[-2000:] * (done.returncode != 0)).rstrip()
        verdict = "all held" if done.returncode == 0 else "NOT all held"
        title = f"{name}: {verdict}, {time.monotonic() - begun:.0f} s, load before {load:.1f}"
        print(f"\n{title}\n{text}", flush=True)
        sections.append(f"## {title}\n```\n{text}\n```\n")
        missed += [name] if done.returncode else []
    if arguments.write:
        machine = f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores"
        page = f"# Benchmarks\n\nWritten by `make bench` on {time.strftime('%Y-%m-%d')}: {machine}.\n\n"
        arguments.write.write_text(page + "\n".join(sections), encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
