"""The sweep in a process of its own, which gets ready on another core while we still describe the pickle.

Importing numpy takes as long as all the rest of a `nantui check` of one large file, and only the sweep needs
it. So where numpy is not there yet, the process forks as soon as the file is open: the child imports numpy,
is told where the values lie, and answers with what it has counted. A child that fails costs nothing but
time: the caller then sweeps by itself.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import astuple
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nantui.checkpoint.tensors.segments import Segment, Swept

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
        (asked, self._ask), (self._answer, answered) = os.pipe(), os.pipe()
        self._child = os.fork()
        if not self._child:
            os.close(self._ask)
            os.close(self._answer)
            _serve(descriptor, size, asked, answered)
        os.close(asked)
        os.close(answered)

    def sweep(self, segments: dict[str, list[Segment]], crc: bool) -> Swept | None:
        """Return what a sweep finds in `segments`, None where the child failed. Raises Refused as it does."""
        from nantui.checkpoint.pickle.stand_ins import Refused
        from nantui.checkpoint.tensors.segments import Counts, Swept

        rows = {name: [*map(_plain, some)] for name, some in segments.items()}
        try:
            with open(self._ask, "wb", closefd=False) as stream:
                stream.write(marshal.dumps((crc, rows)))
            os.close(self._ask)
            self._ask = -1
            with open(self._answer, "rb", closefd=False) as stream:
                refused, counted, bad_crc = marshal.loads(stream.read())
        except (OSError, ValueError, EOFError, TypeError):
            return None
        if refused:
            raise Refused(*refused)
        swept = Swept(bad_crc=bad_crc)
        flat = list(chain.from_iterable(segments.values()))
        swept.counts.update((flat[index], Counts(*values)) for index, *values in counted)
        return swept

    def close(self) -> None:
        """End the child, finished or not."""
        import signal

        for descriptor in (self._ask, self._answer):
            if descriptor >= 0:
                os.close(descriptor)
        with contextlib.suppress(OSError):
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)


def _plain(one: Segment) -> tuple[object, ...]:
    """Return a segment as plain values; its dtype stands for its format."""
    dtype = one.leaves[0].tensor.dtype
    return dtype, one.start, one.rows, one.length, one.channels, one.of_weights, one.strides


def _serve(descriptor: int, size: int, asked: int, answered: int) -> None:
    """Be the child: never returns, and says nothing where it fails.

    Answers (arguments of Refused or None, index and counts of each segment with any, bad CRCs).
    """
    answer: tuple[Any, ...]
    try:
        # No matrices are multiplied here: otherwise importing numpy starts a thread for every core.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from nantui.checkpoint.pickle.stand_ins import Refused
        from nantui.checkpoint.tensors.float_formats import FLOATS
        from nantui.checkpoint.tensors.segments import Segment
        from nantui.checkpoint.tensors.sweep import sweep
        from nantui.checkpoint.tensors.zip_archive import Archive

        archive = Archive(descriptor, size)
        with open(asked, "rb") as stream:
            crc, rows = marshal.loads(stream.read())
        segments = {
            name: [Segment(FLOATS[dtype], *more) for dtype, *more in some] for name, some in rows.items()
        }
        places = {segment: index for index, segment in enumerate(chain.from_iterable(segments.values()))}
        try:
            swept = sweep(archive, segments, crc)
            counted = [(places[segment], *astuple(counts)) for segment, counts in swept.counts.items()]
            answer = None, counted, swept.bad_crc
        except Refused as refused:
            answer = (refused.kind, refused.where, refused.detail), (), []
        with open(answered, "wb") as stream:
            stream.write(marshal.dumps(answer))
        os._exit(0)
    except BaseException:  # the parent then does it itself, and meets whatever this was
        os._exit(1)
