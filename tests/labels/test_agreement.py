"""What we say that Ultralytics drops is what Ultralytics drops, over thousands of generated files."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ultralytics.data.base import IMG_FORMATS
from ultralytics.data.utils import img2label_paths, verify_image_label

from nantui.labels.check import scan
from nantui.labels.data_set import IMAGE_SUFFIXES, labels_folder
from nantui.labels.label_files import parse
from nantui.labels.problem_kinds import KINDS
from nantui.labels.report import LabelReport
from nantui.labels.row_rules import Rules, findings

FILES = 1000
BOX = Rules(3)
POSE = Rules(3, task="pose", keypoints=2, dimensions=3)
POSE_2D = Rules(3, task="pose", keypoints=2, dimensions=2)
SKIPPED_KEYPOINTS = Rules(3, task="detect", keypoints=2, dimensions=3)
SINGLE = Rules(3, single_class=True)


def ultralytics_drops(image: Path, label: Path, rules: Rules) -> bool:
    arguments = (
        str(image), str(label), "", rules.pose, rules.classes, rules.keypoints, rules.dimensions,
        rules.single_class,
    )  # fmt: skip
    return verify_image_label(arguments)[0] is None


def our_drops(folder: Path, names: list[str], rules: Rules) -> set[int]:
    found = scan(str(folder), names, rules, LabelReport())
    return {one.file for one in found if KINDS[one.kind].drops}


@pytest.fixture(autouse=True)
def the_image_is_fine(monkeypatch):
    """All label files share one good image; looking into it thousands of times is most of the time."""
    monkeypatch.setattr("ultralytics.data.utils.check_image", lambda path: ("", (32, 32)))


NUMBERS = (
    "0.5", "0.25", "0.123456", "0", "1", "1.0", "0.0", "1.01", "1.0100001", "1.02", "-0.01", "-0.0100001",
    "-0.02", "-0", "0.1234567890123456", "0.12345678901234567", "1e-3", "5e-1", ".5", "1.", "+0.5", "12.5",
    "nan", "inf",
    "-inf", "1e400", "0_1", "0x1", "one", "0.5.5", "--1", "1e", "0.99999999",
)  # fmt: skip
COMMON = NUMBERS[:7]
CLASSES = ("0", "1", "2", "3", "-1", "1.5", "2.0", "nan", "inf", "00", "a", "12", "2.", "-0.005")


def random_row(random: random.Random, columns: int) -> str:
    wild = random.random() < 0.15
    numbers = [random.choice(NUMBERS if wild else COMMON) for _ in range(columns - 1)]
    return " ".join([random.choice(CLASSES if random.random() < 0.15 else CLASSES[:3]), *numbers])


def random_file(random: random.Random, rules: Rules) -> bytes:
    usual = random.choice((rules.columns, 5, 7, 9))
    rows = []
    for _ in range(random.choice((0, 1, 1, 2, 3, 5))):
        columns = usual if random.random() < 0.93 else random.randrange(1, 13)
        rows.append(random_row(random, columns))
    if rows and random.random() < 0.1:
        rows.append(random.choice(rows))
    end = random.choices(("\n", "\r\n", "\r", "\n\n", " \n", "\x0b", "\u2028"), (20, 2, 1, 1, 1, 1, 1))[0]
    data = end.join(rows).encode() + random.choice((b"", b"\n"))
    return (
        random.choices((b"", b"\xef\xbb\xbf"), (20, 1))[0]
        + data
        + random.choices((b"", b"\xff", b"\0"), (30, 1, 1))[0]
    )


@pytest.mark.parametrize(
    "rules",
    [BOX, POSE, POSE_2D, SKIPPED_KEYPOINTS, SINGLE],
    ids=["box", "pose", "pose2d", "skipped", "single"],
)
def test_the_same_images_are_dropped(tmp_path, picture, rules):
    made = random.Random(f"{rules}")
    names = [f"{number:05d}.txt" for number in range(FILES)]
    for name in names:
        (tmp_path / name).write_bytes(random_file(made, rules))
    ours = our_drops(tmp_path, names, rules)
    theirs = {
        number for number, name in enumerate(names) if ultralytics_drops(picture, tmp_path / name, rules)
    }
    differ = sorted(ours ^ theirs)
    assert not differ, [(number in ours, (tmp_path / names[number]).read_bytes()) for number in differ[:5]]
    assert 0.1 < len(theirs) / FILES < 0.9


WORDS = st.one_of(
    st.floats(-0.125, 1.25, width=32).map(str),
    st.decimals(0, 1, places=6).map(str),
    st.integers(-3, 9).map(str),
    st.sampled_from(NUMBERS),
    st.text(alphabet="0123456789.-+eE_\u0661x", max_size=20),
)
LINES = st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=4)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, pose=st.booleans())
def test_any_lines(tmp_path, picture, lines, pose):
    rules = POSE if pose else BOX
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    ours = bool(our_drops(tmp_path, ["a.txt"], rules))
    assert ours == ultralytics_drops(picture, tmp_path / "a.txt", rules)


def plainly_read(data: bytes) -> list[tuple[int, list[float]]]:
    """Return (line, numbers as float32) of the rows in which each word is a number, as a loop reads them."""
    rows = []
    for number, line in enumerate(data.decode().replace("\r\n", "\n").replace("\r", "\n").splitlines(), 1):
        with contextlib.suppress(ValueError), np.errstate(over="ignore"):
            numbers = [float(np.float32(float(word))) for word in line.split()]
            rows += [(number, numbers)] if numbers else []
    return rows


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES.map("\n".join), max_size=6))
def test_many_files_at_once_are_read_as_each_by_itself(files):
    contents = [text.encode() for text in files]
    table, _ = parse(contents)
    for index, data in enumerate(contents):
        mine = np.flatnonzero(table.file == index)
        got = [
            (int(table.line[row]), table.values[table.start[row] : table.start[row + 1]].tolist())
            for row in mine
        ]
        assert repr(got) == repr(plainly_read(data))


def test_decimals_are_exact():
    made = random.Random(5)
    short = [f"{made.randrange(10)}.{made.randrange(10**n):0{n}d}" for n in range(1, 9) for _ in range(200)]
    short += [str(made.randrange(10**n)) for n in range(1, 9) for _ in range(50)]
    long = [f"{made.randrange(100)}.{made.randrange(10**n):0{n}d}" for n in range(9, 18) for _ in range(50)]
    for words in (short, [*short, *long]):
        table, faults = parse([" ".join(words).encode()])
        assert not faults
        assert table.values.tolist() == [float(np.float32(float(word))) for word in words]


@pytest.mark.parametrize("numbers", [4, 6])
def test_rows_of_a_few_values_are_told_from_each_other(numbers):
    made, files, repeated = random.Random(1), [], set()
    for file in range(3):
        rows = [("0", *made.choices(("0", "0.125", "0.25", "0.5", "1"), k=numbers)) for _ in range(1000)]
        files.append("\n".join(map(" ".join, rows)).encode())
        repeated |= {(file, line) for line, row in enumerate(rows, 1) if row in rows[: line - 1]}
    found = findings(parse(files)[0], len(files), BOX)
    assert {(one.file, one.line) for one in found if one.kind == "duplicate"} == repeated != set()


def test_the_rules_for_paths_are_the_installed_ones():
    assert frozenset(IMG_FORMATS) == IMAGE_SUFFIXES
    for folder in (
        "/d/images/train",
        "/images/images/a",
        "/d/pictures",
        "/d/images",
        "images/train",
        "/d/images.2",
    ):
        assert f"{labels_folder(folder)}/x.y.txt" == img2label_paths([f"{folder}/x.y.jpg"])[0]


def test_an_inf_box_gets_through_to_training_in_pose_data(tmp_path, picture):
    (tmp_path / "a.txt").write_text("0 0.5 0.5 inf 0.2 0.5 0.5 2 0.5 0.5 2\n")
    assert not ultralytics_drops(picture, tmp_path / "a.txt", POSE)
    assert [found.kind for found in scan(str(tmp_path), ["a.txt"], POSE, LabelReport())] == ["inf_kept"]
