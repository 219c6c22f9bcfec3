"""What the cockpit costs, measured on a pseudo-terminal: bytes on the wire, processor, memory,
first frame, keys, scale.

    python benchmarks/cockpit.py [--seconds 12] [--only PART]

Run it on a machine with nothing else to do. A first frame is compared with what a bare Textual app with one
label needs in the same minute, since both are mostly imports.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import os
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

sys.path[:0] = [
    str(Path(__file__).resolve().parents[1]),
    str(Path(__file__).resolve().parents[1] / "tests" / "ui"),
]

from synthetic import LOSSES, make_run, write_results  # noqa: E402

from nantui.run.layout import RunLayout  # noqa: E402
from nantui.run.steps import header  # noqa: E402

BARE = """
from textual.app import App
from textual.widgets import Label
class Bare(App):
    def compose(self):
        yield Label("READY")
Bare().run()
"""


LIMITS = {
    ("first frame", "first / bare"): 1.25,
    ("first frame", "filled / bare"): 2.5,
    ("nothing changes", "kB/s"): 0.3,
    ("nothing changes", "% of a core"): 3.0,
    ("nothing changes", "MB"): 110.0,
    ("nothing changes", "quit s"): 1.0,
    ("10 steps/s", "kB/s"): 2.0,
    ("10 steps/s", "% of a core"): 3.0,
    ("10 steps/s", "MB"): 110.0,
    ("10 steps/s", "quit s"): 1.0,
    ("keys", "key p95 ms"): 50.0,
    ("scale", "large: open s"): 2.0,
    ("scale", "large: MB"): 250.0,
    ("scale", "large: key p95 ms"): 50.0,
    ("scale", "300 runs: open s"): 2.0,
}


class Terminal:
    """A program in a pseudo-terminal; counts its bytes and notes when a word appears."""

    def __init__(self, argv: list[str], columns: int = 120, lines: int = 40) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        home = tempfile.mkdtemp()
        places = {
            "XDG_CONFIG_HOME": home,
            "XDG_STATE_HOME": home,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
        }
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, **places},
        )
        os.close(slave)
        self.received = 0
        self.text = b""

    def read(self, seconds: float, until: bytes = b"") -> float | None:
        """Read for so long, or until `until` has come; returns when it came, s since the start."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.master], [], [], 0.01)
            if not ready:
                continue
            try:
                data = os.read(self.master, 1 << 16)
            except OSError:
                return None
            self.received += len(data)
            self.text = (self.text + data)[-(1 << 18) :]
            if until and until in self.text:
                return time.monotonic() - self.began
        return None

    def press(self, key: str) -> None:
        os.write(self.master, key.encode())

    def close(self) -> float:
        """Quit with q; returns how long that took, in s."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.press("q")
        while self.process.poll() is None and time.monotonic() - began < 5:
            self.read(0.02)
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)
        return time.monotonic() - began


def cockpit(run: Path, columns: int = 120, lines: int = 40) -> Terminal:
    return Terminal([sys.executable, "-m", "nantui", str(run)], columns, lines)


class Training(threading.Thread):
    """Appends ten steps a second to a run's telemetry, and an epoch to its results every `steps` of them."""

    def __init__(self, run: Path, steps: int = 200) -> None:
        super().__init__(daemon=True)
        self.layout, self.over, self.steps = RunLayout(run), threading.Event(), steps

    def run(self) -> None:
        index = 96
        with self.layout.steps(1).open("a", newline="") as file:
            writer = csv.writer(file)
            while not self.over.wait(0.1):
                index += 1
                writer.writerow(
                    [
                        f"{time.time():.3f}",
                        index // self.steps + 13,
                        index % self.steps + 1,
                        self.steps,
                        0,
                        "",
                        1.1,
                        1.2,
                        0.9,
                        4.1,
                        0.001,
                        "",
                        0.1,
                        80,
                        10.1,
                        11,
                        30,
                        640,
                    ]
                )
                file.flush()
                if index % self.steps == 0:
                    epoch = index // self.steps + 12
                    write_results(self.layout.results_csv, epoch, None, first=epoch, append=True)
                    (self.layout.weights / f"epoch{epoch}.pt").write_bytes(b"\0" * 4096)


def first_frames(run: Path, rounds: int = 5) -> dict[str, float]:
    """Return the medians of the first frames, taken turn by turn."""
    bare, first, filled = [], [], []
    for _ in range(rounds):
        terminal = Terminal([sys.executable, "-c", BARE])
        bare.append(terminal.read(20, b"READY") or 20.0)
        terminal.press("\x11")
        terminal.close()
        terminal = cockpit(run)
        first.append(terminal.read(20, b"nantui") or 20.0)
        filled.append(terminal.read(20, b"clean") or 20.0)
        terminal.close()
    base, one, all_of_it = map(statistics.median, (bare, first, filled))
    return {
        "bare app s": base,
        "first frame s": one,
        "panels filled s": all_of_it,
        "first / bare": one / base,
        "filled / bare": all_of_it / base,
    }


def steady(run: Path, seconds: float, steps: int = 0) -> dict[str, float]:
    """Return bytes a second, share of a core and resident memory while it is only looked at.

    With `steps`, while a training takes ten steps a second, so many an epoch.
    """
    training = Training(run, steps or 200)
    terminal = cockpit(run)
    terminal.read(20, b"clean")
    terminal.read(4)
    if steps:
        training.start()
        terminal.read(2)
    process = psutil.Process(terminal.process.pid)
    before, received = process.cpu_times(), terminal.received
    terminal.read(seconds)
    after = process.cpu_times()
    resident = process.memory_info().rss / 1e6
    training.over.set()
    used = after.user + after.system - before.user - before.system
    row = {
        "kB/s": (terminal.received - received) / seconds / 1000,
        "% of a core": used / seconds * 100,
        "MB": resident,
    }
    row["quit s"] = terminal.close()
    return row


def keys(run: Path, presses: int = 60) -> dict[str, float]:
    """Return how long it takes from a key to the bytes that answer it, in ms."""
    terminal = cockpit(run)
    terminal.read(20, b"clean")
    terminal.read(3)
    spans = []
    for index in range(presses):
        terminal.read(0.15)
        began = time.monotonic()
        before = terminal.received
        terminal.press("j" if index % 20 < 10 else "k")
        while terminal.received == before and time.monotonic() - began < 1:
            terminal.read(0.002)
        spans.append((time.monotonic() - began) * 1000)
    terminal.close()
    return {"key p50 ms": statistics.median(spans), "key p95 ms": sorted(spans)[int(0.95 * len(spans))]}


def scaled(top: Path) -> Path:
    """Make a run of a million steps, 5,000 epochs, 500 checkpoints and a (sparse) log of 2 GB; return it."""
    run = make_run(top / "large", epochs=5000, done=12, steps=200)
    layout = RunLayout(run)
    write_results(layout.results_csv, 5000, None)
    with layout.steps(1).open("w") as file:
        file.write(",".join(header(LOSSES)) + "\n")
        for index in range(1_000_000):
            file.write(
                f"{1.7e9 + index * 0.1:.3f},{index // 200 + 1},{index % 200 + 1},200,0,,"
                f"{1 + 1000 / (index + 500):.4f},1.2,0.9,"
                f"{4 + index % 7},0.001,,0.1,80,10.1,11,30,640\n"
            )
    for number in range(500):
        (layout.weights / f"epoch{number}.pt").write_bytes(b"\0" * 1024)
    with layout.attempt_log(1).open("wb") as log:
        log.truncate(2_000_000_000)
        log.seek(0, os.SEEK_END)
        log.write(b"\n" + b"epoch 12/200 box_loss 1.2 cls_loss 1.1 dfl_loss 0.9\n" * 100_000)
    return run


def scale(top: Path) -> dict[str, float]:
    """Return opening time, memory, and how long a refresh keeps keys waiting,
    on the large run and on 300 runs.
    """
    run = scaled(top)
    terminal = cockpit(run, 200, 60)
    # Names of metrics stand in a chart's title only once it has a curve.
    row = {"large: open s": terminal.read(30, b"mAP50-95") or 30.0}
    terminal.read(8)
    row["large: MB"] = psutil.Process(terminal.process.pid).memory_info().rss / 1e6
    terminal.close()
    row["large: key p95 ms"] = keys(run, 30)["key p95 ms"]
    fleet = top / "fleet"
    for number in range(300):
        make_run(fleet / f"run{number:03d}", done=3, checkpoints=False)
    terminal = cockpit(fleet, 200, 60)
    # The title says how many runs there are, and more words while it is still reading.
    row["300 runs: open s"] = terminal.read(30, b"300 runs") or 30.0
    terminal.close()
    return row


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=12.0, help="how long it is looked at")
    parser.add_argument("--only", metavar="PART", help="only the parts with this in their name")
    arguments = parser.parse_args()
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        for part, measure in parts(Path(folder), arguments.seconds).items():
            if arguments.only is None or arguments.only in part:
                print(part, flush=True)
                missed += told(part, measure())
    return 1 if missed else 0


def parts(top: Path, seconds: float) -> dict[str, Callable[[], dict[str, float]]]:
    """Return what is measured, by name."""
    run = make_run(top / "run", nan_from=None)
    return {
        "first frame": lambda: first_frames(run),
        "nothing changes": lambda: steady(run, seconds),
        "keys": lambda: keys(run),
        "10 steps/s": lambda: steady(run, seconds, 200),
        "epochs of 0.5 s": lambda: steady(make_run(top / "fast", nan_from=None), seconds, 5),
        "scale": lambda: scale(top),
    }


def told(part: str, figures: dict[str, float]) -> int:
    """Print figures beside their limits; returns how many are missed."""
    missed = 0
    for name, value in figures.items():
        limit = LIMITS.get((part, name))
        held = limit is None or value <= limit
        missed += not held
        beside = "" if limit is None else f"   limit {limit:g}{'' if held else '   MISSED'}"
        print(f"  {name:<22}{value:>9.3f}{beside}", flush=True)
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
