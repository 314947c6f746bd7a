# Two commands on a fresh machine: make demo and make test. They need git, make and Python >= 3.11.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?= 8000

.PHONY: help demo test check bench growth format clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(VENV)/.run: pyproject.toml setup.py src/bellwire/transports/_writes.c
	@echo "Setting up $(VENV) (once; some seconds) ..."
	@$(PYTHON) -c 'import sys; sys.exit("Bellwire needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -q -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "Installing what the tests and checks need (once; a minute or so) ..."
	@$(BIN)/python -m pip install -q --group dev
	@touch $@

demo: $(VENV)/.run  ## serve the chat and print its address (PORT=8000)
	@PORT=$(PORT) $(BIN)/bellwire demo

test: $(VENV)/.dev  ## all tests that this machine can run, a process for each core
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: $(VENV)/.dev  ## lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## measure beside other servers on this machine, ten minutes at most
	@$(BIN)/python -m bench --out docs/figures
	@$(BIN)/python -m tests.docs.tables

growth: $(VENV)/.dev  ## measure how cost grows, and reckon with it, five minutes at most
	@$(BIN)/python -m bench.growth --out docs/figures
	@$(BIN)/python -m bench.model --out docs/figures
	@$(BIN)/python -m tests.docs.tables

format: $(VENV)/.dev  ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what these commands made
	rm -rf $(VENV) build src/*.egg-info src/bellwire/transports/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
