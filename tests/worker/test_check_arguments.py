"""What plain Ultralytics takes is taken, and what cannot work is refused before a run is made."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
import ultralytics
from ultralytics.nn.tasks import yaml_model_load

from nantui.errors import UserError
from nantui.worker.check_arguments import as_now, find_data, find_model, refuse_missing_device, task_of


@pytest.mark.parametrize("device", ["0", "0,1", 1, [0, 1], "cuda:1", "cuda"])
def test_devices_that_are_there_pass(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refuse_missing_device(device)


@pytest.mark.parametrize(
    ("device", "there", "says"),
    [
        ("0", 0, "sees no CUDA device here.*device=cpu"),
        ("cuda:0", 0, "no CUDA device"),
        ("cuda", 0, "no CUDA device"),
        ([0, 2], 2, "devices 0 to 1 here"),
        (7, 1, "device=7: "),
    ],
)
def test_devices_that_are_not_there_are_named(monkeypatch, device, there, says):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(UserError, match=says):
        refuse_missing_device(device)


@pytest.mark.parametrize("device", [None, "", "cpu", "cpu,cpu", "mps", "-1", "-1,-1", "npu:0,1"])
def test_other_words_are_ultralytics_affair(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    refuse_missing_device(device)


@pytest.fixture
def own_yaml(tmp_path, monkeypatch):
    """A model's YAML of one's own, beside the person and in a folder."""
    shipped = Path(ultralytics.__file__).parent / "cfg/models/v8/yolov8.yaml"
    for place in (tmp_path, tmp_path / "mine"):
        place.mkdir(exist_ok=True)
        shutil.copy(shipped, place / "yolov8-mine.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["yolov8s-mine.yaml", "mine/yolov8x-mine.yaml", "yolov8-mine.yaml"])
def test_a_scale_in_the_name_of_ones_own_yaml_is_taken(own_yaml, name):
    found = find_model(name)
    assert found == str(own_yaml / name)
    assert yaml_model_load(found)["scale"] == (re.search(r"v8([nslmx])-", name) or [None, ""])[1]


def test_an_older_name_of_a_shipped_model_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert yaml_model_load(find_model("yolov8n6.yaml"))["scale"] == "n"


@pytest.mark.parametrize("name", ["yolo11n", "yolov5n.pt", "https://example.org/mine.pt"])
def test_models_that_ultralytics_fetches_are_left_to_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert find_model(name) == name


@pytest.mark.parametrize("name", ["nothing.yaml", "nothing.pt", "folder/yolo11n.pt"])
def test_a_model_that_is_nowhere_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no such file, and no model"):
        find_model(name)


@pytest.mark.parametrize("name", ["rtdetr-resnet50.yaml", "rtdetr-l.yaml"])
def test_rtdetr_detects(name):
    assert task_of(name) == "detect"


def test_a_yaml_whose_task_nobody_can_tell_asks_for_it(own_yaml):
    text = (own_yaml / "yolov8-mine.yaml").read_text().replace("Detect", "Mystery")
    (own_yaml / "mystery.yaml").write_text(text)
    with pytest.raises(UserError, match="task=detect"):
        task_of(str(own_yaml / "mystery.yaml"))


def test_a_data_set_is_found_where_ultralytics_finds_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_data("coco8.yaml") == "coco8.yaml"
    assert find_data("imagenette160", "classify") == "imagenette160"
    for wrong in ("imagenette160", "nowhere.yaml"):
        with pytest.raises(UserError, match="no such file here"):
            find_data(wrong, "detect")


def test_another_runs_args_begin_a_run_like_it():
    said = as_now({"epochs": 3, "resume": None, "multi_scale": False, "keras": False, "grad_clip": 5.0})
    assert said["settings"] == {"epochs": 3, "multi_scale": False, "grad_clip": 5.0}
    assert [note.split(":")[0] for note in said["notes"]] == ["keras"]


def test_a_setting_that_ultralytics_never_had_is_refused():
    with pytest.raises(UserError, match="epoch_count"):
        as_now({"epoch_count": 3})
