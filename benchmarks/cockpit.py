"""What the cockpit costs, measured on a pseudo-terminal: bytes on the wire, processor, memory,
first frame, keys, scale.

    python -m benchmarks.cockpit [--seconds 12] [--only PART]

Run it on a machine with nothing else to do. A first frame is compared with what a bare Textual app with one
label needs in the same minute, since both are mostly imports.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.figures import Figure, carried_out, description
from nantui.run.layout import RunLayout
from nantui.run.telemetry import header
from tests.ui.synthetic import LOSSES, make_run, step_line, write_results

MEASURED = {"grad_norm": 4.1, "lr": 0.001, "step_s": 0.1, "images_s": 80, "mem_gb": 10.1, "mem_peak_gb": 11}
BARE = """
from textual.app import App
from textual.widgets import Label
class Bare(App):
    def compose(self):
        yield Label("READY")
Bare().run()
"""


@dataclass(frozen=True)
class Limits:
    """The most of kB/s, % of a core, MB and s to the end."""

    sent: float | None = None
    processor: float | None = None
    memory: float | None = None
    quit: float | None = None


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
        with self.layout.steps(1).open("a") as file:
            while not self.over.wait(0.1):
                index += 1
                place = {
                    "epoch": index // self.steps + 13,
                    "step": index % self.steps + 1,
                    "steps": self.steps,
                }
                file.write(step_line((1.1, 1.2, 0.9), t=f"{time.time():.3f}", **place, **MEASURED))
                file.flush()
                if index % self.steps == 0:
                    epoch = index // self.steps + 12
                    write_results(self.layout.results_csv, epoch, None, first=epoch, append=True)
                    (self.layout.weights / f"epoch{epoch}.pt").write_bytes(b"\0" * 4096)


def first_frames(run: Path, rounds: int = 5) -> Iterator[Figure]:
    """Yield the first frames, taken turn by turn."""
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
    beside = "a bare Textual app with one label"
    yield Figure("first frame", "s", first, 1.25, beside, bare)
    yield Figure("all panels filled", "s", filled, 2.5, beside, bare)


def steady(name: str, run: Path, seconds: float, limits: Limits, steps: int = 0) -> Iterator[Figure]:
    """Yield bytes a second, share of a core and resident memory while it is only looked at.

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
    sent = (terminal.received - received) / seconds / 1000
    yield Figure(f"{name}: sent to the terminal", "kB/s", [sent], limits.sent)
    yield Figure(f"{name}: share of a core", "%", [used / seconds * 100], limits.processor)
    yield Figure(f"{name}: resident memory", "MB", [resident], limits.memory)
    yield Figure(f"{name}: from q to the end", "s", [terminal.close()], limits.quit)


def keys(name: str, run: Path, presses: int = 60) -> Iterator[Figure]:
    """Yield how long it takes from a key to the bytes that answer it."""
    terminal = cockpit(run)
    terminal.read(20, b"clean")
    terminal.read(3)
    yield from answers(name, terminal, "jk", presses)


def fleet_keys(fleet: Path) -> Iterator[Figure]:
    """Yield the same among 300 runs, each drawn beside the list while the cursor rests, and over 12."""
    terminal = cockpit(fleet, 200, 60)
    terminal.read(30, b"300 runs")
    terminal.read(5)
    yield from answers("300 runs", terminal, "jk", 40, rest=0.4)
    terminal = cockpit(fleet, 200, 60)
    terminal.read(30, b"300 runs")
    terminal.read(5)
    for key in " j" * 12 + "o":
        terminal.press(key)
        terminal.read(0.3)
    terminal.read(20, b"settings that differ")
    terminal.read(3)
    yield from answers("12 runs overlaid", terminal, "lh", 40)


def answers(name: str, terminal: Terminal, pair: str, presses: int, rest: float = 0.15) -> Iterator[Figure]:
    """Yield how long a terminal's program takes to answer, the keys of `pair` pressed twice each in turn."""
    spans = []
    for index in range(presses):
        terminal.read(rest)
        began = time.monotonic()
        before = terminal.received
        terminal.press(pair[index % 4 // 2])
        while terminal.received == before and time.monotonic() - began < 1:
            terminal.read(0.002)
        spans.append((time.monotonic() - began) * 1000)
    terminal.close()
    yield Figure(f"{name}: from a key to its bytes", "ms", spans)
    yield Figure(f"{name}: the same, 95 % of the keys", "ms", [sorted(spans)[int(0.95 * len(spans))]], 50.0)


def scaled(top: Path) -> Path:
    """Make a run of a million steps, 5,000 epochs, 500 checkpoints and a (sparse) log of 2 GB; return it."""
    run = make_run(top / "large", epochs=5000, done=12, steps=200)
    layout = RunLayout(run)
    write_results(layout.results_csv, 5000, None)
    with layout.steps(1).open("w") as file:
        file.write(",".join(header(LOSSES)) + "\n")
        form = step_line(("{3:.4f}", 1.2, 0.9), t="{0:.3f}", epoch="{1}", step="{2}", steps=200, **MEASURED)
        for index in range(1_000_000):
            place = index // 200 + 1, index % 200 + 1
            file.write(form.format(1.7e9 + index * 0.1, *place, 1 + 1000 / (index + 500)))
    for number in range(500):
        (layout.weights / f"epoch{number}.pt").write_bytes(b"\0" * 1024)
    with layout.attempt_log(1).open("wb") as log:
        log.truncate(2_000_000_000)
        log.seek(0, os.SEEK_END)
        log.write(b"\n" + b"epoch 12/200 box_loss 1.2 cls_loss 1.1 dfl_loss 0.9\n" * 100_000)
    return run


def scale(top: Path) -> Iterator[Figure]:
    """Yield opening time, memory, and how long keys wait on the large run, and the opening of 300 runs."""
    run = scaled(top)
    opened = []
    for _ in range(3):
        terminal = cockpit(run, 200, 60)
        # This name of a metric stands nowhere but in a chart's title, and only once it has a curve.
        opened.append(terminal.read(30, b"mAP50 ") or 30.0)
        terminal.read(8)
        resident = psutil.Process(terminal.process.pid).memory_info().rss / 1e6
        terminal.close()
    yield Figure("1,000,000 steps, 5,000 epochs: opens", "s", opened, 2.0)
    yield Figure("1,000,000 steps, 5,000 epochs: memory", "MB", [resident], 250.0)
    yield from keys("1,000,000 steps, 5,000 epochs", run, 30)
    fleet, opened = top / "fleet", []
    for number in range(300):
        make_run(fleet / f"run{number:03d}", done=3, checkpoints=False)
    for _ in range(3):
        terminal = cockpit(fleet, 200, 60)
        # The title says how many runs there are, and more words while it is still reading.
        opened.append(terminal.read(30, b"300 runs") or 30.0)
        terminal.close()
    yield Figure("300 runs: opens", "s", opened, 2.0)
    yield from fleet_keys(fleet)


def main() -> int:
    parser = description(__doc__)
    parser.add_argument("--seconds", type=float, default=12.0, help="how long it is looked at")
    parser.add_argument("--only", metavar="PART", help="only the parts with this in their name")
    return carried_out(parser, measure)


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Yield the figures of the parts that were asked for."""
    with tempfile.TemporaryDirectory() as folder:
        for name, figures in parts(Path(folder), arguments.seconds).items():
            if arguments.only is None or arguments.only in name:
                yield from figures


def parts(top: Path, seconds: float) -> dict[str, Iterator[Figure]]:
    """Return what is measured, by name; nothing is until it is asked for."""
    run, fast = make_run(top / "run", nan_from=None), make_run(top / "fast", nan_from=None)
    busy = Limits(2.0, 3.0, 110.0, 1.0)
    return {
        "first frame": first_frames(run),
        "nothing changes": steady("nothing changes", run, seconds, Limits(0.3, 3.0, 110.0, 1.0)),
        "keys": keys("a run of 20 epochs", run),
        "10 steps/s": steady("10 steps/s", run, seconds, busy, 200),
        "epochs of 0.5 s": steady("epochs of 0.5 s", fast, seconds, Limits(), 5),
        "scale": scale(top),
    }


if __name__ == "__main__":
    raise SystemExit(main())
