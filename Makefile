# Needs Python 3.11 or later and make; everything else is built into .venv from requirements.lock.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo up test test-system chaos lint format docs lock bench clean

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## build or refresh .venv from the lock

# An outdated .venv is refreshed in place: commands that run from it keep working meanwhile.
$(INSTALLED): requirements.lock pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "There is no $(PYTHON) here. Dispatcher needs Python 3.11 or later: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Dispatcher needs Python 3.11 or later, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1)." \
			"Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install ## see it work against the sandbox, with nothing else to install
	$(BIN)/dispatcher demo

up: install ## run everything: Redis, a worker for each account, Flower; with DISPATCHER_SANDBOX=1 the sandbox
	$(BIN)/dispatcher up

# Where tests start processes of their own, a machine that does something else may hold one up for longer than a test
# waits: such a test runs once more, and is told of in the end, with why. What is wrong fails twice, or in many tests.
ONCE_MORE := --reruns 1 --max-suite-reruns 3 --rerun-show-tracebacks

# These wait more than they work, so that there may be more of them than cores.
test: install ## run the tests
	$(BIN)/pytest --numprocesses auto tests/unit tests/providers
	$(BIN)/pytest --numprocesses 3 --dist loadscope $(ONCE_MORE) tests/integration tests/acceptance
	$(BIN)/pytest examples

test-system: install ## run the tests that need Debian's Chromium or RabbitMQ, which this installs
	@missing=; command -v chromium >/dev/null || missing=chromium; \
	test -x /usr/lib/rabbitmq/bin/rabbitmq-server || missing="$$missing rabbitmq-server"; \
	if test -n "$$missing"; then \
		if test "$$(id -u)" = 0; then as_root=; else as_root=sudo; fi; set -x; \
		$$as_root apt-get update -q && \
		$$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; fi
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(ONCE_MORE) tests/system

chaos: install ## break everything for a quarter of an hour, and judge what came of it; ONLY=worker-kill for one scenario
	$(BIN)/python -m tests.chaos $(addprefix --only ,$(ONLY)) $(CHAOS)

lint: install ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

format: install ## rewrite the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What it is measured beside is installed into .venv-bench, by the rows that need it.
bench: install ## measure beside the alternatives and write docs/performance.md; ONLY=limits prints one row
	$(BIN)/python -m benchmarks $(if $(ONLY),$(addprefix --only ,$(ONLY)),--write) $(BENCH)

docs: install ## write docs/providers.md from the adapters
	$(BIN)/python -m workers.matrix docs/providers.md

# Made on the oldest Python, which needs a superset of what later ones need, and without this machine's
# pip settings, which must not reach anybody else. `make lock LOCK=--upgrade` takes the newest releases.
lock: COMPILE := env -u PIP_INDEX_URL -u PIP_EXTRA_INDEX_URL -u PIP_FIND_LINKS -u PIP_CONSTRAINT -u PIP_NO_INDEX \
	PIP_CONFIG_FILE=/dev/null CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes \
	--allow-unsafe --strip-extras --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock: install ## pin the dependencies again
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
		echo "The lock is made on Python 3.11: make clean && make PYTHON=python3.11 lock" >&2; exit 1; }
	$(COMPILE) --extra dev $(LOCK) --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra image --constraint requirements.lock --output-file requirements-image.lock pyproject.toml
	$(COMPILE) $(LOCK) --constraint requirements.lock --output-file benchmarks/requirements.lock benchmarks/requirements.in
	$(COMPILE) $(LOCK) --output-file benchmarks/requirements-arq.lock benchmarks/requirements-arq.in

clean: ## remove .venv, .venv-bench and what the tools cached; the data folder .dispatcher stays
	rm -rf .venv .venv-bench .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
