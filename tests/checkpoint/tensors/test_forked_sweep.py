"""The sweep in a forked child: the same judgement as in one process, also where the child fails."""

import json
import subprocess
import sys

import pytest

from tests.checkpoint.editing import CONV, INF, NAN, edited, poison, put

# A process of its own: here torch and its threads are loaded, and a fork would be refused.
LOOKS = """
import json, os, pathlib, signal, sys, threading
from nantui.checkpoint.tensors import forked_sweep
from nantui.checkpoint.cache import row_of
from nantui.checkpoint.scan import scan_alone as look

def seen(path, crc):
    row = row_of(look(pathlib.Path(path), crc=crc))
    return {key: row[key] for key in ("findings", "metadata", "suspects", "moving")}

def all_seen():
    rows = []
    for path in sys.argv[2:]:
        for crc in (False, True):
            forked_sweep._first = True
            rows.append(seen(path, crc))
    return rows

forked_sweep.FROM, start, children = 0, forked_sweep.ForkedSweep.__init__, []

def counted(self, *arguments):
    start(self, *arguments)
    children.append(self._child)
    if sys.argv[1] == "killed":
        os.kill(self._child, signal.SIGKILL)

forked_sweep.ForkedSweep.__init__ = counted
if sys.argv[1] == "thread":
    waiting = threading.Event()
    threading.Thread(target=waiting.wait, daemon=True).start()
rows = all_seen()
without = "numpy" not in sys.modules
forked = len(children)
import numpy
alone = all_seen()
assert len(children) == forked and not any(os.path.exists(f"/proc/{child}") for child in children)
print(json.dumps({"same": rows == alone, "without": without, "forked": forked, "rows": rows}))
"""


def looks(how, *paths):
    done = subprocess.run(
        [sys.executable, "-c", LOOKS, how, *map(str, paths)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def files(healthy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("beside")
    hole = bytearray(healthy.read_bytes())
    hole[len(hole) // 2 : len(hole) // 2 + 100_000] = bytes(100_000)
    (folder / "hole.pt").write_bytes(hole)
    return [
        healthy,
        edited(healthy, folder / "nan.pt", put(NAN)),
        edited(healthy, folder / "washed.pt", poison(lambda name: True, INF)),
        edited(healthy, folder / "channel.pt", poison(lambda name: name == CONV, NAN, channel=3)),
        folder / "hole.pt",
    ]


def test_a_child_judges_as_one_process_does(files):
    told = looks("plainly", *files)
    assert told["without"] and told["forked"] == 2 * len(files)
    assert told["same"]
    kinds = [{finding["kind"] for finding in row["findings"]} for row in told["rows"][::2]]
    assert kinds[0] == set() and "nan" in kinds[1] and "laundered" in kinds[2] and "torn" in kinds[4]
    assert told["rows"][6]["suspects"], "rows that were zero came back"


def test_a_child_that_is_killed_costs_only_time(files):
    told = looks("killed", *files[:2])
    assert told["same"] and told["forked"] == 1, "numpy is there after the first one"
    assert not told["without"]


def test_no_fork_beside_a_thread(files):
    told = looks("thread", files[1])
    assert told["same"] and told["forked"] == 0
