"""A person at a terminal, for tests: the real cockpit in a pty, its screen read back through pyte."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pyte


def heed_hangup():
    """A terminal's processes end with it; under nohup the tests would hand on that they do not."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Screen:
    """Runs a command in a terminal of `columns` x `lines` and keeps what it shows."""

    def __init__(self, words, columns=80, lines=24, **environment):
        keyboard, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.columns, self.keyboard = columns, keyboard
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._lock = threading.Lock()
        # COLUMNS and LINES would win over the terminal's own size, and whoever runs the tests may set them.
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        variables = {**inherited, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nantui", *map(str, words)],
            stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True, env=variables,
            preexec_fn=heed_hangup,
        )  # fmt: skip
        os.close(terminal)
        self._hung_up = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            while not self._hung_up.is_set():
                if not select.select([self.keyboard], [], [], 0.1)[0]:
                    continue
                data = os.read(self.keyboard, 1 << 16)
                with self._lock:
                    self._stream.feed(data)
        except OSError:
            return

    def hang_up(self):
        """Close the terminal, as a terminal emulator does that crashes."""
        self._hung_up.set()
        self._reader.join()
        os.close(self.keyboard)

    @property
    def text(self):
        with self._lock:
            return "\n".join(line.rstrip() for line in self._screen.display)

    def press(self, keys):
        os.write(self.keyboard, keys.encode())

    def wait_for(self, *words, seconds=120):
        """Wait until all words are on the screen; returns its text."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            text = self.text
            if all(word in text for word in words):
                return text
            time.sleep(0.1)
        raise AssertionError(f"{words} did not appear within {seconds} s on:\n{self.text}")

    def kill(self, how=signal.SIGKILL):
        os.kill(self.process.pid, how)
        return self.process.wait(timeout=20)

    def quit(self):
        self.press("q")
        return self.process.wait(timeout=20)
