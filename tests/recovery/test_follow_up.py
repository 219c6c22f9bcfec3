"""What the supervisor does with a decision: only a proven ruin takes a finished training up again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nantui.errors import UserError
from nantui.run import commands
from nantui.run.attempts import DIVERGED, FINISHED, STOPPED
from nantui.run.binding import bind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, write_spec
from nantui.supervisor import recovery
from nantui.supervisor.__main__ import Service
from nantui.supervisor.outcome import Ending


@pytest.fixture
def supervisor(tmp_path: Path) -> Any:
    """A supervisor of a run with --auto that remembers what it published and told."""
    layout = RunLayout(tmp_path)
    layout.home.mkdir(parents=True, exist_ok=True)
    write_spec(layout.spec, Spec({"epochs": 8}, auto=True))
    bind(layout.run)
    said: list[tuple[str, str]] = []
    early: list[bool] = []
    return SimpleNamespace(
        layout=layout,
        journal=Journal(layout.journal),
        said=said,
        publish=lambda **changes: said.append(("published", changes["text"])) if "text" in changes else None,
        tell=lambda event, text: said.append((event, text)),
        bring_up=lambda: early.append(True),
        early=early,
    )


def decided(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | Exception) -> None:
    def act(*request: Any) -> dict[str, Any]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(recovery, "act", act)


def test_a_proven_ruin_is_recovered_with_the_evidence_in_the_journal(
    supervisor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"to": "epoch2.pt", "presets": ["nan-safe"]}
    evidence = {"epoch": 4, "loss": 900.0}
    answer = {"action": "recover", "why": "worse", "options": options, "images": (), "evidence": evidence}
    decided(monkeypatch, answer)
    recovery.recover_unattended(supervisor, Ending(FINISHED))
    (note,) = supervisor.journal.events()
    assert (note.text, note.more["evidence"], note.by) == ("unattended: worse", evidence, "policy")
    ((_, command),) = commands.pending_commands(supervisor.layout)
    assert command.kind == "recover" and command.options == {**options, "images": [], "wait_gpu": True}


def test_what_a_person_asks_for_while_it_is_decided_comes_alone(
    supervisor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision takes seconds. A recovery that came second would end what the person has just begun."""
    own = commands.Command("resume", by="me@here")

    def act(*request: Any) -> dict[str, Any]:
        commands.put(commands.spool_for(supervisor.layout), own)
        return {"action": "recover", "why": "nan-safe", "options": {"to": "epoch2.pt"}}

    monkeypatch.setattr(recovery, "act", act)
    assert recovery.recover_unattended(supervisor, Ending(DIVERGED)), "it is asked again where that fails"
    assert [one.id for _, one in commands.pending_commands(supervisor.layout)] == [own.id]
    assert not supervisor.journal.events() and not supervisor.said
    assert recovery.recover_unattended(supervisor, Ending(DIVERGED)), "nor is it asked while that waits"


def test_who_has_given_up_is_not_asked_again_for_what_came_meanwhile(
    supervisor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(*request: Any) -> dict[str, Any]:
        commands.put(commands.spool_for(supervisor.layout), commands.Command("set", by="me@here"))
        return {"action": "give up", "why": "spent"}

    monkeypatch.setattr(recovery, "act", act)
    service = cast(Any, SimpleNamespace(supervisor=supervisor, told="", _left=None))
    Service._what_follows(service, Ending(DIVERGED))
    assert service._left is None
    assert [event for event, _ in supervisor.said].count(DIVERGED) == 1


@pytest.mark.parametrize("outcome", [FINISHED, STOPPED])
def test_nothing_to_do_is_not_even_said(
    outcome: str, supervisor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(monkeypatch, {"action": "nothing", "why": "it finished"})
    recovery.recover_unattended(supervisor, Ending(outcome))
    assert (
        not supervisor.said
        and not supervisor.journal.events()
        and not list(commands.pending_commands(supervisor.layout))
    )


@pytest.mark.parametrize(
    ("outcome", "answer", "event", "begins"),
    [
        (FINISHED, {"action": "tell", "why": "worse than untrained"}, FINISHED, "finished, but worse"),
        (FINISHED, UserError("no helper"), FINISHED, "finished, but no helper"),
        (DIVERGED, {"action": "give up", "why": "spent"}, DIVERGED, "unattended recovery gave up: spent"),
    ],
)
def test_what_is_not_done_is_told_under_the_right_name(
    outcome: str, answer: Any, event: str, begins: str, supervisor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    decided(monkeypatch, answer)
    recovery.recover_unattended(supervisor, Ending(outcome))
    (_, text), (told, again) = supervisor.said
    assert told == event and text == again and text.startswith(begins)
    assert bool(supervisor.early) == (outcome == DIVERGED), "a worker is brought up while it is decided"
    assert not list(commands.pending_commands(supervisor.layout))
