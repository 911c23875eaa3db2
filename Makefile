# Every target sets up what it needs: a fresh clone, Python 3.11+, make and git are enough.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SEED   ?= 1

.PHONY: demo test check bench ui clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    simulate a small survey and take it to light curves (SEED=n for another sky)"
	@echo "make test    all tests, and everything 'make check' runs"
	@echo "make check   import contracts, ruff, mypy"
	@echo "make bench   each step beside its peers on the same pixels, and a full-size DECam night (two hours)"
	@echo "make ui      the web interface on the demo's data, http://127.0.0.1:3000"

$(VENV)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/ready
	$(BIN)/python -m seechange_assets.demo --seed $(SEED)

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -n 2 --dist loadscope

bench: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.decam_images

ui: $(VENV)/ready
	@test -f demo/seechange.yaml || { echo "there is nothing to show yet: run make demo first"; exit 1; }
	SEECHANGE_CONFIG=demo/seechange.yaml $(BIN)/seechange ui

clean:
	rm -rf $(VENV) demo
