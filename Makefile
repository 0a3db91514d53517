# Everything runs in .venv, with the versions of requirements.lock: a fresh machine needs make and
# Python >= 3.11, nothing else. `make PYTHON=python3.13 book` chooses the interpreter.
PYTHON ?= python3
# `make book TORCH_BACKEND=cpu` takes PyTorch's CPU build where pip would take CUDA's.
TORCH_BACKEND ?=
PROFILE ?= book
PORT ?= 8000
# Where the project is published; a book made without it has no button that opens Colab.
REPOSITORY ?=
REVISION ?=

VENV := .venv
BIN := $(VENV)/bin
# Two steps, as the tests need much that the book does not.
BOOK := $(VENV)/.book
STAMP := $(VENV)/.everything
PIP_INSTALL := $(BIN)/python -m pip install --quiet --constraint requirements.lock
EDITABLE := --no-build-isolation --editable

# uv resolves for all platforms from anywhere, and knows where PyTorch keeps its builds.
UV_VERSION := 0.13.9
UV := _build/uv-$(UV_VERSION)/bin/uv
PYTHONS := 3.11 3.12 3.13
PLATFORMS := x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin x86_64-pc-windows-msvc
# The oldest macOS that PyTorch still builds for.
RESOLVE := MACOSX_DEPLOYMENT_TARGET=14.0 UV_PYTHON_DOWNLOADS=never $(UV) pip compile pyproject.toml \
	--all-extras --no-annotate --no-header --quiet
# The CUDA libraries, which PyTorch's CUDA build itself pins and its CPU build does not want.
CUDA := ^(nvidia|cuda)-

NOTEBOOKS = $(wildcard notebooks/*.ipynb)
# Kept: kernelspec and cell tags, which papermill reads. Dropped: what an editor or a run leaves.
STRIP := $(BIN)/nbstripout --keep-id --extra-keys \
	"metadata.language_info metadata.papermill metadata.gomhc cell.metadata.papermill cell.metadata.vscode"

.DEFAULT_GOAL := help
.PHONY: help install book pdf release colab colab-test serve test test-lowest browser records gpu-records probes bench bench-fits compare lint links audit format lock lock-check clean
.DELETE_ON_ERROR:

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | awk -F': *' '{printf "make %-11s %s\n", $$1, $$2}'

install: $(BOOK)  ## make .venv with what the book needs; the other commands do it by themselves

book: $(BOOK)  ## execute the notebooks and render the book (PROFILE=smoke|book|full SITE_URL=…)
	$(BIN)/python -m book.tools.build --profile $(PROFILE) $(if $(REPOSITORY),--repository "$(REPOSITORY)")

release: $(STAMP)  ## pack the built book, wheel and source archive, with manifest and checksums
	$(BIN)/python -m book.tools.release --profile $(PROFILE)

pdf: $(BOOK)  ## print the built book into one PDF (needs Chromium)
	$(BIN)/python -m book.tools.pdf

colab: $(BOOK)  ## write the Colab editions (REPOSITORY=<git url> REVISION=<commit>)
	$(BIN)/python -m book.tools.colab --repository "$(REPOSITORY)" --revision "$(REVISION)"

colab-test: $(STAMP)  ## run every Colab edition where there is torch but no gomhc (COLAB_ARGS="-k 02")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow tests/test_colab.py $(COLAB_ARGS)

serve:  ## show the built book on localhost (PORT=8000)
	@test -f _build/html/index.html || { echo "no book in _build/html: run 'make book' first" >&2; exit 1; }
	$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html \
		|| { echo "expected port $(PORT) to be free; make serve PORT=… takes another" >&2; exit 1; }

test: $(STAMP)  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

# The library alone: what the book needs is locked, and tested as it is locked.
LOWEST := $(shell sed -n 's/.*"torch>=\([0-9.]*\)".*/\1/p' pyproject.toml)
LIBRARY_TESTS := maps mixers fused fused_gpu layer layer_gpu caching state compile hyper_connections \
	composition birkhoff spectra stream_mixing lm_model lm_data lm_train distributed extras
test-lowest:  ## test the library with the oldest PyTorch that it promises
	$(PYTHON) -m venv _build/lowest
	_build/lowest/bin/python -m pip install --quiet 'torch==$(LOWEST).*' --editable '.[test]'
	OMP_NUM_THREADS=1 _build/lowest/bin/python -m pytest -n 2 $(LIBRARY_TESTS:%=tests/test_%.py)

browser: $(STAMP)  ## test the built book in Debian's Chromium (BROWSER_ARGS=…)
	$(BIN)/python -m pytest browser -n 2 $(BROWSER_ARGS)

# Threads cost more than they gain on batches of small matrices.
records: export OMP_NUM_THREADS ?= 1
records: $(STAMP)  ## run what the book stores of the full profile, from where it was stopped
	$(BIN)/python -m gomhc.companion.studies

gpu-records: $(STAMP)  ## train the GPTs of profile full, for a GPU (LM_ARGS="--minutes 9 …")
	$(BIN)/python -m gomhc.companion.studies --profile full $(LM_ARGS)

probes: export OMP_NUM_THREADS ?= 1
probes: $(STAMP)  ## make anew the small numbers that the tests compare with, where they were meant to move
	$(BIN)/python -m gomhc.companion.studies --probes
	$(BIN)/python -m benchmarks.mixers --probe
	$(BIN)/python -m benchmarks.layer --probe

bench: $(STAMP)  ## time mixers and layers against PyTorch and other packages (BENCH_ARGS=…, LAYER_ARGS=…)
	$(BIN)/python -m benchmarks.mixers $(BENCH_ARGS)
	$(BIN)/python -m benchmarks.layer $(LAYER_ARGS)

bench-fits: $(STAMP)  ## time the fits against a plain PyTorch loop, side by side (BENCH_ARGS=…)
	$(BIN)/python -m benchmarks.stream_mixing $(BENCH_ARGS)

compare: $(BOOK)  ## show which numbers moved against another run (OTHER=<folder of records>)
	$(BIN)/python -m book.tools.compare "$(or $(OTHER),$(error expected OTHER=<folder of records>))" $(COMPARE_ARGS)

lint: $(STAMP)  ## check style, types, workflows, and that notebooks are stored without outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(if $(NOTEBOOKS),$(STRIP) --verify $(NOTEBOOKS))
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/zizmor --offline --pedantic --no-progress --quiet .github

links: $(BOOK)  ## ask every link of the built book whether it is alive (needs a network)
	@test -d _build/source || { echo "no staged book in _build/source: run 'make book' first" >&2; exit 1; }
	$(BIN)/jupyter-book build _build/source --builder linkcheck --path-output _build/links

# In an environment of its own: what audits the packages is none of them.
audit:  ## look the locked packages up among known vulnerabilities (needs a network)
	$(PYTHON) -m venv _build/audit
	_build/audit/bin/python -m pip install --quiet pip-audit
	_build/audit/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip

format: $(STAMP)  ## rewrite what lint would complain about, where a tool can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(NOTEBOOKS),$(STRIP) $(NOTEBOOKS))

lock: $(UV)  ## resolve pyproject.toml anew into requirements.lock, for all platforms
	$(RESOLVE) --universal --fork-strategy fewest --python-version 3.11 --output-file requirements.lock.tmp
	sed -i.all -E '/$(CUDA)/d' requirements.lock.tmp && rm requirements.lock.tmp.all
	mv requirements.lock.tmp requirements.lock && wc -l requirements.lock

lock-check: $(UV)  ## can the lock be installed on every platform? (needs a network; downloads nothing)
	@set -eu; rm -rf _build/lock; mkdir -p _build/lock; sed 's/ ;.*//' requirements.lock > _build/lock/pins; \
	for python in $(PYTHONS); do for platform in $(PLATFORMS); do \
		$(RESOLVE) requirements.lock --only-binary :all: --python-version $$python \
			--python-platform $$platform --output-file _build/lock/resolved > _build/lock/log 2>&1 || { \
			echo "Python $$python, $$platform: expected a lock that can be installed, got:" >&2; \
			cat _build/lock/log >&2; exit 1; }; \
		missing=$$(grep -vE '$(CUDA)' _build/lock/resolved | grep -vxFf _build/lock/pins || true); \
		[ -z "$$missing" ] || { echo "Python $$python, $$platform: expected these in" \
			"requirements.lock:" $$missing "(make lock)" >&2; exit 1; }; \
		echo "Python $$python, $$platform: $$(wc -l < _build/lock/resolved) packages"; \
		rm _build/lock/resolved; \
	done; done

clean:  ## remove the book, the environment and every cache
	rm -rf _build build dist $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BOOK): requirements.lock pyproject.toml $(if $(TORCH_BACKEND),$(UV))
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "expected Python 3.11 to 3.13, got: $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12" >&2; exit 1; }
	@echo "installing into $(VENV), once; this takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_BACKEND),$(UV) pip install --quiet --python $(BIN)/python --constraint requirements.lock \
		--torch-backend $(TORCH_BACKEND) torch)
	$(PIP_INSTALL) setuptools # builds the editable install
	$(PIP_INSTALL) $(EDITABLE) '.[book]'
	@touch $@

$(STAMP): $(BOOK)
	@echo "installing what the tests need on top"
	$(PIP_INSTALL) $(EDITABLE) '.[book,browser,dev,lm,test]'
	@touch $@

$(UV):
	$(PYTHON) -m venv _build/uv-$(UV_VERSION)
	_build/uv-$(UV_VERSION)/bin/python -m pip install --quiet uv==$(UV_VERSION)
