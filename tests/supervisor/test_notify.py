"""Telling somebody: kept until it is taken, once, together, in no quiet hour, without a word of the URL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from nantui import entry_points
from nantui.cli import main
from nantui.commands import common, notify
from nantui.errors import UserError
from nantui.supervisor.config import Alerts, load_config
from nantui.supervisor.notify.__main__ import pause_s, quiet_s
from nantui.supervisor.notify.delivery import compose, curve, facts, filled
from nantui.supervisor.notify.outbox import Note, Outbox, Way, keep_ways, kept_ways, start_sender
from tests.waiting import eventually

FAILED = {"run": "/r", "event": "failed", "text": ""}
QUICK = "digest_s: 0, retry_s: 0.05"


class Hook:
    """A web server that keeps what it is sent; `refuses` so many times first."""

    def __init__(self):
        self.received, self.calls, self.refuses = [], 0, 0

    def answer(self, handler):
        if handler.command == "GET":
            self.calls += 1
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.refuses -= 1
        if self.refuses < 0 and body:
            self.received.append(json.loads(body))
        handler.send_response(503 if self.refuses >= 0 else 204)
        handler.end_headers()


@pytest.fixture
def hook():
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            hook.answer(self)

        do_GET = do_POST

        def log_message(self, *words):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook.url = f"http://127.0.0.1:{server.server_port}/secret-token"
    yield hook
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(own_home):
    """Return what writes the `notify:` of supervise.yaml."""
    path = own_home / "config" / "nantui" / "supervise.yaml"
    quick = path.read_text()

    def write(notify):
        path.write_text(f"{quick}notify: {{{', '.join(filter(None, [QUICK, notify]))}}}\n")

    write("")
    yield write
    shutil.rmtree(own_home / "state" / "nantui" / "notify", ignore_errors=True)  # no sender has anything left


def note(event="failed", text="out of memory", run="/runs/train", t=100.0):
    return Note(f"{event}{t}", t, run, event, text)


def sent(note_or_event, **fields):
    """Send one message as a supervisor does and wait until nothing waits; returns what was complained of."""
    told = {"run": "/runs/train", "event": note_or_event, "text": "as it is", **fields}
    done = subprocess.run(
        [sys.executable, "-m", entry_points.NOTIFY], input=json.dumps({"message": told}), text=True,
        capture_output=True, timeout=60, check=True, cwd="/",
    )  # fmt: skip
    return done.stderr


def test_a_url_gets_run_event_text_and_what_people_read(settings, hook):
    keep_ways([Way(hook.url)])
    assert sent("diverged", text="NaN in the loss") == ""
    (message,) = hook.received
    assert (message["run"], message["event"], message["text"]) == (
        "/runs/train",
        "diverged",
        "NaN in the loss",
    )
    assert message["title"] == "nantui: train diverged" and "diverged: NaN in the loss" in message["body"]


def test_a_command_gets_event_run_and_text_as_words(settings, tmp_path):
    out = tmp_path / "told"
    writes = f"""sh, -c, 'printf "%s|%s|%s" "$1" "$2" "$3" > {out}', x"""
    settings(f'command: [{writes}, "{{event}}", "{{run}}", "{{text}}"]')
    sent("failed", text="$(touch owned) `id`", run=str(tmp_path))
    assert out.read_text() == f"failed|{tmp_path}|$(touch owned) `id`"
    assert not (tmp_path / "owned").exists()


def test_other_braces_are_left_alone():
    assert filled("{a} {text} {event}", {"text": "{event}", "event": "x"}) == "{a} {event} x"


def test_what_is_refused_is_tried_again_until_it_is_taken_and_then_once_only(settings, hook):
    keep_ways([Way(hook.url)])
    hook.refuses = 3
    complaints = sent("failed", id="one")
    assert [one["event"] for one in hook.received] == ["failed"]
    assert "HTTP Error 503" in complaints and "after 4 tries" in complaints
    assert "secret-token" not in complaints
    sent("failed", id="one")
    assert len(hook.received) == 1, "told again with the same id"
    assert Outbox(Way(hook.url)).waiting() == []


def test_one_way_that_does_not_answer_holds_up_no_other(settings, hook):
    dead = Way("http://127.0.0.1:1/secret-token")
    keep_ways([dead, Way(hook.url)])
    sender = start_sender(
        Alerts(url=hook.url), {"message": {"run": "/r", "event": "failed", "text": ""}}, print
    )
    try:
        eventually(lambda: hook.received)
        eventually(lambda: Outbox(dead).waiting())
        assert sender.poll() is None, "it goes on trying"
    finally:
        sender.kill()
        sender.wait()
    hook.received.clear()
    keep_ways([Way(hook.url)])
    assert hook.received == []


def test_what_a_killed_sender_left_the_next_one_sends(settings, hook):
    keep_ways([Way(hook.url)])
    hook.refuses = 10**6
    sender = start_sender(
        Alerts(url=hook.url), {"message": {"run": "/r", "event": "failed", "text": ""}}, print
    )
    eventually(lambda: Outbox(Way(hook.url)).waiting())
    sender.kill()
    sender.wait()
    hook.refuses = 0
    subprocess.run([sys.executable, "-m", entry_points.NOTIFY], input=b"{}", check=True, timeout=60, cwd="/")
    assert [one["event"] for one in hook.received] == ["failed"]


def test_two_senders_never_send_the_same(settings, hook):
    keep_ways([Way(hook.url)])
    for number in range(5):
        Outbox(Way(hook.url)).put(note(t=float(number)))
    senders = [start_sender(Alerts(url=hook.url), {}, print) for _ in range(4)]
    assert [sender.wait(timeout=60) for sender in senders] == [0] * 4
    assert len(hook.received) == 1 and "4 other events" in hook.received[0]["title"]


def test_many_incidents_are_one_message_and_an_end_does_not_wait():
    alerts = Alerts(digest_s=300)
    incidents = [note("incident", t=100.0 + i) for i in range(25)]
    assert pause_s(incidents, last=90.0, settings=alerts, now=120.0) == 270.0
    assert pause_s([*incidents, note("failed", t=125.0)], 90.0, alerts, now=130.0) == 0
    assert pause_s([note("failed", t=125.0)], 90.0, alerts, now=126.0) == 1.0, "what comes with it"
    message = compose([*incidents, note("failed")])
    assert len(message["ids"].split()) == 26
    assert message["event"] == "failed" and "(and 25 other events)" in message["title"]
    assert message["body"].splitlines()[0] == "… 16 earlier events"


def test_a_clock_set_back_holds_nothing_up():
    assert pause_s([note("incident", t=10.0**9)], 10.0**9, Alerts(), now=0.0) == 0


@pytest.mark.parametrize(
    ("hours", "clock", "left"),
    [("22:00-07:30", "23:30", 8 * 3600), ("22:00-07:30", "07:29", 60), ("22:00-07:30", "07:30", 0),
     ("22:00-07:30", "21:59", 0), ("01:00-05:00", "04:00", 3600), ("01:00-05:00", "00:59", 0),
     ("", "03:00", 0)],
)  # fmt: skip
def test_quiet_hours(hours, clock, left):
    now = time.mktime(time.strptime(f"2026-03-03 {clock}", "%Y-%m-%d %H:%M"))
    assert quiet_s(hours, now) == left
    assert pause_s([note("failed", t=now - 60)], 0.0, Alerts(quiet=hours), now) == left


@pytest.mark.parametrize("wrong", ["quiet: at night", "digest_s: soon", "urls: [x]"])
def test_settings_that_make_no_sense_are_refused(settings, wrong):
    settings(wrong)
    with pytest.raises(UserError, match="supervise.yaml: "):
        load_config()


def test_a_curve_of_any_length_has_at_most_40_columns():
    assert curve([0.0, 0.5, 1.0]) == "▁▅█" or curve([0.0, 0.5, 1.0]) == "▁▄█"
    assert curve([1.0, float("nan"), 1.0]) == "▁×▁"
    for length in (1, 39, 40, 41, 79, 1000):
        line = curve([float(number) for number in range(length)])
        assert 0 < len(line) <= 40 and line[-1] == ("█" if length > 1 else "▁")
    assert curve([float("nan")] * 3) == "×××"


def test_the_facts_of_a_run_are_epoch_metric_remedy_and_curve(recorded):
    first, remedy, line = facts(recorded)
    assert first.startswith("finished, epoch 20/20, mAP50-95 ")
    assert remedy.startswith("remedy: back to ") and "nan-safe" in remedy
    assert line.startswith("mAP50-95 ") and line.endswith(" 20 epochs")


@pytest.fixture
def recorded(request):
    return request.config.rootpath / "tests" / "data" / "recorded_run" / "recovered"


def test_what_ways_say_themselves_is_not_repeated(settings, tmp_path, monkeypatch):
    (tmp_path / "apprise.py").write_text(
        "import contextlib, io, logging\n"
        "class NotifyFormat: TEXT = 'text'\n"
        "@contextlib.contextmanager\n"
        "def LogCapture(level, fmt):\n"
        "    yield io.StringIO('cannot use https://example.org/secret-token')\n"
        "class Apprise:\n"
        "    def __init__(self, service): pass\n"
        "    instantiate = staticmethod(lambda url, **words: url)\n"
        "    def notify(self, **words):\n"
        "        logging.getLogger('apprise').error('secret-token'); return False\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    settings('command: [sh, -c, "echo https://example.org/secret-token >&2; exit 3"], retry_s: 100')
    keep_ways([Way("slack://secret-token")])
    sender = subprocess.Popen(
        [sys.executable, "-m", entry_points.NOTIFY], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        sender.stdin.write(json.dumps({"message": FAILED}))
        sender.stdin.close()
        said = sorted(sender.stderr.readline() for _ in range(2))
    finally:
        sender.kill()
        sender.wait()
    assert not any("secret" in line for line in said)
    assert any("sh: exit status 3" in line for line in said)
    assert any("slack://…: cannot use https://example.org/…" in line for line in said)


def test_a_run_that_ends_tells_and_nothing_secret_is_written_down(make_run, hook, settings):
    settings(f"url: '{hook.url}', command: ['false']")
    run = make_run(diverge_at=[1, 3])
    run.await_state("diverged")
    eventually(lambda: any(one["event"] == "diverged" for one in hook.received))
    run.await_leave()
    texts = [path.read_text(errors="replace") for path in run.layout.home.rglob("*") if path.is_file()]
    assert not any("secret-token" in text for text in texts)
    assert any("false: exit status 1" in text for text in texts), "a command that fails is said"
    assert "incident: " in "".join(one["body"] for one in hook.received)


def test_the_heartbeat_is_asked_for_while_all_is_well_only(make_run, hook, settings):
    settings("heartbeat_s: 0.2")
    keep_ways([Way(hook.url, heartbeat=True)])
    run = make_run()
    run.await_step()
    eventually(lambda: hook.calls > 1)
    run.do("stop")
    eventually(lambda: not run.supervisor_alive())
    assert hook.received == []


def test_a_sender_outlives_its_supervisor(make_run, hook, settings):
    keep_ways([Way(hook.url)])
    hook.refuses = 10**6
    run = make_run(diverge_at=[1, 3])
    run.await_state("diverged")
    eventually(lambda: hook.refuses < 10**6)
    run.await_leave()
    hook.refuses = 0
    eventually(lambda: any(one["event"] == "diverged" for one in hook.received))


def test_what_a_sender_could_not_keep_is_told_again(make_run, hook, settings, own_home):
    settings(f"url: '{hook.url}', heartbeat_s: 0.2")  # then it is told again
    run = make_run()
    run.await_step()
    path = own_home / "config" / "nantui" / "supervise.yaml"
    sound = path.read_text()
    path.write_text("{")  # with this every sender ends in an error
    incident = {"t": 1.0, "kind": "incident", "incident": "nan_loss", "action": "skipped", "text": "NaN"}
    with run.layout.events(1, 0).open("a") as file:
        file.write(json.dumps(incident) + "\n")
    eventually(lambda: "not readable as YAML" in (run.layout.home / "supervisor.log").read_text())
    assert hook.received == []
    path.write_text(sound)
    eventually(lambda: [one["event"] for one in hook.received] == ["incident"])
    assert hook.received[0]["text"] == "nan_loss: NaN"


# the command


def told(capsys):
    return capsys.readouterr().out


def test_urls_are_kept_for_this_user_alone_and_never_shown_whole(settings, hook, own_home, capsys):
    assert main(["notify", "add", hook.url]) == 0
    assert main(["notify", "add", f"{hook.url}/beat", "--heartbeat"]) == 0
    kept = own_home / "config" / "nantui" / "notify.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.chmod(0o644)
    assert len(kept_ways()) == 2 and kept.stat().st_mode & 0o777 == 0o600
    assert main(["notify", "list"]) == 0 and main(["notify", "test"]) == 0
    said = told(capsys)
    assert "secret-token" not in said and "HTTP 204" in said and "127.0.0.1" in said
    assert [one["event"] for one in hook.received] == ["test"] and hook.calls == 1
    assert main(["notify", "remove", Way(hook.url).name]) == 0
    assert [way.url for way in kept_ways()] == [f"{hook.url}/beat"]


def test_a_test_says_what_came_back(settings, hook, capsys):
    keep_ways([Way("http://127.0.0.1:1/secret-token"), Way(hook.url)])
    hook.refuses = 1
    assert main(["notify", "test", "--json"]) == 1
    dead, refused = json.loads(told(capsys))["ways"]
    assert (dead["delivered"], refused["delivered"]) == (False, False)
    assert "Connection refused" in dead["came_back"] and "503" in refused["came_back"]


def test_an_address_that_takes_its_time_is_named(settings, hook, monkeypatch, capsys):
    keep_ways([Way(hook.url)])
    monkeypatch.setattr(common, "SLOW_S", 0.05)
    assert main(["notify", "list"]) == 0
    assert "no answer yet" not in capsys.readouterr().err
    described = notify.described
    monkeypatch.setattr(notify, "described", lambda *how: (time.sleep(0.5), described(*how))[1])
    assert main(["notify", "test"]) == 0
    said = capsys.readouterr().err
    assert "127.0.0.1" in said and "no answer yet" in said and "secret-token" not in said


def test_a_url_may_come_on_standard_input(settings, hook, monkeypatch, capsys):
    read, write = os.pipe()
    os.write(write, f"{hook.url}\n".encode())
    os.close(write)
    with open(read) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert main(["notify", "add", "-"]) == 0
    assert [way.url for way in kept_ways()] == [hook.url]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add"], "nantui notify add URL"),
        (["add", "secret-token"], "that is no URL"),
        (["add", "nothing://secret-token"], "nothing://…"),
        (["add", "slack://secret-token", "--heartbeat"], "a heartbeat is a web address"),
        (["remove", "abcdef"], "nothing of that name"),
        (["add", "http://x/y", "--read-only"], "--read-only"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_kept(settings, words, says, capsys):
    assert main(["notify", *words]) in (1, 2, 3)
    said = capsys.readouterr().err
    assert says in said and len(said.splitlines()) == 1 and "secret" not in said
    assert kept_ways() == []


def test_without_apprise_one_line_says_what_to_install(settings, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert main(["notify", "add", "ntfy://topic"]) == 2
    assert "pip install 'nantui[alerts]'" in capsys.readouterr().err
    assert main(["notify", "add", "https://example.org/hook"]) == 0


def test_a_broken_file_of_urls_is_one_line(settings, own_home, capsys):
    (own_home / "config" / "nantui" / "notify.json").write_text("{")
    assert main(["notify", "list"]) == 2
    assert "notify.json is not as" in capsys.readouterr().err
