"""Runs for agents, over the Model Context Protocol on standard input and output.

Status, events, curves, checkpoints, diagnosis and the plan of a recovery can always be asked for. With
`--act` also `plan_action` and `do`: one says what would be done and gives a token, the other does just that.
Needs the extra: pip install 'nantui[mcp]'.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nantui.commands import common
from nantui.errors import FAILED, NO, UserError
from nantui.run.documents import JsonObject
from nantui.run.journal import VIA
from nantui.terminal_text import printable_lines
from nantui.version import __version__

if TYPE_CHECKING:
    from mcp.server import MCPServer

TOKEN_S, LONGEST_S = 600.0, 900.0
Action = Literal["recover", "rollback", "resume", "stop", "undo"]
RESTORES = ("recover", "rollback")
SETS = (*RESTORES, "resume")
ABOUT = """Trainings of Ultralytics models on this host. A run is named by its directory. Looking changes
nothing. To change something, first plan_action, show its text to the person, then do with its token."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_directory(parser, "where the runs lie")
    common.add_flags(parser, act="let agents stop, roll back, resume and undo, too")


def run(arguments: argparse.Namespace) -> int:
    """Serve until the client goes."""
    if arguments.act:
        common.refuse_read_only(arguments)
    server(Runs(arguments.directory, arguments.python), act=arguments.act).run("stdio")
    return 0


class Runs:
    """The runs below `top`, through nantui's own commands.

    `planned` are the actions that were shown and wait for a `do`, by their token: the words, what was shown,
    and until when the token holds (monotonic, s).
    """

    def __init__(self, top: Path, python: str | None = None) -> None:
        self.top, self.python = common.existing(top).resolve(), python
        self.planned: dict[str, tuple[Sequence[str], str, float]] = {}

    def path(self, run: str) -> str:
        """Return the run's path. Raises UserError for one that does not lie below `top`."""
        path = (self.top / run).resolve()
        if not path.is_relative_to(self.top) or not path.is_dir():
            raise UserError(f"{run}: no directory below {self.top}")
        return str(path)

    def ask(self, command: str, *words: str, statuses: Sequence[int] = (0, NO)) -> str:
        """Return what `nantui COMMAND WORDS` prints. Raises UserError with its words where it fails."""
        python = (f"--python={self.python}",) if self.python else ()
        done = subprocess.run(
            [sys.executable, "-m", "nantui", command, *words, *python],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONGEST_S, cwd="/",
            env={**os.environ, VIA: "mcp"},
        )  # fmt: skip
        if done.returncode not in statuses or (done.returncode and not done.stdout):
            raise UserError(printable_lines(done.stderr.strip() or f"exit status {done.returncode}"), FAILED)
        return done.stdout or printable_lines(done.stderr.strip())

    def document(self, command: str, *words: str) -> Any:
        """Return what a command answers as JSON."""
        return json.loads(self.ask(command, *words, "--json"))

    def plan(self, words: Sequence[str]) -> JsonObject:
        """Return what the action `words` would do, and a token to do it with."""
        text = self.ask(*words, "--dry-run", statuses=(0,))
        now = time.monotonic()
        self.planned = {key: one for key, one in self.planned.items() if one[2] > now}
        token = secrets.token_urlsafe(16)
        self.planned[token] = (words, text, now + TOKEN_S)
        return {"text": text, "token": token, "valid_for_s": TOKEN_S}

    def do(self, token: str) -> str:
        """Do what was planned under `token`. Raises UserError where it is not known or holds no longer."""
        words, text, until = self.planned.pop(token, ((), "", 0.0))
        if until < time.monotonic():
            raise UserError("this token is not known or too old; nothing was done, plan the action again")
        if self.ask(*words, "--dry-run", statuses=(0,)) != text:
            raise UserError("the plan has changed meanwhile; nothing was done, plan the action again")
        return self.ask(*words, "--yes", statuses=(0,))


def action_words(
    action: Action, path: str, to: str | None, settings: Mapping[str, object], presets: Sequence[str]
) -> list[str]:
    """Return the words of a command line. Raises UserError for an option that the action does not take."""
    if (to and action not in RESTORES) or ((settings or presets) and action not in SETS):
        raise UserError(f"{action} takes no such option; nothing was done")
    words = [action, path, *([f"--to={to}"] if to else [])]
    assignments = [f"{name}={value}" for name, value in settings.items()]
    for option, values in (("--set", assignments), ("--preset", presets)):
        if any(value.startswith("-") for value in values):
            raise UserError(f"{option} takes no word that begins with a dash; nothing was done")
        words += [option, *values] if values else []
    return words


def server(runs: Runs, *, act: bool) -> MCPServer:
    """Return the server of these runs. Raises UserError without the SDK."""
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError:
        raise UserError("the MCP SDK is not installed: pip install 'nantui[mcp]'", FAILED) from None
    made = MCPServer("nantui", version=__version__, instructions=ABOUT, log_level="ERROR")

    def tool(answer: Callable[..., object]) -> None:
        @wraps(answer)
        def told(*words: object, **options: object) -> object:
            try:
                return answer(*words, **options)
            except UserError as error:
                raise ToolError(str(error)) from None

        made.tool()(told)

    @tool
    def status(run: str = ".") -> Any:
        """Return state, epoch, losses, time to go and last incident of a run, or of each run below one."""
        return runs.document("status", runs.path(run))

    @tool
    def events(run: str, newest: int = 100) -> list[Any]:
        """Return the newest events of a run, oldest first: attempts, incidents, warnings, rollbacks."""
        lines = runs.ask("events", runs.path(run), "--json").splitlines()
        return [json.loads(line) for line in lines[-max(newest, 1) :]]

    @tool
    def curves(run: str, metrics: list[str]) -> Any:
        """Return metrics by epoch, e.g. ["mAP50-95", "val/box_loss"]; a wrong name lists the right ones."""
        return runs.document("plot", runs.path(run), *(metric.lstrip("-") for metric in metrics))

    @tool
    def checkpoints(run: str) -> Any:
        """Return the verdict on each checkpoint of a run: clean, corrupt or unreadable, and why."""
        return runs.document("check", runs.path(run))

    @tool
    def diagnosis(run: str) -> Any:
        """Return why a training broke: causes with their evidence and probability, and what helps."""
        return runs.document("diagnose", runs.path(run), "--no-labels")

    @tool
    def recovery_plan(run: str, to: str | None = None) -> Any:
        """Return what a recovery would do: restore point, epochs to train again, settings. Does nothing."""
        return runs.document("recover", runs.path(run), "--dry-run", *([f"--to={to}"] if to else []))

    if act:

        @tool
        def plan_action(
            action: Action, run: str, to: str | None = None, settings: JsonObject | None = None,
            presets: list[str] | None = None,
        ) -> JsonObject:  # fmt: skip
            """Say what an action would do, and give the token that `do` takes. Does nothing."""
            return runs.plan(action_words(action, runs.path(run), to, settings or {}, presets or []))

        @tool
        def do(token: str) -> str:
            """Do what plan_action has shown. The run's journal notes it; undo takes a rollback back."""
            return runs.do(token)

    return made
