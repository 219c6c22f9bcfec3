"""What is remembered of a look: for whom, how long, and who is believed."""

import json
import os
import subprocess
import sys

import pytest

from nantui.checkpoint.cache import SETTLED
from nantui.checkpoint.catalog import Catalog
from nantui.paths import user_cache_dir
from tests.checkpoint.editing import NAN, edited, put
from tests.checkpoint.lists import age, badges, channel


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
        "'nantui.checkpoint.pickle.interpreter' in sys.modules)"
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
    (file,) = (user_cache_dir() / "checkpoints").glob("*.json")
    file.write_text(damage)
    assert badges(Catalog(weights)) == expected


def test_rows_of_the_cache_are_checked(weights, looked):
    list(Catalog(weights).verdicts())
    (file,) = (user_cache_dir() / "checkpoints").glob("*.json")
    document = json.loads(file.read_text())
    document["looks"] = {key: {"findings": 5} for key in document["looks"]}
    file.write_text(json.dumps(document))
    assert set(badges(Catalog(weights)).values()) == {"clean"} and len(looked) == 12


def test_a_cache_that_others_may_write_is_not_believed(weights, looked):
    list(Catalog(weights).verdicts())
    (file,) = (user_cache_dir() / "checkpoints").glob("*.json")
    file.chmod(0o666)
    list(Catalog(weights).verdicts())
    assert len(looked) == 12


def test_the_cache_is_private_and_not_beside_the_checkpoints(weights):
    before = {path.name for path in weights.parent.rglob("*")}
    list(Catalog(weights).verdicts())
    (file,) = (user_cache_dir() / "checkpoints").glob("*.json")
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o077 == 0
    assert {path.name for path in weights.parent.rglob("*")} == before


def test_without_a_place_for_a_cache_it_works_all_the_same(weights, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(badges(Catalog(weights))) == 6
