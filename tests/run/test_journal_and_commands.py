"""The journal keeps what was done; the spool takes commands only from the same owner, and once each."""

import json
import os
import stat

import pytest

from nantui.errors import UserError
from nantui.run.commands import Command, pending, put
from nantui.run.events import Created, Lost, newest
from nantui.run.journal import Journal


def test_entries_come_back_in_order(tmp_path):
    journal = Journal(tmp_path / "nantui" / "journal.jsonl")
    journal.append("created", by="me@here", spec={"train": {}})
    journal.append("note", text="two")
    assert [event.kind for event in journal.events()] == ["created", "note"]
    assert newest(journal.events(), Created).by == "me@here"
    assert newest(journal.events(), Lost) is None


def test_a_torn_entry_costs_only_itself(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("note", text="one")
    with journal.path.open("a") as file:
        file.write('{"t": 1, "kind": "no')
    journal.append("note", text="two")
    assert [event.text for event in journal.events()] == ["one", "two"]


def test_nan_in_the_journal_is_a_word(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("incident", evidence={"grad_norm": float("nan")})
    assert json.loads(journal.path.read_text())["evidence"] == {"grad_norm": "nan"}


def test_a_name_that_is_no_utf8_is_kept_and_told_apart(tmp_path):
    odd = [os.fsdecode(b"/data/\xff.jpg"), os.fsdecode(b"/data/\xfe.jpg"), "/data/\u4e2d.jpg"]
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("rollback_begun", images=odd)
    assert journal.events()[0].images == tuple(odd)
    put(tmp_path / "commands", Command("quarantine", {"images": odd}))
    assert pending(tmp_path / "commands")[0][1].options["images"] == odd


def test_an_entry_that_the_disk_takes_only_in_part_is_not_kept(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("note", text="one")
    write = os.write
    with monkeypatch.context() as full_disk:
        full_disk.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:9]))
        with pytest.raises(OSError, match="No space"):
            journal.append("note", text="two")
    journal.append("note", text="two")
    assert [event.text for event in journal.events()] == ["one", "two"]


def test_commands_wait_oldest_first_and_private(tmp_path):
    spool = tmp_path / "commands"
    put(spool, Command("stop", t=2.0))
    put(spool, Command("kill", t=1.0))
    assert [command.kind for _, command in pending(spool)] == ["kill", "stop"]
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700


def test_commands_of_one_moment_wait_in_their_order_also_beside_an_older_versions(tmp_path):
    kinds = ["set", "start", "stop", "undo", "resume", "kill"]
    for t in (1764000000.1234, 1764000000.1239, 1764000000.1242):
        for kind in kinds:
            put(tmp_path, Command(kind, t=t))
    old = put(tmp_path, Command("rollback", t=1764000000.1234))
    old.rename(tmp_path / f"1764000000123-{'f' * 32}.json")
    assert [command.kind for _, command in pending(tmp_path)] == ["rollback", *kinds * 3]


@pytest.mark.parametrize("text", ["", "{}", '{"kind": "rm -rf"}', "[]", '{"id": 1}'])
def test_what_is_no_command_is_left_out(tmp_path, text):
    (tmp_path / "0001-x.json").write_text(text)
    assert pending(tmp_path) == []


def test_links_and_pipes_are_never_followed(tmp_path):
    real = put(tmp_path / "real", Command("stop"))
    spool = tmp_path / "commands"
    spool.mkdir()
    (spool / "1-link.json").symlink_to(real)
    os.mkfifo(spool / "2-pipe.json")
    assert pending(spool) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_other_peoples_commands_are_not_taken(tmp_path):
    path = put(tmp_path, Command("kill"))
    os.chown(path, 12345, 12345)
    assert pending(tmp_path) == []


def test_a_spool_that_cannot_be_written_says_that_nothing_was_done(tmp_path):
    (tmp_path / "commands").write_text("a file in the way")
    with pytest.raises(UserError, match="nothing was done"):
        put(tmp_path / "commands", Command("stop"))
