"""Whom to tell, and what waits to be told to each: files of the user's own, which outlive every process.

A URL may hold a secret anywhere: it is kept for this user alone, and stands in no log or journal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nantui import entry_points
from nantui.errors import UserError
from nantui.paths import user_config_dir, user_state_dir
from nantui.run.atomic_files import read_json, read_text, write_json
from nantui.run.documents import known_fields
from nantui.run.journal import take
from nantui.supervisor.config import Alerts
from nantui.supervisor.helper_process import hash_of

WEB = ("http://", "https://")


@dataclass(frozen=True)
class Way:
    """A URL, or else the words of a command. A `heartbeat` is only asked for, while all is well."""

    url: str = ""
    command: tuple[str, ...] = ()
    heartbeat: bool = False

    @property
    def name(self) -> str:
        """A short name that stays the same and tells nothing of the URL."""
        return hash_of(self.url or "\0".join(self.command))[:6]

    @property
    def web(self) -> bool:
        """Whether it is an address that gets JSON; anything else with a URL is for Apprise."""
        return self.url.startswith(WEB)

    def __str__(self) -> str:
        scheme, _, rest = self.url.partition("://")
        host = re.split("[/?#]", rest)[0].rpartition("@")[2] + "/" if self.web else ""
        return f"{self.name} {scheme}://{host}…" if scheme else f"{self.name} {self.command[0]}"


@dataclass(frozen=True)
class Note:
    """One thing to tell: `t` in s since the epoch; whoever tells it again gives it the same `id`."""

    id: str
    t: float
    run: str
    event: str
    text: str


def file_of_ways() -> Path:
    """Return where `nantui notify add` keeps URLs."""
    return user_config_dir() / "notify.json"


def kept_ways() -> list[Way]:
    """Return the URLs that were added. Raises UserError for a file that is broken."""
    if not file_of_ways().exists():
        return []
    with contextlib.suppress(OSError):
        file_of_ways().chmod(0o600)
    ways = [known_fields(Way, one) for one in (read_json(file_of_ways()) or {}).get("ways", [None])]
    if None in ways:
        raise UserError(f"{file_of_ways()} is not as `nantui notify` writes it: mend it or move it away")
    return [way for way in ways if way is not None]


def keep_ways(ways: Sequence[Way]) -> None:
    """Write the URLs, for this user alone."""
    file_of_ways().parent.mkdir(parents=True, exist_ok=True)
    write_json(file_of_ways(), {"format": 1, "ways": [asdict(way) for way in ways]}, mode=0o600)


def all_ways(settings: Alerts) -> list[Way]:
    """Return every way to tell somebody, those of `supervise.yaml` first. Raises UserError."""
    own = [Way(command=settings.command)] if settings.command else []
    return [*own, *([Way(settings.url)] if settings.url else []), *kept_ways()]


class Outbox:
    """The notes that wait for one way, a file each; `told` has the ids of those that were told."""

    def __init__(self, way: Way) -> None:
        self.folder = user_state_dir() / "notify" / way.name
        self._told = self.folder / "told"

    @property
    def told_at(self) -> float:
        """When something was last told, in s since the epoch, 0 for never."""
        return self._told.stat().st_mtime if self._told.exists() else 0.0

    def put(self, note: Note) -> None:
        """Keep a note; one that was told is not told again. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if note.id not in (read_text(self._told) or "").split():
            write_json(self.folder / f"{note.id}.json", asdict(note), mode=0o600)

    def waiting(self) -> list[Note]:
        """Return what waits, oldest first."""
        found = [known_fields(Note, read_json(path)) for path in self.folder.glob("*.json")]
        return sorted((note for note in found if note is not None), key=lambda note: note.t)

    def drop(self, notes: Sequence[Note], told: bool) -> None:
        """Let notes go that were told, or given up."""
        if told:
            with self._told.open("a", encoding="utf-8") as file:
                file.writelines(f"{note.id}\n" for note in notes)
        for note in notes:
            (self.folder / f"{note.id}.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def sole_sender(self) -> Iterator[bool]:
        """Be the one process that sends what waits; False where another one is. Raises OSError."""
        with open(os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600), "rb") as lock:
            yield take(lock.fileno())


def start_sender(
    settings: Alerts, request: Mapping[str, object], say: Callable[[str], None]
) -> subprocess.Popen[bytes] | None:
    """Start the process that keeps and sends, where somebody is to be told: no slow network or disk holds up
    who asks. Never raises.
    """
    if not (settings.command or settings.url or file_of_ways().exists()):
        return None
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", entry_points.NOTIFY],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, cwd="/",
        )  # fmt: skip
        with contextlib.suppress(BrokenPipeError):
            assert child.stdin is not None, "asked for a pipe"
            child.stdin.write(json.dumps(request).encode())
            child.stdin.close()
    except OSError as error:
        say(f"cannot notify: {error.strerror}")
        return None
    return child
