# Everything starts here: `make demo` to see it, `make test` to trust it, `make help` for the rest.
# Needs Python 3.11 or newer; what else a target needs is installed or named by tools/need.

PYTHON ?= python3
export PYTHON

# What the checkout runs with. Made again only when pyproject.toml changes.
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check

# Further arguments for the demo, pytest or the benchmark: make test ARGS="-k tokens -x"
ARGS ?=

# How many processes share the tests, which wait most of the time: make test JOBS=1
JOBS ?= 2

# The tests that say what they see of the transports in browsers.
BROWSER_TESTS := tests/browser/test_every_transport.py tests/browser/test_bayeux_pages.py \
	-k "Chromium or Firefox"

# Of a soak: how long it takes, and what keeps the log (sqlite or redis).
MINUTES ?= 5
BROKER ?= sqlite

.PHONY: help demo test check bench soak docs clean need-test need-bench
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 14

demo: $(VENV)/runtime ## start the push server and a small CMS site to try it with
	$(BIN)/python -m cms_module.demo_site.run $(ARGS)

test: need-test check ## check everything and run all tests
	$(BIN)/python -m pytest $(if $(filter-out 1,$(JOBS)),-n $(JOBS)) $(ARGS)

check: $(VENV)/testing ## style, types and syntax of all languages
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy --no-error-summary
	$(BIN)/mypy --no-error-summary tests/browser/*.py tools/browser_table tools/copies
	@tools/syntax
	@$(BIN)/python tools/copies --check

bench: need-bench $(VENV)/runtime ## compare with Nchan, Faye and a bare C relay, into bench/results/
	$(BIN)/python -m bench $(ARGS)

soak: need-test $(VENV)/testing ## hurt a server for MINUTES=5 and judge what it delivered, into .soak/
	$(BIN)/python -m tests.faults --minutes $(MINUTES) --broker $(BROKER) $(ARGS)

docs: need-test $(VENV)/testing ## write the tables of settings and of browsers anew
	$(BIN)/python tools/configuration_page > docs/configuration.rst.new
	mv docs/configuration.rst.new docs/configuration.rst
	-$(BIN)/python -m pytest --quiet --tb=line --junitxml=$(VENV)/browsers.xml $(BROWSER_TESTS)
	tools/browser_table $(VENV)/browsers.xml > docs/transports.rst.new
	mv docs/transports.rst.new docs/transports.rst

clean: ## remove what make has made
	rm -rf $(VENV) .demo .soak build dist *.egg-info bench/build \
		.mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

need-test need-bench:
	@tools/need $(subst need-,,$@)

$(VENV)/bin/python:
	@tools/need demo
	$(PYTHON) -m venv $(VENV)

$(VENV)/runtime: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable .
	@touch $@

$(VENV)/testing: pyproject.toml | $(VENV)/bin/python
	$(PIP) install --editable '.[test]'
	@touch $@ $(VENV)/runtime
