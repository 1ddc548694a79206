# Every target sets up what it needs by itself; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: help install demo up test test-fast test-long soak memory bench check docs figures format cards constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(INSTALLED) ## make the environment in .venv, with everything

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; set PYTHON=…"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(INSTALLED) ## run the main job on real pictures; the answers are in demo-output/
	@$(BIN)/python examples/demo.py

up: $(INSTALLED) ## start the service on this machine and leave it running, with its page
	@$(BIN)/occluscope up

# glibc keeps freed activations, as `occluscope worker` has it: the tests run the model twice as fast;
# several files of tests run at once, so each process takes one thread; one more than there are cores, since many wait
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
test test-fast test-long: export MALLOC_MMAP_THRESHOLD_ = 1073741824
test test-fast test-long: export MALLOC_TRIM_THRESHOLD_ = 2147483648
test test-fast test-long: export OMP_NUM_THREADS ?= 1
test: $(INSTALLED) ## run every test, and say which lines none of them ran
	$(PYTEST) --cov --cov-report=term

test-fast: $(INSTALLED) ## run the tests that start no service and compute for seconds at most
	$(PYTEST) -m fast

test-long: export OCCLUSCOPE_TESTS = long
test-long: $(INSTALLED) ## run every test with many more examples: each architecture of torchvision, thousands of requests
	$(PYTEST)

SOAK ?= --seed 1 --faults 100 --jobs 150
soak: $(INSTALLED) ## random faults while jobs run, and what came of the jobs; SOAK="--seed 2 --database postgresql …"
	$(BIN)/python -m tests.faults.soak $(SOAK)

memory: $(INSTALLED) ## resident memory of worker and API over 1,000 mixed jobs, beside the stated bounds; MEMORY="--jobs 200 …"
	$(BIN)/python -m benchmarks.memory $(MEMORY)

bench: export MALLOC_MMAP_THRESHOLD_ = 1073741824
bench: export MALLOC_TRIM_THRESHOLD_ = 2147483648
bench: $(INSTALLED) ## measure side by side with peers; writes benchmarks/results/ (about an hour)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.occlusion
	$(BIN)/python -m benchmarks.adaptive
	$(BIN)/python -m benchmarks.invariance
	$(BIN)/python -m benchmarks.service
	$(BIN)/python -m benchmarks.database
	$(BIN)/python -m benchmarks.memory

check: docs ## format, lint, types, import rule, 'service loads without torch', the documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/torch_free.py
	$(BIN)/hadolint Dockerfile

docs: $(INSTALLED) ## build the documentation into site/; every warning is an error
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs site

figures: $(INSTALLED) ## draw the documentation's figures anew, with the bundled model
	$(BIN)/python docs/building/figures.py

format: $(INSTALLED) ## format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

cards: $(INSTALLED) ## write the models' cards anew, after torchvision has changed
	$(BIN)/python -m occluscope.models.write_cards

constraints: ## pin the newest versions that go together, in constraints.txt
	rm -rf .venv-newest
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable '.[dev]'
	.venv-newest/bin/python -m pip freeze --exclude-editable > constraints.txt
	rm -rf .venv-newest

clean: ## remove the environment, the state and the demo's output
	rm -rf .venv .venv-newest .occluscope demo-output docs/generated site
