# `make run` and `make test` do all the set-up that they need, in .venv, and repeat without a network.

PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# A surrounding environment must not leak into this one.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV PIP_TARGET PIP_PREFIX PIP_USER PIP_REQUIRE_VIRTUALENV PIP_CONSTRAINT PIP_NO_INDEX
export PYTHONNOUSERSITE := 1
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.PHONY: run test test-modules test-programs test-long test-short test-crash test-browser test-cluster test-slurm test-sge lint clean

run: $(VENV)/installed-train
	PATH="$(BIN):$$PATH" run

test: $(VENV)/installed-dev
	$(MAKE) --no-print-directory --jobs=3 --output-sync=target test-modules test-long test-programs test-short

# Parts that take about as long: the modules by themselves, and `run` as a user types it, which mostly waits.
LONG := $(addprefix tests/integration/test_,daemon_words.py gather.py gpus.py greedy.py prune.py search.py signals.py)

test-modules:
	$(BIN)/python -m pytest --ignore tests/integration --ignore tests/train --ignore tests/mpl

test-programs:
	$(BIN)/python -m pytest tests/train tests/mpl

test-long:
	$(BIN)/python -m pytest $(LONG)

test-short:
	$(BIN)/python -m pytest tests/integration $(addprefix --ignore ,$(LONG))

test-crash: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m crash

test-browser: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m browser

# They mostly wait. Says why where a batch system cannot be had.
test-cluster: $(VENV)/installed-dev
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target test-slurm test-sge

test-slurm:
	$(BIN)/python -m pytest -m cluster -rs tests/cluster tests/contract -k "not (sge or grid_engine)"

test-sge:
	$(BIN)/python -m pytest -m cluster -rs tests/cluster tests/contract -k "sge or grid_engine"

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy runner train mpl bench tests

clean:
	rm -rf $(VENV)

# The stamps hold the checkout's path, because a virtual environment does not outlive a move.
$(VENV)/installed-train: EXTRAS := train
$(VENV)/installed-dev: EXTRAS := train,text,vision,mpl,dev
$(VENV)/installed-%: setup.py constraints.txt $(VENV)/at-this-path
	@echo "Installing into $(VENV) (the first time downloads PyTorch: minutes) …"
	$(PIP_INSTALL) --editable '.[$(EXTRAS)]'
	touch $@

$(VENV)/at-this-path: FORCE
	@if [ "$$(cat $@ 2>/dev/null)" != "$(CURDIR)" ]; then \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which with PYTHON=/path/to/python3.11")' && \
	  $(PYTHON) -m venv --clear $(VENV) && \
	  printf %s "$(CURDIR)" > $@; fi

FORCE:
