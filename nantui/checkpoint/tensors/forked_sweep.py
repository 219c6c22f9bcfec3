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
from collections.abc import Callable, Iterator
from dataclasses import astuple
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from nantui.checkpoint.tensors.segments import Segment, Swept
    from nantui.checkpoint.tensors.zip_archive import Archive

    Segments: TypeAlias = dict[str, list[Segment]]
    Sweep: TypeAlias = Callable[[Archive, Segments, bool], Swept]

FROM = 16 << 20  # bytes: below this the sweep is over before a second process pays

_SAID = ("start", "rows", "length", "channels", "of_weights", "strides")
_first = True


@contextlib.contextmanager
def prepared(descriptor: int, size: int) -> Iterator[ForkedSweep | None]:
    """Yield a child that will sweep the open file; None where it would not pay, or fork would not be safe.

    Only the first file of a process is worth it: for a second one numpy is better imported for good. Threads
    (a screen has some) rule it out, since a fork copies their locks as they are.
    """
    global _first
    alone = threading.active_count() == 1 and (os.cpu_count() or 1) > 1 and sys.platform == "linux"
    if size < FROM or not _first or not alone or "numpy" in sys.modules:
        yield None
        return
    _first = False
    try:
        forked = ForkedSweep(descriptor, size)
    except OSError:
        yield None
        return
    try:
        yield forked
    finally:
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

    def sweep(self, segments: Segments, crc: bool) -> Swept | None:
        """Return what a sweep finds in `segments`, None where the child failed. Raises Refused as it does."""
        from nantui.checkpoint.pickle.stand_ins import Refused
        from nantui.checkpoint.tensors.segments import Counts, Swept

        rows = {name: [*map(_row, some)] for name, some in segments.items()}
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


def _row(segment: Segment) -> dict[str, object]:
    """Return a segment as plain values; its dtype stands for its format."""
    return {"dtype": segment.leaves[0].tensor.dtype, **{name: getattr(segment, name) for name in _SAID}}


def _segment(dtype: str, **said: Any) -> Segment:
    from nantui.checkpoint.tensors.float_formats import FLOATS
    from nantui.checkpoint.tensors.segments import Segment

    return Segment(format=FLOATS[dtype], **said)


def _serve(descriptor: int, size: int, asked: int, answered: int) -> None:
    """Be the child: never returns, and says nothing where it fails."""
    try:
        # No matrices are multiplied here: otherwise importing numpy starts a thread for every core.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from nantui.checkpoint.tensors.sweep import sweep
        from nantui.checkpoint.tensors.zip_archive import Archive

        archive = Archive(descriptor, size)
        with open(asked, "rb") as stream:
            crc, rows = marshal.loads(stream.read())
        segments = {name: [_segment(**row) for row in some] for name, some in rows.items()}
        with open(answered, "wb") as stream:
            stream.write(marshal.dumps(_answer(sweep, archive, segments, crc)))
        os._exit(0)
    except BaseException:  # the parent then does it itself, and meets whatever this was
        os._exit(1)


def _answer(sweep: Sweep, archive: Archive, segments: Segments, crc: bool) -> tuple[Any, ...]:
    """Return (arguments of Refused or None, index and counts of each segment with any, bad CRCs)."""
    from nantui.checkpoint.pickle.stand_ins import Refused

    try:
        swept = sweep(archive, segments, crc)
    except Refused as refused:
        return (refused.kind, refused.where, refused.detail), (), []
    places = {segment: index for index, segment in enumerate(chain.from_iterable(segments.values()))}
    counted = [(places[segment], *astuple(counts)) for segment, counts in swept.counts.items()]
    return None, counted, swept.bad_crc
