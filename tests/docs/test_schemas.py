"""docs/schemas has the form of what each `--json` prints: real outputs fit, and nothing is left out."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nantui.cli import COMMANDS, main, parser_of
from nantui.run.binding import bind
from nantui.supervisor.notify.outbox import Way, keep_ways
from nantui.supervisor.queue.entries import Entry, change
from tests.compat.archive import DATA, new_root, unpack

SCHEMAS = Path(__file__).resolve().parents[2] / "docs" / "schemas"
RECORDED = Path(__file__).resolve().parents[1] / "data" / "recorded_run"
ASKED = [
    ["status", "RUN"], ["status", "RECORDED"], ["wait", "RUN"], ["check", "RUN"],
    ["compare", "RECORDED/recovered", "RECORDED/alarm"],
    ["compare", "RECORDED/recovered#1", "RECORDED/recovered#2"],
    ["plot", "RECORDED/recovered", "mAP50-95", "val"], ["export", "RUN", "--to", "json", "--out", "ROOT/out"],
    ["events", "RUN"], ["events", "RECORDED/recovered"], ["queue", "list"],
    ["notify", "list"], ["notify", "test"],
    ["diagnose", "RUN"], ["diagnose", "RECORDED/alarm", "--no-labels"], ["labels", "ROOT/broken.yaml"],
    ["presets"], ["presets", "nan-safe", "--against", "RUN"], ["doctor"],
    ["rollback", "RUN", "--dry-run"], ["recover", "RUN", "--dry-run", "--preset", "nan-safe"],
    ["recover", "RECORDED/alarm", "--dry-run"],
]  # fmt: skip


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, str]]:
    """A run that a NaN ended, trained by an interpreter that there is, beside a data set with a bad label."""
    root = unpack(DATA / "diverged.tar.xz", new_root())
    script = root / "python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    script.chmod(0o755)
    bind(root / "runs" / "diverged")
    shutil.copytree(root / "data", root / "broken")
    (root / "broken" / "labels" / "train" / "00.txt").write_text("0 0.5 0.5 nan 0.1\n")
    broken = (root / "broken" / "data.yaml").read_text().replace(str(root / "data"), str(root / "broken"))
    (root / "broken.yaml").write_text(broken)
    yield {"RUN": str(root / "runs" / "diverged"), "RECORDED": str(RECORDED), "ROOT": str(root)}
    shutil.rmtree(root)


def schema(name: str) -> dict[str, Any]:
    return json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))


def strict(part: Any) -> Any:
    """Return a schema under which an object may have nothing that is not described."""
    if isinstance(part, list):
        return [strict(one) for one in part]
    if not isinstance(part, dict):
        return part
    closed = {"additionalProperties": False} if "properties" in part else {}
    return {**closed, **{name: strict(value) for name, value in part.items()}}


def test_every_command_with_json_has_a_schema_and_each_schema_a_command() -> None:
    asked = {name for name in COMMANDS if "--json" in parser_of(name)._option_string_actions}
    assert asked == {path.stem for path in SCHEMAS.glob("*.json")}
    assert {words[0] for words in ASKED} == asked, "each is held by a real output"


@pytest.mark.parametrize("words", ASKED, ids=" ".join)
def test_a_real_output_is_as_described(words, places, tmp_path, monkeypatch, capsys) -> None:
    for kind in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path))
    change(lambda queue: queue.added([Entry(0, "/runs/train", "/", "0")], {}))
    keep_ways([Way("http://127.0.0.1:1/secret-token")])
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    main([*words, "--json"])
    said = capsys.readouterr().out
    documents = said.splitlines() if words[0] == "events" else [said]
    described = strict(schema(words[0]))
    jsonschema.Draft202012Validator.check_schema(described)
    assert documents
    for document in documents:
        jsonschema.validate(json.loads(document), described)


def test_what_is_not_described_is_found() -> None:
    document = {"files": [], "more": 1}
    jsonschema.validate(document, schema("export"))
    with pytest.raises(jsonschema.ValidationError, match="more"):
        jsonschema.validate(document, strict(schema("export")))
    with pytest.raises(jsonschema.ValidationError, match="required"):
        jsonschema.validate({}, schema("export"))
