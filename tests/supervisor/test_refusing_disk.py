"""A disk that refuses to be written costs lines of a log, never the supervisor, and never a command."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nantui.machine.patient_output import PatientFile
from nantui.run.commands import local_copies
from tests.soak.disks import fill
from tests.soak.harness import NotPossible
from tests.soak.worlds import small_disk, world
from tests.waiting import eventually

MEGABYTES = 4


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Nothing more fits, not even into the journal's last page."""
    (journal,) = disk.glob("runs/*/nantui/journal.jsonl")
    with journal.open("ab") as file:
        file.write(b" " * (-file.tell() % resource.getpagesize() - 1) + b"\n")
    fill(disk / "filler")
    try:
        yield
    finally:
        (disk / "filler").unlink()


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """As a file system that has found an error in itself; who has a file open there keeps it."""
    subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("refusing", [full, read_only])
def test_a_supervisor_goes_on_and_ends_its_run_while_the_disk_refuses(tmp_path, refusing):
    try:
        with small_disk(tmp_path, MEGABYTES) as disk, world(tmp_path, disk) as runs:
            run = runs.make(epochs=100000)
            run.await_state("running")
            with refusing(disk):
                outcome = run.do("kill")
                assert outcome.ok, outcome.text
                assert run.members() == [] and run.supervisor_alive()
                assert run.status().state in {"stopped", "failed"}, run.status()
                assert run.kinds().count("command_done") == 1, "the kill's waits for the disk"
                assert (local_copies(run.layout) / "journal.jsonl").is_file()
            eventually(lambda: run.kinds().count("command_done") == 2, lambda: str(run.journal()[-3:]))
            assert run.kinds().count("attempt_ended") == 1
            eventually(lambda: not any(local_copies(run.layout).iterdir()))  # all of it is where it belongs
            assert run.status().state in {"stopped", "failed"}
            eventually(lambda: not run.supervisor_alive())
            assert not run.layout.lock.exists()
    except NotPossible as reason:
        pytest.skip(str(reason))


def test_what_waited_is_written_by_the_next_supervisor(tmp_path):
    """Killed while the disk is full: the lines lie on this host, and come first."""
    try:
        with small_disk(tmp_path, MEGABYTES) as disk, world(tmp_path, disk) as runs:
            run = runs.make(epochs=100000)
            run.await_state("running")
            with full(disk):
                assert run.do("kill").ok
                run.kill_supervisor()
            assert run.do("set", set={"lr0": 0.5}).ok
            kinds = run.kinds()
            assert kinds.index("attempt_ended") < len(kinds) - 1 - kinds[::-1].index("command_done")
            assert kinds.count("attempt_ended") == 1 and kinds.count("command_done") == 3, kinds
    except NotPossible as reason:
        pytest.skip(str(reason))


def limited(size: int) -> Callable[[], None]:
    """Return what makes files of a process end at a size, as on a full disk; EFBIG instead of a signal."""

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


def test_a_process_that_prints_into_a_full_file_lives(tmp_path):
    said = tmp_path / "log"
    program = (
        "from nantui.machine.patient_output import print_patiently\n"
        "print_patiently()\n"
        "import sys\n"
        "for n in range(3000): print('line', n); print('oops', n, file=sys.stderr)\n"
        "open(sys.argv[1], 'w').write('lives')\n"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "end")]
    for before, code in ((program, 0), (program.replace("print_patiently()\n", ""), 1)):
        words[2] = before
        (tmp_path / "end").unlink(missing_ok=True)
        said.unlink(missing_ok=True)
        with said.open("wb") as log:
            done = subprocess.run(words, stdout=log, stderr=log, preexec_fn=limited(5000))
        assert (done.returncode != 0) == bool(code) and (tmp_path / "end").exists() == (not code)
        assert said.stat().st_size <= 5000


def test_what_was_dropped_is_said_once_there_is_room(tmp_path, monkeypatch):
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    write, refusing = os.write, []

    def sometimes(target: int, data: bytes) -> int:
        if refusing and target == descriptor:
            raise OSError(28, "full")
        return write(target, data)

    monkeypatch.setattr(os, "write", sometimes)
    out = io.TextIOWrapper(PatientFile(descriptor), "utf-8", write_through=True)
    print("one", file=out)
    refusing.append(True)
    print("two and", file=out)
    print("three", file=out)
    refusing.clear()
    print("four", file=out)
    assert path.read_text() == "one\n\n[nantui: 14 bytes of output were lost here: disk full]\nfour\n"
