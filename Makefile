# Every target sets up .venv by itself where it is absent or older than what it is made from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := runs/demo
SEED ?= 0

.PHONY: help setup demo test test-all test-fast check format bench faults fuzz clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(READY) ## make .venv

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "FedMRI needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m simulation.environment
	$(BIN)/fedmri-sim example
	@touch $@

demo: $(READY) $(DEMO)/hospitals ## phantom hospitals train together; a report at the end
	$(BIN)/fedmri-sim run --config demo --set seed=$(SEED) --data $(DEMO)/hospitals --external external --out $(DEMO)/run-$$(date +%Y%m%d-%H%M%S)

$(DEMO)/hospitals: | $(READY)
	$(BIN)/fedmri-sim phantom $@ --sites 4 --patients 24 --external 40 --seed 7

test: $(READY) ## the tests of every submission; what is skipped says why
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not thorough" $(ARGS)

test-all: $(READY) ## these, and those of Ray clusters and other rare ground: a ninth longer
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-fast: $(READY) ## the tests that need no browser, no processes and no patience
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -m "not slow and not thorough and not deployment and not browser" $(ARGS)

check: $(READY) ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -n 2
	$(BIN)/lint-imports --no-cache

format: $(READY) ## put the code in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## the code's shape; speed, as ratios measured side by side; JSON in bench/
	$(BIN)/python bench/structure.py bench/structure.json
	$(BIN)/python bench/speed.py bench/speed.json
	$(BIN)/python bench/engines.py bench/engines.json
	$(BIN)/python bench/growth.py bench/growth.json
	$(BIN)/python bench/privacy.py bench/privacy.json
	$(BIN)/python bench/secure.py bench/secure.json
	$(BIN)/python bench/protocols.py bench/protocols.json

faults: $(READY) ## a real federation, and what can be done to it: the table of docs/results.md; most of an hour
	$(BIN)/python bench/faults.py bench/faults.json $(ARGS)

fuzz: $(READY) ## what is read from wires and files, ten thousand damaged inputs each
	FEDMRI_EXAMPLES=10000 $(BIN)/python -m pytest -q tests/common/messages/test_hypothesis_messages.py tests/common/config/test_hypothesis_config.py tests/common/messages/test_calibration.py tests/server/run/test_hypothesis_files.py $(ARGS)

clean: ## remove the environment and what the tools leave
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build
