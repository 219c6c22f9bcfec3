"""Progress lines of both generations, as they stand in real logs."""

from __future__ import annotations

import math
import os

import pytest

from nantui.run.growing_files import tail_text
from nantui.supervisor.foreign import read_progress

HEADER = "      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size\n"
COLUMNS = "      134/200      38.1G       1.88       4.06      1.659        312       1280: "
OLD = f"{COLUMNS}  4%|▍         | 21/500 [00:14<05:20,  1.49it/s]"
NEW = f"\x1b[K{COLUMNS}4% ━─────────── 21/500 1.5it/s 14.2s<5:20"


@pytest.fixture
def progress(tmp_path):
    """Returns what a log of this text tells."""

    def read(text):
        (tmp_path / "log").write_text(text)
        return read_progress(tmp_path / "log")

    return read


@pytest.mark.parametrize("line", [OLD, NEW])
def test_both_generations(progress, line):
    losses = {"box_loss": 1.88, "cls_loss": 4.06, "dfl_loss": 1.659}
    counts = {"epoch": 134, "epochs": 200, "step": 21, "steps_per_epoch": 500}
    assert progress(HEADER + line) == {**counts, "losses": losses}


def test_nan_and_inf_and_the_newest_of_redrawn_lines(progress):
    text = (
        HEADER + OLD + "\r" + OLD.replace("1.88", " nan").replace("4.06", "-inf").replace("21/500", "22/500")
    )
    found = progress(text)
    assert found["step"] == 22
    assert math.isnan(found["losses"]["box_loss"]) and found["losses"]["cls_loss"] == -math.inf


def test_without_a_header_losses_are_numbered(progress):
    assert list(progress(NEW)["losses"]) == ["loss 1", "loss 2", "loss 3"]


def test_megabytes_and_no_gpu(progress):
    for memory in ("512M", "   0G"):
        assert progress(HEADER + NEW.replace("38.1G", memory))["step"] == 21


@pytest.mark.parametrize("text", ["", "no progress here", "Validating 1/2", HEADER, "\x1b[31m\r\r\n"])
def test_other_text_is_no_progress(progress, text):
    assert progress(text) == {}


def test_a_pipe_never_blocks_and_a_link_is_not_followed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "log").write_text(HEADER + NEW)
    (tmp_path / "link").symlink_to(tmp_path / "log")
    assert tail_text(tmp_path / "pipe") == ""
    assert read_progress(tmp_path / "link") == {}
    assert read_progress(tmp_path / "log")["step"] == 21
