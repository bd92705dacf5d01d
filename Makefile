# Ringcast's commands. `make run` needs nothing but Python 3.11; `make test` sets up everything else by itself.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run setup test faults lint format bench bench-quick lock clean

run: .venv/run-ready
	$(BIN)/python -m server serve

setup: .venv/dev-ready

test: .venv/dev-ready tests/clients/node/node_modules/.package-lock.json
	tests/install-tools
	$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

# Every fault twenty times (make faults ROUNDS=3: three times), wherever its test stands; some hours. Each round has
# another seed, from which tests draw their moments.
ROUNDS ?= 20
faults: .venv/dev-ready
	tests/install-tools
	RINGCAST_FAULT_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -n 2 -m fault

lint: .venv/dev-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/dev-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/bench-ready
	benchmarks/install-tools
	$(BIN)/python -m benchmarks.run

bench-quick: .venv/bench-ready
	benchmarks/install-tools
	$(BIN)/python -m benchmarks.run --quick

.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }

.venv/run-ready: requirements/run.txt setup.py | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.venv/dev-ready: requirements/dev.txt .venv/run-ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

.venv/bench-ready: requirements/bench.txt .venv/run-ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	touch $@

tests/clients/node/node_modules/.package-lock.json: tests/clients/node/package-lock.json
	tests/install-tools node
	cd tests/clients/node && npm ci --silent --no-audit --no-fund

# The lock files, with hashes, from requirements/*.in.
lock: .venv/dev-ready
	cd requirements && for name in run pubsub dev bench; do \
	  ../$(BIN)/uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --python-version 3.11 $$name.in -o $$name.txt; done

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache tests/clients/node/node_modules build *.egg-info
