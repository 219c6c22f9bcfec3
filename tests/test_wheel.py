"""The wheel holds styles and configs and starts in a bare environment, far from any checkout."""

import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*words, **options):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)


def test_wheel_starts_in_a_bare_environment(tmp_path):
    built = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, cwd=ROOT)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    installed = run(python, "-m", "pip", "install", "--no-deps", "--no-index", "-q", wheel)
    assert installed.returncode == 0, installed.stderr
    site = next(path for path in sys.path if path.endswith("site-packages"))
    environment = {**os.environ, "PYTHONPATH": ""}

    help_text = run(tmp_path / "bare" / "bin" / "nantui", "--help", cwd=tmp_path, env=environment)
    assert help_text.returncode == 0 and "recover" in help_text.stdout

    where = "from nantui import paths; print(paths.styles_dir()); print(paths.configs_dir())"
    found = run(python, "-c", where, cwd=tmp_path, env=environment)
    for line in found.stdout.split():
        assert Path(line).is_dir() and any(Path(line).iterdir())
        assert Path(line).is_relative_to(tmp_path / "bare"), "found in the checkout, not in the wheel"

    table = "from nantui.recovery.remedies import measured; print(measured('learning_rate', ())[0].words)"
    measured = run(python, "-c", table, cwd=tmp_path, env={**environment, "PYTHONPATH": site})
    assert "of the mAP" in measured.stdout, measured.stderr

    presets = run(tmp_path / "bare" / "bin" / "nantui", "presets", cwd=tmp_path,
                  env={**environment, "PYTHONPATH": site})  # fmt: skip
    assert presets.returncode == 0 and "nan-safe" in presets.stdout, presets.stderr
