"""`python -m nantui.supervisor.notify`: keeps what is to be told, and sends until nothing waits.

Its standard input is `{"messages": [{"run", "event", "text", "id"}]}` and `{"well": true}` for the heartbeat.
It outlives the supervisor that started it; what it leaves unsent, when it is killed, the next one takes up.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import uuid
from collections.abc import Sequence
from threading import Thread

from nantui.errors import USAGE, UserError
from nantui.supervisor.config import HOURS, Alerts, load_config
from nantui.supervisor.notify.delivery import ROUTINE, NotDelivered, compose, deliver
from nantui.supervisor.notify.outbox import Note, Outbox, Way, all_ways
from nantui.terminal_text import printable

GATHER_S, POLL_S, LONGEST_RETRY_S = 2.0, 1.0, 600.0
"""The first: what comes together is told together, as an incident and that it ended the training."""
KEPT_S = 3 * 86400.0


def main() -> int:
    """Keep notes, or call the heartbeat; then send what waits in every outbox.

    A supervisor of the version before gives `{"message": …, "config": …}`.
    """
    asked = sys.stdin.read()
    if not asked:
        say("standard input has nothing to tell")
        return USAGE
    request = json.loads(asked)
    try:
        settings = load_config().notify
        ways = all_ways(settings)
    except UserError as error:
        say(str(error))
        return error.status
    before = [{"id": uuid.uuid4().hex, **request["message"]}] if "message" in request else []
    notes = [Note(t=time.time(), **told) for told in [*request.get("messages", ()), *before]]
    wanted = [way for way in ways if not way.heartbeat or request.get("well")]
    threads = [Thread(target=serve, args=(way, settings, notes)) for way in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def serve(way: Way, settings: Alerts, notes: Sequence[Note]) -> None:
    """Do what one way asks for; what goes wrong is said, without the URL."""
    outbox = Outbox(way)
    try:
        if way.heartbeat:
            with contextlib.suppress(NotDelivered):  # whoever waits for it notices
                deliver(way, {})
            return
        for note in notes:
            outbox.put(note)
        while outbox.waiting():  # once more after the lock was let go: another note may have come just before
            with outbox.sole_sender() as sole:
                if not sole:
                    return
                _send(outbox, way, settings)
    except OSError as error:
        say(f"notify {way}: {error.strerror}")


def _send(outbox: Outbox, way: Way, settings: Alerts) -> None:
    tries, retry_at = 0, 0.0
    while notes := outbox.waiting():
        pause = pause_s(notes, outbox.told_at, settings, time.time())
        if (pause := max(pause, retry_at - time.monotonic())) > 0:
            time.sleep(min(pause, POLL_S))
            continue
        try:
            came_back = deliver(way, compose(notes))
        except NotDelivered as error:
            again_s = min(settings.retry_s * 2 ** min(tries, 20), LONGEST_RETRY_S)
            tries, retry_at = tries + 1, time.monotonic() + again_s
            too_old = [note for note in notes if note.t < time.time() - KEPT_S]
            outbox.drop(too_old, told=False)
            if tries == 1 or too_old:
                what = f"{len(too_old)} given up" if too_old else f"again in {again_s:g} s, for three days"
                say(f"notify {way}: {error}; {what}")
        else:
            outbox.drop(notes, told=True)
            if tries:
                say(f"notify {way}: {came_back}, after {tries + 1} tries")
            tries = 0


def pause_s(notes: Sequence[Note], last: float, settings: Alerts, now: float) -> float:
    """Return for how many seconds the notes wait: for others, for a digest's time, in quiet hours."""
    digest_s = settings.digest_s if all(note.event in ROUTINE for note in notes) else 0.0
    times = (notes[0].t + min(GATHER_S, settings.digest_s), last + digest_s)
    # What lies further ahead than it can was written before the clock was set back.
    ahead = [time - now for time in times if time - now <= max(GATHER_S, settings.digest_s)]
    return max(*ahead, 0.0, quiet_s(settings.quiet, now))


def quiet_s(hours: str, now: float) -> float:
    """Return how many seconds of the quiet `hours` are left, 0 outside of them."""
    if not (found := HOURS.fullmatch(hours)):
        return 0.0
    begins, ends = (int(found[i]) * 60 + int(found[i + 1]) for i in (1, 3))
    clock = time.localtime(now)
    minute = clock.tm_hour * 60 + clock.tm_min
    quiet = (minute - begins) % 1440 < (ends - begins) % 1440
    return (ends - minute) % 1440 * 60.0 - clock.tm_sec if quiet else 0.0


def say(text: str) -> None:
    """Write a line into the log of whoever started this."""
    print(printable(text), file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
