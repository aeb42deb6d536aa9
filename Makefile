# make demo | test | lint | bench: everything goes into .venv, and a second call finds it there.
# PYTHON chooses the interpreter that .venv is made with (3.11 or newer), VENV another place for it.

PYTHON ?= python3
VENV ?= .venv
CC ?= cc

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
NATIVE := $(shell find _native -name '*.[ch]')
# A stamp per step under VENV: the step is done again when what it was made from is newer.
BASE := $(VENV)/.stamp-base
BUILT := $(VENV)/.stamp-built
CPUS := $(shell getconf _NPROCESSORS_ONLN)
# Many tests wait for a process or a server: one more than there are CPUs leaves none of them idle.
SHARED := --numprocesses=$(shell expr $(CPUS) + 1) --dist=loadgroup
ONE_A_CPU := --numprocesses=$(CPUS) --dist=loadgroup
# Shares are measured while other processes may want the CPUs too: what is wrong is wrong three times.
ALONE := --reruns 2 --only-rerun AssertionError
WHEELS := gevent memray numpy
# Built here, if the C compiler and this Python can: `make BUILDS=` leaves them out.
BUILDS := uwsgi
# Wheels as well, all of them or none: `make FRAMEWORKS=` leaves them out.
FRAMEWORKS := frameworks
PYTEST := PYTHONDONTWRITEBYTECODE=1 $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help check demo test test-all test-slow cpython-suites churn lint bench build clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    build, profile the example programs, show tables and write flame graphs"
	@echo "make test    run the tests (make test-all: the slow ones too)"
	@echo "make lint    ruff, mypy --strict, clang-format"
	@echo "make bench   compare the cost with other profilers"
	@echo "make cpython-suites  CPython's own tests, with and without pyprof; make churn: an hour of new code"
	@echo "make build   install into $(VENV), editable"
	@echo "make clean   remove $(VENV) and what was built"

check:
	@PYTHON="$(PYTHON)" CC="$(CC)" sh .ci/check-tools

# An environment of another interpreter than the one that is asked for is made anew; if none is, any will do.
ifneq ($(origin PYTHON),file)
ifneq ($(file <$(BASE)),$(PYTHON))
.PHONY: $(BASE)
endif
endif

# The checks run when there is no environment yet, not every time.
$(BASE):
	@$(MAKE) --no-print-directory check
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install 'setuptools>=77' 'pip>=25.1' # the first with dependency groups
	@echo "$(PYTHON)" > $@

$(BUILT): $(BASE) pyproject.toml setup.py $(NATIVE) pyprof/autostart/pyprof_autostart.py
	@echo "building pyprof"
	@$(PIP) install --no-build-isolation --editable .
	@touch $@

build: $(BUILT)

# A stamp per dependency group of pyproject.toml.
$(VENV)/.stamp-demo $(VENV)/.stamp-lint $(VENV)/.stamp-bench: $(VENV)/.stamp-%: $(BUILT)
	@echo "installing what $* needs"
	@$(PIP) install --group $*
	@touch $@

# Some apart, and only as wheels: not every build of Python has them. What has no wheel is written down, so that
# tests can tell a wheel that does not exist from one that was forgotten.
$(VENV)/.stamp-test: $(BUILT)
	@echo "installing what the tests need"
	@$(PIP) install --group test
	@: > $(VENV)/no-wheels
	@for name in $(WHEELS); do \
	    $(PIP) install --only-binary $$name --group $$name 2>$(VENV)/$$name.log \
	        || { echo $$name >> $(VENV)/no-wheels; echo "no $$name for this Python: its tests are skipped"; }; \
	done
	@for name in $(FRAMEWORKS); do \
	    $(PIP) install --only-binary :all: --group $$name 2>$(VENV)/$$name.log \
	        || { echo $$name >> $(VENV)/no-wheels; echo "no $$name for this Python: its tests are skipped"; }; \
	done
	@for name in $(BUILDS); do \
	    $(PIP) install --no-build-isolation --group $$name >$(VENV)/$$name.log 2>&1 \
	        || { echo $$name >> $(VENV)/no-wheels; echo "no $$name for this Python: its tests are skipped"; }; \
	done
	@touch $@

demo: $(VENV)/.stamp-demo
	@$(BIN)/python examples/demo.py

# tests,MARKERS: accuracy alone, on its CPU or on the machine; everything else shares the cores. All of it runs, whatever
# fails. 5: nothing of that kind was asked for.
tests = @code=0; set -x; \
	$(PYTEST) -m "$(1) and not accuracy" $(SHARED) $(TESTARGS) || [ $$? -eq 5 ] || code=1; \
	$(PYTEST) -m "$(1) and accuracy and one_cpu" $(ONE_A_CPU) $(TESTARGS) $(ALONE) || [ $$? -eq 5 ] || code=1; \
	$(PYTEST) -m "$(1) and accuracy and not one_cpu" $(TESTARGS) $(ALONE) || [ $$? -eq 5 ] || code=1; \
	exit $$code

test: $(VENV)/.stamp-test
	$(call tests,not slow)

test-all: $(VENV)/.stamp-test
	$(call tests,(slow or not slow))

# What `make test` leaves out.
test-slow: $(VENV)/.stamp-test
	$(call tests,slow)

# SUITES: which of CPython's test files; else those that a profiler can harm most.
cpython-suites: $(VENV)/.stamp-test
	$(BIN)/python -m tests.stress.cpython_suites $(SUITES)

churn: $(VENV)/.stamp-test
	$(BIN)/python -m tests.stress.churn $(CHURNARGS)

lint: $(VENV)/.stamp-test $(VENV)/.stamp-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	sh .ci/check-version-macros

bench: $(VENV)/.stamp-bench
	@for file in benchmarks/bench_*.py; do \
	    $(BIN)/python -m benchmarks.$$(basename $$file .py) $(BENCHARGS) || exit; \
	done

clean:
	rm -rf $(VENV) build dist *.egg-info pyprof/_native.*.so
