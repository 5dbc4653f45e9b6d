# `make demo` and `make test` need Python 3.11 or newer, pip and make; each makes .venv if it is missing or older than the lock.

PYTHON ?= python3
BIN := .venv/bin
ROOMS := src/mote/__init__.py src/mote/reading.py harness tasks judges patches tests
TORCH := torch==2.13.0+cpu
# For `make kernel` alone.
TRITON := 3.7.0
# Where CPU builds of torch are published; asked only if pip doesn't find one where it is set up to look.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Two files of tests at a time, each on a core of its own.
WORKERS ?= 2
# The harness runs on what is on this disk: no hub, no usage reports.
OFFLINE := HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1

.PHONY: demo test check format docs slow kernel gpu versions families installs clean

demo: .venv/installed
	$(OFFLINE) $(BIN)/mote run demo

test: check
	$(OFFLINE) $(BIN)/pytest -n $(WORKERS) --dist loadfile

check: .venv/installed
	$(BIN)/ruff format --check $(ROOMS)
	$(BIN)/ruff check $(ROOMS)
	$(BIN)/lint-imports
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format $(ROOMS)
	$(BIN)/ruff check --fix $(ROOMS)

# The page of commands, from their own --help.
docs: .venv/installed
	$(OFFLINE) $(BIN)/python -m tests.harness.cli.command_page

# The long checks: soak, compiled engines, training. CI leaves them out; run them before a release.
slow: .venv/installed
	$(OFFLINE) $(BIN)/pytest -m slow

# The GPU's kernel and Model Runner V2, in Triton's interpreter. Triton (700 MB) lies apart: with it in reach, other
# commands would find another torch.compile and another vLLM than the lock was made for.
kernel: .venv/installed .triton/$(TRITON)
	$(OFFLINE) TRITON_INTERPRET=1 PYTHONPATH=.triton $(BIN)/pytest tests/patches/test_kernel.py tests/patches/test_device_engine.py -k "not v1"

# The patch on an NVIDIA GPU, in the environment of $(PYTHON): vLLM, this package, pytest and hypothesis. A process has one
# of vLLM's model runners.
gpu:
	$(OFFLINE) $(PYTHON) -m pytest tests/patches/test_kernel.py
	$(OFFLINE) VLLM_USE_V2_MODEL_RUNNER=1 $(PYTHON) -m pytest tests/patches/test_gpu.py
	$(OFFLINE) VLLM_USE_V2_MODEL_RUNNER=0 $(PYTHON) -m pytest tests/patches/test_gpu.py

# The patch's tests under every supported release of vLLM, each in a folder of its own (500 MB), and what it changed.
versions: .venv/installed
	$(OFFLINE) $(BIN)/python -m tests.versions --out results/reach

# Every install line of the README, in an empty environment each (minutes, 2 GB); `LINES=vllm` tries what a GPU needs.
installs:
	$(PYTHON) -m tests.installs $(LINES)

families: .venv/installed
	$(BIN)/python -c 'from mote.patches.families import to_markdown; print(to_markdown(), end="")' > results/reach/families.md

.triton/$(TRITON): .venv/installed
	$(BIN)/pip install --quiet --no-deps --upgrade --target .triton triton==$(TRITON)
	@touch $@

.venv: .venv/installed

.venv/installed: .venv/locked pyproject.toml
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/locked: requirements-cpu.lock requirements-pip.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "MoTE Harness needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 2; }
	@echo "Making .venv (about 1 GB to download, 3 GB on disk; a few minutes)"
	$(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements-pip.lock
	$(BIN)/pip install --quiet --no-deps '$(TORCH)' || $(BIN)/pip install --quiet --no-deps --index-url $(TORCH_INDEX) '$(TORCH)'
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements-cpu.lock
	@touch $@

clean:
	rm -rf .venv .triton .versions .installs .mypy_cache .ruff_cache .pytest_cache .hypothesis
