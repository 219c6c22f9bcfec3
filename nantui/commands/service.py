"""After a reboot of this host, bring back the runs that were going under --auto: install, remove, status.

A systemd user unit where systemd runs the host, else an @reboot line of your crontab. Either starts
`nantui service bring-back`, which looks at every run that you have made on this host.
"""

from __future__ import annotations

import argparse
import getpass
import os
import shlex
import subprocess
import time
from pathlib import Path

from nantui.commands import common
from nantui.entry_points import command_line
from nantui.errors import FAILED, NO, UserError
from nantui.machine.process_identity import this_machine
from nantui.run.atomic_files import write_atomic
from nantui.run.attempts import read_attempt
from nantui.run.binding import bound_here
from nantui.run.commands import POLICY, Command
from nantui.run.endings import PREEMPTED
from nantui.run.layout import RunLayout
from nantui.run.spec import read_spec
from nantui.run.status import ACTIVE
from nantui.supervisor.client import ensure_supervisor, submit
from nantui.supervisor.config import load_config
from nantui.supervisor.state import SupervisorState, read_state
from nantui.words import count

NAME, MARK = "nantui.service", "# nantui service"
BOOTED, LINGER = Path("/run/systemd/system"), Path("/var/lib/systemd/linger")  # sd_booted(3), logind(8)
KEPT = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "NANTUI_HOST")
MOUNTS_S, LOOK_S = 600.0, 5.0
"""How long after a boot a run directory is waited for: it may lie on a mount that comes late."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = ("install", "remove", "status", "bring-back")
    parser.add_argument("action", choices=actions, metavar="ACTION", help=", ".join(actions))


def run(arguments: argparse.Namespace) -> int:
    """Do it, and say how it is; the exit status of `status` is 1 where it is not installed."""
    way, action = (Unit() if BOOTED.is_dir() else Crontab()), arguments.action
    if action != "status":
        common.refuse_read_only(arguments)
    if action == "bring-back":
        return _bring_back()
    if action != "status":
        way.put(way.text() if action == "install" else "")
    there, going = way.there(), [run for run in bound_here() if _automatic(RunLayout(run))]
    common.say(f"{way.place}: {'installed' if there else 'not installed'}")
    if there and BOOTED.is_dir() and not (LINGER / getpass.getuser()).exists():
        common.say(f"it starts at your login; for each boot: loginctl enable-linger {getpass.getuser()}")
    common.say(f"a reboot of this host now would end {count(len(going), 'run')} that it brings back")
    return 0 if there == (action != "remove") else NO


def words() -> list[str]:
    """Return what is started at a boot, with the places of this user's files."""
    places = [f"{name}={os.environ[name]}" for name in KEPT if os.environ.get(name)]
    return [*(["/usr/bin/env", *places] if places else []), *command_line(), "service", "bring-back"]


class Unit:
    """A systemd user unit, enabled by the link that `systemctl --user enable` makes."""

    def __init__(self) -> None:
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd/user"
        self.place, self._link = folder / NAME, folder / "default.target.wants" / NAME

    def text(self) -> str:
        """Return the unit; its words are quoted as systemd.service(5) reads them."""
        patience = load_config().patience
        escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "%": "%%", "$": "$$"})
        said = " ".join(f'"{word.translate(escapes)}"' for word in words())
        seconds = f"{patience.grace_s + patience.die_s + 10:.0f}"
        return common.filled(NAME, {"WORDS": said, "SECONDS": seconds})

    def there(self) -> bool:
        return self.place.is_file() and self._link.is_symlink()

    def put(self, text: str) -> None:
        """Write it, or remove it where there is no text; what it has brought back goes on."""
        for path in (self._link, self.place):
            path.unlink(missing_ok=True)
        if text:
            self._link.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.place, text)
            self._link.symlink_to(self.place)
        # A manager that is not there, or cannot be reached from here, reads it when it starts.
        subprocess.run(["systemctl", "--user", "daemon-reload"], capture_output=True, check=False)


class Crontab:
    """A line in this user's crontab, known by the comment at its end."""

    place = "your crontab"

    def text(self) -> str:
        """Return the line; cron takes a % for a new line."""
        return f"@reboot cd / && {shlex.join(words())} {MARK}\n".replace("%", "\\%")

    def there(self) -> bool:
        return any(line.endswith(MARK) for line in self._crontab("-l").splitlines())

    def put(self, text: str) -> None:
        """Put the line there, or only take it away where there is no text."""
        others = [line for line in self._crontab("-l").splitlines() if not line.endswith(MARK)]
        self._crontab("-", "".join(f"{line}\n" for line in others) + text)

    def _crontab(self, word: str, text: str = "") -> str:
        try:
            done = subprocess.run(["crontab", word], input=text, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise UserError("neither systemd nor crontab is here: nothing starts at a boot", FAILED) from None
        if done.returncode and "no crontab" not in done.stderr:
            raise UserError(f"crontab: {done.stderr.strip()}", FAILED)
        return done.stdout


def _bring_back() -> int:
    waiting, until = bound_here(), time.monotonic() + MOUNTS_S
    while waiting:
        there = [run for run in waiting if run.is_dir()]
        for layout in map(RunLayout, there):
            state, said = _automatic(layout), "goes on"
            if state is None or not this_machine().outlived(state.machine):
                continue
            try:
                if state.state in ACTIVE:
                    ensure_supervisor(layout)
                else:  # it was told to end, and has: nobody has to find out why
                    submit(layout.run, Command("resume", {"wait_gpu": True}, by=POLICY))
            except UserError as error:
                said = str(error)
            common.say(f"{layout.run}: {said}")
        waiting = [run for run in waiting if run not in there]
        if time.monotonic() > until:
            break
        time.sleep(LOOK_S if waiting else 0.0)
    return 0


def _automatic(layout: RunLayout) -> SupervisorState | None:
    """Return how a run stands that goes on, or was told to end with its host, and may go on unattended.

    None for all others, and for what a batch job began, which the batch system begins again.
    """
    try:
        state, spec = read_state(layout.supervisor), read_spec(layout.spec)
        attempt = read_attempt(layout, layout.newest_attempt())
    except (UserError, OSError):
        return None
    going = state is not None and (state.state in ACTIVE or state.ending == PREEMPTED)
    batch = attempt is not None and bool(attempt.marks.get("job"))
    return state if going and not batch and spec is not None and spec.auto else None
