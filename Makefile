# `make demo` and `make test` need only Python 3.11 or later, make and a package index.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test test-long check check-web docs format mini bench lock

setup: .venv/ready  ## virtual environment

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

demo: setup  ## fine-tune, evaluate and search on bundled sounds
	$(BIN)/openclap demo

# One process more than cores, since tests also wait: for servers, for a browser, for leases to end.
test: setup  ## all tests but the long ones; each process takes one test file after another
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder

test-long: setup  ## hundreds of kills, large sizes, the wheel in an empty environment
	$(BIN)/pytest -m long --timeout 3600

check: setup docs  ## format, lint, types, import contracts, documentation without warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check-web: web/node_modules  ## types of the page, and whether the committed files are what it builds (needs Node 20 and npm)
	npm run check --prefix web

web/node_modules: web/package-lock.json
	npm ci --prefix web
	touch $@

docs: setup  ## the documentation site: build/site/index.html (searching it needs python -m http.server)
	$(BIN)/python scripts/site_pages.py
	$(BIN)/zensical build --strict --clean

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

mini: setup  ## make the bundled model again: fetch 1.7 GB of sounds, render, distil, train (an hour; Debian 12's apt-get, and npm)
	$(BIN)/pip install --quiet --no-deps tinysoundfont==0.3.7
	$(BIN)/python -m scripts.mini
	$(BIN)/python -m scripts.mini.data_card --pairs build/mini/pairs.csv

bench: setup  ## the figures of docs/benchmarks.md
	$(BIN)/python benchmarks/line.py

lock: setup  ## write requirements.lock from the installed packages
	$(BIN)/python scripts/lock.py > requirements.lock.new && mv requirements.lock.new requirements.lock
