# Two targets are all a newcomer needs: make demo, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
# everything stays on this machine: no telemetry of any library
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: demo test test-all test-gpu lint lock image clean

$(BIN)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed, found ' + sys.version.split()[0] if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --editable .
	touch $@

demo: $(BIN)/.installed ## a generated four-center study, from archive to report
	$(BIN)/ospor-batch demo --out $(DEMO)

test: $(BIN)/.installed lint ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: test ## what make test runs, and the GPU tests where there is a GPU
	$(BIN)/python -m pytest -m gpu -o addopts="--import-mode=importlib --strict-markers"

test-gpu: $(BIN)/.installed
	$(BIN)/python -m pytest -m gpu -o addopts="--import-mode=importlib --strict-markers"

lint: $(BIN)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

lock: ## resolve pyproject.toml anew into requirements.lock
	$(PYTHON) infra/lock.py

image:
	docker build --file infra/Dockerfile --tag ospor-batch .

clean:
	rm -rf $(VENV) $(DEMO) .mypy_cache .ruff_cache .pytest_cache
