# The commands of the README. Each makes .venv itself from pyproject.toml and constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-all examples lint types contract check bench bench-structure clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[data,dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/autocompress run --model examples/digits.py:model --data digits --profile examples/digits.yaml --out runs/demo

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(STAMP)
	$(BIN)/python -m pytest -m 'slow or not slow'

examples: $(STAMP)
	$(BIN)/python -m pytest -m example -n 2 tests/e2e/test_examples.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

contract: $(STAMP)
	$(BIN)/lint-imports

check: lint types contract

bench: $(STAMP)
	$(BIN)/python benchmarks/cifar10.py

bench-structure: $(STAMP)
	$(BIN)/python benchmarks/structure.py --depth 56 --minutes 10 --minutes 30
	$(BIN)/python benchmarks/structure.py --depth 20 --minutes 10
	$(BIN)/python benchmarks/structure.py --depth 56 --minutes 30 --method plain
	$(BIN)/python benchmarks/recovery.py

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
