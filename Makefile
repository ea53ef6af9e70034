# `make demo` and `make test` set up everything they need in .venv on a machine with
# Python 3.11, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test test-all check bench presets clean

$(VENV)/.ready: pyproject.toml constraints.txt scripts/setup
	PYTHON=$(PYTHON) scripts/setup

setup: $(VENV)/.ready

demo: setup
	$(BIN)/ohmloop demo --out ohmloop-demo

test: setup
	scripts/test

test-all: setup
	scripts/test --all

check: setup
	scripts/check

bench: setup
	scripts/bench

clean:
	rm -rf $(VENV) ohmloop-demo .pytest_cache .mypy_cache .ruff_cache .hypothesis
