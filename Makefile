# holdfast. `make` alone lists the targets. The two that need nothing before them: make demo, make test.
#
# PYTHON  the interpreter that .venv is made from, 3.11 or newer
# ENGINE  what the demos run on: embedded (default), or restate, the real server that npm installed
# JOBS    processes that run the tests; tests also wait, so that one more than there are processors keeps those busy
# NPM     installs the real Restate server for the tests that compare with it; `NPM=` leaves them out

PYTHON ?= python3
NPM ?= npm
UV ?= uv
ARGS ?=
ENGINE ?= embedded
JOBS ?= $(shell expr 1 + "$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)")

VENV := .venv
BIN := $(VENV)/bin
# Which tree the virtual environment points to. A copied or moved tree would otherwise silently test the old one.
ifneq ($(shell cat $(VENV)/.stamp 2>/dev/null),$(CURDIR))
$(VENV)/.stamp: FORCE
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-recon demo-leads demo-imports setup test pytest torture bench lint format lock system-packages clean FORCE

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.stamp ## Run the recon application on real scans, kill the engine half-way, check that nothing was lost
	@$(BIN)/python -m apps.recon.demo $(ARGS)

demo-recon: $(VENV)/.stamp $(if $(filter restate,$(ENGINE)),node_modules/.stamp) ## recon, all of it: ingest, enrichment, a campaign, an approval, a crash in each
	@$(BIN)/python -m apps.recon.demo_all --engine $(ENGINE) $(ARGS)

demo-leads: $(VENV)/.stamp $(if $(filter restate,$(ENGINE)),node_modules/.stamp) ## leads: discovery and enrichment with a wallet, killed half-way, the money counted
	@$(BIN)/python -m apps.leads.demo --engine $(ENGINE) $(ARGS)

demo-imports: $(VENV)/.stamp $(if $(filter restate,$(ENGINE)),node_modules/.stamp) ## imports: a full extract and an update, killed half-way, cancelled, every row counted
	@$(BIN)/python -m apps.imports.demo --engine $(ENGINE) $(ARGS)

setup: $(VENV)/.stamp node_modules/.stamp

test: lint pytest ## Run everything that CI runs: lint, format, types, every test

# Hundreds of tests start a command: compiled once, not at each start. MAKEFLAGS: tests run make themselves.
pytest: export PYTHONDONTWRITEBYTECODE :=
pytest: $(VENV)/.stamp node_modules/.stamp
	@MAKEFLAGS= $(BIN)/python -m pytest --numprocesses $(JOBS) --maxprocesses 4 --dist worksteal $(ARGS)

torture: $(VENV)/.stamp node_modules/.stamp ## Crashes, power cuts and hostile input for as long as you like (ARGS="--help")
	@$(BIN)/python -m tests.torture $(ARGS)

bench: ## Measure holdfast beside Restate and DBOS on this machine, in a virtual environment of its own
	@PYTHON="$(PYTHON)" bench/run.sh $(ARGS)

# Without the variable, pyright's launcher asks the network for a newer release.
lint: $(VENV)/.stamp ## Check style, format and types, and run no test
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "next: make format"; exit 1; }
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

format: $(VENV)/.stamp ## Rewrite the code as `make lint` wants it, as far as a tool can
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lock: ## Choose new versions for requirements.lock and package-lock.json (needs uv and npm)
	@command -v $(UV) >/dev/null || { echo "error: no uv; next: pip install uv, or make lock UV=path/to/uv"; exit 1; }
	$(UV) pip compile --upgrade --quiet --no-config --universal --python-version 3.11 --all-extras --group dev \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	$(NPM) update --package-lock-only --ignore-scripts

# A browser for the pages, nmap for the scanner; without them those tests are skipped, and say so.
system-packages: ## Install the programs that some tests drive (Debian and its kin, as root)
	@missing=; command -v chromium >/dev/null || missing="chromium"; command -v nmap >/dev/null || missing="$$missing nmap"; \
	[ -z "$$missing" ] || { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $$missing; } >/dev/null

clean: ## Remove everything that make made
	rm -rf $(VENV) $(VENV)-* node_modules build dist demo-output .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.stamp: $(VENV)/.packages pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	@printf '%s\n' '$(CURDIR)' > $@

$(VENV)/.packages: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "error: holdfast needs Python 3.11 or newer; $(PYTHON) is: $$($(PYTHON) --version 2>&1 | head -n 1)"; \
		echo "next: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "error: $(PYTHON) cannot make virtual environments"; \
		echo "next: install its venv package (on Debian: apt install python3-venv)"; exit 1; }
	@echo "installing the packages of requirements.lock into $(VENV) (once, about a minute)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
		--require-hashes --requirement requirements.lock
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

# Without npm no stamp is written: the line comes with every run, for as long as tests are left out.
# --ignore-scripts: an indirect dependency would report the installation to its vendor.
node_modules/.stamp: package.json package-lock.json .npmrc
	@if [ -n "$(NPM)" ] && command -v "$(NPM)" >/dev/null; then \
		echo "installing the Restate server of package-lock.json into node_modules (once, for comparing tests)"; \
		"$(NPM)" ci --ignore-scripts --silent && touch $@; \
	else \
		echo "note: tests against the real Restate server are skipped: npm, which installs it, is not here"; \
	fi
