# The doors of the project. Each sets up what it needs; `make run` and `make test` work on a
# fresh machine that has Python 3.11 or later with venv.

PYTHON ?= python3
PORT ?= 8000
DATA_DIR ?= $(CURDIR)/.run
TEST_ARGS ?=
LONG ?= 1

BIN := .venv/bin
RUNTIME := .venv/.runtime
TOOLS := .venv/.tools

.PHONY: run test test-long check lint bench deb system-test clean

run: $(RUNTIME)  ## a simulated unit on 127.0.0.1:8000, with its first jobs
	$(BIN)/python tools/run_unit.py $(PORT) $(DATA_DIR)

test: $(TOOLS)  ## the fast tests
	$(BIN)/python -m pytest -n auto $(TEST_ARGS)

test-long: $(TOOLS)  ## closed loops, kill storms, long property tests; LONG=0.2 shortens them
	PIOD_LONG=$(LONG) $(BIN)/python -m pytest -m long -s $(TEST_ARGS)

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## all that must hold before a commit

bench: $(RUNTIME)  ## figures, each beside a baseline of the same run
	$(BIN)/python -m bench

deb:  ## the Debian package, in build/deb; DEB_BUILD_OPTIONS=nocheck leaves its tests out
	tools/build_deb.sh

system-test: $(TOOLS)  ## the package, installed in a chroot and booted in a container; as root
	$(BIN)/python -m pytest -m 'package or machine' -s $(TEST_ARGS)

clean:
	rm -rf .venv .run build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv .venv

$(RUNTIME): setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(TOOLS): setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	touch $@ $(RUNTIME)
