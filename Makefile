# make run    run the default benchmark; results are in reports/
# make test   run the tests that notice what a change breaks; make test-all and make test-slow have the rest
# Requires Python 3.11 or newer, make and access to the package registries; all else is installed into .venv.

PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
# pip would compile one file after the other. Some packages have files that no Python compiles.
COMPILE := $(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || true
LOCKED := --require-hashes --no-deps
# Several processes read each test, and compiled ones are read much faster.
TESTS := PYTHONDONTWRITEBYTECODE= python -m pytest -n auto --dist loadfile --no-loadscope-reorder
EXAMPLE ?= default_run
CATALOG ?= workflow/catalog
DEVICE ?= cuda
FIGURES ?= ri_matrix ranking tradeoff cost
KEPT = $(patsubst %,figures/%.png,$(FIGURES)) $(patsubst %,tables/%.csv,accuracy ri mri ranking cost comparisons)
KEPT_IF_THERE = $(patsubst %,tables/%.csv,seeds_ri in_distribution pretraining_sizes networks network_groups network_differences method_differences)
choice = $(shell sed -n 's/^$(1): *\([A-Za-z0-9_]*\).*/\1/p' config.yaml)
FAMILY = $(call choice,family)
REPORTS = reports/$(or $(call choice,name),$(FAMILY)$(if $(filter held_out,$(call choice,protocol)),_held_out))
# A config of its own name keeps its tables there: reports/fashion_seeds/tables.
RUN_TO_KEEP = $(if $(wildcard reports/$(EXAMPLE)/tables),reports/$(EXAMPLE),$(REPORTS))

.PHONY: run test test-all test-slow same-results reproduce bench gpu lint format environment docs site example lock records clean help

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 14

run: $(VENV)/run.done ## run the workflow on config.yaml: tables, figures and pages in reports/
	@exec snakemake $$(PYTHONPATH=workflow/lib python -m rib.jobs.gpus) --report $(REPORTS)/report.html --report-after-run
	@echo "Open $(REPORTS)/index.html (results) or $(REPORTS)/report.html (how they were made)."

test: $(VENV)/test.done ## run the tests that notice what a change breaks, in minutes
	@$(TESTS) -m "not thorough and not slow"

test-all: $(VENV)/test.done ## run all tests that need no server and no other user
	@$(TESTS) -m "not slow"

test-slow: $(VENV)/slow.done ## run the slow tests: clusters, ssh, kills, memory, simulations, large pages
	@$(TESTS) -m slow

same-results: $(VENV)/test.done ## compare results with another commit's, for example BEFORE=main; see CONTRIBUTING.md
	@test -n "$(BEFORE)" || { echo "Say which commit to compare with: make same-results BEFORE=main"; exit 2; }
	@PYTHONPATH=tests:workflow/lib python -m same_results "$(BEFORE)"

reproduce: $(VENV)/test.done ## compare a finished default run with the kept one: does it differ by more than processors do?
	@python tests/reproduce.py

lint: $(VENV)/test.done ## check style, types and layering
	ruff check .
	ruff format --check .
	mypy
	PYTHONPATH=workflow/lib lint-imports --no-cache
	snakefmt --check Snakefile workflow/rules
	@# Functions stand above the rules that use them, which Snakemake's linter would have in a file of their own.
	! snakemake --lint 2>&1 | grep -E '^ +\* |Error|Exception' | grep -v 'Mixed rules and functions'

format: $(VENV)/test.done ## format the sources
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow/rules

environment: $(VENV)/run.done ## only create the environment

# The marker file is written last, so that an interrupted installation is repeated.
$(VENV)/run.done: envs/requirements-torch.txt envs/requirements.txt envs/requirements-npm.txt envs/link_library.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; install a newer one and run: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Creating the environment in $(VENV) (once; a few minutes, 1 to 6 GB with torch)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) -r envs/requirements-torch.txt
	@$(PIP) $(LOCKED) -r envs/requirements.txt
	@command -v npm >/dev/null || $(PIP) $(LOCKED) -r envs/requirements-npm.txt
	@$(VENV)/bin/python envs/link_library.py
	@$(COMPILE)
	@touch $@

$(VENV)/test.done: $(VENV)/run.done envs/requirements-dev.txt
	@$(PIP) $(LOCKED) -r envs/requirements-dev.txt
	@$(COMPILE)
	@touch $@

$(VENV)/slow.done: $(VENV)/test.done envs/requirements-cluster.txt
	@$(PIP) $(LOCKED) -r envs/requirements-cluster.txt
	@touch $@

bench: $(VENV)/test.done ## measure speeds relative to their limits, in reports/benchmarks.md
	@python tests/benchmarks/bench.py --write

gpu: $(VENV)/test.done ## check and measure a GPU (minutes), in reports/gpu.md and gpu_rates.csv; DEVICE=cpu tries the command itself
	@python tests/benchmarks/gpu.py --device $(DEVICE)

docs: $(VENV)/run.done ## update the generated parts of README.md, docs/ and reports/README.md; needs no run
	@snakemake --rulegraph mermaid-js | PYTHONPATH=workflow/lib python -m rib.report.readme README.md docs/*.md reports/README.md

site: $(VENV)/test.done ## build README.md and docs/ as a site in build/site; a broken link fails
	@python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going -c docs . build/site
	@cp build/site/README.html build/site/index.html
	@echo "Open build/site/index.html."

example: $(VENV)/run.done ## keep the figures and tables of a finished run that README and docs show (EXAMPLE=fashion_seeds FIGURES=networks), then run docs
	@mkdir -p reports/$(EXAMPLE)
	@cp $(addprefix $(RUN_TO_KEEP)/,$(KEPT)) $$(ls $(addprefix $(RUN_TO_KEEP)/,$(KEPT_IF_THERE)) 2>/dev/null) reports/$(EXAMPLE)/
	@$(MAKE) --no-print-directory docs

lock: ## update the pinned versions and hashes in envs/ from the .in files
	@sh envs/lock.sh $(PYTHON)

records: $(VENV)/run.done ## renew the catalogue's hub.lock.json from timm, open_clip and the hub (HUB=no: without the hub); CATALOG=FOLDER for another folder
	@PYTHONPATH=workflow/lib python -m rib.commands lock --folder $(CATALOG) $(if $(filter no,$(HUB)),--without-hub)

clean: ## remove results; keep the environment, downloads and .dvc files
	rm -rf logs work .snakemake
	@for part in results $(REPORTS); do \
		if [ -d $$part ]; then find $$part -type f ! -name '*.dvc' ! -name dvc.yaml -delete; find $$part -type d -empty -delete; fi; \
	done
