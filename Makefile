# Two commands matter: `make book` and `make test`. Both create .venv when it is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

BIN := .venv/bin
PYTHON_IN_ENV := $(BIN)/python
HTML := _build/html/index.html
# Chapters for `make rerun`, `make verdicts` and `make experiments`; empty means all.
CHAPTERS ?=
# Jupyter and the caches need a home; a user that the system does not know may have none.
export HOME ?= $(CURDIR)/_build/home
# Tests and chapters run side by side in so many processes; each takes up to 2 GB.
WORKERS ?= 2
# `make paper` gives each run two of so many cores.
CORES ?= 2

# Every public module's imports and, of networks, training and bounds, what other versions may break.
LIGHT := tests/test_package.py tests/test_storage.py tests/test_sequences.py tests/test_estimate.py \
    tests/test_networks.py tests/test_training.py tests/models/test_vae.py \
    tests/posteriors/test_families.py tests/exact/test_bit.py tests/exact/test_two_sensors.py \
    tests/book/ledger

.PHONY: help env book html test lint unit verdicts rerun check summary data bench experiments paper gpu links colab light accessible audit archive lock clean

help: ## Show this list
	@echo "make TARGET, where TARGET is one of"
	@sed -nE 's/^([a-z]+):.*## (.*)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-10s %s\n", $$1, $$2}'

env: .venv/.installed
	@:

.venv/.installed: requirements.lock requirements-tools.lock requirements-uv.lock pyproject.toml tools/environment.sh
	@tools/environment.sh

book: ## Execute the chapters that are stale, and build the pages into _build/html
	@SECONDS=0
	$(MAKE) env
	if [ -n "$$($(PYTHON_IN_ENV) tools/chapters.py stale --using tfp_gaps/book/data/images.py)" ]; then
	    $(MAKE) data
	fi
	$(PYTHON_IN_ENV) tools/chapters.py refresh
	$(MAKE) html
	echo "$(CURDIR)/$(HTML)"
	echo "The book is built, in $$((SECONDS / 60)) min $$((SECONDS % 60)) s."

html: env
	@$(PYTHON_IN_ENV) tools/build.py .
	test -s $(HTML)

# The unit tests and the chapters run in separate processes: TensorFlow keeps what memory it took.
test: ## Check style, run all tests and documentation examples, execute and compare every chapter
	@$(MAKE) lint
	$(MAKE) unit
	$(MAKE) verdicts

lint: env ## Check the style of code and chapters
	@$(PYTHON_IN_ENV) -m ruff check .
	$(PYTHON_IN_ENV) -m ruff format --check .

unit: env data
	@$(PYTHON_IN_ENV) tools/mathjax.py
	$(PYTHON_IN_ENV) -m pytest -n $(WORKERS) --dist worksteal

verdicts: env data
	@$(PYTHON_IN_ENV) -m pytest -c tools/nbval.ini --rootdir . -n $(WORKERS) --dist loadfile \
	    $(or $(CHAPTERS:%=book/%.ipynb),book)

rerun: env data ## Execute chapters again: all, or CHAPTERS="elbo digits"
	@$(PYTHON_IN_ENV) tools/chapters.py rerun $(CHAPTERS)

check: env ## Say whether every chapter is fit to be committed
	@$(PYTHON_IN_ENV) tools/chapters.py check

summary: env ## Print how many claims the stored chapters reproduce, to compare after a rerun
	@$(PYTHON_IN_ENV) tools/chapters.py summary

data: env ## Fetch the digits, if they are not in the cache yet
	@$(BIN)/tfp-gaps data fetch digits

bench: env ## Time a training step here, in PyTorch and in JAX; options as BENCH="--json speed.json"
	@$(PYTHON_IN_ENV) -m benchmarks.run $(BENCH)

experiments: env data ## Run the script that each chapter offers, at smoke size: minutes
	@$(PYTHON_IN_ENV) tools/experiments.py $(CHAPTERS)

paper: env data ## Compute the stored results that are missing: hours; resumes where it stopped
	@$(BIN)/tfp-gaps sweep --cores $(CORES)

gpu: env ## Add the CUDA libraries to .venv, and say whether the GPU is fit for the chapters
	@$(BIN)/uv --no-config pip install --quiet --python $(PYTHON_IN_ENV) --require-hashes -r requirements-gpu.lock
	$(PYTHON_IN_ENV) tools/device.py

colab: env ## Run a chapter as Colab would, with its packages; needs Python 3.12 and 3.13, or the network
	@$(PYTHON_IN_ENV) tools/colab.py try --python 3.12 --tensorflow 2.19
	$(PYTHON_IN_ENV) tools/colab.py try --python 3.13 --tensorflow 2.20

# In whatever environment is named: make light PYTHON_IN_ENV=python.
light: ## The tests that tell in minutes whether the package works with other versions
	@$(PYTHON_IN_ENV) -m pytest $(LIGHT)

links: env ## Follow every link of the book; needs the network
	@$(PYTHON_IN_ENV) tools/build.py . linkcheck

accessible: html ## Look at every page as axe-core does, by day and by night; needs Chromium
	@$(PYTHON_IN_ENV) tools/accessibility.py

audit: env ## Compare criteria and stored results with their history, and all locks with known vulnerabilities (network)
	@$(PYTHON_IN_ENV) tools/criteria.py
	$(PYTHON_IN_ENV) tools/commits.py
	$(PYTHON_IN_ENV) tools/audit.py

archive: html ## Pack pages and stored results, with checksums, into _build/archive
	@rm -rf _build/archive
	mkdir -p _build/archive
	pack() { tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -cf - "$${@:2}" | gzip -n > "_build/archive/$$1.tar.gz"; }
	pack pages -C _build html
	pack results --exclude=.checkpoints results
	cd _build/archive
	sha256sum *.tar.gz > SHA256SUMS
	cat SHA256SUMS

lock: ## Resolve the dependencies anew and write the lock files
	@tools/environment.sh uv
	compile() {
	    $(BIN)/uv --no-config pip compile --quiet --python-version 3.11 --python-platform linux --generate-hashes \
	        --no-emit-index-url --custom-compile-command "make lock" --upgrade "$$@"
	}
	compile pyproject.toml --extra book --extra test --output-file requirements.lock
	compile pyproject.toml --extra sweep --extra flights --extra gym --extra parallel --extra amsterdam \
	    --extra interop --constraint requirements.lock --output-file requirements-tools.lock
	compile pyproject.toml --extra gpu --constraint requirements.lock --output-file requirements-gpu.lock
	echo uv | compile - --no-annotate --output-file requirements-uv.lock

clean: ## Remove what the commands above made, except .venv and fetched data
	@rm -rf _build book/_extra book/_generated .pytest_cache .ruff_cache .hypothesis ./*.egg-info
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
