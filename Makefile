# `make demo` and `make test` each create .venv on first use; a second call installs nothing.
# Needs python3 (3.11 or newer) with venv, and make: on Debian, `apt install python3-venv make`.

PYTHON ?= python3
PYTEST_ARGS ?=
DEMO_ARGS ?=

BIN := .venv/bin
# Bytecode is compiled by the first import of what is used: half the installation time.
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq --no-compile --constraint constraints.txt

.PHONY: demo test nightly lint bench clean

demo: .venv/train.stamp
	$(BIN)/trainvitals demo $(DEMO_ARGS)

test: lint
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The same tests with examples that nobody has drawn yet.
nightly: lint
	$(BIN)/python -m pytest --hypothesis-profile=explore $(PYTEST_ARGS)

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

bench: .venv/bench.stamp
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"TrainVitals needs Python 3.11 or newer; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/train.stamp: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing into .venv (one to three minutes, once) ..."
	$(PIP) --editable '.[train]'
	@touch $@

.venv/dev.stamp: .venv/train.stamp
	$(PIP) --editable '.[train,dev]'
	@touch $@

.venv/bench.stamp: .venv/train.stamp
	$(PIP) --editable '.[train,bench]'
	@touch $@
