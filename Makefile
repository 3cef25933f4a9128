# make help: what there is to do. Every target sets up what it needs in .venv, quickly a second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.segtrail-setup

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format type bench ui clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## everything that training, tests and the UI need, in .venv

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "segtrail needs Python 3.11 or newer; say which: make setup PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt package.json scripts/build_ui.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python scripts/build_ui.py
	@touch $@

demo: setup ## train two models on satellite images, evaluate, predict; then look at both runs
	$(BIN)/python scripts/demo.py

test: setup ## the whole test suite
	@bash scripts/install_browser.sh && sh scripts/install_postgres.sh
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: setup ## ruff, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/build_ui.py --check

type: setup ## the type checker alone
	$(BIN)/mypy

format: setup ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## every benchmark: tables of ratios against named peers
	$(BIN)/python scripts/bench.py

ui: setup ## compare the runs of this folder in the browser
	$(BIN)/segtrail ui

clean: ## remove what setup and runs made
	rm -rf $(VENV) outputs predictions .neptune .pytest_cache .mypy_cache .ruff_cache
