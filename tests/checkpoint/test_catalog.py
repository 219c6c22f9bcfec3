"""The list of a run's checkpoints: at once, newest first, compared with older ones, remembered."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from nantui.checkpoint import catalog as module
from nantui.checkpoint import helpers
from nantui.checkpoint.cache import SETTLED, cache_directory
from nantui.checkpoint.catalog import Catalog
from tests.checkpoint.editing import CONV, NAN, both, edited, poison, put, strip

START = time.time() - 7200


def channel(checkpoint):
    poison(lambda name: name == CONV, NAN, channel=7)(checkpoint)


@pytest.fixture
def weights(run_of, tmp_path):
    """A copy of a healthy run's weights, with the times of an hour ago."""
    target = tmp_path / "run" / "weights"
    shutil.copytree(run_of("detect8") / "weights", target)
    for index, name in enumerate(["epoch0", "epoch1", "epoch2", "epoch3", "last", "best"]):
        age(target / f"{name}.pt", index * 60)
    return target


def age(path, seconds):
    os.utime(path, (START + seconds, START + seconds))
    return path


def badges(catalog):
    return {verdict.path.name: verdict.badge for verdict in catalog.verdicts()}


@pytest.fixture
def looked(monkeypatch):
    """The names of the files that were really looked at, in order."""
    seen = []
    real = module.look

    def look(path, **options):
        seen.append(path.name)
        return real(path, **options)

    monkeypatch.setattr(module, "look", look)
    return seen


def test_the_list_is_there_at_once(weights, looked):
    files = Catalog(weights).files()
    assert [file.name for file in files] == [
        "best.pt", "last.pt", "epoch3.pt", "epoch2.pt", "epoch1.pt", "epoch0.pt",
    ]  # fmt: skip
    assert [(file.kind, file.epoch) for file in files[:3]] == [("best", None), ("last", None), ("epoch", 3)]
    assert files[0].bytes == files[0].path.stat().st_size and files[0].modified == START + 300
    assert looked == []


def test_kinds_and_the_backup_folder(weights):
    (weights / "corrupted_backup").mkdir()
    shutil.copy2(weights / "epoch2.pt", weights / "corrupted_backup" / "last_epoch134_corrupted.pt")
    shutil.copy2(weights / "epoch2.pt", weights / "nantui_stop.pt")
    (weights / ".last.pt.tmp").touch()
    (weights / ".hidden.pt").touch()
    (weights / "notes.txt").touch()
    files = {file.name: file for file in Catalog(weights).files()}
    assert (
        files["last_epoch134_corrupted.pt"].in_backup and files["last_epoch134_corrupted.pt"].kind == "other"
    )
    assert files["nantui_stop.pt"].kind == "nantui_stop" and not files["nantui_stop.pt"].in_backup
    assert set(files) == {
        "last.pt", "best.pt", "epoch0.pt", "epoch1.pt", "epoch2.pt", "epoch3.pt", "nantui_stop.pt",
        "last_epoch134_corrupted.pt",
    }  # fmt: skip


def test_a_directory_that_is_not_there_is_empty(tmp_path):
    catalog = Catalog(tmp_path / "nowhere")
    assert catalog.files() == [] and list(catalog.verdicts()) == []


def test_verdicts_come_newest_first_one_by_one(weights, looked):
    verdicts = Catalog(weights).verdicts()
    assert next(verdicts).path.name == "best.pt" and looked == ["best.pt"]
    assert [verdict.path.name for verdict in verdicts] == [
        "last.pt", "epoch3.pt", "epoch2.pt", "epoch1.pt", "epoch0.pt",
    ]  # fmt: skip


def test_best_is_the_same_save_as_best(weights):
    best = {verdict.path.name for verdict in Catalog(weights).verdicts() if verdict.best}
    assert best == {"best.pt", "last.pt", "epoch3.pt"}
    assert Catalog(weights).verdict(weights / "epoch3.pt").best
    assert not Catalog(weights).verdict(weights / "epoch2.pt").best


# -- comparisons ----------------------------------------------------------------------------------------


def test_one_washed_channel_is_found_by_the_nearest_older_file(weights):
    age(edited(weights / "epoch2.pt", weights / "epoch2.pt", channel), 120)
    verdicts = {verdict.path.name: verdict for verdict in Catalog(weights).verdicts()}
    assert {name: verdict.badge for name, verdict in verdicts.items()} == {
        "epoch0.pt": "clean", "epoch1.pt": "clean", "epoch2.pt": "corrupt", "epoch3.pt": "clean",
        "last.pt": "clean", "best.pt": "clean",
    }  # fmt: skip
    assert verdicts["epoch2.pt"].compared_with == weights / "epoch1.pt"
    assert "since epoch1.pt" in verdicts["epoch2.pt"].findings[0].detail


def test_all_later_files_with_the_same_hole_are_found(weights):
    """The nearest older file has the same zero channel: the one before it still knows better."""
    for name, seconds in (("epoch2", 120), ("epoch3", 180)):
        age(edited(weights / f"{name}.pt", weights / f"{name}.pt", channel), seconds)
    age(edited(weights / "best.pt", weights / "best.pt", channel), 300)
    assert badges(Catalog(weights)) == {
        "epoch0.pt": "clean", "epoch1.pt": "clean", "epoch2.pt": "corrupt", "epoch3.pt": "corrupt",
        "last.pt": "clean", "best.pt": "corrupt",
    }  # fmt: skip


def test_a_hole_that_grows_is_told_apart(weights):
    """Channels 7 and 9 in epoch2, only 9 in epoch3: each is asked of the file that had it last."""

    def both_channels(checkpoint):
        poison(lambda name: name == CONV, NAN, channel=9)(checkpoint)
        channel(checkpoint)

    age(edited(weights / "epoch2.pt", weights / "epoch2.pt", both_channels), 120)
    age(edited(weights / "epoch3.pt", weights / "epoch3.pt", channel), 180)
    verdicts = {verdict.path.name: verdict for verdict in Catalog(weights).verdicts()}
    assert "(7, 9) became exactly 0 since epoch1.pt" in verdicts["epoch2.pt"].findings[0].detail
    assert "(7) became exactly 0 since epoch1.pt" in verdicts["epoch3.pt"].findings[0].detail


def test_a_laundered_best_beside_clean_epochs(weights):
    """best.pt is stripped and washed in one channel; the epochs of the run are clean."""
    age(edited(weights / "epoch3.pt", weights / "best.pt", both(channel, strip)), 300)
    found = badges(Catalog(weights))
    assert found.pop("best.pt") == "corrupt" and set(found.values()) == {"clean"}
    assert Catalog(weights).verdict(weights / "best.pt").badge == "corrupt"


def test_older_is_told_by_the_save_not_by_the_copy(weights):
    """`cp epoch1.pt last.pt` makes a young file of an old save; copies of whole runs have any times."""
    age(edited(weights / "epoch2.pt", weights / "epoch2.pt", channel), 0)
    age(weights / "epoch1.pt", 600)
    assert badges(Catalog(weights))["epoch2.pt"] == "corrupt"


def test_a_corrupt_file_is_no_witness(weights):
    age(edited(weights / "epoch2.pt", weights / "epoch2.pt", channel), 120)
    for name in ("epoch0.pt", "epoch1.pt"):
        age(edited(weights / name, weights / name, put(NAN, "model.0.bn.bias", 0)), 0)
    assert badges(Catalog(weights))["epoch2.pt"] == "clean"


def test_elsewhere_only_files_of_the_same_run_are_witnesses(weights, tmp_path):
    """A folder of downloads: the same architecture, other trainings."""

    def other_run(checkpoint):
        checkpoint["train_args"]["save_dir"] = "/elsewhere"

    age(edited(weights / "epoch2.pt", tmp_path / "a" / "x.pt", channel), 120)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    age(edited(weights / "epoch1.pt", tmp_path / "a" / "y.pt", lambda checkpoint: None), 60)
    age(edited(weights / "epoch1.pt", tmp_path / "b" / "y.pt", other_run), 60)
    assert badges(Catalog(tmp_path / "a")) == {"x.pt": "corrupt", "y.pt": "clean"}
    assert badges(Catalog(tmp_path / "b")) == {"x.pt": "clean", "y.pt": "clean"}


def test_a_file_moved_aside_is_a_witness(weights):
    """A clean file in corrupted_backup (moved there by a rollback further back) still tells."""
    (weights / "corrupted_backup").mkdir()
    for name in ("epoch0.pt", "epoch1.pt"):
        (weights / name).rename(weights / "corrupted_backup" / name)
    age(edited(weights / "epoch2.pt", weights / "epoch2.pt", channel), 120)
    assert badges(Catalog(weights))["epoch2.pt"] == "corrupt"


# -- memory ---------------------------------------------------------------------------------------------


def test_a_second_look_reads_nothing(weights, looked):
    first = list(Catalog(weights).verdicts())
    assert len(looked) == 6
    again = list(Catalog(weights).verdicts())
    assert again == first and len(looked) == 6
    assert Catalog(weights).verdict(weights / "epoch1.pt") == first[4]
    assert len(looked) == 6


def test_a_second_look_imports_nothing_heavy(weights):
    list(Catalog(weights).verdicts())
    program = (
        "import sys, pathlib; from nantui.checkpoint.catalog import Catalog;"
        "print(len(list(Catalog(pathlib.Path(sys.argv[1])).verdicts())), 'numpy' in sys.modules,"
        "'nantui.checkpoint.machine' in sys.modules)"
    )
    told = subprocess.run(
        [sys.executable, "-c", program, weights], capture_output=True, text=True, check=True
    )
    assert told.stdout.split() == ["6", "False", "False"]


def test_a_changed_file_is_looked_at_again(weights, looked):
    list(Catalog(weights).verdicts())
    age(edited(weights / "epoch2.pt", weights / "epoch2.pt", put(NAN)), 121)
    assert badges(Catalog(weights))["epoch2.pt"] == "corrupt"
    assert looked[6:] == ["epoch2.pt"]


def test_a_moved_file_is_remembered(weights, looked):
    list(Catalog(weights).verdicts())
    (weights / "corrupted_backup").mkdir()
    (weights / "last.pt").rename(weights / "corrupted_backup" / "last.pt")
    assert len(badges(Catalog(weights))) == 6 and len(looked) == 6


def test_a_comparison_is_bound_to_both_files(weights, looked):
    """The witness changes: the verdict that was founded on it is taken anew."""
    age(edited(weights / "epoch2.pt", weights / "epoch2.pt", channel), 120)
    assert badges(Catalog(weights))["epoch2.pt"] == "corrupt"
    for name in ("epoch0.pt", "epoch1.pt"):
        age(edited(weights / name, weights / name, channel), 30)
    assert badges(Catalog(weights))["epoch2.pt"] == "clean"


def test_crc_is_never_answered_from_memory(weights, looked):
    list(Catalog(weights).verdicts())
    path = weights / "epoch1.pt"
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    catalog = Catalog(weights)
    assert catalog.verdict(path).badge == "clean", "rot leaves size and time as they were"
    assert catalog.verdict(path, crc=True).badge == "unreadable"
    assert {verdict.path.name for verdict in catalog.verdicts(crc=True) if verdict.badge != "clean"} == {
        "epoch1.pt"
    }


def test_a_file_too_young_to_trust_its_time_is_not_remembered(weights, looked):
    path = weights / "epoch1.pt"
    os.utime(path)
    Catalog(weights).verdict(path)
    Catalog(weights).verdict(path)
    assert looked.count("epoch1.pt") == 2
    age(path, 60)
    assert SETTLED > 0 and Catalog(weights).verdict(path).badge == "clean"
    Catalog(weights).verdict(path)
    assert looked.count("epoch1.pt") == 3


def test_what_is_allowed_is_not_remembered_for_others(weights, looked):
    for _ in range(2):
        Catalog(weights, allowed=["my.Thing"]).verdict(weights / "epoch1.pt")
        Catalog(weights).verdict(weights / "epoch1.pt")
    assert looked.count("epoch1.pt") == 2


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"rules": 1}', "null", '{"looks": {"1:2:3:4": {"findings": 5}}}']
)
def test_a_damaged_cache_is_no_cache(damage, weights):
    expected = badges(Catalog(weights))
    (file,) = cache_directory().glob("*.json")
    file.write_text(damage)
    assert badges(Catalog(weights)) == expected


def test_rows_of_the_cache_are_checked(weights, looked):
    list(Catalog(weights).verdicts())
    (file,) = cache_directory().glob("*.json")
    document = json.loads(file.read_text())
    document["looks"] = {key: {"findings": 5} for key in document["looks"]}
    file.write_text(json.dumps(document))
    assert set(badges(Catalog(weights)).values()) == {"clean"} and len(looked) == 12


def test_a_cache_that_others_may_write_is_not_believed(weights, looked):
    list(Catalog(weights).verdicts())
    (file,) = cache_directory().glob("*.json")
    file.chmod(0o666)
    list(Catalog(weights).verdicts())
    assert len(looked) == 12


def test_the_cache_is_private_and_not_beside_the_checkpoints(weights):
    before = {path.name for path in weights.parent.rglob("*")}
    list(Catalog(weights).verdicts())
    (file,) = cache_directory().glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o077 == 0
    assert {path.name for path in weights.parent.rglob("*")} == before


def test_without_a_place_for_a_cache_it_works_all_the_same(weights, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(badges(Catalog(weights))) == 6


# -- many files, several threads --------------------------------------------------------------------------


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
    monkeypatch.setattr(helpers.sys, "executable", "/nowhere/python")
    assert len(badges(Catalog(weights))) == 18 and len(looked) == 18


def test_helpers_that_die_leave_the_rest_to_us(weights, looked, monkeypatch):
    many(weights)
    monkeypatch.setattr(helpers.sys, "executable", "/bin/true")
    assert len(badges(Catalog(weights))) == 18 and len(looked) == 18


def test_helpers_are_gone_when_the_list_is_left_early(weights, monkeypatch):
    many(weights)
    started = []
    real = subprocess.Popen

    def popen(*arguments, **options):
        started.append(real(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(helpers.subprocess, "Popen", popen)
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
