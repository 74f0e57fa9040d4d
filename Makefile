# Each target sets up what it needs: a virtual environment in .venv with the packages that constraints.txt pins.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
LOWEST := .venv-lowest

# How long `make fuzz` runs each of its targets: make fuzz FUZZ_SECONDS=600
FUZZ_SECONDS ?= 60

# How many tests run at a time. One in three waits for processes that it has started, so three keep two cores busy.
WORKERS ?= 3

.PHONY: demo docs test test-lowest lint types format bench soak fuzz clean help

help:    ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(READY) ## teach a tiny model a made-up verb, offline, in about a minute
	$(BIN)/finetune-lm demo

test: lint types ## lint, types and the whole test suite
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-lowest: $(LOWEST)/.ready ## some runs with the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest -p no:cacheprovider tests/lowest.py

lint: $(READY) ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## static types
	$(BIN)/mypy

format: $(READY) ## rewrite the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## measure speed, as ratios within one run
	$(BIN)/python benchmarks/run.py

soak: $(READY) ## kill runs of every kind again and again, for some minutes, and compare
	$(BIN)/python tests/soak.py

fuzz: $(READY) ## feed the parser and the readers anything, FUZZ_SECONDS for each of four (Linux)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[fuzz]'
	$(BIN)/python fuzz/run.py --seconds $(FUZZ_SECONDS)

docs: $(READY) ## build the site of docs/ in site/; a broken link is an error
	@# Not -e '.[docs]', which would also build the project once more.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt mkdocs-material
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) $(LOWEST) site .mypy_cache .pytest_cache .ruff_cache

# pip comes pinned too: old versions resolve the constraints differently.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $$($(PYTHON) --version) is what '$(PYTHON)' runs: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(LOWEST)/.ready: pyproject.toml constraints.txt scripts/lowest_versions.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python scripts/lowest_versions.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOWEST)/lowest.txt \
	  -e . hypothesis pytest
	@touch $@
