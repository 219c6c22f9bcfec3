"""What stands in for an interpreter is to a test what that is: what it gets, how it is found, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nantui.machine.process_identity import alive, ref_of
from nantui.machine.process_tree import argv_of, environment_of
from tests.waiting import eventually
from tests.warm import ROOT

TELL = """
import json, os, signal, sys
print(json.dumps({
    "words": sys.argv, "cwd": os.getcwd(), "mine": os.environ.get("MINE"), "pid": os.getpid(),
    "path": sys.path, "executable": sys.executable, "modules": sorted(sys.modules), "said": sys.stdin.read(),
    "ignored": signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN, "rank": os.environ.get("RANK"),
}))
"""


@pytest.fixture
def script(tmp_path):
    """Return what writes a script, and gives its path. The stub is the only one that needs nantui alone."""

    def write(text: str, name: str = "stub_worker.py") -> str:
        (tmp_path / name).write_text(textwrap.dedent(text))
        return str(tmp_path / name)

    return write


def told(python: str, script: str, **variables: str) -> dict:
    done = subprocess.run(
        [python, script, "a", "b c"], input="hello", capture_output=True, text=True, cwd="/",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:/mine", **variables},
        preexec_fn=lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_gets_what_the_real_one_gets(nantui_python, script):
    warm, real = (told(python, script(TELL), MINE="x") for python in (nantui_python, sys.executable))
    assert "nantui.cli" in warm.pop("modules") and "nantui.cli" not in real.pop("modules")
    assert warm.pop("executable") == nantui_python
    assert warm.pop("pid") != real.pop("pid") and real.pop("executable") == sys.executable
    assert warm == real


def test_a_rank_imports_ultralytics_itself(torch_python, script):
    path = script("import torch\n" + TELL, "script.py")
    one, other = (told(torch_python, path, **more) for more in ({}, {"RANK": "1"}))
    assert "ultralytics" in one["modules"] and "ultralytics" not in other["modules"]
    assert "torch" in one["modules"] and "torch" in other["modules"]


def test_another_nantui_is_not_taken_for_this_one(nantui_python, tmp_path):
    package = tmp_path / "other" / "nantui"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("print('the other')")
    said = subprocess.run([nantui_python, "-m", "nantui"], capture_output=True, text=True, cwd=package.parent)
    assert said.stdout == "the other\n", said.stderr


@pytest.mark.parametrize(
    "end", ["sys.exit(7)", "sys.exit('why')", "1 / 0", "os.kill(os.getpid(), 9)", "os.abort()", ""]
)
def test_it_ends_as_the_real_one_ends(nantui_python, script, end):
    path = script(f"import os, sys\nprint('said', flush=True)\n{end}\n")
    one, other = (
        subprocess.run([python, path], capture_output=True, text=True)
        for python in (nantui_python, sys.executable)
    )
    assert (one.returncode, one.stdout) == (other.returncode, other.stdout)
    assert one.stderr.splitlines()[-1:] == other.stderr.splitlines()[-1:]


def test_it_is_found_by_its_environment_and_command_line_and_dies_with_the_stand_in(nantui_python, script):
    path = script("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n")
    environment = {**os.environ, "MINE": "x" * 200}
    with subprocess.Popen([nantui_python, path], stdout=subprocess.PIPE, env=environment) as stand_in:
        assert stand_in.stdout is not None
        process = ref_of(int(stand_in.stdout.readline()))
        assert process is not None and process.pid != stand_in.pid
        assert b"MINE=" + b"x" * 200 in environment_of(process.pid)
        assert path in argv_of(process.pid)
        stand_in.kill()
        eventually(lambda: not alive(process))


def test_a_signal_is_passed_on(nantui_python, script):
    path = script(
        """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(5))
        print("ready", flush=True)
        time.sleep(60)
        """
    )
    with subprocess.Popen([nantui_python, path], stdout=subprocess.PIPE) as stand_in:
        assert stand_in.stdout is not None and stand_in.stdout.readline() == b"ready\n"
        stand_in.terminate()
        assert stand_in.wait() == 5


def test_a_file_that_is_handed_down_keeps_its_number(nantui_python, script, tmp_path):
    path = script("import os, sys\nos.write(int(sys.argv[1]), b'written')\n")
    with Path(tmp_path / "file").open("wb") as file:
        subprocess.run([nantui_python, path, str(file.fileno())], pass_fds=[file.fileno()], check=True)
    assert (tmp_path / "file").read_bytes() == b"written"
