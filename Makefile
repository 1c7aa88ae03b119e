# Everything a developer or a newcomer runs. Each target does its own set-up, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo    serve the example shop on http://127.0.0.1:8000 and say what to try"
	@echo "make test    run every check and test (part of them: make test ARGS='tests/config -k bomb')"
	@echo "make check   the quick part: format, lint, types, shape of the code, generated docs"
	@echo "make docs    write the generated parts of docs/ again"
	@echo "make picture take the pictures of the status page again (1 minute)"
	@echo "make bench   compare with other servers and write docs/performance.md (5 minutes)"
	@echo "make conformance  compare what servers make of valid, doubtful and malformed requests (10 minutes)"
	@echo "make bench-reload, make bench-mixed"
	@echo "             compare reloads and stops, and slow requests beside fast ones (4 minutes each)"
	@echo "make bench-memory  compare the memory of four workers and write it into docs/memory.md (6 minutes)"
	@echo "make bench-watching  what it costs to be looked at every second, with 100 workers (3 minutes)"
	@echo "make fuzz    look for bytes that break the HTTP layer (40 minutes; less: make fuzz SECONDS=60)"
	@echo "make chaos   disturb a server under load and see what is left of it (5 minutes; less: make chaos SECONDS=60)"
	@echo "make clean   remove what the other targets made"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "prefork needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || .ci/apt ensurepip=python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) -e ".[example]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) -e ".[dev,test,example]"
	@touch $@ $(VENV)/.demo

.PHONY: demo
demo: $(VENV)/.demo
	@$(BIN)/python examples/demo.py

.PHONY: check
check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check
	$(BIN)/python -m prefork.config.reference --check
	$(BIN)/python -m pytest -q tests/test_shape.py

.PHONY: test
test: check apt
	@.ci/test $(ARGS)

# What the end-to-end tests run besides Python: command=package.
.PHONY: apt
apt:
	@.ci/apt systemd-socket-activate=systemd unshare=util-linux ip=iproute2 haproxy=haproxy nginx=nginx-light openssl=openssl curl=curl tmux=tmux prometheus=prometheus promtool=prometheus chromium=chromium

.PHONY: docs
docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py
	$(BIN)/python -m prefork.config.reference

# The pictures of the page in README.md.
.PHONY: picture
picture: $(VENV)/.dev
	@.ci/apt chromium=chromium pngquant=pngquant
	-@test -e /usr/share/doc/fonts-inter || .ci/apt Inter=fonts-inter # looks better than what a bare system has
	PYTHONPATH=tests $(BIN)/python docs/picture.py

.PHONY: bench
bench: $(VENV)/.demo
	@.ci/apt cc=gcc taskset=util-linux
	-@test -e /usr/include/ev.h || .ci/apt ev.h=libev-dev # for bjoern, which is left out without it
	$(BIN)/python -m bench

.PHONY: conformance
conformance: $(VENV)/.demo
	@.ci/apt cc=gcc taskset=util-linux
	-@test -e /usr/include/ev.h || .ci/apt ev.h=libev-dev # for bjoern, which is left out without it
	$(BIN)/python -m bench.conformance

.PHONY: bench-reload bench-mixed bench-memory bench-watching
bench-reload bench-mixed bench-memory bench-watching: bench-%: $(VENV)/.demo
	@.ci/apt cc=gcc
	$(BIN)/python -m bench.$*

$(VENV)/.fuzz: pyproject.toml | $(BIN)/python
	$(PIP) -e ".[dev,test,fuzz]"
	@touch $@

# Finds are written to var/fuzz; see tests/fuzz/fuzz_target.py.
SECONDS ?= 300
.PHONY: fuzz
fuzz: $(VENV)/.fuzz
	for target in head chunks connection tls proxied forwarded introduced responses; do \
		nice -n 19 $(BIN)/python tests/fuzz/fuzz_target.py $$target $(SECONDS) var/fuzz || exit 1; \
	done

# Its log is written to var/chaos.log; ARGS="--seed 2 --gentle" for another course of events.
.PHONY: chaos
chaos: $(VENV)/.demo
	$(BIN)/python -m bench.chaos --seconds $(SECONDS) $(ARGS)

.PHONY: clean
clean:
	rm -rf $(VENV) build dist var *.egg-info .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
