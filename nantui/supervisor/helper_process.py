"""Short helper processes: Ultralytics' own argument check, and the transactions of recovery.

Both need what a supervisor must not import (torch, numpy), so they run as processes of their own, in the
interpreter that trains: one JSON request in a private file, one JSON answer on stdout.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nantui import entry_points
from nantui.errors import FAILED, UserError
from nantui.machine.process_tree import MARK
from nantui.paths import PACKAGE, WORK_IN, interpreter, user_cache_dir
from nantui.run.atomic_files import write_json
from nantui.run.documents import JsonObject
from nantui.terminal_text import printable
from nantui.version import __version__

ACT, PREPARE = entry_points.RECOVERY, entry_points.CHECK_ARGUMENTS
POLL_S = 0.05


def helper(
    module: str, request: Mapping[str, object], *, python: str = "", cwd: str | None = None,
    pump: Callable[[float], None] = time.sleep,
    started: Callable[[subprocess.Popen[bytes]], None] = lambda child: None,
    variables: Mapping[str, str] | None = None, passed: tuple[int, ...] = (), limit_s: float = math.inf,
) -> JsonObject:  # fmt: skip
    """Run `PY -m MODULE REQUEST.json` and return its answer, calling `pump` while it works. Raises UserError
    when the interpreter cannot be run or gives no answer, TimeoutError after `limit_s`: it is killed, and not
    waited for, as it may hang in a driver.
    """
    with tempfile.TemporaryDirectory(prefix="nantui-") as folder:
        asked, out, err = (Path(folder, name) for name in ("request.json", "out", "err"))
        write_json(asked, dict(request), mode=0o600)
        argv = [python or sys.executable, "-m", module, str(asked)]
        with out.open("wb") as stdout, err.open("wb") as stderr:
            how = {"stdout": stdout, "stderr": stderr, "pass_fds": passed}
            child = start_python(argv, cwd or "", variables, **how)
        started(child)
        until = time.monotonic() + limit_s
        while child.poll() is None:
            if time.monotonic() > until:
                child.kill()
                raise TimeoutError(f"nothing for {limit_s:.0f} s")
            pump(POLL_S)
        said, complained = (path.read_text(encoding="utf-8", errors="replace") for path in (out, err))
    for text in (said, *reversed(said.splitlines())):
        with contextlib.suppress(ValueError):
            document = json.loads(text)
            if isinstance(document, dict):
                return document
    last = next((line for line in reversed(complained.splitlines()) if line.strip()), "no output")
    raise UserError(f"{module} gave no answer (exit {child.returncode}): {printable(last)}", FAILED)


def start_python(
    argv: Sequence[str], cwd: str, variables: Mapping[str, str] | None = None, **how: Any
) -> subprocess.Popen[bytes]:
    """Start an interpreter that goes to work in `cwd` once its own modules have been found; `how` is for
    Popen. Raises UserError.
    """
    variables = {**({WORK_IN: cwd} if cwd else {}), **(variables or {})}
    how = {"stdin": subprocess.DEVNULL, **how}
    words, env = [interpreter(argv[0], cwd), *argv[1:]], worker_environment(**variables)
    try:
        return subprocess.Popen(words, cwd=import_folder(), env=env, **how)
    except OSError as error:
        wanted = "--python wants a Python interpreter"
        raise UserError(f"cannot run {argv[0]} ({error.strerror}); {wanted}") from None


def worker_environment(**extra: str) -> dict[str, str]:
    """Return the environment in which an interpreter finds this very nantui, whatever else it has installed.

    Only a folder that holds nothing but a link to our package goes onto the path: our own environment's
    libraries must not shadow those of the interpreter that trains.
    """
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    path = [str(import_folder()), *filter(None, [environment.get("PYTHONPATH", "")])]
    return {**environment, "PYTHONPATH": os.pathsep.join(path), **extra}


def import_folder() -> Path:
    """Return the private folder whose only entry is a link to the installed nantui package."""
    folder = user_cache_dir() / f"import-{__version__}-{hash_of(str(PACKAGE))}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    link = folder / "nantui"
    if not link.exists():
        beside = folder / f".{os.getpid()}"
        beside.unlink(missing_ok=True)
        beside.symlink_to(PACKAGE)
        beside.replace(link)
    return folder


def hash_of(text: str) -> str:
    """Return a short name for `text`, the same in every process (Python's own hash is seeded)."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
