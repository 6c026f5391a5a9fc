# `make help` is the manual. Everything runs in .venv, which `make .venv` fills from the
# locked requirements.txt; nothing else of the machine is used but Python 3.11+ and git.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CLUSTER := var/cluster-venv
ENGINES := var/engines-venv
PYTHON ?= $(firstword $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p; done))
# Tests wait for servers and for each other a fifth of their time: more workers than cores.
WORKERS ?= $(shell expr $$(nproc 2>/dev/null || echo 2) + 2)
# A tenth of the time of the tests goes into glibc's allocator: DuckDB plans many small queries.
# Where jemalloc is installed, the workers use it; `tests/conftest.py` keeps it from what they start.
ALLOCATOR := $(firstword $(wildcard /usr/lib/*/libjemalloc.so.2 /usr/lib/libjemalloc.so.2))

# One Dagster store for the command line, the UI and the notebooks: dagster.yaml lies here,
# and git ignores what Dagster puts beside it.
export DAGSTER_HOME := $(CURDIR)
# The tests start some hundred processes. Without compiled files each compiles the library again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo check test laws chromium chaos cluster-test engines-test dev lint audit docs lock clean

help:  ## Show this
	@grep -hE '^[a-z.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | \
		while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: $(READY)  ## Run the main job end to end against the emulator; leaves the lake in var/demo
	$(BIN)/python scripts/demo.py

check: $(READY) lint  ## Check style, types and layers, and run the quick unit tests
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "not slow" tests/unit

test: $(READY) chromium  ## Run every test
	LD_PRELOAD=$(ALLOCATOR) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not chaos and not cluster and not engines"

laws: $(READY)  ## Run the tests of laws with all their examples
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --hypothesis-profile thorough -m hypothesis

chromium:  # for the tests of the report's page, where root can install it; else they are skipped
	@scripts/chromium.sh

chaos: $(READY) laws  ## Run the laws in full; let twenty storms of faults and kills pass over a lake
	@scripts/s3_server.sh
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m chaos
	PYTHONPATH=tests $(BIN)/python -m chaos

cluster-test: $(CLUSTER)/.ready  ## Run PostgreSQL, Redis, S3 and Celery workers, and kill one
	@scripts/cluster_servers.sh
	$(CLUSTER)/bin/python -m pytest -m cluster tests/cluster

engines-test: $(ENGINES)/.ready  ## Read a lake with Spark and Trino, and search with the Java SDK
	@scripts/engines.sh
	$(ENGINES)/bin/python -m pytest -m engines tests/engines

dev: $(READY)  ## Start the emulator and Dagster's UI on this machine
	$(BIN)/python scripts/dev.py

lint: $(READY)  ## Check style, types, spelling and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive assets cohortlake emulator pipelines scripts

audit: $(READY)  ## Audit the dependencies, by the database of vulnerabilities or by the lock
	$(BIN)/python scripts/audit.py

docs: $(READY)  ## Write the generated reference pages again
	$(BIN)/python scripts/reference.py

lock: $(READY)  ## Lock the dependencies again (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--no-strip-extras --python-version 3.11 --all-extras --group dev \
		pyproject.toml --output-file requirements.txt
	for group in celery kubernetes; do \
		uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
			--no-strip-extras --python-version 3.11 --extra dagster --extra report \
			--group $$group --constraint requirements.txt \
			pyproject.toml --output-file deploy/$$group/requirements.txt || exit 1; \
	done
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --constraint requirements.txt --only-group engines \
		pyproject.toml --output-file deploy/engines/requirements.txt

clean:  ## Remove what was made, the virtual environment too
	rm -rf $(VENV) var .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): requirements.txt pyproject.toml
	$(call fill,$(VENV),requirements.txt)

$(CLUSTER)/.ready: requirements.txt deploy/celery/requirements.txt pyproject.toml
	$(call fill,$(CLUSTER),requirements.txt deploy/celery/requirements.txt)

$(ENGINES)/.ready: requirements.txt deploy/engines/requirements.txt pyproject.toml
	$(call fill,$(ENGINES),requirements.txt deploy/engines/requirements.txt)

# Make a virtual environment from locks, and install this repository in it.
define fill
@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=..." >&2; exit 1; }
@if command -v uv >/dev/null; then \
	uv venv --quiet --allow-existing --python "$(PYTHON)" $(1) && \
	uv pip sync --quiet --python $(1)/bin/python --require-hashes $(2) && \
	uv pip install --quiet --python $(1)/bin/python --no-deps --no-build-isolation --editable .; \
else \
	"$(PYTHON)" -m venv $(1) && \
	$(1)/bin/pip install --quiet --disable-pip-version-check --require-hashes \
		$(addprefix --requirement ,$(2)) && \
	$(1)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
		--editable .; \
fi
@touch $(1)/.ready
endef
