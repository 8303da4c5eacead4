# `make demo` and `make test` set up all that they need. PYTHON may name a Python 3.11 or 3.12.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do if $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then echo $$p; break; fi; done)
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --python $(BIN)/python
STAY ?= 1
# Each has a Label Studio, a Triton, a Postgres and an S3 server of its own: 2 keep two cores busy. One thread each: the
# threads of numerical libraries wait for one another by spinning, and two such processes stand in each other's way.
# Bytecode is kept, whatever the environment says: a process that starts would compile all that it imports.
TEST_PROCESSES ?= 2
PUBLISH ?= reorder
FUZZ ?= --max-examples 100
DATA ?=
# An index may serve a CPU build of torch only under an exact version; without this, pip takes gigabytes of CUDA.
TORCH ?= torch==2.13.0 torchvision==0.28.0

.PHONY: demo test test-machines fuzz check bench-scale bench-scan bench-heads bench-perceptron bench-finetune bench-int8 bench-webhook bench-selection bench-drift bench-changeover bench-web screens evidence evidence-quick reproduce-alaas clean

demo: $(VENV)/.demo
	$(BIN)/nextbatch demo $(if $(DATA),--data "$(DATA)") --publish $(PUBLISH) $(if $(filter 0,$(STAY)),--no-stay,--stay)

test: $(VENV)/.test
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 NEXTBATCH_WORKER_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

# Workers in network namespaces of their own; wants root.
test-machines: $(VENV)/.test
	NEXTBATCH_MACHINES=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/rounds/test_jobs.py -k cut_off

# Minutes of what schemathesis can think of, against a real web process; FUZZ has options of `schemathesis run`.
fuzz: $(VENV)/.test
	$(BIN)/python -m tests.web $(FUZZ)

check: $(VENV)/.check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/deptry .

$(VENV)/.demo: pyproject.toml
	@if [ -z "$(PYTHON)" ]; then echo "nextbatch needs Python 3.11 or 3.12: set PYTHON=/path/to/python3.11"; exit 1; fi
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing nextbatch into $(VENV) (about a minute the first time) …"
	$(BIN)/python -m pip install --disable-pip-version-check uv $(TORCH)
	$(UV) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	$(UV) --editable '.[test]'
	$(BIN)/python -m tests.services
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(UV) --editable '.[check]'
	@touch $@

bench-scale: $(VENV)/.test
	$(BIN)/python -m benchmarks.scale

bench-scan: $(VENV)/.test
	$(BIN)/python -m benchmarks.scan

bench-heads: $(VENV)/.test
	$(BIN)/python -m benchmarks.heads

bench-perceptron: $(VENV)/.test
	$(BIN)/python -m benchmarks.perceptron

bench-finetune: $(VENV)/.test
	$(BIN)/python -m benchmarks.finetune

bench-int8: $(VENV)/.test
	$(BIN)/python -m benchmarks.int8

bench-webhook: $(VENV)/.test
	$(BIN)/python -m benchmarks.webhook

bench-selection: $(VENV)/.test
	$(BIN)/python -m benchmarks.selection

bench-drift: $(VENV)/.test
	$(BIN)/python -m benchmarks.drift

bench-changeover: $(VENV)/.test
	$(BIN)/python -m benchmarks.changeover

bench-web: $(VENV)/.test
	$(BIN)/python -m benchmarks.web

screens: $(VENV)/.test
	$(BIN)/python -m benchmarks.screens

evidence: $(VENV)/.test
	$(BIN)/python -m benchmarks.evidence

evidence-quick: $(VENV)/.test
	$(BIN)/python -m benchmarks.evidence --quick

reproduce-alaas: $(VENV)/.test
	$(BIN)/python -m benchmarks.alaas_paper

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
