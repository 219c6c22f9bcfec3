"""`nantui notify` against a web server on this machine that fails, delays, drops or is away: what arrives?

    python -m benchmarks.notify [--events N] [--write docs/notify-results.md]

Each row tells N incidents, one a second, by the process that a supervisor starts, into an outbox
of its own. `killed` ends one sender with SIGKILL every 3 s, also one that has not read what it was told; as a
supervisor does at its next heartbeat, what that one was told is told again. Delivered: how many the server
has taken. Twice: how many it has taken more than once; where a server takes a message and its answer is lost,
nobody can know that here. The delay counts from telling to being taken; the 2 s of a digest are in it, and
the start of the process, on a machine that does other things.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "tests" / "data" / "recorded_run" / "recovered"
EVERY_S, DIGEST_S, RETRY_S = 1.0, 2.0, 0.2
AWAY_S, SLOW_S, KILL_S = 15.0, 3.0, 3.0
SHARE = 0.5
LONGEST_S = 120.0


@dataclass
class Server:
    """Takes messages; `spoils` says what becomes of one: "" for nothing wrong."""

    spoils: Callable[[random.Random, float], str]
    taken: dict[str, list[float]] = field(default_factory=dict)
    messages: int = 0
    begun: float = field(default_factory=time.time)
    chance: random.Random = field(default_factory=lambda: random.Random(5))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        document = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            wrong = self.spoils(self.chance, time.time() - self.begun)
        if wrong == "dropped":
            return
        if wrong == "slow":
            time.sleep(SLOW_S)
        if wrong not in ("503", "away"):
            with self.lock:
                self.messages += 1
                for name in document["ids"].split():
                    self.taken.setdefault(name, []).append(time.time())
        if wrong == "answer lost":
            return
        handler.send_response(503 if wrong in ("503", "away") else 204)
        handler.end_headers()


def often(wrong: str) -> Callable[[random.Random, float], str]:
    return lambda chance, _: wrong if chance.random() < SHARE else ""


SERVERS: Mapping[str, tuple[str, Callable[[random.Random, float], str], bool]] = {
    "sound": ("takes everything", lambda chance, s: "", False),
    "failing": ("answers half of the messages with HTTP 503", often("503"), False),
    "delaying": (f"answers half of them after {SLOW_S:.0f} s", often("slow"), False),
    "dropping": ("closes half of the connections before it has taken anything", often("dropped"), False),
    "losing": (
        "takes all, and closes half of the connections without an answer",
        often("answer lost"),
        False,
    ),
    "away": (f"refuses everything for {AWAY_S:.0f} s", lambda chance, s: "away" if s < AWAY_S else "", False),
    "killed": (f"sound, but a sender is killed every {KILL_S:.0f} s", lambda chance, s: "", True),
    "failing, killed": ("both", often("503"), True),
}


@dataclass(frozen=True)
class Result:
    """What became of `events`; delays in s."""

    name: str
    what: str
    events: int
    delivered: int
    twice: int
    messages: int
    median_s: float
    longest_s: float


def measure(name: str, events: int) -> Result:
    """Tell `events` incidents to one of the servers; wait until nothing waits."""
    what, spoils, kills = SERVERS[name]
    server = Server(spoils)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.answer(self)

        def log_message(self, *words: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="nantui-notify-") as folder:
        place = Path(folder)
        environment = {**os.environ, **{f"XDG_{one}_HOME": folder for one in ("CONFIG", "STATE", "CACHE")}}
        (place / "nantui").mkdir()
        url = f"http://127.0.0.1:{http.server_port}/"
        settings = f"notify: {{url: '{url}', digest_s: {DIGEST_S}, retry_s: {RETRY_S}}}"
        (place / "nantui" / "supervise.yaml").write_text(settings)
        told = tell(place, environment, events, kills)
    http.shutdown()
    http.server_close()
    delays = [server.taken[note][0] - t for note, t in told.items() if note in server.taken] or [float("nan")]
    twice = sum(len(times) > 1 for times in server.taken.values())
    return Result(
        name, what, events, len(server.taken), twice, server.messages, statistics.median(delays), max(delays)
    )


def tell(place: Path, environment: Mapping[str, str], events: int, kills: bool) -> dict[str, float]:
    """Tell the incidents and wait until nothing waits; returns when each was told."""
    senders: list[subprocess.Popen[bytes]] = []
    told: dict[str, float] = {}
    requests: dict[subprocess.Popen[bytes], list[dict[str, str]]] = {}
    killed, again = time.time(), list[dict[str, str]]()
    until = time.time() + LONGEST_S
    while len(told) < events or again or (waiting(place) and time.time() < until):
        messages, again = again, []
        if len(told) < events:
            note = f"{len(told):04d}"
            told[note] = time.time()
            messages.append({"id": note, "run": str(RUN), "event": "incident", "text": f"number {note}"})
        if messages or not any(sender.poll() is None for sender in senders):
            senders.append(start({"messages": messages}, environment))
            requests[senders[-1]] = messages
        if kills and time.time() - killed > KILL_S:
            killed = time.time()
            for sender in [one for one in senders if one.poll() is None][:1]:
                sender.kill()
                again += requests[sender]
        time.sleep(EVERY_S)
    for sender in senders:
        sender.wait(timeout=LONGEST_S)
    return told


def waiting(place: Path) -> bool:
    return any((place / "nantui" / "notify").rglob("*.json"))


def start(request: Mapping[str, object], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    from nantui import entry_points

    sender = subprocess.Popen(
        [sys.executable, "-m", entry_points.NOTIFY], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**environment, "PYTHONPATH": str(ROOT)}, cwd="/",
    )  # fmt: skip
    assert sender.stdin is not None
    sender.stdin.write(json.dumps(request).encode())
    sender.stdin.close()
    return sender


def page(results: list[Result]) -> str:
    """Return docs/notify-results.md."""
    rows = [
        f"| {one.name} | {one.what} | {one.delivered} of {one.events} | {one.twice} | {one.messages} "
        f"| {one.median_s:.1f} | {one.longest_s:.1f} |"
        for one in results
    ]
    head = (__doc__ or "").partition("\n\n    ")
    return "\n".join(
        [
            "# Notifications, measured",
            "",
            f"Made by `python -m benchmarks.notify`; {platform.system()} {platform.machine()}, "
            f"{os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}. {head[0].strip()}",
            "",
            head[2].partition("\n\n")[2].strip(),
            "",
            "| the server | does | delivered | twice | messages | median delay, s | longest, s |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def main() -> int:
    """Measure every server; 1 where something was not delivered."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=40)
    parser.add_argument("--only", nargs="+", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    results = []
    for name in arguments.only:
        results.append(measure(name, arguments.events))
        print(results[-1], flush=True)
    if arguments.write:
        arguments.write.write_text(page(results), encoding="utf-8")
    return 0 if all(one.delivered == one.events for one in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
