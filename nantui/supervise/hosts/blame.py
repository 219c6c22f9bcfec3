"""Which host ended an attempt: when one breaks off, the others only tell of a lost connection."""

from __future__ import annotations

import re

from nantui.run.attempts import FAILED, read_exits
from nantui.run.layout import RunLayout
from nantui.supervise.hosts.reports import Roster

ECHO = re.compile(
    r"connection (closed|reset|refused)|broken pipe|gloo|nccl|process ?group|DistBackendError"
    r"|DistNetworkError|DistStoreError|torch\.distributed|socket",
    re.IGNORECASE,
)
"""What a rank says that has lost the others."""


def blame(layout: RunLayout, roster: Roster) -> str:
    """Return what happened on another host, empty where this host's own ranks know the reason."""
    hosts = roster.hosts_of_ranks()
    exits = {one.rank: one for one in read_exits(layout, roster.attempt)}
    own = [rank for rank, host in enumerate(hosts) if host == hosts[0]]
    reasons = [exits[rank].text for rank in own if rank in exits and exits[rank].outcome == FAILED]
    if any(not ECHO.search(text) for text in reasons):
        return ""
    for rank, host in enumerate(hosts):
        ended = exits.get(rank)
        if ended is not None and ended.outcome == FAILED and not ECHO.search(ended.text):
            return f"host {host}, rank {rank}: {ended.text}"
    gone = [rank for rank, host in enumerate(hosts) if rank not in exits and host != hosts[0]]
    if gone and reasons:
        names = ", ".join(dict.fromkeys(hosts[rank] for rank in gone))
        ranks = ", ".join(map(str, gone))
        return f"host {names}: rank {ranks} ended without a word, or the connection was cut ({reasons[0]})"
    return ""
