"""Every kind of label problem: a file that has it, and one that only just has not."""

from __future__ import annotations

import errno
import os

import pytest

from nantui.labels.problem_kinds import KINDS

GOOD = "0 0.5 0.5 0.2 0.2\n"
POSE = "names: [a, b, c]\nkpt_shape: [2, 3]\n"
TRIANGLE = "0 0.1 0.1 0.9 0.1 0.5 0.9\n"

BOXES = [
    ("encoding", "0 0.5 0.5 0.2 0.2\n".encode("utf-16"), GOOD.encode()),
    ("encoding", b"0 0.5 0.5 0.2 0.2 \xe9\n", "0 0.5 0.5 0.2 0.2\u00a0\n".encode()),
    ("not_a_number", "0 0.5 0.5 0,2 0.2\n", "0 0.5 0.5 2_0e-2 0.2\n"),
    ("not_a_number", "dog 0.5 0.5 0.2 0.2\n", GOOD),
    ("not_a_number", "0 0.5.1 0.5 0.2 0.2\n", "0 .5 5e-1 0.2 +0.2\n"),
    ("not_finite", "0 nan 0.5 0.2 0.2\n", GOOD),
    ("not_finite", "0 0.5 inf 0.2 0.2\n", "0 0.5 1e-45 0.2 0.2\n"),
    ("not_finite", "0 0.5 1e400 0.2 0.2\n", GOOD),
    ("columns", "0 0.5 0.5 0.2\n", GOOD),
    ("columns", "0 0.5 0.5 0.2 0.2 0.9\n", "0 0.5 0.5 0.2 0.2   \n"),
    ("outside", "0 1.0101 0.5 0.2 0.2\n", "0 1.0099 0.5 0.2 0.2\n"),
    ("outside", "0 -0.0101 0.5 0.2 0.2\n", "0 -0.0099 0.5 0.2 0.2\n"),
    ("outside", "0 320 240 40 40\n", GOOD),
    ("slightly_outside", "0 1.0099 0.5 0.02 0.2\n", "0 1.0 0.5 0.01 0.2\n"),
    ("slightly_outside", "0 -0.009 0.5 0.02 0.2\n", "0 0.0 0.5 0.01 0.2\n"),
    ("over_edge", "0 0.95 0.5 0.2 0.2\n", "0 0.9 0.5 0.2 0.2\n"),
    ("class_negative", "-1 0.5 0.5 0.2 0.2\n", "-0 0.5 0.5 0.2 0.2\n"),
    ("class_not_whole", "1.5 0.5 0.5 0.2 0.2\n", "1.0 0.5 0.5 0.2 0.2\n"),
    ("class_too_large", "3 0.5 0.5 0.2 0.2\n", "2 0.5 0.5 0.2 0.2\n"),
    ("size_negative", "0 0.5 0.5 -0.2 0.2\n", GOOD),
    ("size_negative", "0 0.5 0.5 0.2 -0.001\n", GOOD),
    ("size_zero", "0 0.5 0.5 0 0.2\n", "0 0.5 0.5 0.0000001 0.2\n"),
    ("below_pixel", "0 0.5 0.5 0.0015 0.1\n", "0 0.5 0.5 0.0016 0.1\n"),
    ("extreme_aspect", "0 0.5 0.5 0.9 0.0089\n", "0 0.5 0.5 0.9 0.0091\n"),
    ("duplicate", GOOD + GOOD, GOOD + "0 0.5 0.5 0.2 0.21\n"),
    ("duplicate", GOOD + "0 0.50 0.5 0.200 2e-1\n", GOOD + "1 0.5 0.5 0.2 0.2\n"),
    ("empty_file", "", GOOD),
    ("empty_file", " \n\n\t\n", GOOD),
    ("no_label", None, GOOD),
    ("bom", b"\xef\xbb\xbf" + GOOD.encode(), GOOD),
    ("crlf", GOOD.replace("\n", "\r\n"), GOOD.replace("\n", "\r")),
]
POLYGONS = [
    ("mixed_rows", TRIANGLE + GOOD, TRIANGLE),
    (
        "columns",
        TRIANGLE + "0 0.1 0.1 0.9 0.1 0.5 0.9 0.5\n",
        TRIANGLE + "0 0.1 0.1 0.9 0.1 0.5 0.8 0.5 0.5\n",
    ),
    ("columns", TRIANGLE + "0\n", TRIANGLE),
    ("few_points", TRIANGLE + "0 0.5 0.5\n", TRIANGLE),
    ("zero_area", "0 0.1 0.1 0.2 0.2 0.3 0.3\n", "0 0.1 0.1 0.2 0.2 0.3 0.301\n"),
    ("zero_area", "0 0.1 0.5 0.4 0.5 0.7 0.5 0.2 0.5\n", "0 0.1 0.5 0.4 0.5 0.7 0.6 0.2 0.6\n"),
    ("outside_kept", "0 -0.05 0.1 0.9 0.1 0.5 0.9\n", "0 -0.01 0.1 0.9 0.1 0.5 0.9\n"),
    ("outside", "0 -0.3 0.1 0.9 0.1 0.5 0.9\n", "0 -0.1 0.1 0.9 0.1 0.5 0.9\n"),
    ("not_finite", "0 0.1 nan 0.9 0.1 0.5 0.9\n", TRIANGLE),
    ("duplicate", TRIANGLE + TRIANGLE, TRIANGLE + "0 0.1 0.1 0.9 0.1 0.6 0.9\n"),
    ("below_pixel", "0 0.1 0.1 0.9 0.1 0.5 0.101\n", "0 0.1 0.1 0.9 0.1 0.5 0.102\n"),
    ("class_too_large", "3 0.1 0.1 0.9 0.1 0.5 0.9\n", "2 0.1 0.1 0.9 0.1 0.5 0.9\n"),
]
KEYPOINTS = [
    (
        "keypoint_outside",
        "0 0.5 0.5 0.2 0.2 0.5 0.5 2 1.02 0.5 2\n",
        "0 0.5 0.5 0.2 0.2 0.5 0.5 2 1.01 0.5 0\n",
    ),
    (
        "keypoint_outside",
        "0 0.5 0.5 0.2 0.2 0.5 0.5 -1 0.5 0.5 2\n",
        "0 0.5 0.5 0.2 0.2 0.5 0.5 0 0.5 0.5 2\n",
    ),
    (
        "keypoint_off_box",
        "0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.7 0.5 2\n",
        "0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.7 0.5 0\n",
    ),
    ("visibility", "0 0.5 0.5 0.2 0.2 0.5 0.5 3 0.5 0.5 2\n", "0 0.5 0.5 0.2 0.2 0.5 0.5 1 0.5 0.5 2\n"),
    ("visibility", "0 0.5 0.5 0.2 0.2 0.5 0.5 0.5 0.5 0.5 2\n", "0 0.5 0.5 0.2 0.2 0 0 0 0.5 0.5 2\n"),
    ("inf_kept", "0 0.5 0.5 0.2 0.2 0.5 0.5 inf 0.5 0.5 2\n", "0 0.5 0.5 0.2 0.2 0.5 0.5 nan 0.5 0.5 2\n"),
    ("inf_kept", "0 0.5 0.5 inf 0.2 0.5 0.5 2 0.5 0.5 2\n", "0 0.5 0.5 0.2 0.2 inf 0.5 2 0.5 0.5 2\n"),
    ("outside_kept", "0 0.5 0.5 2.0 0.2 0.5 0.5 2 0.5 0.5 2\n", "0 0.5 0.5 1.0 0.2 0.5 0.5 2 0.5 0.5 2\n"),
    ("columns", GOOD, "0 0.5 0.5 0.2 0.2 0.5 0.5 2 0.5 0.5 2\n"),
    ("not_finite", "0 0.5 0.5 0.2 0.2 0.5 0.5 nan 0.5 0.5 2\n", "0 0.5 0.5 0.2 0.2 0.5 0.5 0 0.5 0.5 2\n"),
]


def check_pair(data_set, yaml, task, kind, has, has_not):
    wrong, right = data_set(yaml), data_set(yaml)
    wrong.add(has)
    right.add(has_not)
    assert kind in wrong.check({"task": task}).counts
    assert kind not in right.check({"task": task}).counts


@pytest.mark.parametrize(("kind", "has", "has_not"), BOXES)
def test_boxes(data_set, kind, has, has_not):
    check_pair(data_set, "names: [a, b, c]\n", "detect", kind, has, has_not)


@pytest.mark.parametrize(("kind", "has", "has_not"), POLYGONS)
def test_polygons(data_set, kind, has, has_not):
    check_pair(data_set, "names: [a, b, c]\n", "segment", kind, has, has_not)


@pytest.mark.parametrize(("kind", "has", "has_not"), KEYPOINTS)
def test_keypoints(data_set, kind, has, has_not):
    check_pair(data_set, POSE, "pose", kind, has, has_not)


def test_findings_say_file_line_and_number(data_set):
    data = data_set()
    label = data.add(GOOD + "\n" + "7 0.5 0.5 0.2 0.2\n")
    (issue,) = data.check().issues
    assert issue == (str(label), 3, "class_too_large", "class 7; names go from 0 to 2")


def test_errors_count_errors_and_not_notes(data_set):
    data = data_set()
    data.add(GOOD.replace("\n", "\r\n"))
    data.add(None)
    assert data.check().errors == 0
    data.add("0 2 0.5 0.2 0.2\n9 0.5 0.5 0.2 0.2\n")
    assert data.check().errors == 2


def test_single_class_accepts_any_class(data_set):
    data = data_set()
    data.add("3 0.5 0.5 0.2 0.2\n")
    assert data.check({"single_cls": True}).errors == 0


def test_pose_labels_for_a_box_task_lose_their_keypoints(data_set):
    data = data_set(POSE)
    data.add("0 0.5 0.5 0.2 0.2 5.0 0.5 2 0.5 0.5 2\n")
    assert data.check({"task": "detect"}).errors == 0
    assert data.check().errors == 1


def test_boxes_in_a_segment_data_set_block_the_training(data_set):
    data = data_set()
    data.add(TRIANGLE)
    assert not data.check({"task": "segment"}).blocked
    data.add(GOOD)
    assert data.check({"task": "segment"}).blocked
    assert not data.check({"task": "detect"}).blocked


def test_labels_without_image_and_image_lists(data_set, tmp_path):
    data = data_set()
    data.add(GOOD)
    orphan = data.add(GOOD, name="orphan", image=None)
    below = data.add(GOOD, name="below/orphan", image=None)
    found = [issue.file for issue in data.check().issues if issue.kind == "no_image"]
    assert found == [str(orphan), str(below)]
    (data.root / "list.txt").write_text("./images/train/00001.jpg\n./images/train/gone.jpg\n")
    data.yaml.write_text(f"path: {data.root}\ntrain: list.txt\nval: list.txt\nnames: [a]\n")
    report = data.check()
    assert report.counts["image_missing"] == 1
    assert report.images == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_several_processes_find_the_same(data_set, workers, monkeypatch):
    monkeypatch.setattr("nantui.labels.check.BATCH", 8)
    data = data_set()
    for number in range(40):
        data.add(GOOD if number % 7 else "0 2 0.5 0.2 0.2\n")
    report = data.check(workers=workers)
    assert (report.images, report.labels, report.boxes) == (40, 40, 40)
    assert [issue.file[-9:-4] for issue in report.issues] == [
        "00001",
        "00008",
        "00015",
        "00022",
        "00029",
        "00036",
    ]


def test_stop_is_asked_after_each_batch(data_set, monkeypatch):
    monkeypatch.setattr("nantui.labels.check.BATCH", 8)
    data = data_set()
    for _ in range(20):
        data.add(GOOD)
    seen = []
    report = data.check(progress=lambda done, total: bool(seen.append((done, total))) or done >= 16)
    assert seen == [(8, 20), (16, 20)]
    assert report.stopped


def test_what_is_no_file_is_no_label_and_what_cannot_be_read_is_an_error(data_set, monkeypatch):
    data = data_set()
    for _ in range(3):
        data.add(None)
    labels = data.root / "labels" / "train"
    (labels / "00001.txt").mkdir()
    (labels / "00002.txt").symlink_to(labels / "00002.txt")
    (labels / "00003.txt").symlink_to(labels / "gone")
    assert data.check().counts == {"no_labels": 1, "no_label": 3}
    data.add(GOOD)
    read = os.read

    def failing(descriptor: int, size: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("00004.txt"):
            raise OSError(errno.EIO, "Input/output error")
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", failing)
    report = data.check()
    assert report.counts == {"unreadable": 1, "no_label": 3}
    assert len(report.dropped) == 1


def test_every_kind_has_a_test_here_or_beside():
    here = {kind for kind, *_ in BOXES + POLYGONS + KEYPOINTS}
    beside = {
        "unreadable",
        "no_image",
        "image_missing",
        "boxes_in_segments",
    }  # tests of their own above
    others = {
        "image_unreadable",
        "image_small",
        "image_tail",
        "image_truncated",
        "image_unusual",
        "image_undecodable",
        "class_folders",
        "class_empty",
    }
    assert set(KINDS) == here | beside | others | {
        "path_missing",
        "pattern",
        "list_unreadable",
        "no_images",
        "no_labels",
    }
