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

from nantui.commands import common
from nantui.errors import FAILED, NO, USAGE, UserError
from nantui.supervisor.config import load_config
from nantui.supervisor.notify.outbox import Note, Outbox, Way, all_ways, keep_ways, kept_ways

ACTIONS = ("add", "list", "test", "remove")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui notify` takes."""
    parser.add_argument("action", choices=ACTIONS, metavar="add|list|test|remove", help="what to do")
    parser.add_argument(
        "what",
        nargs="?",
        default="",
        metavar="URL|NAME",
        help="to add: a URL, - reads it from standard input",
    )
    parser.add_argument(
        "--heartbeat", action="store_true", help="to add: an address that is asked for while all is well"
    )
    common.add_reader(parser)


def run(arguments: argparse.Namespace) -> int:
    """Do one of the four; the exit status of `test` is 1 where something was not taken."""
    if arguments.action in ("add", "remove"):
        common.refuse_read_only(arguments)
        if not arguments.what:
            raise UserError(f"{arguments.action} what? nantui notify {arguments.action} URL|NAME", USAGE)
    if arguments.action == "add":
        url = sys.stdin.readline().strip() if arguments.what == "-" else arguments.what
        new = checked(url, arguments.heartbeat)
        keep_ways([*(way for way in kept_ways() if way.url != new.url), new])
        return show([new], arguments.json)
    ways = [way for way in all_ways(load_config().notify) if arguments.what in ("", way.name, way.url)]
    if arguments.what and not ways:
        raise UserError("nothing of that name is kept; see nantui notify list", NO)
    if arguments.action == "test":
        return show(ways, arguments.json, test=True)
    if arguments.action == "remove":
        if not (gone := [way for way in ways if way in kept_ways()]):
            raise UserError("that one stands in supervise.yaml: take it out there", FAILED)
        keep_ways([way for way in kept_ways() if way not in gone])
        for way in gone:
            shutil.rmtree(Outbox(way).folder, ignore_errors=True)
    return show(ways, arguments.json)


def checked(url: str, heartbeat: bool) -> Way:
    """Return a way that can be used. Raises UserError without a word of the URL."""
    from nantui.supervisor.notify.delivery import service_of

    scheme, found, rest = url.partition("://")
    if not found or not rest or any(letter.isspace() for letter in url):
        raise UserError("that is no URL; give one like ntfy://TOPIC or https://example.org/hook", USAGE)
    if heartbeat:
        if not Way(url).web:
            raise UserError("a heartbeat is a web address: https://…", USAGE)
        return Way(url, heartbeat=True)
    try:
        return Way(service_of(Way(url)).url())  # of a web address that Apprise knows: its own form of it
    except ValueError as error:
        if Way(url).web:
            return Way(url)
        raise UserError(f"{scheme}://…: {error}", USAGE) from None


def show(ways: list[Way], as_json: bool, test: bool = False) -> int:
    """Print each way, what waits for it, and under `test` what came back; 1 where one was not taken."""
    from nantui.supervisor.notify.delivery import NotDelivered, deliver
    from nantui.supervisor.notify.message import compose

    rows: list[dict[str, object]] = []
    for way in ways:
        row = {
            "name": way.name,
            "way": str(way),
            "heartbeat": way.heartbeat,
            "waiting": len(Outbox(way).waiting()),
        }
        if test:
            begun, note = time.monotonic(), Note("test", time.time(), "test", "test", "nantui can reach you")
            try:
                row |= {"delivered": True, "came_back": deliver(way, compose([note]))}
            except NotDelivered as error:
                row |= {"delivered": False, "came_back": str(error)}
            row["seconds"] = round(time.monotonic() - begun, 3)
        rows.append(row)
    if as_json:
        common.emit({"ways": rows})
    for row in () if as_json else rows:
        came = f"  {row['came_back']} in {row['seconds']:.1f} s" if test else ""
        print(f"{row['way']}{came}" + (f"  {row['waiting']} waiting" if row["waiting"] else ""))
    return NO if any(row.get("delivered") is False for row in rows) else 0
