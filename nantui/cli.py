"""The command line: which commands there are, and nothing else. All live in `commands/`.

Nothing heavy is imported here, and only the module of the command that was asked for, so that `--help`
comes in a blink over a slow disk.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import os
import sys
from collections.abc import Callable, Sequence

from nantui.errors import FAILED, USAGE, UserError
from nantui.paths import configs_dir
from nantui.version import __version__

COMMANDS = {
    "demo": "a real training with an injected NaN: detection, rollback, resume, finish",
    "train": "start a run under a supervisor and return",
    "join": "take part, with this host's devices, in a run that another host leads",
    "queue": "runs that train one after the other, as soon as their devices are free",
    "exec": "run your own training script, unchanged, detached, with guard and telemetry",
    "sbatch": "a Slurm job for a run, which goes on by itself after each requeue",
    "service": "bring back, after a reboot, the runs that were going under --auto",
    "status": "state, epoch, losses and last incident of each run",
    "wait": "wait until runs have ended; the exit status tells how",
    "check": "the truth about checkpoints, without running them",
    "stop": "stop at the next batch boundary, checkpoint kept; --now kills every process",
    "rollback": "go back to a clean checkpoint; starts nothing",
    "undo": "take the last rollback, resume or phase back",
    "resume": "continue under a supervisor, with the changed settings in effect",
    "recover": "stop, roll back, resume: what the key R does",
    "compare": "two runs or attempts: settings, curves, best metrics, cost",
    "plot": "curves of runs in the terminal, or as CSV or JSON",
    "export": "epochs, steps, incidents and checkpoints as CSV, Parquet, JSON or TensorBoard",
    "events": "what happened to runs, one line an event, also as it comes",
    "notify": "whom to tell when nobody looks: add, list, test, remove URLs, a heartbeat",
    "completion": "completion of runs, settings and presets for bash, zsh and fish",
    "mcp": "runs for agents: status, curves, diagnosis; with --act recovery in two steps",
    "web": "the cockpit in a browser, read-only unless asked otherwise",
    "diagnose": "why it happened: causes, evidence, advice",
    "labels": "label errors by kind, and what each does to training",
    "presets": "list the remedies, or show what one would change in a run",
    "doctor": "versions, GPUs, which hooks are in place, colours",
}
TOGETHER = {
    **dict.fromkeys(("train", "exec", "sbatch"), "starting"),
    **dict.fromkeys(("stop", "recover", "rollback", "undo", "resume"), "acting"),
    **dict.fromkeys(("status", "events", "wait"), "watching"),
    **dict.fromkeys(("plot", "compare", "export"), "curves"),
}
"""Commands that share a module, as `run_NAME` and `add_NAME`; each other one has a module of its own."""
COCKPIT, SCRIPT = "cockpit", "exec"
LISTS = {"--set": True, "--phase": True, "--preset": False, "--allow": False, "--kind": False}
"""Options that take several words, and whether these are settings (`name=value`) or names."""
SHARED = "everywhere"
ONLY_LOOK = frozenset({"status", "wait", "check", "compare", "plot", "export", "events", "completion"})
"""Take what every command takes, so that it can stand in an alias; their help does not mention it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 the answer is no, 2 usage, 3 failed."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if "_ARGCOMPLETE" in os.environ:
            _complete(os.environ.get("COMP_LINE", "").split(" "))
        return _run(words)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away (`nantui status | head`): nothing is wrong. Python would
        # complain once more while it closes stdout at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (UserError, OSError) as error:  # the second: a name that is too long, a disk that fails
        from nantui.commands.common import say

        say(f"nantui: {error}")
        return getattr(error, "status", FAILED)


def _complete(words: list[str]) -> None:
    from nantui.commands.completion import complete

    if len(words) > 2 and words[1] in COMMANDS:
        complete(parser_of(words[1]), ())
    complete(parser_of(COCKPIT), COMMANDS)


def _run(words: list[str]) -> int:
    if words and words[0] in COMMANDS:
        return _run_command(words[0], words[1:])
    if {"-h", "--help"} & set(words) or words[:1] == ["help"]:
        if words[1:] and words[1] in COMMANDS:
            return _run_command(words[1], ["--help"])
        print(_overview())
        return 0
    if {"-v", "--version"} & set(words):
        print(f"nantui {__version__}")
        return 0
    _refuse_misspelt_command(words)
    return _run_command(COCKPIT, words)


def _refuse_misspelt_command(words: list[str]) -> None:
    """A word that is no directory but nearly a command was meant as one."""
    import difflib

    if words and not words[0].startswith("-") and not os.path.exists(words[0]):
        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        hint = f"did you mean `nantui {near[0]}`?" if near else "give a run directory, or see `nantui --help`"
        raise UserError(f"{words[0]}: no such directory and no such command; {hint}")


def _run_command(name: str, words: list[str]) -> int:
    if "--read-only" not in words:
        _wake_queue()
    # What follows a script of somebody's own is for the script.
    return int(_command(name)[1](_parse(parser_of(name), words if name == SCRIPT else runs_first(words))))


def _command(name: str) -> tuple[Callable[[argparse.ArgumentParser], None], Callable[..., int], str]:
    """Return what adds a command's arguments, what carries it out, and what it does, in words."""
    module = importlib.import_module(f"nantui.commands.{TOGETHER.get(name, name)}")
    if name not in TOGETHER:
        return module.add_arguments, module.run, module.__doc__ or ""
    run = getattr(module, f"run_{name}")
    return getattr(module, f"add_{name}"), run, run.__doc__


def _wake_queue() -> None:
    """Whatever killed the process that starts what waits: the next command starts it again."""
    from nantui.paths import user_state_dir

    if os.path.isdir(user_state_dir() / "queue"):
        from nantui.supervisor.queue.entries import wake

        with contextlib.suppress(UserError):  # the queue's own command says it
            wake()


def runs_first(words: Sequence[str]) -> list[str]:
    """Return the words with those in front that a list before them would swallow: RUN in
    `--set lr0=0.001 RUN`, the settings in `--preset nan-safe model=yolov8n.pt`.
    """
    front: list[str] = []
    lead = [*itertools.takewhile(lambda word: not word.startswith("-"), words)]
    kept: list[str] = []
    place, values, settings = kept, 0, None
    for word in words[len(lead) :]:
        in_list = "=" in word if settings else "=" not in word and not os.path.exists(word)
        if word.startswith("-"):
            place, values, settings = kept, -1, LISTS.get(word)
        elif settings is not None and values and not in_list:
            place = front
        place.append(word)
        values += 1
    return [*lead, *front, *kept]


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return what the command `name` takes; docs/commands.md is made from the same."""
    add_arguments, _, told = _command(name)
    title = "nantui" if name == COCKPIT else f"nantui {name}"
    parser = argparse.ArgumentParser(title, description=told, allow_abbrev=False, formatter_class=Help)
    parser.epilog = examples(name)
    add_arguments(parser)
    add_everywhere(parser, shown=name not in ONLY_LOOK)
    return parser


class Help(argparse.HelpFormatter):
    """Fills paragraphs, and leaves examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


def examples(name: str) -> str:
    """Return the examples of a command, for the end of its help."""
    lines = (configs_dir() / "examples.txt").read_text(encoding="utf-8").splitlines()
    words = [(line.split()[1], line) for line in lines]
    found = [line for word, line in words if (word if word in COMMANDS else COCKPIT) == name]
    return "\n  ".join(["examples:", *found])


def _parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    # Options may stand between the words; what follows a script is for the script.
    parse = parser.parse_args if parser.prog == f"nantui {SCRIPT}" else parser.parse_intermixed_args
    try:
        return parse(words)
    except SystemExit as stop:
        # argparse has already said what is wrong and how the command is used.
        raise SystemExit(USAGE if stop.code else 0) from None


def add_everywhere(parser: argparse.ArgumentParser, shown: bool = True) -> None:
    """Add the options that every command has, in its help only where they are for something."""
    group = parser.add_argument_group(SHARED)
    dull = None if shown else argparse.SUPPRESS
    python = "the interpreter that trains, if not this one"
    group.add_argument("--python", metavar="PATH", help=dull or python)
    group.add_argument("--ascii", action="store_true", help="only plain ASCII on the screen")
    group.add_argument("--read-only", action="store_true", help=dull or "watch; change nothing")
    take_over = "act on a run whose supervisor on another host is gone"
    group.add_argument("--take-over", action="store_true", help=dull or take_over)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    head = """usage: nantui [DIR]            open the cockpit on a run, or on all runs below DIR
       nantui COMMAND --help   what a command does and takes

A cockpit and an autopilot for Ultralytics training, in a terminal.

commands:"""
    return "\n".join([head, *lines])


if __name__ == "__main__":
    raise SystemExit(main())
