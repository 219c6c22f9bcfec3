"""GPU and host figures of this host, written where the cockpit on any other host finds them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import asdict

from nantui.hardware import SAMPLE_NAME, Sampler
from nantui.run.files import write_json
from nantui.run.host import host_id
from nantui.run.layout import RunLayout
from nantui.supervise.hosts.reports import home_of

EVERY_S = 2.0


class Sampling:
    """A thread of its own: a slow driver or disk never holds up the heartbeat."""

    def __init__(self, layout: RunLayout, pids: Callable[[], list[int]], every_s: float = EVERY_S) -> None:
        self._home, self._pids, self._every_s = home_of(layout, host_id()), pids, every_s
        self._sampler = Sampler(layout.run)
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="nantui-sampling", daemon=True).start()

    def close(self) -> None:
        """End the thread; nobody waits for it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            # Without a disk there is nobody to show it to; the next sample comes.
            with contextlib.suppress(OSError):
                self._home.mkdir(parents=True, exist_ok=True)
                write_json(self._home / SAMPLE_NAME, asdict(self._sampler.sample(self._pids())))
            self._stop.wait(self._every_s)
