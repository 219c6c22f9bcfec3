"""A step point on its way to the disk, in the background.

Two files take turns, so that whatever happens during a write leaves the one before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nantui.run.atomic_files import NEW_FILE_MODE, sync_directory
from nantui.run.documents import JsonObject
from nantui.run.layout import RunLayout
from nantui.run.points import NAMES, StepPoint, step_points, write_header
from nantui.worker.points.host_copy import HostCopy, bytes_of, not_finite
from nantui.worker.points.training_state import State

RESERVE = 256 * 2**20  # bytes that stay free on the disk: last.pt, results.csv and telemetry come first
EMPTY = (0, 0)
GIVE_UP_AFTER = 5.0  # seconds that an ending training waits for the thread


class Abandoned(Exception):
    """The training ends: what is half written is dropped."""


@dataclass(eq=False)
class InMemory:
    """A place in memory and the point in it: its document, whose tensors lie in `copy`, its header but for
    the file, and its epoch and batch, `EMPTY` where it is the next to be written over.
    """

    copy: HostCopy
    document: State = field(default_factory=dict)
    header: JsonObject = field(default_factory=dict)
    place: tuple[int, int] = EMPTY


class PointWriter:
    """A thread that writes the newest point; one that is overtaken while it waits is dropped."""

    def __init__(
        self,
        layout: RunLayout,
        report: Callable[[str], None],
        before_header: Callable[[], None] = lambda: None,
    ) -> None:
        """`report` is told, once an episode, why a point could not be written. What `before_header` writes is
        there before a point is: whoever goes on after the point repeats none of it.
        """
        self.cpu_seconds = 0.0  # what the last write took of a core
        self._layout, self._report, self._before_header = layout, report, before_header
        self._ready = threading.Condition()
        self._waiting: InMemory | None = None
        self._writing: InMemory | None = None
        self._closed = False
        self._said = ""
        self._thread = threading.Thread(target=self._run, name="nantui-points", daemon=True)
        self._thread.start()

    def hand_over(self, point: InMemory) -> None:
        """Write `point` as soon as the one being written is done."""
        with self._ready:
            self._waiting = point
            self._ready.notify()

    def withdraw(self) -> None:
        """Drop the point that waits: its place is used again."""
        with self._ready:
            self._waiting = None

    def holds(self, point: InMemory) -> bool:
        """Tell whether `point` is being written just now, so that nothing else may be put there."""
        with self._ready:
            return self._writing is point

    def close(self) -> None:
        """Drop what is not written yet; an ending training does not wait for a slow disk."""
        with self._ready:
            self._closed, self._waiting = True, None
            self._ready.notify()
        self._thread.join(GIVE_UP_AFTER)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # on Linux a thread has a niceness of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while True:
            with self._ready:
                self._writing = None
                self._ready.wait_for(lambda: self._closed or self._waiting is not None)
                if self._closed:
                    return
                self._writing, self._waiting = self._waiting, None
            try:
                assert self._writing is not None, "waited for"
                self._write(self._writing)
                self._said = ""
            except Abandoned:
                return
            except Exception as error:  # whatever it is, it must not cost the training
                ours = isinstance(error, ValueError)  # which says it in a sentence
                self._say(str(error) if ours else f"{type(error).__name__}: {error}")

    def _say(self, why: str) -> None:
        if not self._said:
            self._report(why)
        self._said = why

    def _write(self, point: InMemory) -> None:
        began = time.thread_time()
        point.copy.wait()
        if sick := not_finite(point.document):
            point.place = EMPTY
            raise ValueError(f"{sick} is not finite; the point before it stays")
        name = self._room_for(bytes_of(point.document))
        size, digest = write_checkpoint(self._layout.point(name), point.document, lambda: self._closed)
        self._before_header()
        write_header(self._layout, StepPoint(name=name, size=size, digest=digest, **point.header))
        self.cpu_seconds = time.thread_time() - began

    def _room_for(self, size: int) -> str:
        """Return the name whose turn it is, with room on the disk for its file. Raises OSError.

        Its old header goes before its old file is replaced: it might fit the size of the new one.
        """
        layout = self._layout
        layout.points.mkdir(parents=True, exist_ok=True)
        for torn in layout.points.glob(".*.tmp"):
            torn.unlink(missing_ok=True)
        there = {point.name: point.t for point in step_points(layout)}
        name = min(NAMES, key=lambda name: there.get(name, 0.0))
        layout.point_header(name).unlink(missing_ok=True)
        if shutil.disk_usage(layout.points).free < size + RESERVE:
            layout.point(name).unlink(missing_ok=True)
        room = shutil.disk_usage(layout.points).free
        if room < size + RESERVE:
            wanted, left = (f"{amount / 2**20:,.0f} MiB" for amount in (size + RESERVE, room))
            raise OSError(f"it takes {wanted}, with what stays free, and the disk has {left} left")
        return name


def write_checkpoint(path: Path, document: State, ended: Callable[[], bool]) -> tuple[int, str]:
    """Write a checkpoint beside `path`, then take its place; returns its size and SHA-256.

    Raises OSError (disk full, no permission), and Abandoned once `ended` says so; then `path` is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        with beside.open("xb") as file:
            hashed = _Hashed(file, ended)
            # Not `torch.save`: Ultralytics puts one there that tries again.
            torch.serialization.save(document, hashed)
            file.flush()
            os.fchmod(file.fileno(), NEW_FILE_MODE)
            os.fsync(file.fileno())
        if ended():
            raise Abandoned
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)
    return hashed.size, hashed.digest.hexdigest()


class _Hashed:
    """A file that is only written to, from its beginning to its end, and takes its digest on the way."""

    def __init__(self, file: Any, ended: Callable[[], bool]) -> None:
        self._file, self._ended = file, ended
        self.size, self.digest = 0, hashlib.sha256()

    def write(self, data: bytes) -> int:
        if self._ended():
            raise Abandoned
        piece = memoryview(data).cast("B")
        self.digest.update(piece)
        self.size += len(piece)
        return int(self._file.write(piece))

    def flush(self) -> None:
        self._file.flush()
