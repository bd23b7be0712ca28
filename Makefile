# Every target makes the virtual environment that it needs; nothing else has to be set up.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help run test check audit format simulate properties crash crash-matrix flips mutations bench bench-full peers bench-peers clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable . --group dev --group audit
	@touch $@

run: $(STAMP) ## the main job: a census of the standard library, killed in the middle and resumed
	@$(BIN)/python -m samples.census_demonstration

test: $(STAMP) ## the test suite
	@$(BIN)/python -m pytest -n auto

check: $(STAMP) ## format, lint, types, floors, dependencies
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/pyright
	@$(BIN)/python -m pytest -q tests/test_floors.py
	@$(BIN)/python -m tests.audit

audit: $(STAMP) ## the dependencies, held against what is known of them; fails where nobody could be asked
	@$(BIN)/python -m tests.audit --strict

format: $(STAMP) ## format the code and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

simulate: $(STAMP) ## the engine in worlds made from seeds: make simulate SEEDS=20000 FIRST=0
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0) --workers 2

properties: $(STAMP) ## random programs against a model: make properties EXAMPLES=10000
	@$(BIN)/python -m tests.properties --examples $(or $(EXAMPLES),1000)

crash: $(STAMP) ## a long campaign of kills: make crash KILLS=100 SEED=1
	@$(BIN)/python -m tests.engine.crash_campaign --kills $(or $(KILLS),30) $(if $(SEED),--seed $(SEED))

crash-matrix: $(STAMP) ## every durable operation at every crash point, every cut of the log: make crash-matrix PARTS="points cuts"
	@$(BIN)/python -m tests.store.crashes $(PARTS)

flips: $(STAMP) ## every byte of a hub flipped, read, and looked for by the doctor
	@$(BIN)/python -m tests.store.flips

mutations: $(STAMP) ## the source is broken on purpose, and the suite has to notice: make mutations ONLY=name
	@$(BIN)/python -m tests.mutations $(if $(ONLY),--only $(ONLY))

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
