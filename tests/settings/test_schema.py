"""What may be typed, and what is said about what may not. Everything against the installed Ultralytics."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from nantui.errors import UserError
from nantui.run.spec import divided
from nantui.settings.schema import Schema
from nantui.settings.values import parse_value, show_value


def test_every_argument_of_the_installed_release_is_there_with_its_default(
    schema: Schema, ultralytics_says: dict[str, Any]
) -> None:
    theirs = ultralytics_says["defaults"]
    assert {name: schema.fields[name].default for name in theirs} == theirs
    assert all(schema.fields[name].help and schema.fields[name].types for name in theirs)


def test_loading_the_schema_imports_no_torch() -> None:
    script = (
        "import sys; from nantui.settings.schema import Schema; Schema.load(); "
        "from nantui.settings import presets, lint, gpu_memory as memory, values as diff; "
        "print([m for m in ('torch', 'ultralytics', 'numpy', 'pandas', 'textual') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_schema_of_another_interpreter_is_found_without_importing_there(schema: Schema) -> None:
    assert Schema.load(sys.executable).fields == schema.fields


def test_an_interpreter_that_cannot_run_is_named() -> None:
    with pytest.raises(UserError, match="/no/such/python"):
        Schema.load("/no/such/python")


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("lr0=0.01", "lr0", 0.01),
        ("lr0=1e-3", "lr0", 0.001),
        ("lr0=0.0e-5", "lr0", 0.0),
        ("epochs=1e2", "epochs", 100),
        ("amp=bf16", "amp", "bf16"),
        ("amp=False", "amp", False),
        ("amp=true", "amp", True),
        ("device=0,1", "device", (0, 1)),
        ("device=cpu", "device", "cpu"),
        *(
            (f"device={word}", "device", word)
            for word in ("cpu,cpu", "cuda:1", "cuda", "mps", "npu:0,1", "xpu")
        ),
        ("device=-1,-1", "device", (-1, -1)),
        ("device=None", "device", None),
        ("imgsz=[640, 480]", "imgsz", [640, 480]),
        ("time=None", "time", None),
        ("optimizer=sgd", "optimizer", "SGD"),
        ("name=007", "name", "007"),
        ("batch=0.7", "batch", 0.7),
        ("cos_lr", "cos_lr", True),
        ("data=my,file.yaml", "data", "my,file.yaml"),
        ("grad_clip=1", "grad_clip", 1),
        ("guard=observe", "guard", "observe"),
    ],
)
def test_values_are_read_as_the_yolo_command_reads_them(
    schema: Schema, word: str, name: str, value: object
) -> None:
    assert schema.parse_assignments([word]) == {name: value}


def test_parse_value_agrees_with_ultralytics(ultralytics_says: dict[str, Any]) -> None:
    ours = [parse_value(name, text) for name in ("lr0", "name") for text in ultralytics_says["texts"]]
    assert repr(ours) == ultralytics_says["values"]


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("lr=0.1", "did you mean lr0?"),
        ("momentun=0.9", "did you mean momentum?"),
        ("batch_size=3", "did you mean batch?"),
        ("epoch=3", "did you mean epochs?"),
        ("learning_rate=0.1", "did you mean lr0?"),
        ("lr0=abc", "expects a number from 0 to 1"),
        ("epochs=3.5", "expects a whole number, at least 1"),
        ("epochs=True", "expects a whole number"),
        ("amp=maybe", "expects one of True, False, fp16, bf16, fp32"),
        ("optimizer=sdg", "expects one of SGD, MuSGD"),
        ("mosaic=2", "from 0 to 1"),
        ("lr0=nan", "expects a number"),
        ("lr0=1e-400", "lr0=1e-400: a computer would take it for 0; give another number"),
        ("weight_decay=-.5E-999", "would take it for -0;"),
        ("time=1e400", "time=1e400: a computer would take it for inf; give another number"),
        ("epochs=None", "expects a whole number"),
        ("plots=1", "expects True or False"),
        ("epochs", "a value is missing"),
        ("epochs=", "a value is missing"),
        ("imgsz=-3", "expects a whole number or a list, at least 1"),
        ("guard=on", "protect, observe, off"),
        ("grad_clip=-1", "at least 0"),
        *(
            (f"device={word}", "expects cpu, mps, a GPU's number")
            for word in ("any", "gpu", "tpu", "0,x", "-2")
        ),
        ("xyzzy=1", "unknown setting 'xyzzy'"),
    ],
)
def test_a_mistake_is_one_clear_line(schema: Schema, word: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        schema.parse_assignments([word])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_value_leaves_room_for_what_is_expected(schema: Schema) -> None:
    with pytest.raises(UserError, match=r"^lr0=x{38}\.\.: expects a number from 0 to 1"):
        schema.parse_assignments([f"lr0={'x' * 300}"])


@pytest.mark.parametrize("word", ["project=elsewhere", "name=other", "exist_ok", "resume", "task=segment"])
def test_what_is_settled_once_a_run_is_made_is_no_change(schema: Schema, word: str) -> None:
    assert len(schema.parse_assignments([word])) == 1 and schema.changes(["lr0=0.1"]) == {"lr0": 0.1}
    with pytest.raises(UserError, match="settled when the run was made"):
        schema.changes(["lr0=0.1", word])


def test_a_non_finite_number_is_refused(schema: Schema) -> None:
    with pytest.raises(UserError, match="expects"):
        schema.check({"lr0": float("nan")})
    with pytest.raises(UserError, match="expects"):
        schema.check({"grad_clip": float("inf")})


def test_settings_are_split_into_theirs_and_ours() -> None:
    train, ours = divided({"lr0": 0.1, "guard": "off", "grad_clip": 1.0, "epochs": 3})
    assert train == {"lr0": 0.1, "epochs": 3}
    assert ours == {"guard": "off", "grad_clip": 1.0}


@pytest.mark.parametrize(
    ("value", "text"), [(0.00001, "0.00001"), (1e-12, "1e-12"), (50.0, "50"), (True, "True"), (0.0, "0")]
)
def test_numbers_read_as_a_person_writes_them(value: object, text: str) -> None:
    assert show_value(value) == text


@pytest.mark.parametrize(("said", "means"), [(False, 0.0), (True, 1.0)])
def test_what_was_a_yes_or_no_in_an_older_release_is_its_number(schema, said, means):
    assert schema.check({"multi_scale": said}) == {"multi_scale": means}
