# Each target makes what it needs, the virtual environment included: only Python 3.11 or newer, pip and make must be there.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
BIN := $(VENV)/bin

.PHONY: help demo test lint unit test-torch thorough bench soak mutate mutate-sources clean

help:
	@echo "make demo   make small tomograms, convert, validate and picture them, in $(DEMO)/"
	@echo "make test   lint, type-check and run the tests"
	@echo "make test-torch  the tests of keypatch.torch and of other libraries' intensity, which need torch"
	@echo "make thorough  the tests with 20 times as many examples of each property"
	@echo "make bench  time building and reading against a floor and other libraries, in bench.json"
	@echo "make soak   kill builds 100 times at random moments"
	@echo "make mutate-sources   damage the real files 10 000 times and read them"
	@echo "make mutate damage stores 10000 times at random and see that validate finds it (N=, SEED=)"
	@echo "make clean  remove the virtual environment and the demo"

$(BIN)/python:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'keypatch needs Python 3.11 or newer, this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of packages, renewed when the dependencies change.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed
	rm -rf $(DEMO)
	$(BIN)/python examples/make_tomograms.py $(DEMO)/data --layout byu
	$(BIN)/keypatch convert '$(DEMO)/data/train/*' -a $(DEMO)/data/train_labels.csv -o $(DEMO)/motors.zarr \
	    --patch-shape 64,96,96 --sigma-angstrom 200 --centered 4 --hard-negatives 2 --negatives 2 --folds 2
	$(BIN)/keypatch validate $(DEMO)/motors.zarr --depth deep --source $(DEMO)/data/train
	$(BIN)/keypatch inspect $(DEMO)/motors.zarr --patch 0 --png $(DEMO)/patch.png
	$(BIN)/keypatch stats $(DEMO)/motors.zarr --html $(DEMO)/stats.html
	@echo "Look at $(DEMO)/patch.png, open $(DEMO)/stats.html in a browser; the store is $(DEMO)/motors.zarr."

test: lint unit

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# By file, as a file's tests share what is slow to make: stores, a browser, compiled code.
unit: $(VENV)/.installed-test
	$(BIN)/pytest -n auto --dist loadfile

thorough: $(VENV)/.installed-test
	$(BIN)/pytest -n auto --dist loadfile --hypothesis-profile thorough

# torch goes first, so that pip does not choose another build for MONAI; TORCH names the build to take. BENCH takes flags.
TORCH ?= torch==2.13.0
BENCH ?=

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@ $(VENV)/.installed

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks $(BENCH)

$(VENV)/.installed-test-torch: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test-torch]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-test

test-torch: $(VENV)/.installed-test-torch
	$(BIN)/pytest -n 2 --dist loadfile tests/test_augment_*.py tests/test_torch_*.py tests/test_docs_*.py

soak: $(VENV)/.installed
	$(BIN)/python tests/soak/kill_builds.py --times 100

mutate-sources: $(VENV)/.installed-test
	$(BIN)/python tests/soak/mutate_sources.py --times 10000

# Damage to stores; N says how often, SEED which, MUTATE takes flags such as --seconds 600.
N ?= 10000
SEED ?= 0
MUTATE ?=

mutate: $(VENV)/.installed-test
	$(BIN)/python tests/soak/mutate_store.py --times $(N) --seed $(SEED) $(MUTATE)

clean:
	rm -rf $(VENV) $(DEMO)
