# comfyfleet: `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
SEED ?= 1
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Tests start many processes: where compiled modules are not kept each compiles all of them anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test coverage chaos bench bench-scale lint format docs reference audit sbom clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

demo: $(VENV)/.demo ## render on an embedded stack; COMFYUI_URL=http://... for a server of yours
	@$(BIN)/comfyfleet demo

test: $(VENV)/.dev ## the whole suite on real Valkey, real SeaweedFS and the stand-in ComfyUI
	@$(BIN)/python -m pytest --numprocesses 6 --dist loadfile --no-loadscope-reorder

coverage: $(VENV)/.dev ## the suite once more, and which lines it reaches; half as long again
	@$(BIN)/python -m pytest --numprocesses 6 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

chaos: $(VENV)/.dev ## hurt a fleet for ten minutes, account for every job; SEED=2 for other faults
	@$(BIN)/python -m tests.chaos --seed $(SEED)

bench: $(VENV)/.dev ## how busy the GPU is kept, beside others; BENCH_COMFYUI_URL=http://... for servers of yours
	@$(BIN)/python -m bench

bench-scale: $(VENV)/.dev ## many workers, long queues, and what a job costs the broker
	@$(BIN)/python -m bench scale

lint: $(VENV)/.dev ## linters, types, import rules, container files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@$(BIN)/hadolint Dockerfile

format: $(VENV)/.dev ## format the code, mend what the linter can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## build the site of the documents into site/
	@$(BIN)/zensical build --strict

reference: $(VENV)/.dev ## write docs/reference anew from the code
	@$(BIN)/python -m reference

audit: $(VENV)/.audit ## known vulnerabilities of the pinned versions; says so if nobody answers
	@$(BIN)/python .ci/audit.py constraints.txt

sbom: $(VENV)/.audit ## write build/sbom.json (CycloneDX): what a worker is made of
	@$(PYTHON) -m venv --clear --without-pip build/runtime
	@$(BIN)/python -m pip --python build/runtime/bin/python install --quiet --disable-pip-version-check \
		--constraint constraints.txt .
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file build/sbom.json build/runtime/bin/python
	@rm -rf build/runtime
	@echo build/sbom.json

clean: ## remove the virtual environment and everything built
	rm -rf $(VENV) build dist *.egg-info demo-output site .cache bench/results .coverage* .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) ..."
	@$(INSTALL) --editable '.[sandbox]'
	@touch $@

# Flower lies beside the environment: within, each `celery` would import it, and one test needs it.
$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) ..."
	@$(INSTALL) --editable '.[otel,sandbox,dev]'
	@$(INSTALL) --upgrade --no-deps --target $(VENV)/flower flower humanize pytz tornado
	@touch $@ $(VENV)/.demo

$(VENV)/.audit: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV) ..."
	@$(INSTALL) --editable '.[audit]'
	@touch $@
