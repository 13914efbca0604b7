# make demo, make test: everything they need is fetched on the first call, into .venv, .venv-tools and the cache.
PYTHON ?= python3
UV := $(or $(shell command -v uv 2>/dev/null),.venv-tools/bin/uv)
BIN := .venv/bin
ASSETS := $(CURDIR)/.venv-tools/assets

.PHONY: demo test nightly lint crds clean setup
.DELETE_ON_ERROR:

demo: setup
	$(BIN)/drivetrain demo

test: setup
	KUBEBUILDER_ASSETS=$(ASSETS) $(BIN)/python -m pytest -m "not cluster and not embedded and not nightly"

nightly: setup
	KUBEBUILDER_ASSETS=$(ASSETS) $(BIN)/python -m pytest -m "(nightly or embedded) and not cluster"
	@test -n "$$KUBECONFIG" || echo "KUBECONFIG names no cluster: tests that need one are left out"
	test -z "$$KUBECONFIG" || $(BIN)/python -m pytest tests/cluster

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(wildcard operator pipelines serving tests examples benchmarks)
	$(BIN)/lint-imports
	$(BIN)/python -m drivetrain.api.crds --check crds
	requirements/compile --check $(UV)

crds: .venv/.installed
	$(BIN)/python -m drivetrain.api.crds crds

# Binaries are fetched or built while Python packages install; both lists of progress share the terminal.
setup:
	@$(MAKE) --no-print-directory -j2 .venv/.installed .venv-tools/.binaries

.venv-tools/bin/uv: requirements/tools.txt
	@echo "uv is not on PATH: installing the pinned one into .venv-tools"
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet --require-hashes -r requirements/tools.txt
	@touch $@

.venv/.installed: requirements/dev.txt requirements/demo-data.txt pyproject.toml | $(filter .venv-tools/bin/uv,$(UV))
	@test -x $(BIN)/python || $(UV) venv --quiet --python $$($(PYTHON) -c 'import sys; print(sys.executable)') .venv
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r requirements/demo-data.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

.venv-tools/.binaries: operator/drivetrain/local/binaries.py operator/drivetrain/local/binaries.toml
	@mkdir -p .venv-tools
	PYTHONPATH=operator $(PYTHON) -m drivetrain.local.binaries $(ASSETS)
	@touch $@

clean:
	@test ! -x $(BIN)/drivetrain || $(BIN)/drivetrain down
	rm -rf .venv .venv-tools .drivetrain .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
