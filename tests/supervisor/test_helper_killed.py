"""A helper that is killed, out of memory perhaps, does not leave a half rolled-back run behind unsaid."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace

import pytest

from nantui.errors import UserError
from nantui.machine.process_identity import ref_of, this_machine
from nantui.run.binding import bind
from nantui.run.commands import Command
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, write_spec
from nantui.supervisor import recovery
from nantui.supervisor.state import SupervisorState, write_state
from nantui.supervisor.status import HALF_DONE, read_status

HELPER = """#!{python}
import json, os, pathlib, signal, sys
request = json.loads(pathlib.Path(sys.argv[3]).read_text())
journal = pathlib.Path(request["run"]) / "nantui" / "journal.jsonl"
def say(kind):
    with journal.open("a") as file:
        print(json.dumps({{"t": 1, "kind": kind, "by": "me", "id": "c1", "steps": []}}), file=file)
if request["action"] == "rollback":
    if {begins}:
        say("rollback_begun")
    os.kill(os.getpid(), signal.SIGKILL)
text = "an interrupted rollback was taken back" if {begins} else ""
if text:
    say("rollback_reverted")
print(json.dumps({{"ok": True, "text": text}}))
"""


@pytest.fixture
def run(tmp_path):
    layout = RunLayout(tmp_path / "run")
    layout.home.mkdir(parents=True)
    Journal(layout.journal).append("created")
    return layout


def port_of(layout: RunLayout, begins: bool):
    python = layout.run.parent / "python"
    python.write_text(HELPER.format(python=sys.executable, begins=begins))
    python.chmod(0o755)
    write_spec(layout.spec, Spec({}, {}, python=str(python)))
    bind(layout.run)
    return SimpleNamespace(
        layout=layout,
        journal=Journal(layout.journal),
        pump=time.sleep,
        start_helper=lambda child: None,
        waiting=None,
    )


def test_what_it_had_begun_is_put_right_at_once(run):
    port = port_of(run, begins=True)
    with pytest.raises(
        UserError, match=r"gave no answer \(exit -9\).*; an interrupted rollback was taken back"
    ):
        recovery.act(port, Command("rollback", {}, "c1", "me"), "rollback")
    assert recovery.repair(port) == "", "nothing is left to do"


def test_one_that_had_begun_nothing_is_said_and_no_more(run):
    port = port_of(run, begins=False)
    with pytest.raises(UserError, match=r"gave no answer \(exit -9\): no output$"):
        recovery.act(port, Command("rollback", {}, "c1", "me"), "rollback")


def test_a_status_says_that_a_rollback_is_half_done(run):
    """The supervisor was killed, too, in the middle of its command."""
    gone = ref_of(1)
    assert gone is not None
    gone = type(gone)(gone.pid, gone.created + 1000)
    doing = {"command": "c1", "kind": "rollback", "stage": "rollback", "text": ""}
    write_state(
        run.supervisor, SupervisorState(gone, this_machine(), state="recovering", attempt=1, doing=doing)
    )
    (run.attempts).mkdir()
    Journal(run.journal).append("rollback_begun", id="c1", steps=[])
    assert read_status(run.run).text == HALF_DONE
    Journal(run.journal).append("rollback_reverted", id="c1")
    assert read_status(run.run).text != HALF_DONE
