# Needs Python >= 3.11 and make, nothing else. PYTHON picks the interpreter: make test PYTHON=python3.13
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test soak lint clean

demo: $(VENV)/.installed
	$(BIN)/pgrun demo

# Files go to PROCESSES processes, which share one server and wait for it much of the time;
# make test PROCESSES=1 TESTS=tests/unit runs a part, in one process.
PROCESSES ?= 3
TESTS ?= tests

test: lint
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(TESTS)

# The long forms of the tests that break things.
soak: $(VENV)/.installed
	$(BIN)/python -m pytest -m soak $(TESTS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache
