"""A kill between the renames of one save leaves a set that a resume accepts: last.pt comes last."""

from __future__ import annotations

import os
import signal
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from nantui.errors import UserError
from nantui.run.commands import Command
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.supervisor import handlers
from nantui.worker.checkpoints.save import save_staged

NAMES = ("best.pt", "epoch5.pt", "last.pt", "zebra.pt")


def archive(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", text)


def text_of(path: Path) -> str:
    with zipfile.ZipFile(path) as file:
        return file.read("archive/data.pkl").decode()


@pytest.mark.parametrize("renames", range(len(NAMES) + 1))
def test_last_is_new_only_when_all_are(tmp_path, monkeypatch, renames):
    for name in NAMES:
        archive(tmp_path / name, "old")
    trainer = SimpleNamespace(wdir=tmp_path, last=tmp_path / "last.pt", best=tmp_path / "best.pt")

    def save() -> None:
        for name in NAMES:
            archive(Path(trainer.wdir) / name, "new")

    replace, done = os.replace, []

    def counted(source: Path, target: Path) -> None:
        if len(done) == renames:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        done.append(target)

    child = os.fork()
    if child == 0:
        monkeypatch.setattr(os, "replace", counted)
        save_staged(trainer, save, lambda file, older: None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) == (renames < len(NAMES))
    said = {name: text_of(tmp_path / name) for name in NAMES}
    assert list(said.values()).count("new") == renames
    assert said["last.pt"] == "old" or set(said.values()) == {"new"}


def candidate(name: str, work: int, usable: bool = True) -> dict[str, object]:
    return {"name": name, "work": work, "usable": usable, "repair": False}


@pytest.mark.parametrize(
    ("last", "taken"),
    [
        (candidate("last.pt", 5), True),
        (candidate("last.pt", 4), False),
        (candidate("last.pt", 5, usable=False), False),
    ],
    ids=["one behind", "two behind", "spoilt"],
)
def test_a_resume_takes_a_last_that_is_one_epoch_behind(tmp_path, monkeypatch, last, taken):
    best = candidate("best.pt", 6)
    monkeypatch.setattr(
        handlers, "act", lambda *asked: {"plan": {"restore_point": best, "candidates": [best, last]}}
    )
    port = SimpleNamespace(layout=RunLayout(tmp_path), journal=Journal(RunLayout(tmp_path).journal))
    if taken:
        found = handlers.newest_checkpoint(port, Command("resume"), changes=False)
        assert found[:2] == ("weights/last.pt", False)
    else:
        with pytest.raises(UserError, match="recover the run instead"):
            handlers.newest_checkpoint(port, Command("resume"), changes=False)
