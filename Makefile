# The verbs of this repository. Everything lives in .venv; nothing is installed outside of it.
#
#   make setup      environment with all that development needs (quick when nothing changed)
#   make demo       real stars, served and queried; ARGS=--once exits after the queries
#   make test       lint, types, and the default tests
#   make test-all   the slow tests too (TOPCAT's wants the Debian packages topcat, xvfb and default-jdk-headless)
#   make postgres   those tests whose registry is in PostgreSQL (a server of their own; part of make test where it is installed)
#   make lint       ruff and mypy
#   make bench      benchmarks beside bare DuckDB on the same files
#   make golden     write the golden EXPLAIN texts again (review the difference)
#   make proto      generate the gRPC code again

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 2
ARGS ?=

.PHONY: setup demo test test-all postgres lint bench golden proto clean
.DEFAULT_GOAL := test

setup: $(STAMP)

$(STAMP): pyproject.toml
	@# Debian's Python without the package python3-venv cannot put pip into an environment; the outer pip can.
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || { $(PYTHON) -m venv --without-pip $(VENV) \
	    && $(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check pip; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev,rubin]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m qengine.demo $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

test-all: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "slow or not slow" $(ARGS)

postgres: $(STAMP)
	$(BIN)/python -m pytest -k postgresql -rs tests/unit/catalog tests/loader $(ARGS)

bench: $(STAMP)
	@mkdir -p bench/data
	$(BIN)/python -m pytest bench -o addopts="" -q --benchmark-only --benchmark-disable-gc --benchmark-max-time=2 \
	    --benchmark-json=bench/data/latest.json $(ARGS) > bench/data/latest.txt || { cat bench/data/latest.txt; exit 1; }
	$(BIN)/python -m bench.compare bench/data/latest.json

golden: $(STAMP)
	QENGINE_GOLDEN=write $(BIN)/python -m pytest tests/plans $(ARGS)

proto: $(STAMP)
	$(BIN)/python proto/generate.py

clean:
	rm -rf $(VENV) demo-store build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
