"""What a rank reports, written by a thread: a disk that hangs costs rows, never a step.

Both queues are bounded. Rows of steps.csv wait for the thread's next round, as a thread that is woken in
every step takes time from it; they are dropped first and counted. Events wake it.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from nantui.run.atomic_files import to_json
from nantui.run.telemetry import header
from nantui.words import count

MOST_WAITING = 8192
ROWS_WAITING = 4096
LOOK_EVERY = 0.25
STALLED_AFTER = 120.0  # seconds inside one batch; the supervisor decides what to do about it
Row = tuple[object, ...]


class Recorder:
    """Writes one rank's events and, with `steps`, the per-step rows; looks for requests."""

    def __init__(
        self, events: Path, rank: int, *, steps: Path | None = None, stop_requests: Sequence[Path] = (),
        rewind_request: Path | None = None,
    ) -> None:  # fmt: skip
        """A request is a file: one of the `stop_requests` stays, `rewind_request` is taken away."""
        self.rank = rank
        self.dropped = 0
        self.stop_requested, self.rewind_requested = threading.Event(), threading.Event()
        self.memory: Callable[[], tuple[float, float, float | None]] | None = None
        self._events, self._steps, self._stop_requests = events, steps, tuple(stop_requests)
        self._rewind_request = rewind_request
        self._queue: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        self._rows: deque[tuple[tuple[str, ...], Row, tuple[float, ...], Row]] = deque()
        self._reported = self._rounds = 0
        self._batch_since: float | None = None
        self._main_thread = threading.get_ident()
        self._loss_names: tuple[str, ...] | None = None
        self._memory: tuple[float | None, ...] = (None, None, None)
        self._thread = threading.Thread(target=self._run, name="nantui-telemetry", daemon=True)
        events.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def event(self, kind: str, **fields: object) -> None:
        """Report an event; see docs/file-formats.md for kinds and fields."""
        try:
            self._queue.put_nowait(self._line(kind, **fields))
        except queue.Full:
            self.dropped += 1

    def _line(self, kind: str, **fields: object) -> str:
        return to_json({"t": time.time(), "kind": kind, "rank": self.rank, **fields}) + "\n"

    def step(self, loss_names: tuple[str, ...], before: Row, losses: Sequence[float], after: Row) -> None:
        """Report one batch: the columns before the losses, the losses, the columns after up to images_s,
        and those from instances on; memory is filled in by the thread."""
        if self._steps is None:
            return
        if len(self._rows) >= ROWS_WAITING:
            self.dropped += 1
            return
        self._rows.append((loss_names, before, tuple(losses), after))

    def batch_begins(self) -> None:
        """Start the watch over one batch: one that does not end is reported, with where it hangs."""
        self._batch_since = time.monotonic()

    def batch_ends(self) -> None:
        """End the watch."""
        self._batch_since = None

    def settle(self, timeout: float = 2.0) -> None:
        """Wait, in a thread that has time, until the rows so far are written; gives up after `timeout` s."""
        last, until = self._rounds + 2, time.monotonic() + timeout  # the present round may have passed them
        while self._rounds < last and self._thread.is_alive() and time.monotonic() < until:
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait("")  # wakes it
            time.sleep(0.01)

    def close(self, timeout: float = 10.0) -> None:
        """Write what waits and end the thread; give up after `timeout` seconds on a disk that hangs."""
        try:
            self._queue.put(None, timeout=timeout)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        sampled = 0.0
        going = True
        while going:
            events = self._collect()
            going = None not in events
            now = time.monotonic()
            if now - sampled >= LOOK_EVERY:
                sampled = now
                self._look()
            self._write("".join(event for event in events if event is not None))
            self._rounds += 1

    def _collect(self) -> list[str | None]:
        taken: list[str | None] = []
        try:
            taken.append(self._queue.get(timeout=LOOK_EVERY))
            while taken[-1] is not None:
                taken.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return taken

    def _look(self) -> None:
        if any(os.path.exists(request) for request in self._stop_requests):
            self.stop_requested.set()
        if self._rewind_request is not None:
            with contextlib.suppress(OSError):
                self._rewind_request.unlink()
                self.rewind_requested.set()
        if self.memory is not None:
            self._memory = self.memory()
        since = self._batch_since
        if since is not None and time.monotonic() - since > STALLED_AFTER:
            seconds, self._batch_since = time.monotonic() - since, None
            frames = traceback.extract_stack(sys._current_frames().get(self._main_thread))[-8:]
            stack = [f"{one.name} ({Path(one.filename).name}:{one.lineno})" for one in frames]
            # In a collective it waits for another rank.
            text = f"rank {self.rank} has been in one batch for {seconds:.0f} s, in {stack[-1]}"
            evidence = {"seconds": seconds, "stack": stack}
            self.event("warning", warning="stalled", epoch=None, step=None, text=text, evidence=evidence)

    def _write(self, events: str) -> None:
        rows = "".join(self._row(*self._rows.popleft()) for _ in range(len(self._rows)))
        if rows and self._steps is not None:
            self._append(self._steps, rows)
        lost, self._reported = self.dropped - self._reported, self.dropped
        if lost:
            text = f"{count(lost, 'row')} of telemetry dropped: the disk did not keep up"
            place: dict[str, object] = {"epoch": None, "step": None, "evidence": {"rows": lost}}
            events += self._line("warning", warning="telemetry_dropped", text=text, **place)
        if events:
            self._append(self._events, events)

    def _append(self, path: Path, text: str) -> None:
        """Append whole lines in one write; a disk that refuses them costs these lines, not the training."""
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            with open(descriptor, "wb", buffering=0) as file:
                file.write(text.encode())
        except OSError:
            self.dropped += text.count("\n")

    def _row(self, loss_names: tuple[str, ...], before: Row, losses: tuple[float, ...], after: Row) -> str:
        cells = [_cell(value) for value in (*before, *losses, *after[:-3], *self._memory, *after[-3:])]
        line = ",".join(cells) + "\n"
        if loss_names != self._loss_names:
            self._loss_names = loss_names
            line = ",".join(header(loss_names)) + "\n" + line
        return line


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if value > 1e8 and math.isfinite(value) else f"{value:.6g}"
    return str(value)
