# Needs Python 3.11 or later with pip, and make; nothing else.
#
#   make quickstart   distil a small T5 on a CPU and show the comparison; 35 minutes
#   make real         prune a real model and distil it on a CPU
#   make hacking      teacher hacking on a CPU, and what prevents it; half an hour
#   make test         the test suite (no network after the installation)
#   make soak         kills a run at 100 random moments; about an hour
#   make soak-processes  kills one of several processes, 40 times; an hour
#   make hostile      1,000 bad command lines, 1,000 damaged files; half an hour
#   make parity       compares live with PyTorch and transformers; tries trackers
#   make venv         only the environment; then: . .venv/bin/activate
#   make lint         ruff, lint and format check; shellcheck of launch/
#
# Each installation leaves a stamp, so that running again installs nothing.
# Override on the command line, for example:
#   make venv PYTHON=python3.12 VENV=.venv-312
#   make venv EXTRAS=data,cuda
#   make real GGUF=SmolLM2-135M-Instruct.Q4_1.gguf ARGS="--seeds 0 1"

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
WORKERS ?= 2
EXTRAS ?= data
# On Linux the plain name brings the CUDA libraries along, about 3 GB. A CPU
# build: make parity TORCH="torch --index-url=https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
TRANSFORMERS ?= transformers>=5.24,<6

BIN := $(VENV)/bin
# Modules are compiled when they are first imported, which most never are.
PIP := $(BIN)/python -m pip install --no-compile --disable-pip-version-check
unexport PYTHONDONTWRITEBYTECODE
# The files of the suite are dealt out to so many processes, in their order: by
# the number of their tests the longest, the programs of docs/, would run last.
PYTEST := $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile \
  --no-loadscope-reorder
comma := ,
VENV_STAMP := $(VENV)/.stamp-$(subst $(comma),-,$(EXTRAS))

.PHONY: quickstart real hacking test soak soak-processes hostile parity venv lint clean
.DEFAULT_GOAL := quickstart

quickstart: venv
	$(BIN)/gkd quickstart $(ARGS)

# GGUF is the model, where it is here already. A second call goes on.
real: $(VENV)/.stamp-real
	$(BIN)/gkd quickstart --real $(GGUF:%=--gguf=%) --workers=$(WORKERS) $(ARGS)

# As the head of its grid.toml says. A second call goes on where the first was.
hacking: runs/hacking/oracle
	$(BIN)/gkd grid experiments/teacher_hacking/lab/grid.toml --data_dir=runs/hacking \
	  --output=runs/hacking/grid --workers=$(WORKERS) $(ARGS)
	$(BIN)/gkd report runs/hacking/grid --output=runs/hacking/grid/report.html

runs/hacking/oracle: | venv
	$(BIN)/python -m gkd.experiments.teacher_hacking.oracle $@

test: $(VENV)/.stamp-test
	$(PYTEST) -m "not parity" $(ARGS)

soak: $(VENV)/.stamp-test
	$(BIN)/python -m tests.faults.soak $(ARGS)

soak-processes: $(VENV)/.stamp-test
	$(BIN)/python -m tests.faults.soak_processes $(ARGS)

hostile: $(VENV)/.stamp-test
	$(BIN)/python -m tests.faults.hostile_commands $(ARGS)
	$(BIN)/python -m tests.faults.hostile_files $(ARGS)

parity: $(VENV)/.stamp-parity
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(PYTEST) -m parity $(ARGS)

lint: $(VENV)/.stamp-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck .ci/run launch/*.sh launch/*.sbatch launch/*/*.sh

venv: $(VENV_STAMP)
	@echo "ready: . $(BIN)/activate"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache

# Some distributions ship Python without ensurepip; its own pip then fills the
# new environment.
$(BIN)/python:
	@echo "making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || ( \
	  rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
	  $(PYTHON) -m pip --python $(BIN)/python install --quiet pip )

$(VENV_STAMP): setup.py | $(BIN)/python
	@echo "installing gkd[$(EXTRAS)]: a few minutes the first time"
	$(PIP) -e ".[$(EXTRAS)]"
	@touch $@

$(VENV)/.stamp-test: setup.py | $(BIN)/python
	@echo "installing gkd[test]: a few minutes the first time"
	$(PIP) -e ".[test]"
	@touch $@

$(VENV)/.stamp-real: setup.py | $(BIN)/python
	@echo "installing gkd[data,gguf]: a few minutes the first time"
	$(PIP) -e ".[data,gguf]"
	@touch $@

$(VENV)/.stamp-lint: setup.py | $(BIN)/python
	$(PIP) -e ".[lint]"
	@touch $@

$(VENV)/.stamp-parity: $(VENV)/.stamp-test
	$(PIP) $(TORCH)
	$(PIP) "$(TRANSFORMERS)" -e ".[wandb,mlflow,aim]"
	@touch $@
