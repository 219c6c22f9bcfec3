"""Many files and several threads: helper processes look once at each file, and may fail."""

import shutil
import subprocess
import sys
import threading

from nantui.checkpoint import parallel_scan
from nantui.checkpoint.catalog import Catalog
from tests.checkpoint.editing import edited
from tests.checkpoint.lists import age, badges, channel


def many(weights, count=12):
    for index in range(count):
        shutil.copy2(weights / "epoch1.pt", weights / f"epoch{100 + index}.pt")
        age(weights / f"epoch{100 + index}.pt", 1000 + index)


def test_many_files_are_looked_at_in_helper_processes(weights, looked):
    many(weights)
    verdicts = list(Catalog(weights).verdicts())
    assert [verdict.path.name for verdict in verdicts][:2] == ["epoch111.pt", "epoch110.pt"]
    assert {verdict.badge for verdict in verdicts} == {"clean"} and len(verdicts) == 18
    assert looked == [], "all of them in the helpers"
    assert verdicts == list(Catalog(weights).verdicts())


def test_helpers_and_comparisons_look_at_each_file_once(weights, looked):
    """The newest file is under suspicion: those that are asked about it are awaited, not read twice."""
    many(weights)
    age(edited(weights / "epoch3.pt", weights / "epoch200.pt", channel), 5000)
    verdicts = list(Catalog(weights).verdicts())
    assert verdicts[0].path.name == "epoch200.pt" and verdicts[0].badge == "corrupt"
    assert looked == [] and len(verdicts) == 19


def test_helpers_import_nothing_from_the_working_directory(weights, looked, tmp_path, monkeypatch):
    many(weights)
    for name in ("json", "numpy", "nantui"):
        (tmp_path / f"{name}.py").write_text(
            "import pathlib; pathlib.Path('tripwire').touch(); import nowhere"
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", ".")])
    assert len(badges(Catalog(weights.absolute()))) == 18
    assert looked == [] and not (tmp_path / "tripwire").exists()


def test_when_helpers_fail_we_look_ourselves(weights, looked, monkeypatch):
    many(weights)
    monkeypatch.setattr(parallel_scan.sys, "executable", "/nowhere/python")
    assert len(badges(Catalog(weights))) == 18 and len(looked) == 18


def test_helpers_that_die_leave_the_rest_to_us(weights, looked, monkeypatch):
    many(weights)
    monkeypatch.setattr(parallel_scan.sys, "executable", "/bin/true")
    assert len(badges(Catalog(weights))) == 18 and len(looked) == 18


def test_helpers_are_gone_when_the_list_is_left_early(weights, monkeypatch):
    many(weights)
    started = []
    real = subprocess.Popen

    def popen(*arguments, **options):
        started.append(real(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(parallel_scan.subprocess, "Popen", popen)
    verdicts = Catalog(weights).verdicts()
    next(verdicts)
    verdicts.close()
    assert started and all(process.poll() is not None for process in started)


def test_files_that_vanish_meanwhile(weights):
    verdicts = Catalog(weights).verdicts()
    next(verdicts)
    for path in weights.glob("epoch*.pt"):
        path.unlink()
    assert {verdict.badge for verdict in verdicts} == {"clean", "unreadable"}


def test_two_threads_scan_a_file_once(weights, looked):
    catalog = Catalog(weights)
    threads = [threading.Thread(target=lambda: list(catalog.verdicts())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(looked) == sorted(set(looked)) and len(looked) == 6
