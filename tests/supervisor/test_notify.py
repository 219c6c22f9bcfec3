"""Telling somebody: by the user's own command or URL, without a shell, without a word of the URL in a log."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from nantui.supervisor.notify import fill, tell
from tests.supervisor.stub_run import eventually


def test_a_command_gets_event_run_and_text_as_words(tmp_path):
    out = tmp_path / "told"
    command = [
        "sh",
        "-c",
        'printf "%s|%s|%s" "$1" "$2" "$3" > ' + str(out),
        "x",
        "{event}",
        "{run}",
        "{text}",
    ]
    child = tell({"command": command}, tmp_path, "failed", "$(touch owned) `id`\x1b[2J", print)
    assert child.wait() == 0
    assert out.read_text() == f"failed|{tmp_path}|$(touch owned) `id`"
    assert not (tmp_path / "owned").exists()


def test_other_braces_are_left_alone():
    assert fill("{a} {text} {event}", {"text": "{event}", "event": "x"}) in {"{a} {event} x", "{a} x x"}


@pytest.fixture
def hook():
    """A web server that keeps what it is sent; yields (url, received)."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/secret-token", received
    server.shutdown()
    server.server_close()


def test_a_url_gets_json(tmp_path, hook):
    url, received = hook
    assert tell({"url": url}, tmp_path, "diverged", "NaN", print).wait() == 0
    assert received == [{"run": str(tmp_path), "event": "diverged", "text": "NaN"}]


def test_what_ways_say_themselves_is_not_repeated(tmp_path, monkeypatch, capfd):
    (tmp_path / "apprise.py").write_text(
        "import logging\n"
        "class Apprise:\n"
        "    def add(self, url): logging.getLogger('apprise').error('cannot use %s', url)\n"
        "    def notify(self, **words): return False\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    complain = ["sh", "-c", "echo https://example.org/secret-token >&2; exit 3"]
    config = {"url": "slack://secret-token", "command": complain}
    assert tell(config, tmp_path, "failed", "", print).wait() == 1
    said = capfd.readouterr().err
    assert "secret-token" not in said
    assert said.splitlines() == ["notify by_command: exit status 3", "notify by_url: RuntimeError"]


def test_what_was_not_asked_for_is_not_told(tmp_path):
    assert tell({"command": ["true"], "on": ["failed"]}, tmp_path, "finished", "", print) is None
    assert tell({}, tmp_path, "failed", "", print) is None


def test_a_run_that_ends_tells_and_nothing_secret_is_written_down(make_run, hook, own_home):
    url, received = hook
    config = own_home / "config" / "nantui" / "supervise.yaml"
    config.write_text(config.read_text() + f"notify: {{url: '{url}', command: [false]}}\n")
    run = make_run(diverge_at=[1, 3])
    run.await_state("diverged")
    eventually(lambda: {one["event"] for one in received} == {"incident", "diverged"})
    eventually(lambda: not run.supervisor_alive())
    texts = [path.read_text(errors="replace") for path in run.layout.home.rglob("*") if path.is_file()]
    assert not any("secret-token" in text for text in texts)
    assert any("by_command" in text for text in texts), "a command that fails is said"
