"""A process that has torch loaded and waits; its stdin is a socket, a message asks it for something.

Whoever started it may hand its end of the socket on to a child, by a descriptor that the environment names.
So one import of torch serves all that a recovery has to do (`nantui.worker.waiting` is the other side).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

ASKED_THROUGH = "NANTUI_WAITING_FD"
BECOME = b"become"
"""The message, with a descriptor for its output, that has it be the worker; any other names a module."""
LARGEST, MOST_DESCRIPTORS = 1 << 16, 64
ANSWERED = frozenset({b"0", b"1"})
KEPT_S, CLOSED_S, LONGEST_S = 20.0, 5.0, 600.0
"""How long it waits after an alarm, after the last that needed it, and in all."""


def both_ends() -> tuple[socket.socket, socket.socket]:
    """Return a pair of sockets: who asks holds the first, the second is the stdin of what waits."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def have_done(words: Sequence[str], stdout: int, stderr: int) -> bool:
    """Have a fork of it run the module and arguments in `words`, and wait for its end. The fork holds what a
    child of this process would hold, such as a lock. False: there is none, or it could not; nothing was done.
    """
    number = int(os.environ.get(ASKED_THROUGH, -1))
    reader, writer = os.pipe()
    held = [stdout, stderr, writer]
    for one in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the one that listed them
            held += [one] if one > 2 and one != number and os.get_inheritable(one) else []
    with open(reader, "rb") as ended:
        try:
            with socket.socket(fileno=os.dup(number)) as asked:
                socket.send_fds(asked, [json.dumps(words).encode()], held)
        except OSError:
            return False
        finally:
            os.close(writer)
        return ended.read() in ANSWERED


@dataclass
class WaitingProcess:
    """One that waits to become `argv`, `PY -m MODULE …`, in the directory `cwd`."""

    argv: Sequence[str]
    cwd: str
    child: subprocess.Popen[bytes]
    asked: socket.socket
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._until = self.since + KEPT_S

    def is_over(self, needed: bool) -> bool:
        """Tell whether it has ended or waits in vain."""
        now = time.monotonic()
        if needed:
            self._until = min(now + CLOSED_S, self.since + LONGEST_S)
        return now > self._until or self.child.poll() is not None

    def become(self, argv: Sequence[str], cwd: str, output: int) -> bool:
        """Make it what is asked for; False, and it is ended, where it is dead or waits for something else."""
        if (argv, cwd, dict(os.environ)) == (self.argv, self.cwd, self.environment):
            with suppress(OSError):
                socket.send_fds(self.asked, [BECOME], [output])
                self.asked.close()
                return self.child.poll() is None
        self.end()
        return False

    def end(self) -> None:
        """End it, and return once it is gone."""
        self.asked.close()
        self.child.kill()
        self.child.wait()
