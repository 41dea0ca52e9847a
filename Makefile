# make run    the embedded benchmark, from a bare machine to reports/
# make test   every test but the long ones, which are make test-slow
# Needs Python 3.11 or newer, make and the package registries; everything else is installed into .venv.

PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
TESTS := python -m pytest -n auto --dist loadfile --no-loadscope-reorder
FAMILY = $(shell sed -n 's/^family: *\([A-Za-z0-9_]*\).*/\1/p' config.yaml)

.PHONY: run test test-slow torture bench mutation lint format environment docs lock clean help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 14

run: $(VENV)/run.done ## run the workflow on config.yaml: tables, figures and pages in reports/
	@snakemake --quiet reason --report reports/$(FAMILY)/report.html --report-after-run
	@echo "Open reports/$(FAMILY)/index.html (results) or reports/$(FAMILY)/report.html (how they were made)."

test: $(VENV)/test.done ## every test but the long ones, several files at once
	@$(TESTS) -m "not slow"

test-slow: $(VENV)/slow.done ## the long tests besides: all kinds of damage, accepted refactorings, remotes, clusters
	@$(TESTS) -m slow

torture: $(VENV)/test.done ## kill the default run 50 times at random moments; its bytes must be those of an undisturbed one
	@python -m pytest -s tests/torture

mutation: $(VENV)/test.done ## change modules a little, again and again: do the unit tests notice? MODULES="metrics methods/ewc"
	@python tests/mutation/mutate.py $(MODULES)

lint: $(VENV)/test.done ## style and layering, without running anything
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow/rules
	snakemake --lint

format: $(VENV)/test.done ## rewrite sources in the project's style
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow/rules

environment: $(VENV)/run.done ## only create the environment

# The mark is written last, so an interrupted installation is taken up again.
$(VENV)/run.done: envs/requirements.txt envs/requirements-npm.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; install a newer one and call: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Creating the environment in $(VENV) (once; a few minutes, 1 to 6 GB with torch)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r envs/requirements.txt
	@command -v npm >/dev/null || $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-npm.txt
	@touch $@

$(VENV)/test.done: $(VENV)/run.done envs/requirements-dev.txt
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r envs/requirements.txt -r envs/requirements-dev.txt
	@touch $@

$(VENV)/slow.done: $(VENV)/test.done envs/requirements-cluster.txt
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r envs/requirements-cluster.txt
	@touch $@

bench: $(VENV)/test.done ## ratios of the real paths to their limits, into reports/benchmarks.md
	@python benchmarks/bench.py --write

docs: $(VENV)/run.done ## renew what the README takes from schemas, captions, rules and the default run
	@mkdir -p reports/default_run
	@cp reports/emoji/figures/ri_matrix.png reports/emoji/tables/ri.csv reports/emoji/tables/accuracy.csv reports/default_run/
	@snakemake --quiet all --rulegraph mermaid-js | PYTHONPATH=workflow/lib python -m rib.docs README.md

lock: ## renew the pinned versions in envs/ from the .in files
	@sh envs/lock.sh $(PYTHON)

clean: ## remove what runs made, keep the environment, downloads and .dvc files
	rm -rf logs work .snakemake
	@for part in results reports/$(FAMILY); do \
		if [ -d $$part ]; then find $$part -type f ! -name '*.dvc' ! -name dvc.yaml -delete; find $$part -type d -empty -delete; fi; \
	done
