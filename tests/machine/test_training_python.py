"""Which interpreter trains, where nantui itself is installed without torch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nantui.errors import UserError
from nantui.machine import training_python
from nantui.machine.training_python import find_training_python, locate

OWN = sys.executable


def environment(place: Path, trains: bool) -> Path:
    """Make what looks like a virtual environment, whose interpreter has the libraries or has not."""
    python = place / "bin" / "python"
    python.parent.mkdir(parents=True)
    packages = place / "packages"
    for name in training_python.LIBRARIES if trains else ():
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text("raise SystemExit('nobody may import this')")
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{OWN}" -S "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """nantui's own environment cannot train, and neither can what the path has."""
    find_training_python.cache_clear()
    own = environment(tmp_path / "own", trains=False)
    monkeypatch.setattr(training_python.sys, "executable", str(own))
    (own.parent / "python3").symlink_to(own)
    monkeypatch.setenv("PATH", str(own.parent))
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(training_python.importlib.util, "find_spec", lambda name: None)
    yield
    find_training_python.cache_clear()


def test_what_is_named_is_taken_in_the_order_of_those_who_named_it():
    assert training_python.training_python("", None, "/recorded", "/later") == "/recorded"


def test_the_environment_that_is_active_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "nothing"))
    conda = environment(tmp_path / "conda", trains=True)
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "conda"))
    assert find_training_python() == (str(conda), "$CONDA_PREFIX")
    find_training_python.cache_clear()
    venv = environment(tmp_path / "venv", trains=True)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "venv"))
    assert find_training_python() == (str(venv), "$VIRTUAL_ENV")


def test_nothing_found_is_one_line_with_what_was_tried_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("VIRTUAL_ENV", str(environment(tmp_path / "venv", trains=False).parents[1]))
    with pytest.raises(UserError) as refused:
        training_python.training_python()
    said = str(refused.value)
    assert "\n" not in said and "$VIRTUAL_ENV" in said and "nantui[train]" in said and "--python" in said


def test_an_interpreter_that_cannot_be_run_is_said(tmp_path):
    with pytest.raises(UserError, match="cannot run"):
        locate(str(tmp_path / "none"), training_python.LIBRARIES)
