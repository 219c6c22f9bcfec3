"""Whom to tell when nobody is looking: add, list, test and remove URLs, and a heartbeat.

A URL is what Apprise (`pip install 'nantui[alerts]'`) knows: ntfy, Telegram, Slack, Discord, mail and more;
or any web address, which gets JSON and needs no Apprise. It is kept for you alone and never shown whole: what
is listed, tested and removed has a NAME.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import Any

from nantui.commands import common
from nantui.errors import FAILED, NO, UserError
from nantui.supervisor.config import load_config
from nantui.supervisor.notify.outbox import Note, Outbox, Way, all_ways, keep_ways, kept_ways

ACTIONS = ("add", "list", "test", "remove")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=ACTIONS, metavar="add|list|test|remove", help="what to do")
    what = "a URL to add (-: from standard input), or a name"
    parser.add_argument("what", nargs="?", default="", metavar="URL|NAME", help=what)
    common.add_flags(parser, heartbeat="to add: an address that is asked for while all is well")
    common.add_reader(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do one of the four; the exit status of `test` is 1 where something was not taken."""
    action, what = arguments.action, arguments.what
    if action in ("add", "remove"):
        common.refuse_read_only(arguments)
        if not what:
            raise UserError(f"{action} what? nantui notify {action} {'URL' if action == 'add' else 'NAME'}")
    if action == "add":
        ways = [checked(sys.stdin.readline().strip() if what == "-" else what, arguments.heartbeat)]
        keep_ways([*(way for way in kept_ways() if way.url != ways[0].url), *ways])
    elif not (ways := [way for way in all_ways(load_config().notify) if what in ("", way.name)]) and what:
        raise UserError("nothing of that name is kept; see nantui notify list", NO)
    if action == "remove":
        if ways[0] not in kept_ways():
            raise UserError("that one stands in supervise.yaml: take it out there", FAILED)
        keep_ways([way for way in kept_ways() if way not in ways])
        shutil.rmtree(Outbox(ways[0]).folder, ignore_errors=True)
    rows, lines = [], []
    for way in ways:
        with common.said_if_slow(f"{way}: no answer yet"):
            rows.append(row := described(way, action == "test"))
        came = f"{row['came_back']} in {row['seconds']:.1f} s" if "came_back" in row else ""
        waiting = f"{row['waiting']} waiting" if row["waiting"] else ""
        lines.append("  ".join(filter(None, [row["way"], came, waiting])))
    common.answer(arguments, {"ways": rows}, lines)
    return NO if any(row.get("delivered") is False for row in rows) else 0


def checked(url: str, heartbeat: bool) -> Way:
    """Return a way that can be used. Raises UserError without a word of the URL."""
    from nantui.supervisor.notify.delivery import service_of

    way = Way(url, heartbeat=heartbeat)
    scheme, found, rest = url.partition("://")
    if not found or not rest or any(letter.isspace() for letter in url):
        raise UserError("that is no URL; give one like ntfy://TOPIC or https://example.org/hook")
    if heartbeat and not way.web:
        raise UserError("a heartbeat is a web address: https://…")
    try:
        # Of a web address that Apprise knows it has a form of its own.
        return way if heartbeat else Way(service_of(way).url())
    except ValueError as error:
        if way.web:
            return way
        raise UserError(f"{scheme}://…: {error}") from None


def described(way: Way, test: bool) -> dict[str, Any]:
    """Return what is to be shown of a way; under `test` also what comes back when it is used."""
    from nantui.supervisor.notify.delivery import NotDelivered, compose, deliver

    waiting = len(Outbox(way).waiting())
    row = {"name": way.name, "way": str(way), "heartbeat": way.heartbeat, "waiting": waiting}
    begun, note = time.monotonic(), Note("test", time.time(), "test", "test", "nantui can reach you")
    try:
        if test:
            row |= {"delivered": True, "came_back": deliver(way, compose([note]))}
    except NotDelivered as error:
        row |= {"delivered": False, "came_back": str(error)}
    return {**row, "seconds": round(time.monotonic() - begun, 3)} if test else row
