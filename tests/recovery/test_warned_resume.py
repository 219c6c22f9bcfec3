"""A warning is a judgement: it moves what is proposed to a person, not what a plain resume goes on from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nantui.recovery.__main__ import act_plan
from nantui.recovery.plan import make_plan
from nantui.run.commands import Command
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.supervisor import handlers


def test_a_resume_goes_on_from_the_newest_checkpoint_whatever_the_guard_has_said(
    healthy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What --auto does after a lost GPU, and `s` after a stop: a healthy training is not to end there."""
    journal = Journal(RunLayout(healthy).journal)
    journal.append("attempt_started", attempt=1, mode="start")
    journal.append("warning", attempt=1, warning="loss_exploded", epoch=4, step=1, text="left its range")
    assert make_plan(healthy).restore.name == "epoch2.pt", "what R proposes"

    def asked(port: Any, command: Command, action: str) -> dict[str, Any]:
        assert action == "plan"
        return act_plan({**command.options, "run": str(healthy), "propose": False})

    monkeypatch.setattr(handlers, "act", asked)
    port = SimpleNamespace(layout=RunLayout(healthy), journal=journal)
    journal.append("attempt_ended", attempt=1, outcome="stopped")
    for changes in (False, True):
        found = handlers.newest_checkpoint(port, Command("resume"), changes=changes)
        assert found == ("weights/last.pt", False, 4, "")


def test_a_plan_made_while_it_trains_does_not_go_back_to_last(healthy: Path) -> None:
    journal = Journal(RunLayout(healthy).journal)
    names = []
    for kind in ("attempt_started", "attempt_ended"):
        journal.append(kind, attempt=1)
        names.append(make_plan(healthy).restore.name)
    assert names == ["epoch3.pt", "last.pt"]
