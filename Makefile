# Every target sets up what it needs: on a fresh machine `make demo` or `make test` is the first and only command.

PYTHON ?= python3
# Processes that run tests. More than two start more compilers at once than small machines have memory for.
WORKERS ?= 2
# What comes from pip. Where there is no wheel of a vendor's, leave it out: the tests that need it are skipped.
EXTRAS ?= build,openvino,qnn,tensorrt-rtx,webgpu,farm,dev
# Debian's names of what cannot come from pip; installed when missing.
SYSTEM_PACKAGES :=
# A browser for the page of a build, and with it a GPU in software; tests that find none are skipped and say so.
TEST_PACKAGES := chromium libvulkan1
# An Intel CPU in software, where there is another one: the OpenVINO EP answers on no other.
TEST_PACKAGES += $(shell test "$$(uname -m)" != x86_64 || grep -qs GenuineIntel /proc/cpuinfo || echo qemu-user)
# Debian ships Python without ensurepip, and so without working virtual environments.
SYSTEM_PACKAGES += $(shell $(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || echo $(notdir $(PYTHON))-venv)

# Windows' name of that folder is another one; nobody has run this file there.
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test test-long coverage lint benchmarks schemas api models setup system-packages test-packages clean

help:  ## list the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 18

demo: setup  ## build a real model for seven targets, then inspect, select and run it
	@PATH="$(CURDIR)/$(BIN):$$PATH" samples/demo.sh

test: lint models test-packages  ## lint, types and all tests but the long ones
	$(BIN)/python -m pytest -n $(WORKERS) -m "not long" $(ARGS)

test-long: lint models test-packages  ## the same with the tests that take minutes or gigabytes
	$(BIN)/python -m pytest $(ARGS)

coverage: models test-packages  ## all tests but the long ones, and the lines and branches that they do not reach
	$(BIN)/python -m pytest -n $(WORKERS) -m "not long" --cov $(ARGS)

lint: setup  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

benchmarks: setup models test-packages  ## every benchmark, one after the other
	@set -e; for file in benchmarks/[a-z]*.py; do \
	    test -e "$$file" || continue; \
	    module=$$(basename "$$file" .py); printf '\n== %s\n' "$$module"; \
	    $(BIN)/python -m "benchmarks.$$module"; \
	done

schemas: setup  ## write schemas/ anew from the code
	$(BIN)/python -m aotpack.documents.schema --write schemas

api: setup  ## write tests/public_api.txt anew from the code
	$(BIN)/python -m tests.public_api --write

models: setup
	@$(BIN)/python -m samples.real_models --all > /dev/null

setup: $(READY)

# A venv that an interrupt left half-made has no working pip: make it anew.
$(READY): pyproject.toml | system-packages
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aotpack needs Python 3.11; try make PYTHON=python3.11")'
	@echo "Setting up .venv (once, a minute or two) ..." >&2
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable ".[$(EXTRAS)]"
	@touch $@

# $(call install,PACKAGES,ELSE): those that dpkg does not list as installed, so nothing at all on the usual second run;
# ELSE is what to do when they cannot be had.
define install
@missing=""; \
for name in $(1); do \
    dpkg-query --show --showformat='$${db:Status-Status}' "$$name" 2> /dev/null | grep -qx installed \
        || missing="$$missing $$name"; \
done; \
test -n "$$missing" || exit 0; \
as_root=""; test "$$(id -u)" = 0 || as_root="sudo"; \
if ! command -v apt-get > /dev/null || ! command -v $${as_root:-env} > /dev/null; then \
    echo "Cannot install with apt-get here; install these yourself:$$missing" >&2; exit 0; \
fi; \
echo "Installing$$missing ..." >&2; \
{ $$as_root apt-get update -qq && \
    $$as_root env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes \
        apt-get install -qq --yes --no-install-recommends $$missing; } > /dev/null || $(2)
endef

system-packages:
	$(call install,$(SYSTEM_PACKAGES),exit 1)

test-packages:
	$(call install,$(TEST_PACKAGES),echo "Some tests will be skipped without them." >&2)

clean:  ## remove what the targets above have made here
	rm -rf .venv build-output .mypy_cache .ruff_cache .pytest_cache .hypothesis
