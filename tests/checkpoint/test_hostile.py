"""Nothing in a file may run, hang, or take memory: every file gets an answer, and the name is told.

The tripwire is armed for everything a pickle could do: calls and imports that the interpreter reports
(`sys.addaudithook`), in a process of its own for each corpus, because a hook cannot be taken out again.
"""

import textwrap

import pytest
import torch

from nantui.checkpoint.scan import scan
from tests.checkpoint import archives as a
from tests.checkpoint.editing import edited
from tests.checkpoint.hostile import DATA, PICKLE, RUNS_CODE, os_system, output_of


@pytest.mark.parametrize("body", RUNS_CODE.values(), ids=RUNS_CODE.keys())
def test_a_pickle_that_would_run_code_is_unsafe(body, tmp_path):
    verdict = scan(a.write(tmp_path / "evil.pt", body, DATA))
    assert verdict.badge == "unreadable" and not verdict.resumable and not verdict.usable
    assert verdict.findings[0].kind == "unsafe"


@pytest.mark.parametrize(
    ("body", "names"),
    [(RUNS_CODE["os.system"], "posix.system"), (RUNS_CODE["STACK_GLOBAL from memo"], "os.system"),
     (RUNS_CODE["eval"], "builtins.eval"), (RUNS_CODE["named only"], "os.system"),
     (RUNS_CODE["known package, unknown function"], "ultralytics.utils.downloads.safe_download"),
     (RUNS_CODE["cuts off after the call"], "os.system")],
)  # fmt: skip
def test_the_name_is_told(body, names, tmp_path):
    verdict = scan(a.write(tmp_path / "evil.pt", body, DATA))
    assert names in {finding.where for finding in verdict.findings}
    assert names in verdict.names_to_allow


def test_nothing_runs(tmp_path):
    """All of them in a process that reports every call, import, open file, socket and new process."""
    for index, body in enumerate(RUNS_CODE.values()):
        a.write(tmp_path / f"{index}.pt", body, DATA)
    (tmp_path / "legacy.pt").write_bytes(os_system())
    (tmp_path / "warm").mkdir()
    a.write(tmp_path / "warm" / "clean.pt", PICKLE, DATA)
    program = textwrap.dedent(
        """
        import sys, json, pathlib
        from nantui.checkpoint.scan import scan
        folder = pathlib.Path(sys.argv[1])
        paths = sorted(folder.glob("*.pt"))
        scan(folder / "warm" / "clean.pt")  # what is imported late is imported now
        modules, events, armed = set(sys.modules), [], True
        def hook(event, arguments):
            quiet = event == "open" and str(arguments[0]).startswith(str(folder))
            if armed and not quiet and event not in ("builtins.id", "time.sleep"):
                events.append([event, str(arguments)[:200]])
        sys.addaudithook(hook)
        badges = [scan(path).badge for path in paths]
        armed = False
        print(json.dumps({"badges": badges, "events": events, "new": sorted(set(sys.modules) - modules)}))
        """
    )
    told = output_of(program, tmp_path)
    assert set(told["badges"]) == {"unreadable"} and len(told["badges"]) == len(RUNS_CODE) + 1
    assert told["events"] == [] and told["new"] == []


class Attention(torch.nn.Module):
    """Somebody's own block."""

    def __init__(self):
        super().__init__()
        self.gate = torch.nn.Linear(4, 4)
        torch.nn.init.zeros_(self.gate.weight)


class Setting:
    """Somebody's own class that is no module."""

    def __init__(self):
        self.value = 1


def with_attention(checkpoint):
    checkpoint["ema"].attention = Attention()


def with_setting(checkpoint):
    checkpoint["ema"].setting = Setting()


def test_a_module_class_of_ones_own_is_a_note(healthy, tmp_path):
    copy = edited(healthy, tmp_path / "copy.pt", with_attention)
    verdict = scan(copy)
    assert verdict.badge == "clean" and verdict.resumable
    (finding,) = verdict.findings
    assert finding.kind == "unknown-class" and finding.where.endswith(".Attention")
    assert verdict.names_to_allow == (finding.where,)
    assert scan(copy, allowed=verdict.names_to_allow).findings == ()


def test_any_other_class_is_unsafe_until_allowed(healthy, tmp_path):
    copy = edited(healthy, tmp_path / "copy.pt", with_setting)
    verdict = scan(copy)
    assert verdict.badge == "unreadable" and verdict.findings[0].where.endswith(".Setting")
    assert scan(copy, allowed=verdict.names_to_allow).badge == "clean"


def test_allowing_a_name_allows_no_other_trick(tmp_path):
    body = a.pickled(a.call("my", "thing") + b"(tR")
    assert scan(a.write(tmp_path / "x.pt", body, DATA), allowed=["my.thing"]).badge == "unreadable"


def test_names_cannot_steer_the_terminal(tmp_path):
    body = a.pickled(a.call("os\x1b[2J", "sys\x07tem", a.text("x")))
    verdict = scan(a.write(tmp_path / "x.pt", body, DATA))
    assert verdict.badge == "unreadable"
    for finding in verdict.findings:
        assert finding.where.isprintable() and finding.detail.isprintable()


# -- tensors that lie -----------------------------------------------------------------------------------

LIES = {
    "a shape of terabytes": a.tensor((1 << 40, 4), (4, 1)),
    "a stride beyond the record": a.tensor((2,), (1 << 40,)),
    "an offset beyond the record": a.tensor((4,), (1,), offset=1),
    "a storage of terabytes": a.tensor(of=a.storage(numel=1 << 44)),
    "a storage smaller than its record": a.tensor((2,), (1,), of=a.storage(numel=2)),
    "a record that is not there": a.tensor(of=a.storage(key="9")),
    "a record outside": a.tensor(of=a.storage(key="../../data.pkl")),
    "a negative size": a.tensor((-1,), (1,)),
    "a negative stride": a.tensor((2,), (-1,)),
    "more strides than sizes": a.tensor((4,), (1, 1)),
    "a thousand dimensions": a.tensor((1,) * 1000, (1,) * 1000),
    "the same bytes over and over": a.tensor((3, 3), (1, 1)) ,
    "one record as two storages": a.dictionary(x=a.tensor(), y=a.tensor(of=a.storage(kind="ShortStorage"))),
    "an unknown storage": a.tensor(of=a.storage(kind="QUInt8Storage")),
    "a storage of no type": a.tensor(
        of=b"(" + a.text("storage") + a.text("x") + a.text("0") + a.text("cpu") + b"K\x04tQ"
    ),
}  # fmt: skip


@pytest.mark.parametrize("body", LIES.values(), ids=LIES.keys())
def test_a_tensor_that_lies_is_unreadable(body, tmp_path):
    verdict = scan(a.write(tmp_path / "lie.pt", a.pickled(a.dictionary(model=body)), DATA))
    assert verdict.badge == "unreadable"
    assert {finding.kind for finding in verdict.findings} & {"unsafe", "torn", "cannot-read"}


def test_the_same_tensor_told_truly_is_clean(tmp_path):
    body = a.pickled(a.dictionary(model=a.tensor((2, 2), (2, 1))))
    assert scan(a.write(tmp_path / "true.pt", body, DATA), crc=True).badge == "clean"
