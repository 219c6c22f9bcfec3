"""Hand a message over, and say what came back without a word of the URL."""

from __future__ import annotations

import json
import logging
import re
import subprocess
from http.client import HTTPException
from threading import Lock
from typing import Any
from urllib.request import Request, urlopen

from nantui.supervisor.notify.message import Message
from nantui.supervisor.notify.outbox import Way
from nantui.terminal_text import printable

TIMEOUT_S = 20.0
SHORTEST_SECRET = 4
_ONE = Lock()
"""Apprise has one log for all of its services: what one says must not be kept under another's name."""


class NotDelivered(Exception):
    """The message was not taken; the text says why and holds no part of a URL."""


def deliver(way: Way, message: Message) -> str:
    """Hand `message` over, or ask for a heartbeat; returns what came back. Raises NotDelivered."""
    try:
        if way.command:
            words, off = [filled(word, message) for word in way.command], subprocess.DEVNULL
            subprocess.run(words, timeout=TIMEOUT_S, check=True, stdout=off, stderr=off)
            return "exit status 0"
        if not way.web:
            return _by_apprise(way, message)
        body = None if way.heartbeat else json.dumps(message).encode()
        request = Request(way.url, body, {"Content-Type": "application/json"} if body else {})
        with urlopen(request, timeout=TIMEOUT_S) as answer:
            return f"HTTP {answer.status}"
    except subprocess.CalledProcessError as error:
        raise NotDelivered(f"exit status {error.returncode}") from None
    except (OSError, HTTPException, ValueError, subprocess.TimeoutExpired) as error:
        said = str(error).strip("<>").removeprefix("urlopen error ")
        raise NotDelivered(blotted(said or type(error).__name__, way)) from None
    except Exception as error:  # of a library: a notifier must never do more harm than not to notify
        raise NotDelivered(type(error).__name__) from None


def filled(word: str, message: Message) -> str:
    """Replace {run}, {event}, {text}, {title}, {body} and {ids}; other braces are left alone."""
    return re.sub(r"\{(\w+)\}", lambda found: message.get(found[1], found[0]), word)


def service_of(way: Way) -> Any:
    """Return Apprise's service for a URL. Raises ValueError where it knows none, or is not installed."""
    try:
        import apprise
    except ImportError:
        raise ValueError("Apprise is not installed: pip install 'nantui[alerts]'") from None
    logging.getLogger(apprise.__name__).handlers = [logging.NullHandler()]  # it may repeat the URL
    service = apprise.Apprise.instantiate(way.url, suppress_exceptions=True)
    if service is None:
        raise ValueError("no service that Apprise knows, or not the whole of its URL")
    return service


def _by_apprise(way: Way, message: Message) -> str:
    service = service_of(way)
    import apprise

    with _ONE, apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:
        plain = apprise.NotifyFormat.TEXT
        if apprise.Apprise(service).notify(title=message["title"], body=message["body"], body_format=plain):
            return "taken"
        raise ValueError(" ".join(said.getvalue().split()))


def blotted(text: str, way: Way) -> str:
    """Return text for people without any part of the URL or command."""
    secret = way.url.partition("://")[2] or " ".join(way.command)
    for part in sorted(re.split(r"[^\w.-]+", secret), key=len, reverse=True):
        if len(part) >= SHORTEST_SECRET:
            text = text.replace(part, "…")
    return printable(text)[:300]
