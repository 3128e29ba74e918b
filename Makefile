# Everything that is run by hand or by CI. Each target sets up what it needs; a second call finds it ready.

# Any Python from 3.11 on: make PYTHON=python3.12 test
PYTHON ?= python3
# pytest-xdist workers.
WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PICTURES = $(wildcard examples/images/*.jpg examples/images/*.png)

# The newest of the supported Pythons, on the PATH or from pyenv (whose bare shims fail unless a version is chosen).
NEWEST_PYTHON ?= $(shell \
	for p in python3.13 python3.12; do \
		$$p -c '' 2>/dev/null && { command -v $$p; exit; }; \
	done; \
	for v in 3.13 3.12; do \
		full=$$(pyenv latest $$v 2>/dev/null) && PYENV_VERSION=$$full pyenv which python 2>/dev/null && exit; \
	done)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types wheel-test test-parity test-newest data train-bundled study bench-train clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## classify the pictures in examples/images with the shipped checkpoint, offline
	@mkdir -p output
	HF_HUB_OFFLINE=1 $(BIN)/nfnet-eqx classify $(PICTURES) --save output/demo.png

test: $(READY) ## all tests, offline
	$(BIN)/python -m pytest -n $(WORKERS) -m "not wheel"

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY) ## pyright
	$(BIN)/pyright

wheel-test: $(READY) ## build sdist and wheel, compare them with the tree, run the installed command
	$(BIN)/python -m pytest -m wheel

test-parity: .venv-parity/.ready ## compare with timm live (about 2 GB of torch, in an environment of its own)
	.venv-parity/bin/python -m pytest tests/live

test-newest: .venv-newest/.ready ## the fast tests on the newest Python and the newest jax
	.venv-newest/bin/python -m pytest -n $(WORKERS) -m "not wheel and not slow"

data: $(READY) ## fetch and decode CIFAR-10
	$(BIN)/python examples/cifar10.py fetch

train-bundled: $(READY) ## train the shipped checkpoint again
	$(BIN)/nfnet-eqx train --recipe cifar10 --out runs/cifar10
	$(BIN)/python examples/cifar10.py bundle

study: $(READY) ## the scaling study: NFNets against ViTs at equal compute (hours; SMOKE=1: minutes, on digits)
	$(if $(SMOKE),,test -e data/cifar10/train.npz || $(MAKE) data)
	PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/scaling_study/study.sh \
		examples/scaling_study/$(if $(SMOKE),smoke,study).toml runs/$(if $(SMOKE),smoke,study)

bench-train: $(READY) ## pictures a second of the input pipeline and of a training step, and what the loop adds
	$(BIN)/python examples/bench_pipeline.py
	$(BIN)/python examples/bench_train.py

clean: ## remove the environments and everything built
	rm -rf .venv .venv-parity .venv-newest build dist output *.egg-info .pytest_cache .ruff_cache .hypothesis

# $(call environment,python,folder): a new virtual environment, after a look at the Python's version.
define environment
	@$(1) -c 'import sys; sys.exit("nfnet_eqx needs Python 3.11 or newer, not %d.%d; name one: make PYTHON=python3.12 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(1) -m venv $(2)
endef

$(READY): pyproject.toml
	$(call environment,$(PYTHON),$(VENV))
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# torchvision's own C library does not fit a CPU-only torch, and timm needs its Python parts only: hence --no-deps, and
# torch first, pinned, so that a CPU build is kept where there is one.
.venv-parity/.ready: pyproject.toml
	$(call environment,$(PYTHON),.venv-parity)
	.venv-parity/bin/python -m pip install --quiet torch==2.13.0
	.venv-parity/bin/python -m pip install --quiet --no-deps torchvision==0.28.0 timm==1.0.31
	.venv-parity/bin/python -m pip install --quiet --editable '.[dev]' pyyaml
	@touch $@

.venv-newest/.ready: pyproject.toml
	@test -n "$(NEWEST_PYTHON)" || { echo "no Python 3.12 or 3.13 found; name one: make NEWEST_PYTHON=... test-newest"; exit 1; }
	$(call environment,$(NEWEST_PYTHON),.venv-newest)
	.venv-newest/bin/python -m pip install --quiet --editable '.[dev]'
	.venv-newest/bin/python -c 'import sys, jax; print("Python", sys.version.split()[0], "jax", jax.__version__)'
	@touch $@
