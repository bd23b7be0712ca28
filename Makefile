# Every target makes the virtual environment that it needs; nothing else has to be set up.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test check format bench bench-full peers bench-peers crash clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

run: $(STAMP) ## the main job: a census of the standard library, killed in the middle and resumed
	@$(BIN)/python -m samples.census_demonstration

test: $(STAMP) ## the test suite
	@$(BIN)/python -m pytest -n auto

check: $(STAMP) ## format, lint, types, floors
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pyright
	@$(BIN)/python -m pytest -q tests/test_floors.py

format: $(STAMP) ## format the code and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

crash: $(STAMP) ## a long campaign of kills: make crash KILLS=100
	@$(BIN)/python -m tests.engine.crash_campaign --kills $(or $(KILLS),30)

bench: $(STAMP) ## the benchmarks in short, with their ratios to the floor: make bench QUESTIONS="chain fan"
	@$(BIN)/python -m benchmarks --short $(QUESTIONS)

bench-full: $(STAMP) ## the benchmarks at full size, beside the peers that are installed
	@$(BIN)/python -m benchmarks $(QUESTIONS)

peers: $(STAMP) ## install the rivals, each in an environment of its own under .peers/
	@$(BIN)/python -m benchmarks.peers install

bench-peers: peers ## replayflow beside its rivals, on this machine
	@$(BIN)/python -m benchmarks.peers

clean: ## remove what the targets made
	@rm -rf $(VENV) .peers .mypy_cache .ruff_cache .pytest_cache .hypothesis
