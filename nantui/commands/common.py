"""What every command shares: the options that readers and changers have, questions, and output.

Results go to stdout, one JSON document with `--json`; words for people go to stderr, so that a script
never has to filter them.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

from nantui.errors import USAGE, UserError
from nantui.paths import configs_dir
from nantui.run.atomic_files import to_json
from nantui.terminal_text import escaped_json, printable, printable_lines

FLAGS = {
    "wait_gpu": "start once others have freed the GPU",
    "wait": "stay until it has ended, and return its status",
    "auto": "let the ladder recover the run unattended",
    "our_runner": "go on without the script that began it, whatever is lost",
}
"""Options that several commands have, and take no value."""
SLOW_S = 2.0


def add_flags(parser: argparse.ArgumentParser, *known: str, **told: str) -> None:
    """Add options that take no value, `--leave-out` as `leave_out`: of FLAGS, or with what they do."""
    for name, help in {**{name: FLAGS[name] for name in known}, **told}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=help)


def add_reader(parser: argparse.ArgumentParser) -> None:
    """Add what every command that reads has."""
    add_flags(parser, json="one JSON document on stdout")


def add_changer(parser: argparse.ArgumentParser, *, asks: bool = True, goes_on: bool = False) -> None:
    """Add what every command that changes something has. What does nothing in one that never `asks`, or that
    `goes_on` with no run, is taken all the same, for scripts that have it, and not told of.
    """
    yes = "do not ask" if asks else argparse.SUPPRESS
    trust = "go on with a run that was not made here; what it runs is shown" if goes_on else argparse.SUPPRESS
    add_flags(parser, dry_run="say what would be done, and do nothing", yes=yes, trust=trust)


def add_directory(parser: argparse.ArgumentParser, help: str = "a run, or a directory of runs") -> None:
    """Add the directory to look in, by default the working directory."""
    parser.add_argument("directory", type=Path, nargs="?", default=Path("."), metavar="DIR", help=help)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the run directory that the command acts on."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory, e.g. runs/detect/train")


def given(arguments: argparse.Namespace, *names: str) -> dict[str, object]:
    """Return those of the options `names` that were given, as the command to the supervisor calls them."""
    return {name: value for name in names if (value := getattr(arguments, name))}


def add_list(parser: argparse.ArgumentParser, option: str, metavar: str, help: str) -> None:
    """Add an option that takes one or more words, and may be given several times."""
    parser.add_argument(option, nargs="+", action="extend", default=[], metavar=metavar, help=help)


def existing(directory: Path) -> Path:
    """Return a directory that is there. Raises UserError for any other."""
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; give a run, or a directory of runs")
    return directory


def confirm(arguments: argparse.Namespace, question: str) -> bool:
    """Ask before a change. Raises UserError without a terminal and without `--yes`: nobody can answer."""
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        raise UserError(f"{question} There is no terminal to ask on: add --yes to do it", USAGE)
    say(f"{question} [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def go_ahead(arguments: argparse.Namespace, would: str, question: str) -> bool:
    """Ask, or for a dry run say what would be done; says so where nothing is done."""
    if arguments.dry_run:
        say(f"would {would}")
        return False
    if confirm(arguments, question):
        return True
    say("nothing was done")
    return False


def refuse_read_only(arguments: argparse.Namespace) -> None:
    """Raise UserError when the person asked for read-only."""
    if getattr(arguments, "read_only", False):
        raise UserError("--read-only: this command changes the run; leave the option out to do it")


def filled(template: str, words: Mapping[str, str]) -> str:
    """Return a file of configs/jobs/ with each @NAME@ in it replaced."""
    text = (configs_dir() / "jobs" / template).read_text(encoding="utf-8")
    return re.sub(r"@([A-Z]+)@", lambda found: words[found[1]], text)


def look_at(run: Path) -> str:
    """Return the command that opens a run; where no `nantui` is on the PATH, by the path of this one."""
    this = sys.argv[0]
    name = this if Path(this).name == "nantui" and shutil.which("nantui") is None else "nantui"
    return shlex.join([name, str(run)])


def emit(document: object) -> None:
    """Print one JSON document on stdout."""
    print(escaped_json(to_json(document, indent=2)), flush=True)


def answer(arguments: argparse.Namespace, document: object, lines: Iterable[str]) -> None:
    """Print what a command found: as JSON where that is asked for, else as lines for people."""
    if arguments.json:
        emit(document)
    else:
        show(lines)


def show(lines: Iterable[str]) -> None:
    """Print lines for people on stdout, each as one whatever a path in it holds."""
    for line in lines:
        print(printable(line, len(line)))


@contextmanager
def said_if_slow(text: str) -> Iterator[None]:
    """Say what is waited for, where that takes more than a moment."""
    timer = Timer(SLOW_S, say, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def say(text: str, end: str = "\n") -> None:
    """Tell the person something, on stderr."""
    print(printable_lines(text), end=end, file=sys.stderr, flush=True)
