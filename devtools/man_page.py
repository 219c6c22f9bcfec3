"""docs/nantui.1, the manual page, made from the same parsers as `--help` and docs/commands.md.

python -m devtools.man_page > docs/nantui.1
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from devtools.reference_pages import STATUSES, arguments_of, group_of, help_of, words_of
from nantui.cli import COCKPIT, COMMANDS, SHARED, parser_of
from nantui.version import __version__

ABOUT = """A cockpit and an autopilot for Ultralytics training, in a terminal: it catches a NaN in the step in
which it happens, keeps it out of the weights, says why, rolls back, and resumes with other settings."""
LINK = re.compile(r"\[(.+?)\]\(.+?\)")


def page() -> Iterator[str]:
    """Yield the lines of the page, in the man macros of roff."""
    yield f'.TH NANTUI 1 "" "nantui {__version__}" "User Commands"'
    yield from (".SH NAME", r"nantui \- watch, guard, stop, roll back and resume YOLO trainings")
    yield from (".SH SYNOPSIS", r".B nantui", "[DIR]", ".br", ".B nantui", "COMMAND [ARGUMENT]...")
    yield from (".SH DESCRIPTION", escaped(" ".join(ABOUT.split())))
    yield ".SH COMMANDS"
    for name in (COCKPIT, *COMMANDS):
        yield from command(name)
    yield ".SH OPTIONS OF EVERY COMMAND"
    for action in group_of(parser_of(COCKPIT), SHARED):
        yield from item(words_of(action), help_of(action))
    yield ".SH EXIT STATUS"
    for status, text in STATUSES.items():
        yield from item(status, LINK.sub(r"\1", text))


def command(name: str) -> Iterator[str]:
    """Yield what one command does, takes, and two examples of it."""
    parser = parser_of(name)
    shared = group_of(parser, SHARED)
    yield from (f".SS {escaped(parser.prog)}", escaped(inspect.cleandoc(parser.description or "")))
    for action in arguments_of(parser):
        if action not in shared:
            yield from item(words_of(action), help_of(action))
    examples = [line.strip() for line in (parser.epilog or "").splitlines()[1:]]
    yield from (".PP", "Examples:", ".nf", *(escaped(line) for line in examples), ".fi")


def item(term: str, text: str) -> Iterator[str]:
    """Yield a term in bold and what it means."""
    yield from (".TP", rf"\fB{escaped(term)}\fR", escaped(text))


def escaped(text: str) -> str:
    """Return text as roff prints it: no line is a request, a dash is one that can be copied."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("…", "...").replace("'", r"\(aq")
    return "\n".join(rf"\&{line}" if line.startswith(".") else line for line in text.splitlines())


def main() -> int:
    """Print the page."""
    print("\n".join(page()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
