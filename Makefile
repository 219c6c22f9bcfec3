# Everything a newcomer needs: `make demo` and `make test` set up .venv by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLI := $(BIN)/nantui

# uv installs the same packages several times faster; pip does where uv is not there or cannot. Both compile
# them: every worker and every helper is a new process, which would read torch from its source again. `compiled`
# does the same for nantui itself, also where PYTHONDONTWRITEBYTECODE is set.
UV := $(shell command -v uv 2>/dev/null)
PIP = $(BIN)/python -m pip install --disable-pip-version-check
INSTALL = $(if $(UV),PYTHONDONTWRITEBYTECODE= $(UV) pip install --compile-bytecode --python $(BIN)/python $(1) || )$(PIP) $(1)

.PHONY: compiled demo demo-environments test tests quick quick-with-torch quick-without-torch lint bench diagnosis-table healthy lead-time matrix remedies screenshots slurm soak soak-matrix docs clean help

help:
	@echo "make demo         a real training with an injected NaN, shown and recovered"
	@echo "make test         lint, types and tests"
	@echo "make quick        lint, types and, of what has changed, the tests that train nothing: before each commit"
	@echo "make quick ALL=1  the same with all tests that train nothing"
	@echo "make bench        the measured figures, as ratios within one run"
	@echo "make soak         thousands of random disasters, bounded: NANTUI_SOAK_MINUTES, NANTUI_SOAK_SEED"
	@echo "make soak-matrix  every combination of faults, optimizers and architectures; takes hours"
	@echo "make diagnosis-table  trainings broken on purpose: is the right cause named?"
	@echo "make healthy      hundreds of healthy trainings beside plain ones; bounded: NANTUI_HEALTHY_MINUTES"
	@echo "make lead-time    how early warnings come, how often for nothing; bounded: NANTUI_LEAD_TIME_MINUTES"
	@echo "make remedies     which remedy cures which cause, and what it costs; bounded: NANTUI_REMEDIES_MINUTES"
	@echo "make matrix       older and newer Ultralytics and Python, each in an environment of its own (needs uv)"
	@echo "make demo-environments  the demo where kernels, threads and seed differ; an hour or more"
	@echo "make slurm        nantui sbatch on a real Slurm, which it installs here (as root, Debian or Ubuntu)"
	@echo "make docs         the pages that are made from the code: keys, commands, settings, the man page"
	@echo "make screenshots  pictures of every screen, from the real app"

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit("nantui needs Python 3.10 or newer: make PYTHON=python3.12 demo") if sys.version_info < (3, 10) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(call INSTALL,--quiet --editable '.[train]')
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(call INSTALL,--quiet --editable '.[test]')
	touch $@

compiled: $(VENV)/installed
	$(BIN)/python -m compileall -q nantui

demo: compiled
	$(CLI) demo

lint: $(VENV)/installed-test
	$(BIN)/ruff check nantui devtools tests benchmarks
	$(BIN)/ruff format --check nantui devtools tests benchmarks
	$(BIN)/mypy

# Two processes more than the two cores of a small machine: many tests wait for processes that they started.
# Compiled tests are kept as well: each of the processes that share them reads all of them.
WORKERS ?= 4
PYTEST = PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
BESIDE = +$(MAKE) --no-print-directory --jobs --keep-going

test: compiled
	$(BESIDE) lint tests

tests: $(VENV)/installed-test
	$(PYTEST) -n $(WORKERS)

# What needs torch is tested by one process: to import it costs each as much as a hundred of these tests.
TRAINS_NOTHING = -q -m 'not soak and not training' $(if $(ALL),,-p tests.changed)
WITH_TORCH = tests/checkpoint tests/diagnosis tests/labels tests/soak tests/worker

quick: compiled
	$(BESIDE) --output-sync=target lint quick-with-torch quick-without-torch

quick-with-torch: $(VENV)/installed-test
	$(PYTEST) $(TRAINS_NOTHING) $(WITH_TORCH)

quick-without-torch: $(VENV)/installed-test
	$(PYTEST) $(TRAINS_NOTHING) -n $(WORKERS) $(addprefix --ignore=,$(WITH_TORCH))

soak: $(VENV)/installed-test compiled
	$(BIN)/python -m tests.soak --write docs/soak.md

slurm: $(VENV)/installed-test compiled
	$(BIN)/python -m benchmarks.slurm

soak-matrix: $(VENV)/installed-test compiled
	HYPOTHESIS_PROFILE=default $(BIN)/python -m pytest -m soak

bench: $(VENV)/installed-test compiled
	$(BIN)/python -m benchmarks --write docs/benchmarks.md

diagnosis-table: $(VENV)/installed-test compiled
	$(BIN)/python benchmarks/diagnosis_table.py --write docs/diagnosis-table.md

# Goes on where it was: a pair that ended is not trained again. The pairs on a GPU: benchmarks/gpu/run.sh healthy
healthy: $(VENV)/installed-test compiled
	nice $(BIN)/python -m benchmarks.healthy --part cpu --minutes $(or $(NANTUI_HEALTHY_MINUTES),60)
	$(BIN)/python -m benchmarks.healthy --write

# Goes on where it was, like `healthy`. Those under fp16 need a GPU: --device gpu
lead-time: $(VENV)/installed-test compiled
	nice $(BIN)/python -m benchmarks.lead_time --minutes $(or $(NANTUI_LEAD_TIME_MINUTES),60) --write docs/lead-time.md

remedies: $(VENV)/installed-test compiled
	$(BIN)/python -m benchmarks.remedies --minutes $(or $(NANTUI_REMEDIES_MINUTES),60) --write docs/remedies.md

matrix: $(VENV)/installed-test compiled
	$(BIN)/python benchmarks/versions.py --write docs/versions.md

demo-environments: $(VENV)/installed-test compiled
	$(BIN)/python -m benchmarks.demo_environments --write docs/demo-environments.md

screenshots: $(VENV)/installed-test
	$(BIN)/python -m devtools.screenshots
	$(BIN)/python -m devtools.screenshots --only fleet --size 120x40 --colours 256
	$(BIN)/python -m devtools.moving_picture screenshots/tour.svg

docs: $(VENV)/installed-test
	$(BIN)/python -m devtools.keys_page > docs/keys.md
	$(BIN)/python -m devtools.reference_pages docs
	$(BIN)/python -m devtools.man_page > docs/nantui.1

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
