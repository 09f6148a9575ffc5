# Two commands matter: `make quickstart` sets everything up and runs the main job; `make test` sets up and passes the tests.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# pytest dies with make, and what tests have started with pytest (tests/support/reaper.py).
PYTEST := GOG_PARENT=$$PPID exec $(BIN)/python -m pytest
# Processes that test side by side, each whole files (tests/support/workers.py): `make unit WORKERS=auto` has one per core, at
# most 4, as a worker with its trainers takes 2 GB.
WORKERS ?= 1
PARALLEL = $(if $(filter 1,$(WORKERS)),,-n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder)
# One thread per process: two processes with two OpenMP threads each nearly stop each other on two cores.
export OMP_NUM_THREADS ?= 1
# Bytecode is written, whatever the environment says: a stage imports torch in 8 s of processor time, without it in 20 s.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup quickstart test lint unit faults exhaustive slow kit manifests docs sizing dashboards images e2e e2e-vllm vllm tiny-base bench experiments photos clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable '.[all,dev]'
	@# torchtune's wheel carries a top-level package `recipes` that only raises; `tune run recipes/…` must find ours.
	$(BIN)/python -c "import pathlib, sysconfig; pathlib.Path(sysconfig.get_path('purelib'), 'gog_checkout.pth').write_text(f'import sys; sys.path.insert(0, {str(pathlib.Path.cwd())!r})\n')"
	touch $(STAMP)

quickstart: setup
	$(BIN)/gog run examples/world.yaml

test: lint unit

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	$(BIN)/mypy

# The first time, tests build the programs in Go that they need, in some minutes: an API server, S3, Helm, Prometheus. Without
# Go, pytest's summary lists what did not run.
unit: setup
	$(PYTEST) $(PARALLEL) -m 'not slow and not cluster and not exhaustive and not vllm'

# Every fault at every call of an operator. In parts: `make faults SHARD=2/8`, each some ten minutes on two cores.
faults: setup
	$(PYTEST) -m exhaustive tests/chaos --fault-shard $(or $(SHARD),1/1)

# What takes long on a CPU and of which `make test` and `make slow` have samples: kills of a stage and stores that fail under it,
# 10,000 random conversations and hostile responses, bfloat16, the engine's properties in every family, the photo world's tools.
exhaustive: setup
	$(PYTEST) -m exhaustive tests/recipes tests/tool_servers

slow: setup
	$(PYTEST) $(PARALLEL) -m 'slow and not cluster and not vllm'

# The programs, base images and Debian packages of a real cluster. Needs root and Go; a quarter of an hour, once.
kit:
	tests/cluster/packages
	tests/cluster/build
	tests/cluster/images

manifests: setup
	$(BIN)/gog crds --dir manifests/crds
	rm -rf charts/gog/files/crds && mkdir -p charts/gog/files && cp -r manifests/crds charts/gog/files/crds
	tests/charts/install >manifests/install.yaml

docs: setup
	$(BIN)/gog crds --reference >docs/reference.md
	$(BIN)/python -m gog.metrics >docs/metrics.md

# The tables of docs/sizing.md, from `gog estimate` for published models: over an hour, continued where it was interrupted.
sizing: setup
	$(BIN)/python benchmarks/sizing.py

# JSON for Grafana, rules for Prometheus, and the images of docs/, drawn from a real Prometheus over a recorded run.
dashboards: setup
	$(BIN)/gog dashboards --dir charts/gog/dashboards --rules charts/gog/files/rules.yaml
	$(BIN)/python tests/console/dashboards/draw_images docs/dashboards

# The images of operator, tools and trainer, with buildah or docker. BASE_IMAGE and TAG are optional.
images:
	.ci/images

# A real vLLM on this machine's CPU, in an environment of its own (6 GB), and the tests that ask it.
vllm: setup
	tests/vllm/setup
	$(PYTEST) -m 'vllm and not cluster'

e2e: setup
	tests/e2e/cluster

# Rollouts of a stage through a real vLLM under KServe. The image of vLLM is 6 GB.
e2e-vllm: setup
	tests/e2e/vllm

tiny-base: setup
	$(BIN)/tune run gog_recipes/world/tiny_base.py --config recipes/gog_recipes/configs/tiny/tiny_base.yaml
	$(BIN)/python -m gog_recipes.world.further_words

bench: setup
	$(BIN)/python benchmarks/rollout.py
	$(BIN)/python benchmarks/images.py
	$(BIN)/python benchmarks/learning.py
	$(BIN)/python benchmarks/tools.py

# The experiments of docs/results.md, two at a time; what is complete is not run again. `make experiments SHORT=1` is the form for
# tests, in runs/experiments-short; MINUTES=60 begins nothing after an hour; ONLY="main no-gaze" runs some of them.
experiments: setup
	$(BIN)/python benchmarks/experiments.py --jobs 2 $(if $(SHORT),--short) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(ONLY),--only $(ONLY))

# Real photographs with several things of a class, and tools trained on them: a quarter of an hour (docs/photos.md).
photos: setup
	examples/photos runs/photo-world

clean:
	rm -rf $(VENV) build runs
