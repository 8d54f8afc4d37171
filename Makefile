# Everything that a developer or CI runs. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := server,tritonserver,train,weights,onnx,loadtest,dev
NUMPY2 := $(CURDIR)/build/numpy2
EMOJI_FONT := /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf
PYTEST := $(BIN)/python -m pytest
# On all cores, so each process computes with one thread.
UNIT := OMP_NUM_THREADS=1 $(PYTEST) --numprocesses auto tests/unit
# A file is one process's: its tests share networks that were converted.
INTEGRATION := OMP_NUM_THREADS=1 $(PYTEST) --numprocesses auto --dist loadfile tests/integration
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup font demo serve bench check format test test-unit test-integration test-e2e test-numpy2 clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv with all extras (PYTHON=python3.11 chooses the Python); several GB

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

font: $(EMOJI_FONT) ## install the font that the training scenes are drawn with (Debian; needs root)

$(EMOJI_FONT):
	apt-get update
	apt-get install --yes --no-install-recommends fonts-noto-color-emoji

demo: setup ## segment an example through a server of its own
	$(BIN)/python scripts/demo.py $(ARGS)

serve: setup ## serve model_repository on loopback until Ctrl-C (ARGS='--verbose')
	$(BIN)/python scripts/serve.py $(ARGS)

bench: setup $(VENV)/.bench-installed ## measure speed and memory; leave the machine alone meanwhile (ARGS='--only phrases')
	$(BIN)/python -m benchmarks $(ARGS)

$(VENV)/.bench-installed: $(VENV)/.installed
	$(BIN)/python -m pip install -c constraints.txt -e '.[$(EXTRAS),bench]'
	touch $@

check: setup ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy scripts benchmarks

format: setup ## format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: test-unit test-numpy2 test-integration test-e2e ## all tests

test-unit: setup ## seconds (ARGS='-k name')
	$(UNIT) $(ARGS)

test-integration: setup ## the models' adapters without a server
	$(INTEGRATION) $(ARGS)

test-e2e: setup ## the real server
	$(PYTEST) tests/e2e $(ARGS)

test-numpy2: setup $(NUMPY2)/.installed ## the unit tests again, with numpy 2
	PYTHONPATH=$(NUMPY2) $(BIN)/python -c 'import numpy; assert numpy.__version__.startswith("2."), numpy.__version__'
	PYTHONPATH=$(NUMPY2) $(UNIT) $(ARGS)

# The packaged tritonserver holds numpy below 2; clients need not.
$(NUMPY2)/.installed: $(VENV)/.installed
	rm -rf $(NUMPY2)
	$(BIN)/python -m pip install --no-deps --target $(NUMPY2) 'numpy>=2.1,<2.4'
	touch $@

clean: ## remove .venv, caches and what was built
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
