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

.PHONY: compiled demo test lint bench diagnosis-table matrix screenshots soak soak-matrix docs clean help demo-environments

help:
	@echo "make demo         a real training with an injected NaN, shown and recovered"
	@echo "make test         lint, types and tests"
	@echo "make bench        the measured figures, as ratios within one run"
	@echo "make soak         thousands of random disasters, bounded: NANTUI_SOAK_MINUTES, NANTUI_SOAK_SEED"
	@echo "make soak-matrix  every combination of faults, optimizers and architectures; takes hours"
	@echo "make diagnosis-table  trainings broken on purpose: is the right cause named?"
	@echo "make matrix       older and newer Ultralytics and Python, each in an environment of its own (needs uv)"
	@echo "make demo-environments  the demo where kernels, threads and seed differ; an hour or more"
	@echo "make docs         the pages that are made from the code: keys, commands, settings"
	@echo "make screenshots  pictures of every screen, from the real app"

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit("nantui needs Python 3.10 or newer: make PYTHON=python3.12 demo") if sys.version_info < (3, 10) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(call INSTALL,--quiet --editable .)
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(call INSTALL,--quiet --editable '.[test]')
	touch $@

compiled: $(VENV)/installed
	$(BIN)/python -m compileall -q nantui

demo: compiled
	$(CLI) demo

lint: $(VENV)/installed-test
	$(BIN)/ruff check nantui tests benchmarks
	$(BIN)/ruff format --check nantui tests benchmarks
	$(BIN)/mypy

test: lint compiled
	$(BIN)/python -m pytest -n 2

soak: $(VENV)/installed-test compiled
	$(BIN)/python -m tests.soak --write docs/soak.md

soak-matrix: $(VENV)/installed-test compiled
	HYPOTHESIS_PROFILE=default $(BIN)/python -m pytest -m soak

bench: $(VENV)/installed-test compiled
	$(BIN)/python -m benchmarks --write docs/benchmarks.md

diagnosis-table: $(VENV)/installed-test compiled
	$(BIN)/python benchmarks/diagnosis_table.py --write docs/diagnosis-table.md

matrix: $(VENV)/installed-test compiled
	$(BIN)/python benchmarks/versions.py --write docs/versions.md

demo-environments: $(VENV)/installed-test compiled
	$(BIN)/python -m benchmarks.demo_environments --write docs/demo-environments.md

screenshots: $(VENV)/installed-test
	$(CLI) screenshots

docs: $(VENV)/installed-test
	$(BIN)/python -m nantui.ui.keylist > docs/keys.md
	$(BIN)/python -m nantui.reference docs

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache
