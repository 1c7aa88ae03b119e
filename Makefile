# Everything a developer or a newcomer runs. `make demo` and `make test` do all the set-up themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo   install into $(VENV) and serve the example on http://127.0.0.1:8000"
	@echo "make test   install the tools and run all checks and tests"
	@echo "make check  the quick part: format, lint, types, shape"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev,test,example]"
	@touch $@

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[example]"
	@touch $@

.PHONY: demo
demo: $(VENV)/.demo
	$(BIN)/prefork -c config/example.yaml

.PHONY: check
check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: test
test: check
	$(BIN)/python -m pytest -n 2
