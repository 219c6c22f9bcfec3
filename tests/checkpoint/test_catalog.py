"""The list of a run's checkpoints: at once, newest first, compared with older ones, remembered."""

import shutil

from nantui.checkpoint.catalog import Catalog
from tests.checkpoint.editing import CONV, NAN, both, edited, poison, put, strip
from tests.checkpoint.lists import START, age, badges, channel


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
