"""The sweep in a process of its own, which imports numpy on another core while we still describe the pickle.

A child that fails costs nothing but time: the caller then sweeps by itself. docs/decisions.md says what it
saves.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import IO, NoReturn

from nantui.checkpoint.pickle.stand_ins import Refused
from nantui.checkpoint.tensors.segments import Found, Segment, Swept
from nantui.checkpoint.tensors.zip_archive import Archive

FROM = 16 << 20  # bytes: below this the sweep is over before a second process pays

_first = True


@contextlib.contextmanager
def prepared(descriptor: int, size: int) -> Iterator[ForkedSweep | None]:
    """Yield a child that will sweep the open file; None where it would not pay, or fork would not be safe.

    Only the first file of a process is worth it: for a second one numpy is better imported for good. Threads
    (a screen has some) rule it out, since a fork copies their locks as they are.
    """
    global _first
    alone = threading.active_count() == 1 and (os.cpu_count() or 1) > 1 and sys.platform == "linux"
    forked = None
    if size >= FROM and _first and alone and "numpy" not in sys.modules:
        _first = False
        with contextlib.suppress(OSError):
            forked = ForkedSweep(descriptor, size)
    try:
        yield forked
    finally:
        if forked is not None:
            forked.close()


class ForkedSweep:
    """A forked child. Raises OSError where there can be none."""

    def __init__(self, descriptor: int, size: int) -> None:
        (asked, ask), (answer, answered) = os.pipe(), os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(ask)
            os.close(answer)
            _serve(descriptor, size, os.fdopen(asked, "rb"), os.fdopen(answered, "wb"))
        os.close(asked)
        os.close(answered)
        self._ask, self._answer = os.fdopen(ask, "wb"), os.fdopen(answer, "rb")

    def sweep(self, segments: dict[str, list[Segment]], crc: bool) -> Swept | None:
        """Return what a sweep finds in `segments`, None where the child failed. Raises Refused as it does."""
        bare = {name: [replace(one, leaves=[]) for one in some] for name, some in segments.items()}
        try:
            with self._ask:
                pickle.dump((bare, crc), self._ask)
            answer = pickle.load(self._answer)
        except (OSError, EOFError, pickle.UnpicklingError):
            return None
        if isinstance(answer, Refused):
            raise answer
        counted, bad_crc = answer
        flat = list(chain.from_iterable(segments.values()))
        return Found((flat[place], counts) for place, counts in counted), bad_crc

    def close(self) -> None:
        """End the child, finished or not."""
        with contextlib.suppress(OSError):
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
        for stream in (self._ask, self._answer):
            with contextlib.suppress(OSError):
                stream.close()


def _serve(descriptor: int, size: int, asked: IO[bytes], answered: IO[bytes]) -> NoReturn:
    """Be the child: answer the place and the counts of each segment with any, and bad CRCs; or the Refused.

    Nothing is said where it fails: the parent then does it itself, and meets whatever this was.
    """
    answer: object
    try:
        # No matrices are multiplied here: otherwise importing numpy starts a thread for every core.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from nantui.checkpoint.tensors.sweep import sweep

        archive = Archive(descriptor, size)
        segments, crc = pickle.load(asked)
        places = {segment: index for index, segment in enumerate(chain.from_iterable(segments.values()))}
        try:
            found, bad_crc = sweep(archive, segments, crc)
            answer = [(places[segment], counts) for segment, counts in found.items()], bad_crc
        except Refused as refused:
            answer = refused
        with answered:
            pickle.dump(answer, answered)
        os._exit(0)
    except BaseException:
        os._exit(1)
