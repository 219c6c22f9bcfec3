"""`make matrix`: nantui against several Ultralytics and Python versions, each in an environment of its own.

    python benchmarks/versions.py [NAME…] [--write docs/versions.md] [--keep DIR]

nantui runs in this environment and trains with the other interpreter (`--python`), as somebody would whose
training environment is older. Everything is real: the installed packages, trainings on the CPU through the
supervisor, Ultralytics' own DDP spawn. uv has to be there; an environment is removed when its row is done.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]
BESIDE = ("psutil", "pandas")  # what nantui needs in an interpreter that only trains
INSTALL = ("pip", "install", "--quiet", "--compile-bytecode", "--python")


@dataclass(frozen=True)
class Row:
    """One environment to prove: its Python and the packages it gets."""

    name: str
    python: str
    packages: tuple[str, ...]


ULTRALYTICS = (
    Row("8.2", "3.10", ("ultralytics<8.3", "torch==2.4.1", "torchvision==0.19.1", "numpy<2")),
    Row("8.3", "3.12", ("ultralytics<8.4", "torch==2.9.1", "torchvision==0.24.1")),
    Row(
        "8.4", "3.11", ("ultralytics", "torch", "torchvision", "cloudpickle>=3.1.1")
    ),  # the last for its spawn
)
LIBRARIES = ("textual", "psutil", "numpy", "pandas", "PyYAML", "pillow", "nvidia-ml-py")
TRAINING_PACKAGES = ("torchvision", "numpy", "psutil")
TESTING = ("pytest", "pytest-asyncio", "pytest-xdist", "hypothesis", "pyte", "apprise", "jsonschema",
           "prometheus-client")  # fmt: skip
PYTHONS = tuple(
    Row(f"Python {number}", number, (*LIBRARIES, "plotext>=6", "argcomplete", *TESTING))
    for number in ("3.10", "3.11", "3.12", "3.13", "3.14")
)
LOWEST = Row("lowest", "3.10", ())
TRAINING_CHECKS = {
    "hooks": "`nantui doctor` finds every place of the trainer that the guard needs",
    "attempt 1 under the guard": "a training ends well and says that it was guarded",
    "NaN caught and skipped": "a NaN pixel costs one step, in the step in which it comes",
    "badges of its files": "every checkpoint of that release is judged clean, with its epoch",
    "rollback and rebase": "`nantui rollback --to epoch1.pt` with another rate and momentum",
    "attempt 2 under the guard": "`nantui resume` trains the rest",
    "settings in effect": "the live optimizer has the new values, and the right epochs are trained",
    "both ranks go back in memory": "two ranks on the CPU, asked to go back to a step point, train on",
    "exec through its DDP spawn": 'a script with `device="0,1"` under `nantui exec`, both ranks guarded',
}


def main() -> int:
    """Prove every row, print a line for each check, write the page if asked; 1 where something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    rows = {row.name: row for row in (*ULTRALYTICS, *PYTHONS, LOWEST)}
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(rows))
    parser.add_argument("--write", type=Path, help="write the page here")
    parser.add_argument("--found", type=Path, help="keep what was found here, with what was found before")
    parser.add_argument("--keep", type=Path, help="keep environments here, and use those that are there")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(rows):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    told = earlier(arguments.found)
    for name in arguments.names or rows:
        print(f"== {name}", flush=True)
        told[name] = list(printed(proved(rows[name], arguments.keep)))
    if arguments.found:
        document = {name: [asdict(one) for one in found] for name, found in told.items()}
        arguments.found.write_text(json.dumps(document), encoding="utf-8")
    if arguments.write:
        from benchmarks.versions_page import page

        tried = {name: told[name] for name in rows if name in told}
        arguments.write.write_text(page(tried, machine()), encoding="utf-8")
    return 0 if all(found.good for row in told.values() for found in row) else 1


def earlier(path: Path | None) -> dict[str, list[Found]]:
    """Return what earlier calls found of other rows."""
    if path is None or not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    return {name: [Found(**one) for one in found] for name, found in document.items()}


@dataclass(frozen=True)
class Found:
    """One check of one row."""

    check: str
    good: bool
    detail: str
    says: bool = False  # the detail is worth showing also where it held


def printed(found: Iterator[Found]) -> Iterator[Found]:
    for one in found:
        print(f"{'held' if one.good else 'FAILED':<7} {one.check:<28} {one.detail}", flush=True)
        yield one


def proved(row: Row, keep: Path | None) -> Iterator[Found]:
    """Make the environment, yield what each check found, and remove it."""
    with tempfile.TemporaryDirectory(prefix="nantui-versions-") as folder:
        place = Path(folder)
        home = (keep or place) / row.name.replace(" ", "-")
        try:
            python = environment(row, home)
        except subprocess.CalledProcessError as error:
            yield Found("environment", False, error.stderr.strip().splitlines()[-1][:200])
            return
        yield from checks_of(row, python, place / "work")
        if keep is None:
            shutil.rmtree(home, ignore_errors=True)


def checks_of(row: Row, python: Path, place: Path) -> Iterator[Found]:
    """Yield what a row is for: trainings, the tests that need no torch, or both."""
    place.mkdir()
    trains = row in ULTRALYTICS or row is LOWEST
    names = TRAINING_PACKAGES if row in ULTRALYTICS else LIBRARIES
    yield Found(
        "versions", True, versions(python, ("ultralytics", "torch", *names) if trains else names), True
    )
    if trains:
        from benchmarks.versions_training import checks

        yield from (Found(*found) for found in checks(python, place))
    if row is LOWEST:  # the tests are about the text of the newest release, as in the other rows
        uv("pip", "uninstall", "--quiet", "--python", str(python), "torch", "torchvision")
        uv(*INSTALL, str(python), "--no-deps", "--upgrade", "--resolution", "highest", "ultralytics")
    if row not in ULTRALYTICS:
        yield from without_torch(python)


# -- environments ---------------------------------------------------------------------------------------


def environment(row: Row, home: Path) -> Path:
    """Return the interpreter of a row, installed first where it is not there yet."""
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        uv("venv", "--quiet", "--python", interpreter(row.python), str(home))
        if row is LOWEST:
            lowest(python)
        else:
            uv(*INSTALL, str(python), *row.packages, *BESIDE)
            if row in PYTHONS:  # for its default.yaml and its trainer's source, which are only read
                uv(*INSTALL, str(python), "--no-deps", "ultralytics")
        (home / "installed").touch()
    return python


def lowest(python: Path) -> None:
    """Install nantui with the oldest version of each dependency that its own bounds allow."""
    # torchvision is Ultralytics' wish, of which uv takes the newest, and a torch that fits it: 0.16 fits 2.1.
    uv(*INSTALL, str(python), "--resolution", "lowest-direct", f"{ROOT}[train]", "torchvision<0.17")
    uv(*INSTALL, str(python), *TESTING)
    uv("pip", "uninstall", "--quiet", "--python", str(python), "nantui")  # the tests use the checkout


def interpreter(number: str) -> str:
    """Return an installed Python of that number; pyenv's where there is one."""
    homes = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(homes.glob(f"{number}.*/bin/python"))
    return str(found[-1]) if found else number


def uv(*words: str) -> None:
    program = shutil.which("uv") or shutil.which(Path(sys.executable).with_name("uv"))
    if program is None:
        raise SystemExit("make matrix makes environments with uv: pip install uv")
    # Set to anything, the variable would also keep --compile-bytecode from writing.
    compiling = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([program, *words], check=True, capture_output=True, text=True, env=compiling)


def versions(python: Path, names: tuple[str, ...]) -> str:
    program = (
        "import sys; from importlib.metadata import version; print('Python', sys.version.split()[0], "
        "*(f', {name} {version(name)}' for name in sys.argv[1:]), sep=' ')"
    )
    done = subprocess.run([python, "-c", program, *names], capture_output=True, text=True, check=True)
    return done.stdout.strip().replace(" ,", ",")


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}"


# -- what needs no torch --------------------------------------------------------------------------------

ROOMS = tuple(
    f"tests/{room}" for room in ("run", "settings", "checkpoint", "labels", "diagnosis", "supervisor", "ui")
)
NEEDS_TRAINING = re.compile(
    "import torch|(from|import) ultralytics|tests.worker|checkpoint(.| import )(editing|flips|lists)"
    "|run_of|healthy|write_dataset|torch_python"
)
PINNED = "test_snapshots.py"  # pictures of one Textual version


def without_torch(python: Path) -> Iterator[Found]:
    """Yield one result for the tests of each room that neither import torch nor train."""
    for room in ROOMS:
        files = [path for path in sorted((ROOT / room).rglob("test_*.py")) if needs_no_torch(path)]
        if not files:
            continue
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as listed:
            # On the command line their names would make the test run look like a training to the tests.
            listed.write("\n".join(map(str, files)))
            listed.flush()
            words = [f"@{listed.name}", "-q", "-p", "no:cacheprovider", "-m", "not soak", "-n", "2"]
            run = [python, "-m", "pytest", *words]
            done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, env=trained_beside())
        lines = done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]]
        failed = [line.split()[1] for line in lines if line.startswith(("FAILED ", "ERROR "))]
        why = [line for line in lines if line.startswith("E  ")]
        told = [lines[-1].strip("= "), *failed[:8], *why[:8]]
        yield Found(room, done.returncode == 0, "; ".join(told), True)


def trained_beside() -> dict[str, str]:
    """Return an environment in which nantui is found from everywhere, and finds a Python that has torch."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


def needs_no_torch(path: Path) -> bool:
    return path.name != PINNED and not NEEDS_TRAINING.search(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    raise SystemExit(main())
