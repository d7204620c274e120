# Everything sets itself up: a bare Python (3.11 or newer), pip and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo demo-real test lint format bench convex tree trust tables docs clean

demo: $(VENV)/.installed
	$(BIN)/onestage demo

# A small real model, trained in three ways, evaluated and judged (docs/evaluate.md).
demo-real: $(VENV)/.installed-eval
	$(BIN)/python -m experiments.real

# The suite starts hundreds of processes: their bytecode is kept, also where the shell says otherwise, and each has
# one thread. Three workers, where two of them wait for processes too often to keep two cores busy.
test: $(VENV)/.installed-dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist worksteal

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	$(BIN)/python bench/head.py
	$(BIN)/python bench/mixing.py
	$(BIN)/python bench/schedules.py
	$(BIN)/python bench/million.py
	$(BIN)/python bench/against_trl.py
	$(BIN)/python bench/rollout.py

# Where every optimum is known (some four minutes), and what hints are for (half a minute): nothing is
# downloaded.
convex tree: $(VENV)/.installed-dev
	$(BIN)/python -m experiments.$@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-eval: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --quiet -c constraints.txt -e '.[eval]'
	touch $@ $(VENV)/.installed

# The tables of docs/trust.md, measured anew: some minutes.
trust: $(VENV)/.installed-dev
	$(BIN)/python -m bench.trust

# What plug-ins say of themselves, written into the tables of the pages.
tables: $(VENV)/.installed-dev
	$(BIN)/python docs/site/tables.py

# The site, in site/: open site/index.html. (`DOCS_VERSIONS=mike mike deploy VERSION` keeps one a version.)
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) runs site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
